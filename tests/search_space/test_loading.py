"""Source text becomes a class whose tracebacks and dataclasses work."""

from __future__ import annotations

import sys
import traceback

import pytest
from torch import nn

from linearch.errors import CandidateRejected
from linearch.search_space import load_mixer_class

SOURCE = """\
from __future__ import annotations
from dataclasses import dataclass
from torch import nn

@dataclass
class _Sizes:
    width: int

class Mixer(nn.Module):
    def __init__(self, d_model, n_heads, layer_idx, n_layers):
        super().__init__()
        self.sizes = _Sizes(d_model)

    def forward(self, x, state=None):
        raise ValueError("from the mixer")
"""


def test_the_class_is_loaded_with_its_private_dataclass() -> None:
    mixer_class = load_mixer_class(SOURCE, "loading_test_plain")
    assert issubclass(mixer_class, nn.Module)
    assert mixer_class(8, 2, 0, 1).sizes.width == 8


def test_a_traceback_shows_the_failing_line() -> None:
    mixer = load_mixer_class(SOURCE, "loading_test_traceback")(8, 2, 0, 1)
    with pytest.raises(ValueError, match="from the mixer") as raised:
        mixer(None)
    text = "".join(traceback.format_exception(raised.value))
    assert 'raise ValueError("from the mixer")' in text
    assert "<mixer loading_test_traceback>" in text


def test_a_source_that_fails_leaves_no_module_behind() -> None:
    with pytest.raises(ZeroDivisionError):
        load_mixer_class("X = 1 / 0\n", "loading_test_failing")
    assert "loading_test_failing" not in sys.modules


def test_a_source_without_a_module_class_is_rejected() -> None:
    with pytest.raises(CandidateRejected, match="no class `Mixer`"):
        load_mixer_class("Mixer = 3\n", "loading_test_no_class")
