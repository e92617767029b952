"""Finds out which modules libraries load late, by doing once, apart, what candidates' processes do.

In the profile strict those can read no source, so that whatever a check or a training step imports
on its way must be there before; which modules that are depends on the libraries' versions.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr
from dataclasses import asdict
from types import ModuleType
from typing import Any

import einops
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from ...search_space.library import baseline_source
from ..gates.probe import DTYPES
from ..recipe import Recipe
from .apart import said_by_a_fork
from .child import describe
from .protocol import Message, encode
from .workbench import Workbench

_BASELINE = "gated_deltanet"
_SIZES = {"d_model": 8, "n_heads": 2, "n_layers": 2}
_MODEL = {**_SIZES, "vocab_size": 256, "mlp_width": 8}
_RECIPE = Recipe(
    learning_rate=1e-3,
    total_steps=2,
    cooldown_steps=1,
    warmup_steps=1,
    weight_decay=0.1,
    betas=(0.9, 0.95),
    clip_norm=1.0,
    precision="fp32",
    seed=0,
    batch_size=2,
    seq_len=4,
)
_DATA_BYTES = _RECIPE.total_steps * _RECIPE.batch_size * (_RECIPE.seq_len + 1)


def modules_loaded_late() -> list[str]:
    """What a rehearsal in a fork of this process imports that is not loaded here."""
    before = set(sys.modules)

    def rehearse() -> list[str]:
        with redirect_stderr(io.StringIO()), tempfile.TemporaryDirectory() as scratch:
            os.chdir(scratch)
            _rehearse()
        loaded = {name: module for name, module in sys.modules.items() if name not in before}
        return sorted(name for name, module in loaded.items() if _is_imported(module))

    names: list[str] = said_by_a_fork(rehearse, "what libraries load late")
    return names


def _is_imported(module: ModuleType) -> bool:
    """And not made out of a source, as a candidate's is."""
    return getattr(module, "__spec__", None) is not None


def _rehearse() -> None:
    data = os.open("data", os.O_RDWR | os.O_CREAT)
    os.write(data, bytes(_DATA_BYTES))
    bench = Workbench(torch.device("cpu"), data)
    state: Mapping[str, Tensor] = {}
    for op, values, tensors in _requests():
        given = state if op == "put_state" else tensors
        answer = bench.answer(Message(values={**values, "op": op}, tensors=dict(given)), _unheard)
        encode(*answer)
        state = answer[1] if op == "take_state" else state
    encode({"error": describe(ValueError("as a candidate's"))})
    _use_libraries()


def _use_libraries() -> None:
    """What torch and einops have loaded late, in some version, of what a mixer may call."""
    x, layer = torch.randn(2, 8, 4, requires_grad=True), nn.Linear(4, 4)
    repr((x, layer, torch.arange(3), torch.zeros(2, dtype=torch.complex64)))
    mixed = checkpoint(torch.sin, x, use_reentrant=False)
    mixed = mixed + checkpoint(torch.sin, x, use_reentrant=True)
    mixed = mixed + parametrizations.orthogonal(layer)(x) + nn.MultiheadAttention(4, 2)(x, x, x)[0]
    mixed = mixed + torch.fft.irfft(torch.fft.rfft(x)) + nn.GRU(4, 4)(x)[0]
    mixed = mixed + F.scaled_dot_product_attention(x, x, x) + einops.rearrange(x, "a b c -> a b c")
    mixed = mixed + torch.linalg.solve_triangular(torch.eye(4), x.mT, upper=True).mT
    torch.autograd.backward(torch.einsum("btd,bsd->", mixed, x))
    fixed = x.detach()
    torch.func.jvp(torch.sin, (fixed,), (fixed,))
    torch.func.vmap(torch.func.grad(lambda row: row.square().sum()))(fixed)
    torch.distributions.Normal(0.0, 1.0).rsample()


def _requests() -> Iterator[tuple[str, dict[str, Any], dict[str, Tensor]]]:
    """Training, scoring and every question of a gate, in the order in which they can be asked."""
    recipe, seed = asdict(_RECIPE), {"seed": 0}
    yield "load", {"source": baseline_source(_BASELINE), "convention": "linearch"}, {}
    yield "build", {"model": _MODEL, **seed}, {}
    yield "work", {"length": 4}, {}
    yield "practise", {"recipe": recipe}, {}
    yield "prepare", {"recipe": recipe, "resume": False}, {}
    yield "train", {"data": "uint8"}, {}
    yield "load_weights", {}, {}
    tokens = {"tokens": torch.zeros(1, 3, dtype=torch.int64)}
    yield "hidden", {"precision": "fp32", "train": False}, tokens
    yield "start_stream", {}, {}
    yield "stream_on", {"precision": "fp32"}, tokens
    yield "take_state", {}, {}
    yield "put_state", {}, {}
    yield "mixer", {**_SIZES, **seed, "layer": 0, "jitter": 0.1}, {}
    x = torch.zeros(1, 3, _SIZES["d_model"])
    both = {"x": x, "cotangent": x}
    for precision, dtype in DTYPES.items():
        asked = {"layer": 0, "precision": precision}
        yield "forward", {**asked, "train": False}, {"x": x.to(dtype)}
        yield "stream", {**asked, "lengths": [1, 2]}, {"x": x.to(dtype)}
    asked = {"layer": 0, "precision": "fp32"}
    yield "gradients", {**asked, "wants_tensors": True}, both
    yield "inventory", asked, {}
    yield "cost", {**asked, "length": 4, "d_model": _SIZES["d_model"], **seed}, {}


def _unheard(event: str, **values: Any) -> None:
    """A report that nobody waits for."""
