"""Counting: exact numbers for operators whose work is known by heart."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo  # a dispatch mode loads it on first use, which takes seconds
import torch.nn.functional as F
from torch import nn

from linearch.evaluator.sandbox.cost_meter import CostMeter, measure_cost
from linearch.evaluator.sandbox.operator_work import multiply_adds

_T, _D = 16, 8


def _counted(function, *tensors):
    meter = CostMeter()
    with meter.phase("all"):
        function(*tensors)
    return meter.totals["all"]


_X = torch.randn(_T, _D)
_HEADS = torch.randn(1, 2, _T, _D)


@pytest.mark.parametrize(
    ("function", "elements", "multiply_adds"),
    [
        (lambda x: x + x, 3 * _T * _D, 0),
        (lambda x: x.T.reshape(2, -1, _D)[:1].expand(5, -1, -1), 2 * _T * _D, 0),  # one copy
        (lambda x: x @ x.T, 2 * _T * _D + _T * _T, _T * _T * _D),
        (lambda x: x.sum(), _T * _D + 1, 0),
        (lambda x: torch.fft.rfft(x, dim=0), _T * _D + (_T // 2 + 1) * _D, 0),
        (lambda x: x.sort(dim=0), 3 * _T * _D, 0),
        (lambda x: x[None].expand(_T, -1, -1).sum(), _T * _T * _D + 1, 0),  # as if it were there
        (lambda x: x.index_select(0, torch.tensor([3])), 2 * _D + 1, 0),
        (
            lambda x: F.conv1d(x.T[None], torch.ones(_D, 1, 3), groups=_D),
            _T * _D + 2 * 3 * _D + (_T - 2) * _D,
            (_T - 2) * _D * 3,
        ),
    ],
)
def test_work_is_counted_to_the_element(function, elements, multiply_adds):
    total = _counted(function, _X)

    assert total["multiply_adds"] == multiply_adds
    assert total["elements"] == elements


def test_fused_attention_counts_its_scores():
    total = _counted(lambda q: F.scaled_dot_product_attention(q, q, q), _HEADS)

    assert total["multiply_adds"] == 2 * _T * _T * 2 * _D


def test_our_kernels_count_a_state_a_token():
    q, v = torch.ones(2, _T, 3, 4), torch.ones(2, _T, 3, 5)

    for name in ("linearch::decay_forward", "linearch::decay_backward"):
        assert multiply_adds(name, (q, q, v), ()) == 2 * 2 * _T * 3 * 4 * 5
    assert multiply_adds("linearch::dplr_forward", (q, q, v), ()) == 4 * 2 * _T * 3 * 4 * 5
    assert multiply_adds("linearch::unheard_of", (q, q, v), ()) == 0


def test_the_peak_is_of_what_lives_at_once():
    def held(x):
        a = x + 1
        b = a + 1
        del a
        return b + 1

    meter = CostMeter()
    with meter.phase("all"):
        kept = held(_X)
    one = _X.nbytes
    assert meter.totals["all"]["peak_bytes"] == 2 * one
    with meter.phase("after"):
        pass
    assert meter.totals["after"]["peak_bytes"] == kept.nbytes


class _Doubler(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(_D))

    def forward(self, x, state=None):
        return torch.stack([x[:, t] * self.weight for t in range(x.shape[1])], dim=1), {}


def test_a_step_is_counted_by_phase_and_place():
    found = measure_cost(_Doubler(), torch.randn(1, _T, _D), torch.randn(1, _T, _D))

    phases = found["phases"]
    assert list(phases) == ["forward", "backward", "evaluation"]
    assert phases["forward"]["elements"] == phases["evaluation"]["elements"]
    assert phases["backward"]["elements"] > 0
    places = {(phase, operator): where for phase, operator, where, *_ in found["sites"]}
    assert "test_cost_meter.py:" in places["forward", "aten::mul"]
    assert places["backward", "aten::mul"] == "MulBackward0"


def test_zeros_that_autograd_fills_for_an_index_are_counted_apart():
    def backward(length):
        x = torch.randn(1, length, _D)
        return measure_cost(_Doubler(), x, torch.randn_like(x))["phases"]["backward"]

    short, long = backward(_T), backward(2 * _T)

    assert long["elements"] == pytest.approx(2 * short["elements"], rel=0.05)
    assert long["bookkeeping"] > 3.5 * short["bookkeeping"]
