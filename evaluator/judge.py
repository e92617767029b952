"""The judge: runs gates and trials on candidates, each in processes of its own. One a worker."""

from __future__ import annotations

import tempfile
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..config import RunConfig
from .assignment import CORPUS_TASK, Assignment, corpus_assignment, task_assignment
from .corpus import Corpus, load_corpus
from .environment import environment
from .examination import Examination
from .results import Judgement, TrialResult, TrialSpec
from .sandbox.limits import MIB, Limits
from .sandbox.supervisor import Sandbox
from .trial import Trial

_GPU_NAME_S = 120.0


class Judge:
    """Owns a sandbox and the corpus, whose files `folder` keeps. `device` is "cpu" or "cuda".

    What a candidate does wrong comes back as a value; only PreflightError and ConfigError, for
    a corpus or sizes that cannot be used, are raised. Not thread-safe.
    """

    def __init__(self, config: RunConfig, *, device: str, folder: Path) -> None:
        self._config = config
        self._device = device
        self._folder = folder
        self._private = tempfile.TemporaryDirectory(prefix="linearch-", ignore_cleanup_errors=True)
        self._sandbox = Sandbox(
            Path(self._private.name), threads=config.workers.threads_per_trial, device=device
        )
        self._sandbox.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def judge(self, source: str, pattern: str, is_reference: bool = False) -> Judgement:
        """All gates up to the first failure. `is_reference` is for trusted code to say alone."""
        return Examination(self._sandbox, self._config, source, pattern, is_reference).judge()

    def run_trial(self, spec: TrialSpec) -> TrialResult:
        """Trains and scores once."""
        assignment = self._assignment(spec)
        return Trial(
            self._sandbox, self._config, self._device, spec, assignment, self._environment
        ).run()

    def close(self) -> None:
        """Ends every process and removes every file but the corpus."""
        self._sandbox.close()
        self._private.cleanup()

    def _assignment(self, spec: TrialSpec) -> Assignment:
        if spec.task == CORPUS_TASK:
            return corpus_assignment(spec, self._config, self._corpus)
        return task_assignment(spec, self._config, Path(self._private.name))

    @cached_property
    def _corpus(self) -> Corpus:
        return load_corpus(self._config.data, self._folder)

    @cached_property
    def _environment(self) -> dict[str, Any]:
        return environment(
            device=self._device,
            gpu_name=self._gpu_name() if self._device == "cuda" else None,
            threads=self._config.workers.threads_per_trial,
            corpus=self._corpus.identity,
        )

    def _gpu_name(self) -> str | None:
        """The GPU's name, from a child with no candidate in it: CUDA never starts in this one."""
        limits = Limits(
            wall_s=_GPU_NAME_S,
            memory_bytes=self._config.workers.memory_limit_mib * MIB,
            caps_address_space=False,
        )
        with self._sandbox.spawn(limits) as child:
            name = child.call("device").values["name"]
        return str(name) if name is not None else None
