"""Why a language model gave no proposal. Every error keeps the calls it cost."""

from __future__ import annotations

from ...errors import ProposalError
from ..proposers.proposal import LLMCall


class ProposalFailed(ProposalError):
    """No proposal came of these requests; `calls` are to be stored like those of a success."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.calls: tuple[LLMCall, ...] = ()


class MalformedReply(ProposalFailed):
    """A reply arrived and is unusable; the message says what was wrong in words for the model."""


class ProviderFailed(ProposalFailed):
    """One request failed for good, after retries; another one may succeed.

    `status` is the HTTP status, or None if no reply arrived.
    """

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class ProviderRefused(ProviderFailed):
    """Every further request would fail alike: the key, the credit or the model. Stop asking."""
