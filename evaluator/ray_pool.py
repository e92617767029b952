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
from .packing import Packing, Seat, Work
from .results import Judgement, TrialResult, TrialSpec

_SECRET = re.compile(r"^(?!RAY_).*(KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL)|^LINEARCH_STORE$", re.I)
_PLACED_S = 60.0  # for a worker to say where it is
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


def work_of(job: JudgeJob | TrialJob) -> Work:
    """What takes the same memory each time in a run."""
    asked = job if isinstance(job, JudgeJob) else job.spec
    what = "gates" if isinstance(job, JudgeJob) else job.spec.task
    return Work(f"{asked.pattern}\n{asked.source}", what)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A job's outcome; `infra_error` says that the worker died: never the candidate's fault."""

    job: JudgeJob | TrialJob
    value: Judgement | TrialResult | None
    infra_error: str | None = None


class RayPool:
    """A fixed set of workers on a local Ray, or on the cluster at `address`.

    Each worker runs one job at a time; on a GPU a job waits where its memory does not fit beside
    what runs there (`packing.py`), and no worker counts as idle meanwhile. `mps`: the variables of
    a service that the workers' children share a GPU by. Raises PreflightError if Ray cannot be
    started or reached.
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
        at_once = config.workers.trials_at_once if device == "cuda" else None
        self._packing: Packing[JudgeJob | TrialJob] = Packing(at_once)
        workers = [self._new_worker() for _ in range(self.slots)]
        self._idle = [(worker, self._gpu_of(worker)) for worker in workers]
        self._running: dict[Any, tuple[Any, Seat[JudgeJob | TrialJob]]] = {}

    @property
    def idle(self) -> int:
        return 0 if self._packing.is_waiting else len(self._idle)

    def submit(self, job: JudgeJob | TrialJob) -> None:
        """Starts the job on an idle worker as soon as it fits there; the caller has checked that
        there is one."""
        self._packing.ask(job, work_of(job))
        self._start_waiting()

    def wait(self, timeout_s: float) -> list[Finished]:
        """The jobs that ended within `timeout_s`, in no particular order."""
        if not self._running:
            return []
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=timeout_s)
        collected = [self._collect(reference) for reference in ready]
        self._start_waiting()
        return [finished for finished in collected if finished is not None]

    def close(self) -> None:
        """Ends all workers and what runs in them, at once."""
        self._ray.shutdown()
        self._home.cleanup()

    def _start_waiting(self) -> None:
        while (seat := self._packing.start_next([gpu for _, gpu in self._idle])) is not None:
            place = next(i for i, (_, gpu) in enumerate(self._idle) if gpu == seat.gpu)
            worker, _ = self._idle.pop(place)
            job = seat.job
            if isinstance(job, JudgeJob):
                asked = (job.source, job.pattern, job.is_reference)
                reference = worker.judge.remote(*asked, seat.share)
            else:
                reference = worker.trial.remote(job.spec, seat.share)
            self._running[reference] = (worker, seat)

    def _collect(self, reference: Any) -> Finished | None:
        """What is told of the job; None where it is tried again."""
        worker, seat = self._running.pop(reference)
        value, infra_error = None, None
        try:
            value = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            infra_error = " ".join(str(error).split())[:_MESSAGE]
            self._ray.kill(worker)
            worker = self._new_worker()
            self._idle.append((worker, self._gpu_of(worker)))
        else:
            self._idle.append((worker, seat.gpu))
        is_told = self._packing.end(seat, work_of(seat.job), value)
        return Finished(job=seat.job, value=value, infra_error=infra_error) if is_told else None

    def _new_worker(self) -> Any:
        workers = self._config.workers
        share = 1.0 / workers.trials_at_once if self._device == "cuda" else 0.0
        actor = self._ray.remote(_Worker).options(
            num_cpus=workers.threads_per_trial, num_gpus=share, max_restarts=0
        )
        return actor.remote(self._config.model_dump(), self._device, str(self._folder), self._mps)

    def _gpu_of(self, worker: Any) -> str:
        """The name of the worker's GPU among several; one needs none. Waits for the worker, but not
        for a node of a cluster that is gone."""
        if self._device != "cuda" or self.slots == self._config.workers.trials_at_once:
            return ""
        try:
            return str(self._ray.get(worker.gpu.remote(), timeout=_PLACED_S))
        except self._ray.exceptions.RayError:  # its first job says the same, and is booked
            return ""

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

    def judge(self, source: str, pattern: str, is_reference: bool, gpu_share: float) -> Judgement:
        return self._judge.judge(source, pattern, is_reference=is_reference, gpu_share=gpu_share)

    def trial(self, spec: TrialSpec, gpu_share: float) -> TrialResult:
        return self._judge.run_trial(spec, gpu_share=gpu_share)

    def gpu(self) -> str:
        """The same for all workers on one GPU of the cluster, and for no other."""
        import ray

        context = ray.get_runtime_context()
        return f"{context.get_node_id()} {context.get_accelerator_ids()['GPU']}"


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
