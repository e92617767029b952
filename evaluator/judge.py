"""The judge: runs gates and trials on candidates, each in processes of its own. One a worker."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from ..config import RunConfig
from .alarm import MOST_BYTES, lzma_bits_per_byte
from .assignment import CORPUS_TASK, Assignment, corpus_assignment, task_assignment
from .corpus import Corpus, load_corpus, validation_text
from .device import limits_on
from .environment import environment
from .examination import Examination
from .kernel_cache import fill, is_shared, kernel_cases, kernels_in
from .results import Judgement, TrialResult, TrialSpec
from .sandbox.containment import Containment
from .sandbox.failures import ChildFailed, SandboxFault
from .sandbox.gpu_memory import gpu_share as measured_share
from .sandbox.gpu_memory import largest_gpu_bytes
from .sandbox.supervisor import Sandbox
from .subject import Convention, Subject
from .trial import Trial

_GPU_FACTS_S = 120.0


class Judge:
    """Owns a sandbox and the corpus, whose files `folder` keeps. `device` is "cpu" or "cuda"; `mps`
    holds the variables of a service that its children share the GPU by, if they do.

    What a candidate does wrong comes back as a value; only PreflightError and ConfigError, for
    a corpus or sizes that cannot be used, are raised. Not thread-safe. Sets torch's threads for
    this process, which should be the judge's own.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        device: str,
        folder: Path,
        mps: Mapping[str, str] | None = None,
    ) -> None:
        self._config = config
        self._device = device
        self._folder = folder
        self._mps = mps
        self._kernel_cache = kernels_in(folder)
        self._is_filled = False
        # What is compared here is small: a thread for each of many cores makes it slower.
        torch.set_num_threads(config.workers.threads_per_trial)
        self._private = tempfile.TemporaryDirectory(prefix="linearch-", ignore_cleanup_errors=True)
        self._sandbox = Sandbox(
            Path(self._private.name),
            threads=config.workers.threads_per_trial,
            device=device,
            profile=config.sandbox.profile,
            kernel_cache=self._kernel_cache if is_shared(config, device) else None,
            mps=mps,
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

    @property
    def containment(self) -> Containment:
        """How well candidates are contained here; raises SandboxFault if no child can be had."""
        return self._sandbox.containment

    def judge(
        self,
        source: str,
        pattern: str,
        is_reference: bool = False,
        *,
        gpu_share: float | None = None,
    ) -> Judgement:
        """All gates up to the first failure. `is_reference` is for trusted code to say alone;
        `gpu_share` of a GPU's memory is more than the profile gives, where it is."""
        self._sandbox.begin_job(gpu_share)
        subject = Subject(source=source, pattern=pattern, is_reference=is_reference)
        judgement = self._examine(subject, is_whole=False)
        return replace(judgement, gpu_share=self._measured_gpu_share(None))

    def audit(
        self,
        source: str,
        pattern: str = "L",
        is_reference: bool = False,
        convention: Convention = "linearch",
    ) -> Judgement:
        """Every gate that can be asked, after a failure too."""
        self._sandbox.begin_job(None)
        subject = Subject(
            source=source, pattern=pattern, is_reference=is_reference, convention=convention
        )
        return self._examine(subject, is_whole=True)

    def run_trial(self, spec: TrialSpec, *, gpu_share: float | None = None) -> TrialResult:
        """Trains and scores once; `gpu_share` as for `judge`."""
        self._sandbox.begin_job(gpu_share)
        result = self._train_and_score(spec)
        claimed = result.metrics.get("peak_memory_bytes")
        return replace(result, gpu_share=self._measured_gpu_share(claimed))

    def _measured_gpu_share(self, claimed_bytes: float | None) -> float | None:
        if self._device != "cuda":
            return None
        seen_bytes = self._sandbox.peak_gpu_bytes
        return measured_share(seen_bytes, claimed_bytes, largest_gpu_bytes())

    def _train_and_score(self, spec: TrialSpec) -> TrialResult:
        if (refusal := self._refusal()) is not None:
            return TrialResult(status="infra", reason=refusal, device=self._device)
        assignment = self._assignment(spec)
        is_on_corpus = spec.task == CORPUS_TASK
        return Trial(
            self._sandbox,
            self._config,
            self._device,
            spec,
            assignment,
            self._environment,
            lzma_bpb=self._lzma_bpb if is_on_corpus else None,
        ).run()

    def close(self) -> None:
        """Ends every process and removes every file but the corpus."""
        self._sandbox.close()
        self._private.cleanup()

    def _examine(self, subject: Subject, *, is_whole: bool) -> Judgement:
        if (refusal := self._refusal()) is not None:
            return Judgement(results=(), infra_error=refusal)
        return Examination(
            self._sandbox, self._config, subject, device=self._device, is_whole=is_whole
        ).judge()

    def _refusal(self) -> str | None:
        """Why nothing may run here: a machine of a cluster can lack what the driver's has."""
        try:
            refusal = self.containment.refusal
            if refusal is not None and not self._config.sandbox.allow_unsafe:
                return refusal
            self._fill_kernel_cache()
        except (SandboxFault, ChildFailed) as fault:
            return str(fault)
        return None

    def _fill_kernel_cache(self) -> None:
        if is_shared(self._config, self._device) and not self._is_filled:
            fill(self._kernel_cache, kernel_cases(self._config), self._gpu["capability"])
            self._is_filled = True

    def _assignment(self, spec: TrialSpec) -> Assignment:
        if spec.task == CORPUS_TASK:
            return corpus_assignment(spec, self._config, self._corpus, Path(self._private.name))
        return task_assignment(spec, self._config, Path(self._private.name))

    @cached_property
    def _corpus(self) -> Corpus:
        return load_corpus(self._config.data, self._folder, self._config.model.vocab_size)

    @cached_property
    def _lzma_bpb(self) -> float | None:
        text = validation_text(self._corpus, MOST_BYTES)
        return None if text is None else lzma_bits_per_byte(text)

    @cached_property
    def _environment(self) -> dict[str, Any]:
        return environment(
            device=self._device,
            gpu_name=self._gpu["name"] if self._device == "cuda" else None,
            threads=self._config.workers.threads_per_trial,
            corpus=self._corpus.identity,
            sandbox=self.containment,
            mps=self._mps is not None,
        )

    @cached_property
    def _gpu(self) -> dict[str, Any]:
        """The GPU's name and compute capability, from a child with no candidate in it: CUDA never
        starts in this process.
        """
        limits = limits_on(self._config, self._device, _GPU_FACTS_S)
        with self._sandbox.spawn(limits) as child:
            return dict(child.call("device").values)
