"""The table of measured configurations: who finds what in it, and what may stand there."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)

from linearch.kernels.triton import config_table, configs, delta_configs
from linearch.kernels.triton.alternatives import (
    KERNELS,
    PROBLEMS,
    alternatives,
    current,
    forbidden,
    launches,
)
from linearch.kernels.triton.config_table import Config, Entry, Launch, Measured, trying
from linearch.kernels.tune_check import disagreement

BFLOAT16 = torch.bfloat16
PULL = Launch("decay pull", 1, 128, 128, BFLOAT16)
MEASURED = Measured(
    device="a GPU", torch="2.11", triton="3.6", date="2026-11-27",
    shape=(32, 2048, 16, 128), us=2000.0, before_us=2400.0,
)  # fmt: skip
FASTER = Config(block_m=64, block_n=128, num_warps=8, num_stages=3)
TABLE = config_table.read()
ENTRIES = [(chip, launch) for chip, entries in TABLE.items() for launch in entries]
EVERY_LAUNCH = [
    launch
    for operation, gate in PROBLEMS
    for dim in (32, 64, 128)
    for launch in launches(operation, gate, dim)
]


@pytest.fixture
def chip(monkeypatch: pytest.MonkeyPatch) -> str:
    """One whose table holds a faster pull."""
    monkeypatch.setattr(config_table, "chip", lambda: "sm_90")
    measured = {"sm_90": {PULL: Entry(config=FASTER, measured=MEASURED)}}
    monkeypatch.setattr(config_table, "_measured", measured)
    return "sm_90"


def test_a_launch_takes_its_chips_entry(chip: str) -> None:
    assert configs.pull(128, 128, BFLOAT16, gate=1) == FASTER


@pytest.mark.parametrize(
    ("dims", "dtype", "gate"),
    [((128, 64), BFLOAT16, 1), ((128, 128), torch.float32, 1), ((128, 128), BFLOAT16, 2)],
)
def test_a_launch_of_another_class_takes_the_rule(
    chip: str, dims: tuple[int, int], dtype: torch.dtype, gate: int
) -> None:
    rule = Config(block_m=64, block_n=64, num_warps=4, num_stages=1)
    assert configs.pull(*dims, dtype, gate=gate) == rule


def test_another_chip_takes_the_rule(chip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_table, "chip", lambda: "sm_80")
    assert configs.pull(128, 128, BFLOAT16, gate=1).num_warps == 4


def test_a_strong_gates_launch_takes_the_entry_without_loading_ahead(chip: str) -> None:
    exact = configs.pull(128, 128, BFLOAT16, gate=1, exact=True)
    assert (exact.block_n, exact.num_warps, exact.num_stages) == (128, 8, 1)


def test_an_erase_key_and_several_steps_take_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    launch = Launch("delta pull", 1, 64, 64, BFLOAT16)
    with trying({launch: FASTER}):
        assert delta_configs.pull(64, 64, BFLOAT16, 1, is_plain=True) == FASTER
        assert delta_configs.pull(64, 64, BFLOAT16, 1, is_plain=False).num_warps == 4


def test_what_is_on_trial_goes_before_the_table_and_ends(chip: str) -> None:
    tried = Config(block_m=64, block_n=64, num_stages=2)
    with trying({PULL: tried}):
        assert configs.pull(128, 128, BFLOAT16, gate=1) == tried
    assert configs.pull(128, 128, BFLOAT16, gate=1) == FASTER


def test_the_chip_is_the_target_that_is_compiled_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from linearch.kernels.triton import warm

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(config_table.triton.runtime, "driver", _Driver(warm._Target(90)))
    assert config_table.chip() == "sm_90"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert config_table.chip() == "interpreter"


class _Driver:
    def __init__(self, active: Any) -> None:
        self.active = active


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = {"sm_90": {PULL: Entry(config=FASTER, measured=MEASURED)}}
    config_table.write(table, tmp_path / "table.json")
    assert config_table.read(tmp_path / "table.json") == table


def test_every_entry_names_a_kernel_and_a_configuration_that_is_allowed() -> None:
    known = {kernel for kernels in KERNELS.values() for kernel in kernels}
    for chip, launch in ENTRIES:
        entry = TABLE[chip][launch]
        assert launch.kernel in known
        assert forbidden(launch, entry.config) is None
        assert 0 < entry.measured.us < entry.measured.before_us


@pytest.mark.parametrize(
    ("kernel", "config", "says"),
    [
        ("decay sweep", Config(block_m=128, block_n=32, num_stages=2), "wrong gradients"),
        ("delta pull", Config(block_m=128, block_n=64, num_stages=2), "64 keys at a time"),
        ("delta forward", Config(block_m=64, block_n=64, num_stages=2), "all rows"),
        ("dplr writers", Config(block_m=128, block_n=64, num_stages=2), "64 keys at a time"),
        ("dplr backward", Config(block_m=64, block_n=64, num_stages=2), "all rows"),
        ("decay pull", Config(block_m=48, block_n=64, num_stages=2), "powers of two"),
        ("decay pull", Config(block_m=64, block_n=64, num_stages=1, max_registers=8), "registers"),
    ],
)
def test_what_is_known_to_be_wrong_may_not_be_in_the_table(
    kernel: str, config: Config, says: str
) -> None:
    assert says in str(forbidden(Launch(kernel, 1, 128, 128, BFLOAT16), config))


@pytest.mark.parametrize("launch", EVERY_LAUNCH, ids=str)
def test_alternatives_are_few_allowed_and_not_todays(
    launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_table, "chip", lambda: "sm_90")
    today = current(launch)
    others = alternatives(launch, today)
    assert 3 <= len(set(others)) == len(others) <= 12
    assert today not in others
    assert all(forbidden(launch, config) is None for config in [today, *others])


@pytest.mark.gpu
@pytest.mark.parametrize(("chip", "launch"), ENTRIES, ids=lambda value: str(value))
def test_every_entry_of_this_chip_agrees_with_the_loop(chip: str, launch: Launch) -> None:
    """Beside the table's other entries. An empty table leaves nothing to run: pytest skips it."""
    if chip != config_table.chip():
        pytest.skip(f"this is no {chip}")
    gate, operation = config_table.GATES[launch.gate], launch.kernel.split()[0]
    assert disagreement(operation, gate, launch.key_dim, "cuda") is None
