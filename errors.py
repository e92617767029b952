"""The errors a user or a candidate can cause. Each message says what happened and what to do."""

from __future__ import annotations


class LinearchError(Exception):
    """Base of every error this package raises on purpose; commands print it as one sentence."""

    exit_code = 1


class ConfigError(LinearchError):
    """A setting is unknown, out of range or contradicts another; nothing was started."""

    exit_code = 2


class PreflightError(LinearchError):
    """The surroundings lack something the run needs: a key, an endpoint, a GPU, a corpus."""

    exit_code = 4


class StoreError(LinearchError):
    """The database cannot be opened, is of a newer schema, or does not hold what was asked for."""

    exit_code = 2


class UntrustedSource(LinearchError):
    """Code that no audit of this store has passed was about to run in the user's process."""

    exit_code = 2


class ProposalError(LinearchError):
    """A proposer could not produce a usable proposal: a malformed reply, a failed endpoint."""


class CandidateRejected(LinearchError):
    """A candidate failed a check: a value that is stored, never a low score.

    `check` names the gate ("source", "causality", ...); `reason` is one sentence with the evidence.
    """

    def __init__(self, check: str, reason: str) -> None:
        super().__init__(f"{check}: {reason}")
        self.check = check
        self.reason = reason
