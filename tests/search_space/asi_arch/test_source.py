"""Files in ASI-Arch's convention are told from ours, and refused early with the line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from linearch.errors import CandidateRejected
from linearch.search_space.asi_arch import (
    auxiliary_outputs,
    call_counters,
    check_asi_arch_source,
    is_asi_arch_source,
)
from linearch.search_space.library import baseline_source
from linearch.search_space.source_check import source_hash


def _refusal(source: str) -> str:
    with pytest.raises(CandidateRejected) as caught:
        check_asi_arch_source(source)
    assert caught.value.check == "source"
    return caught.value.reason


def test_the_convention_is_read_off_the_classes(layer: str) -> None:
    assert is_asi_arch_source(layer)
    assert not is_asi_arch_source(baseline_source("deltanet"))
    assert not is_asi_arch_source(layer + "\n\nclass Mixer(nn.Module):\n    pass\n")
    assert not is_asi_arch_source("class DeltaNet(:\n")
    assert not is_asi_arch_source("class DeltaNet:\n    pass\n\0")


def test_every_program_of_our_gallery_is_in_the_convention(programs: dict[str, str]) -> None:
    for name, program in programs.items():
        assert is_asi_arch_source(program), name
        assert check_asi_arch_source(program).source_hash == source_hash(program)


def test_names_and_comments_do_not_make_another_architecture(layer: str) -> None:
    renamed = "# a comment\n" + layer.replace("self.proj", "self.projection")
    known = check_asi_arch_source(layer).normalised_hash
    assert check_asi_arch_source(renamed).normalised_hash == known
    other = layer.replace("cumsum(1)", "cumsum(1) * 2")
    assert check_asi_arch_source(other).normalised_hash != known


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("import os", "`os`"),
        ("import fla.modules", "`fla.modules`"),
        (
            "from fla.ops.delta_rule import chunk_delta_rule",
            "`fla.ops.delta_rule.chunk_delta_rule`",
        ),
        ("from torch.hub import load", "torch.hub"),
        ("from fla.modules import *", "import *"),
        ("from .layers import x", "relative"),
        ("_ = open", "`open`"),
        ("_ = ().__class__", "`__class__`"),
        ("_ = torch.load", "torch.load"),
    ],
)
def test_what_a_layer_has_no_use_for_is_refused_with_its_line(
    layer: str, line: str, says: str
) -> None:
    reason = _refusal(layer.replace("import torch\n", f"import torch\n{line}\n", 1))
    assert says in reason
    assert reason.startswith("Line 3:")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("x = 1\n", "no class `DeltaNet`"),
        ("class DeltaNet(:\n", "Line 1: the source is not valid Python"),
        ("class DeltaNet:\n    def __init__(self): ...\n", "must define `forward`"),
        ("\n\0class DeltaNet: ...\n", "Line 2: the source holds a NUL byte"),
        ("# \ud800\n", "not valid UTF-8"),
        ("#" * 70_000, "70,000 bytes; at most 65,536"),
        (f"x = {'-' * 60_000}1\n", "nested too deeply"),
    ],
)
def test_a_file_that_is_no_layer_is_refused_in_one_sentence(source: str, says: str) -> None:
    assert says in _refusal(source)


def test_what_is_returned_beside_the_output_is_named(layer: str, programs: dict[str, str]) -> None:
    assert auxiliary_outputs(layer) == ()
    assert auxiliary_outputs(programs["delta_net_entropy"]) == ("gate_entropy",)


def test_counters_of_calls_are_named(layer: str) -> None:
    assert call_counters(layer) == ()
    counting = layer.replace(
        "        return self.proj", "        self._step += 1\n        return self.proj"
    )
    assert call_counters(counting) == ("_step",)


def test_checking_a_file_loads_no_torch() -> None:
    code = (
        "import sys; from linearch.search_space.asi_arch import is_asi_arch_source, "
        "check_asi_arch_source; is_asi_arch_source('x'); print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
