"""What a child counts of a whole model's training step, against the arithmetic done by hand."""

from __future__ import annotations

import torch

from linearch.evaluator.sandbox.protocol import Message
from linearch.evaluator.sandbox.workbench import Workbench

LINEAR = """
from torch import nn


class Mixer(nn.Module):
    def __init__(self, d_model, n_heads, layer_idx, n_layers):
        super().__init__()
        self.proj = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x, state=None):
        return self.proj(x), {}
"""


def test_every_matrix_product_is_counted_once_forward_and_twice_backward() -> None:
    sizes = {"vocab_size": 11, "d_model": 8, "n_layers": 2, "n_heads": 2, "mlp_width": 24}
    bench, length = Workbench(torch.device("cpu")), 5
    for values in (
        {"op": "load", "source": LINEAR, "convention": "linearch"},
        {"op": "build", "model": sizes, "seed": 0},
    ):
        bench.answer(Message(values=values, tensors={}), lambda *_, **__: None)
    asked = Message(values={"op": "work", "length": length}, tensors={})
    answer, _ = bench.answer(asked, lambda *_, **__: None)
    a_layer = 8 * 8 + 3 * 8 * 24  # the mixer, and the MLP's gate, up and down
    assert answer["multiply_adds"] == 3 * length * (2 * a_layer + 8 * 11)
