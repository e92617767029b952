"""One's own mixers are proposed as they stand, each once."""

from __future__ import annotations

from pathlib import Path

import pytest

from linearch.agents.proposers.files import FilesProposer
from linearch.agents.proposers.proposal import Evidence, NothingLeft
from linearch.errors import ConfigError

NOTHING = Evidence(candidates=(), baselines=(), objectives=("val_bpb",))


def test_files_are_proposed_in_order_under_their_names_and_then_nothing_is_left(
    tmp_path: Path,
) -> None:
    paths = [tmp_path / "ema.py", tmp_path / "other.py"]
    for path in paths:
        path.write_text(f"# {path.stem}\n")
    proposer = FilesProposer(tuple(map(str, paths)))
    proposals = [proposer.propose(NOTHING, index) for index in range(2)]
    assert [(p.name, p.source, p.origin) for p in proposals] == [
        ("ema", "# ema\n", "file"),
        ("other", "# other\n", "file"),
    ]
    assert proposer.repair(proposals[0], "shape", "nan") is None
    with pytest.raises(NothingLeft):
        proposer.propose(NOTHING, 2)


def test_what_cannot_be_read_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"The mixer .*none\.py cannot be read: .*No such file"):
        FilesProposer((str(tmp_path / "none.py"),))
    binary = tmp_path / "binary.py"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary\.py cannot be read"):
        FilesProposer((str(binary),))
    with pytest.raises(ConfigError, match=r"proposer\.files is empty"):
        FilesProposer(())
