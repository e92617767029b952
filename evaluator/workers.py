"""The workers of a run, for as long as it lasts, and the MPS that their children share GPUs by."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from ..config import RunConfig
from ..search_space.library import baseline_source
from .company import CompanyPool, Pool
from .kernel_cache import has_to_compile
from .mps import MpsUnavailable, has_served, shared_gpu
from .ray_pool import JudgeJob, RayPool, without_secrets
from .results import Judgement

_IN_TURNS = "trials take turns on the GPU"
_KNOWN_SOUND = "linear_attention"
_AT_ONCE = 2
_POLL_S = 1.0

Say = Callable[[str], None]


@contextmanager
def open_workers(
    config: RunConfig, *, device: str, folder: Path, address: str | None, say: Say
) -> Iterator[Pool]:
    """Ray workers, which share their GPU under MPS where the run asks for that and a trial runs so.

    Where none does, `say` is told in a sentence why they take turns. Raises PreflightError if Ray
    cannot be started.
    """

    def start(mps: Mapping[str, str] | None) -> RayPool:
        return RayPool(config, device=device, folder=folder, address=address, mps=mps)

    if address is None and has_to_compile(config, device, folder):
        say("compiling kernels for this GPU first, on every core; later runs find them")
    with ExitStack() as stack:
        if _is_wanted(config, device, address, say):
            mps = stack.enter_context(_service(say))
            if mps is not None:
                shared = stack.enter_context(closing(start(mps)))
                if (why := _why_not(shared, mps)) is None:
                    say("trials share the GPU under MPS")
                    yield CompanyPool(shared)
                    return
                say(f"{_IN_TURNS}: {why}")
                stack.close()
        yield stack.enter_context(closing(start(None)))


def _is_wanted(config: RunConfig, device: str, address: str | None, say: Say) -> bool:
    workers = config.workers
    if workers.gpu_sharing != "mps" or device != "cuda" or workers.trials_at_once == 1:
        return False
    if address is not None:
        say(f"{_IN_TURNS}: MPS is started on this machine alone, not on a cluster's")
    return address is None


@contextmanager
def _service(say: Say) -> Iterator[Mapping[str, str] | None]:
    """The variables of MPS while the context lasts; None where it does not start."""
    with ExitStack() as stack:
        mps = None
        try:
            with without_secrets():  # which the service would keep in its environment
                mps = stack.enter_context(shared_gpu(dict(os.environ)))
        except MpsUnavailable as error:
            say(f"{_IN_TURNS}: {error}")
        try:
            yield mps
        finally:
            try:
                stack.close()
            except MpsUnavailable as error:
                say(str(error))


def _why_not(pool: Pool, mps: Mapping[str, str]) -> str | None:
    """Why trials cannot share the GPU after all, found by trying; None if they can. What the
    sandbox refuses to CUDA under MPS must not be booked on candidates.
    """
    if (why := why_not_in_company(pool)) is not None:
        return f"under MPS a mixer of the library {why}"
    try:
        with without_secrets():
            return None if has_served(mps) else "CUDA does not find MPS in the sandbox"
    except MpsUnavailable as error:
        return str(error)


def why_not_in_company(pool: Pool) -> str | None:
    """Two workers judge a mixer of the library side by side, whose sandboxed children train on the
    way; None if it is sound in both.
    """
    source = baseline_source(_KNOWN_SOUND)
    for number in range(min(_AT_ONCE, pool.slots)):
        pool.submit(JudgeJob(key=f"{number}", source=source, pattern="L", is_reference=False))
    judgements = []
    while pool.idle < pool.slots:
        judgements += [finished.value for finished in pool.wait(_POLL_S)]
    return next((why for value in judgements if (why := _why_unsound(value)) is not None), None)


def _why_unsound(value: object) -> str | None:
    if not isinstance(value, Judgement):
        return "cannot be judged: its worker died"
    if value.infra_error is not None:
        return f"cannot be judged: {value.infra_error}"
    if (failure := value.failure) is not None:
        return f"fails the gate {failure.gate!r}: {failure.reason}"
    return None
