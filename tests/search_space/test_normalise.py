"""The normalised hash forgets wording and keeps meaning."""

from __future__ import annotations

import pytest

from linearch.search_space.source_check import check_source

BASE = '''"""One wording."""
import torch.nn.functional as F
from torch import Tensor, nn

SCALE = 0.5

def _gate(value, strength):
    return F.silu(value) * strength

class Mixer(nn.Module):
    def __init__(self, d_model: int, n_heads: int, layer_idx: int, n_layers: int) -> None:
        super().__init__()
        self.proj = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, state=None):
        """Mixes."""
        hidden = self.proj(x)  # [B, T, D]
        return self._read(hidden), {}

    def _read(self, hidden):
        return _gate(hidden, SCALE)
'''

FUNCTIONAL = "import torch.nn.functional as F"


def normalised(source: str) -> str:
    return check_source(source).normalised_hash


@pytest.mark.parametrize(
    "replacements",
    [
        [('"""One wording."""\n', "")],
        [('        """Mixes."""\n', "")],
        [("  # [B, T, D]", "  # a comment")],
        [(": int", ""), (": Tensor", ""), (" -> None", "")],
        [("hidden", "h")],
        [("value", "a"), ("strength", "b")],
        [("_gate", "_activate"), ("SCALE", "HALF")],
        [("self.proj", "self.inner")],
        [("_read", "_out")],
        [(FUNCTIONAL, "from torch.nn import functional as fn"), ("F.silu", "fn.silu")],
        [(FUNCTIONAL, "import torch"), ("F.silu", "torch.nn.functional.silu")],
        [("0.5", ".5")],
        [("        hidden = self.proj(x)", "        hidden = (self.proj(\n            x))")],
    ],
)  # fmt: skip
def test_another_wording_has_the_same_hash(replacements: list[tuple[str, str]]) -> None:
    source = BASE
    for old, new in replacements:
        assert old in source
        source = source.replace(old, new)
    assert source != BASE
    assert normalised(source) == normalised(BASE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("F.silu", "F.relu"),
        ("SCALE = 0.5", "SCALE = 0.25"),
        ("_gate(hidden, SCALE)", "_gate(SCALE, hidden)"),
        ("nn.Linear(d_model, d_model)", "nn.Linear(d_model, d_model, bias=False)"),
        ("F.silu(value) * strength", "F.silu(strength) * value"),
        ("class Mixer(nn.Module):\n", 'class Mixer(nn.Module):\n    pattern = "LA"\n'),
        ("self._read(hidden), {}", "self._read(x), {}"),
    ],
)
def test_another_meaning_has_another_hash(old: str, new: str) -> None:
    assert old in BASE
    assert normalised(BASE.replace(old, new)) != normalised(BASE)


def test_keyword_names_of_calls_are_kept() -> None:
    softened = BASE.replace("F.silu(value)", "F.softplus(value, beta=strength)")
    shifted = BASE.replace("F.silu(value)", "F.softplus(value, threshold=strength)")
    assert normalised(softened) != normalised(shifted)
