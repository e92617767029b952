"""`import linearch` is light, and what it promises is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import linearch
from linearch.errors import StoreError, UntrustedSource

LIGHT = (
    "linearch",
    "linearch.config",
    "linearch.db",
    "linearch.evaluator",
    "linearch.evaluator.results",
    "linearch.agents.start",
    "linearch.launch",
    "linearch.cli",
    "linearch.tables",
)


@pytest.mark.parametrize("module", LIGHT)
def test_the_driver_side_imports_no_torch_and_no_ray(module: str) -> None:
    heavy = "{'torch', 'ray', 'openai', 'streamlit'} & set(sys.modules)"
    code = f"import sys, {module}; print(sorted({heavy}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_baseline_loads_by_name_and_streams() -> None:
    torch = pytest.importorskip("torch")
    mixer = linearch.load_mixer("gated_deltanet")(16, 2, 0, 1)
    x = torch.randn(1, 5, 16)
    whole, _ = mixer(x)
    first, state = mixer(x[:, :3])
    second, _ = mixer(x[:, 3:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=1e-4, atol=1e-5)


def test_a_file_of_ones_own_needs_to_be_trusted(tmp_path: Path) -> None:
    from linearch.search_space.library import baseline_source

    file = tmp_path / "mine.py"
    file.write_text(baseline_source("gla").replace("silu", "silu") + "\n\n_MINE = 1\n")
    absent = str(tmp_path / "absent.db")
    with pytest.raises(UntrustedSource, match="trust=True"):
        linearch.load_mixer(file, store=absent)
    assert linearch.load_mixer(file, store=absent, trust=True).__name__ == "Mixer"


def test_what_is_not_there_is_said_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="launch-search"):
        linearch.load_mixer("01NOSUCHTHING", store=str(tmp_path / "absent.db"))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = linearch.nothing
