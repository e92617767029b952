"""Why a trial ends without a score."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .results import TrialStatus
from .sandbox.failures import ChildFailed, FailureKind

_STATUSES: dict[FailureKind, TrialStatus] = {
    "raised": "crashed",
    "timeout": "timeout",
    "stalled": "stalled",
    "oom": "oom",
    "crashed": "crashed",
    "protocol": "protocol",
}


class TrialStopped(Exception):
    """The candidate's training or scoring ended with `status`, for one sentence of a reason."""

    def __init__(self, status: TrialStatus, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status: TrialStatus = status
        self.reason = reason


@contextmanager
def stops_on_failure(stage: str) -> Iterator[None]:
    """A child's failure as the trial's end, told with the stage that it happened in."""
    try:
        yield
    except ChildFailed as failure:
        raise TrialStopped(_STATUSES[failure.kind], f"{stage}: {failure.message}") from None
