"""The proposer of one's own mixers: files, each once, on the path that candidates take."""

from __future__ import annotations

from pathlib import Path

from ...errors import ConfigError
from .proposal import Evidence, NothingLeft, Proposal


class FilesProposer:
    """Proposes the files' contents in their order; raises ConfigError for none or an unreadable."""

    concurrency = 1

    def __init__(self, paths: tuple[str, ...]) -> None:
        if not paths:
            raise ConfigError("proposer.files is empty: name the files whose mixers to measure.")
        self._proposals = [_read(Path(path)) for path in paths]

    def propose(self, evidence: Evidence, index: int) -> Proposal:
        """The next file's mixer; raises NothingLeft after the last."""
        del evidence
        if index >= len(self._proposals):
            raise NothingLeft("every file was proposed")
        return self._proposals[index]

    def repair(self, proposal: Proposal, check: str, reason: str) -> Proposal | None:
        """None: a file is measured as it was written."""
        return None


def _read(path: Path) -> Proposal:
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The mixer {path} cannot be read: {error}.") from error
    return Proposal(
        name=path.stem,
        motivation=f"{path.name}, written by hand",
        expectation="what its author expects",
        source=source,
        origin="file",
    )
