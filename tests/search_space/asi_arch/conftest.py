"""Our gallery in ASI-Arch's schema, and the smallest file in its convention."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

GALLERY = Path(__file__).parents[2] / "data" / "gallery.json"

LAYER = """\
from typing import Optional
import torch
import torch.nn as nn


class DeltaNet(nn.Module):
    def __init__(self, hidden_size=1024, num_heads=4, layer_idx: Optional[int] = None, **kwargs):
        super().__init__()
        self.proj = nn.Linear(hidden_size, hidden_size, bias=False)

    def forward(self, hidden_states, attention_mask=None, past_key_values=None, **kwargs):
        return self.proj(hidden_states.cumsum(1)), None, past_key_values
"""


@pytest.fixture(scope="session")
def programs() -> dict[str, str]:
    """By name, the sources of our gallery."""
    return {entry["name"]: entry["program"] for entry in json.loads(GALLERY.read_text())}


@pytest.fixture(scope="session")
def layer() -> str:
    return LAYER
