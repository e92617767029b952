"""What the README shows is executed: its commands exist and its Python runs."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from linearch.search_space.source_check import check_source

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def block_with(text: str) -> str:
    (found,) = [block for block in BLOCKS if text in block]
    return found


def test_every_command_and_option_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    used: dict[str, set[str]] = {}
    for line in README.splitlines():
        found = re.match(r"    (launch-search|linearch)( [a-z]+)?\b(.*)", line)
        if found:
            name = found[1] + (found[2] or "" if found[1] == "linearch" else "")
            options = set(re.findall(r"--[a-z-]+", found[3].split("#")[0]))
            used.setdefault(name, set()).update(options)
    assert {name.split()[0] for name in used} == set(project["scripts"])
    for name, options in used.items():
        module = {"launch-search": "linearch.launch", "linearch": "linearch.cli"}[name.split()[0]]
        command = [sys.executable, "-m", module, *name.split()[1:], "--help"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert not {option for option in options if option not in shown}, name


def test_the_example_of_the_python_interface_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    block = block_with("linearch.load_mixer")
    until_a_stored_one = block.split("model = ")[0]
    scope = {"x": torch.randn(2, 9, 64), "next_token": torch.randn(2, 1, 64)}
    exec(until_a_stored_one, scope)
    assert scope["y"].shape == (2, 1, 64)


def test_the_mixer_is_a_candidate_that_streams() -> None:
    source = block_with("class Mixer")
    check_source(source)
    scope: dict[str, object] = {}
    exec(source, scope)
    mixer = scope["Mixer"](8, 1, 0, 1)  # type: ignore[operator]
    x = torch.randn(1, 12, 8)
    whole, _ = mixer(x)
    head, state = mixer(x[:, :5])
    tail, _ = mixer(x[:, 5:], state)
    torch.testing.assert_close(torch.cat([head, tail], 1), whole)


def test_the_task_makes_rows_that_its_labels_answer() -> None:
    import numpy as np

    from linearch.evaluator import tasks

    scope: dict[str, object] = {"np": np, "dataclass": dataclasses.dataclass, **vars(tasks)}
    exec("from __future__ import annotations\n" + block_with("class Copying"), scope)
    copying = scope["TASKS"]["copying"]  # type: ignore[index]
    inputs, labels = copying.generate(3, np.random.default_rng(0), "test")
    asked = labels[:, :-1] != tasks.IGNORED_LABEL
    assert asked.sum() == 3 * 16
    assert np.array_equal(labels[:, :-1][asked], inputs[:, 1:][asked])


def test_the_gate_passes_a_zero_map_and_rejects_another() -> None:
    from linearch.config import GateConfig
    from linearch.evaluator.results import GateResult

    class Facts:
        d_model = 4

    class Probe:
        facts = Facts()

        def __init__(self, offset: float) -> None:
            self.offset = offset

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.offset

    scope: dict[str, object] = {"torch": torch, "GateResult": GateResult}
    exec("from __future__ import annotations\n" + block_with("def zero_in_zero_out"), scope)
    gate = scope["zero_in_zero_out"]
    assert gate(Probe(0.0), GateConfig(), None).passed  # type: ignore[operator]
    assert not gate(Probe(1.0), GateConfig(), None).passed  # type: ignore[operator]


def test_the_proposer_is_one() -> None:
    from linearch.agents.proposers.proposal import Evidence, Measured, Proposal

    scope: dict[str, object] = {"Proposal": Proposal}
    exec("from __future__ import annotations\n" + block_with("class Copycat"), scope)
    known = Measured(
        id="1",
        name="known",
        motivation="",
        source="x = 1",
        origin="baseline",
        state="measured",
        reason=None,
        genome=None,
        rung=0,
        rung_0_val_bpb=2.0,
    )
    evidence = Evidence(candidates=(), baselines=(known,), objectives=("val_bpb",))
    proposer = scope["Copycat"]()  # type: ignore[operator]
    assert proposer.propose(evidence, 3).source == known.source
    assert proposer.repair(proposer.propose(evidence, 3), "source", "") is None
