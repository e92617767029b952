"""The workers of a search: Ray actors that each own one Judge. The only module that imports Ray.

An actor is a supervisor: it holds held-out data, labels and the clock, and starts the sandboxed
children. It holds no key and no database password: those variables are hidden while Ray starts.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import RunConfig
from ..errors import PreflightError
from .results import Judgement, TrialResult, TrialSpec

_SECRET = re.compile(r"^(?!RAY_).*(KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL)|^LINEARCH_STORE$", re.I)
_MESSAGE = 400  # characters of Ray's own explanations, which run to pages


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeJob:
    """Run every gate on one source."""

    key: str
    source: str
    pattern: str
    is_reference: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialJob:
    """Train and score once."""

    key: str
    spec: TrialSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A job's outcome; `infra_error` says that the worker died: never the candidate's fault."""

    job: JudgeJob | TrialJob
    value: Judgement | TrialResult | None
    infra_error: str | None = None


class RayPool:
    """A fixed set of workers on a local Ray, or on the cluster at `address`.

    Each worker runs one job at a time. `mps`: the variables of a service that the workers' children
    share a GPU by. Raises PreflightError if Ray cannot be started or reached.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        device: str,
        folder: Path,
        address: str | None = None,
        mps: Mapping[str, str] | None = None,
    ) -> None:
        self._config, self._device, self._folder, self._mps = config, device, folder, mps
        # Ray puts the driver's working folder first on its workers' path, where this repository's
        # `kernels` and `agents` would shadow other packages, and they run in it: give them an empty
        # one that lives as long as they do (libraries fail to load in a folder that is gone).
        self._home = tempfile.TemporaryDirectory(prefix="linearch-ray-", ignore_cleanup_errors=True)
        with contextlib.chdir(self._home.name), without_secrets():
            self._ray = _start_ray(config, device, address)
        self.slots = self._count_slots(is_cluster=address is not None)
        self._idle = [self._new_worker() for _ in range(self.slots)]
        self._running: dict[Any, tuple[Any, JudgeJob | TrialJob]] = {}

    @property
    def idle(self) -> int:
        return len(self._idle)

    def submit(self, job: JudgeJob | TrialJob) -> None:
        """Starts the job on an idle worker; the caller has checked that there is one."""
        worker = self._idle.pop()
        if isinstance(job, JudgeJob):
            reference = worker.judge.remote(job.source, job.pattern, job.is_reference)
        else:
            reference = worker.trial.remote(job.spec)
        self._running[reference] = (worker, job)

    def wait(self, timeout_s: float) -> list[Finished]:
        """The jobs that ended within `timeout_s`, in no particular order."""
        if not self._running:
            return []
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=timeout_s)
        return [self._collect(reference) for reference in ready]

    def close(self) -> None:
        """Ends all workers and what runs in them, at once."""
        self._ray.shutdown()
        self._home.cleanup()

    def _collect(self, reference: Any) -> Finished:
        worker, job = self._running.pop(reference)
        try:
            value = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._ray.kill(worker)
            self._idle.append(self._new_worker())
            return Finished(
                job=job, value=None, infra_error=" ".join(str(error).split())[:_MESSAGE]
            )
        self._idle.append(worker)
        return Finished(job=job, value=value)

    def _new_worker(self) -> Any:
        workers = self._config.workers
        share = 1.0 / workers.trials_at_once if self._device == "cuda" else 0.0
        actor = self._ray.remote(_Worker).options(
            num_cpus=workers.threads_per_trial, num_gpus=share, max_restarts=0
        )
        return actor.remote(self._config.model_dump(), self._device, str(self._folder), self._mps)

    def _count_slots(self, *, is_cluster: bool) -> int:
        per_device = self._config.workers.trials_at_once
        if self._device == "cuda":
            devices = int(self._ray.cluster_resources().get("GPU", 0))
            if devices == 0:
                raise PreflightError(
                    "Ray sees no GPU; check CUDA_VISIBLE_DEVICES or use --profile cpu."
                )
            return devices * per_device
        nodes = sum(node["Alive"] for node in self._ray.nodes()) if is_cluster else 1
        return per_device * nodes


class _Worker:
    """What runs inside the actor: one Judge, made at the first job so that a fault is reported."""

    def __init__(
        self, config: dict[str, Any], device: str, folder: str, mps: Mapping[str, str] | None
    ) -> None:
        from .judge import Judge

        self._judge = Judge(
            RunConfig.model_validate(config), device=device, folder=Path(folder), mps=mps
        )

    def judge(self, source: str, pattern: str, is_reference: bool) -> Judgement:
        return self._judge.judge(source, pattern, is_reference=is_reference)

    def trial(self, spec: TrialSpec) -> TrialResult:
        return self._judge.run_trial(spec)


def _start_ray(config: RunConfig, device: str, address: str | None) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    _authenticate(address)  # Ray reads it when it is imported
    import ray

    options: dict[str, Any] = {
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": "ERROR",
        "ignore_reinit_error": False,
    }
    if address is not None:
        options = {"address": address, "log_to_driver": False, "logging_level": "ERROR"}
    else:
        workers = config.workers
        options["num_cpus"] = max(
            os.cpu_count() or 1, workers.trials_at_once * workers.threads_per_trial
        )
        if device == "cpu":
            options["num_gpus"] = 0
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"reach Ray at {address}" if address else "start a local Ray"
        reason = " ".join(str(error).split())[:_MESSAGE]
        raise PreflightError(
            f"Cannot {where}: {reason}. A cluster with token authentication wants "
            "RAY_AUTH_MODE=token and its RAY_AUTH_TOKEN in this environment."
        ) from error
    return ray


def _authenticate(address: str | None) -> None:
    """Ray's token authentication, unless the user has decided: who reaches its ports can run code.

    A local Ray gets a token of its own; a cluster's is the one that `ray start` has left here.
    """
    if "RAY_AUTH_MODE" in os.environ:
        return
    if address is None:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    elif "RAY_AUTH_TOKEN" in os.environ or Path("~/.ray/auth_token").expanduser().exists():
        os.environ["RAY_AUTH_MODE"] = "token"


@contextlib.contextmanager
def without_secrets() -> Iterator[None]:
    """Hides every variable that looks like a credential from the processes started meanwhile."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if _SECRET.search(name)}
    try:
        yield
    finally:
        os.environ.update(hidden)
