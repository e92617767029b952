"""Wrong arguments: a ValueError names the argument, what it had and what is wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from linearch import kernels

Q = torch.zeros(2, 6, 4, 3)
HALF = Q[:, :, :2]  # its heads
V = torch.zeros(2, 6, 4, 5)
BETA = torch.zeros(2, 6, 4)
X = torch.zeros(2, 6, 3)
PAST = torch.zeros(2, 3, 4, 3), torch.zeros(2, 3, 4, 5), torch.tensor(3)


def cross_entropy(targets: torch.Tensor, **options: Any) -> torch.Tensor:
    return kernels.linear_cross_entropy(X[0], torch.zeros(9, 3), targets, **options)


CASES: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: kernels.chunk_decay(Q[0], Q, V),
        r"chunk_decay: q has shape \[6, 4, 3\] \(3 axes\); wanted \[B, T, H, K\]",
    ),
    (
        lambda: kernels.chunk_decay(Q, Q[:, :5], V),
        r"k has shape \[2, 5, 4, 3\], 5 on axis 1; wanted T = 6 as in q",
    ),
    (
        lambda: kernels.chunk_decay(Q, Q, V[:, :, :3]),
        r"v has HV = 3; wanted a multiple of H = 4 as in q",
    ),
    (lambda: kernels.chunk_decay(Q, Q.int(), V), r"k has dtype torch.int32; wanted a floating"),
    (lambda: kernels.chunk_decay(Q, Q.to("meta"), V), r"k is on meta; wanted cpu, where q is"),
    (lambda: kernels.chunk_decay(Q, None, V), r"k is a NoneType; wanted a tensor"),
    (
        lambda: kernels.chunk_decay(Q[:, :0], Q[:, :0], V[:, :0]),
        r"q has T = 0 \(axis 1\); wanted 1 or more",
    ),
    (
        lambda: kernels.chunk_decay(Q, Q, V, torch.zeros(2, 6)),
        r"log_decay has shape \[2, 6\]; wanted \[H\|HV\] or \[B, T, H\|HV\] or",
    ),
    (
        lambda: kernels.chunk_decay(Q, Q, V, torch.zeros(2, 6, 3)),
        r"log_decay has shape \[2, 6, 3\], 3 on axis 2; wanted H = 4 as in q or HV = 4 as in v",
    ),
    (
        lambda: kernels.chunk_decay(Q, Q, V, initial_state=torch.zeros(2, 4, 5, 3)),
        r"initial_state has shape \[2, 4, 5, 3\], 5 on axis 2; wanted K = 3 as in q",
    ),
    (
        lambda: kernels.chunk_decay(Q, Q, V, normalise=True, initial_state=torch.zeros(2, 4, 3, 5)),
        r"initial_state has .* 5 on axis 3; wanted V\+1 = 6 as in v with its normaliser",
    ),
    (
        lambda: kernels.chunk_decay(Q, Q, V, bonus=torch.zeros(4, 2)),
        r"bonus has shape \[4, 2\], 2 on axis 1; wanted K = 3 as in q",
    ),
    (
        lambda: kernels.chunk_decay(Q, Q, V, form="fast"),
        r"form is 'fast'; wanted one of naive, chunked, triton or None",
    ),
    (
        lambda: kernels.chunk_delta(Q, Q[:, :4], V[:, :4], BETA[:, :4]),
        r"chunk_delta: k has nT = 4; wanted a multiple of T = 6 as in q",
    ),
    (
        lambda: kernels.chunk_delta(Q, Q, V, BETA[..., None]),
        r"beta has shape \[2, 6, 4, 1\], 1 on axis 3; wanted K = 3 as in q",
    ),
    (
        lambda: kernels.chunk_delta(Q, Q, V, BETA[0]),
        r"beta has shape \[6, 4\]; wanted \[B, nT, H\|HV\] or \[B, nT, H\|HV, K\]",
    ),
    (lambda: kernels.chunk_delta(Q, Q, V, None), r"beta is a NoneType; wanted a tensor"),
    (lambda: kernels.chunk_delta(Q, Q, V, BETA, -0.5), r"log_decay is a float; wanted a tensor"),
    (
        lambda: kernels.chunk_delta(Q, Q, V[:, :, :3], BETA),
        r"chunk_delta: v has HV = 3; wanted a multiple of H = 4 as in q",
    ),
    (
        lambda: kernels.chunk_delta(HALF, HALF, V, BETA[:, :, :3]),
        r"beta has shape \[2, 6, 3\], 3 on axis 2; wanted H = 2 as in q or HV = 4 as in v",
    ),
    (
        lambda: kernels.chunk_delta(Q, Q, V, Q),
        r"write_strength is None beside beta of shape \[2, 6, 4, 3\], which has channels; wanted",
    ),
    (
        lambda: kernels.chunk_delta(Q, Q, V, Q, write_strength=Q),
        r"write_strength has shape \[2, 6, 4, 3\], 3 on axis 3; wanted V = 5 as in v",
    ),
    (
        lambda: kernels.chunk_delta(
            Q[:, :, :2], Q[:, :, :2], V, BETA, write_strength=BETA[:, :, :2]
        ),
        r"write_strength has shape \[2, 6, 2\], 2 on axis 2; wanted HV = 4 as in v",
    ),
    (
        lambda: kernels.chunk_delta(Q, Q, V, BETA, value_log_decay=Q),
        r"value_log_decay has shape \[2, 6, 4, 3\], 3 on axis 3; wanted V = 5 as in v",
    ),
    (
        lambda: kernels.chunk_delta(HALF, HALF, V, BETA, erase_key=Q),
        r"erase_key has shape \[2, 6, 4, 3\], 4 on axis 2; wanted H = 2 as in q",
    ),
    (
        lambda: kernels.chunk_dplr(Q, Q, V, Q, V),
        r"chunk_dplr: b has shape \[2, 6, 4, 5\], 5 on axis 3; wanted K = 3 as in q",
    ),
    (
        lambda: kernels.chunk_oja(Q, Q, V, BETA, torch.zeros(2, 6, 4, 3)),
        r"chunk_oja: log_decay has .* 3 on axis 3; wanted V = 5 as in v",
    ),
    (
        lambda: kernels.scan(X, torch.zeros(2, 6, 4)),
        r"scan: log_decay has .* 4 on axis 2; wanted D = 3 as in x",
    ),
    (
        lambda: kernels.causal_attention(Q, Q, V, window=0),
        r"causal_attention: window is 0; wanted 1 or more, or None",
    ),
    (
        lambda: kernels.causal_attention(Q, Q, V, window=3, past=PAST),
        r"past keys has .* 3 on axis 1; wanted P = 2 as in window - 1",
    ),
    (
        lambda: kernels.causal_attention(Q, Q, V, past=(*PAST[:2], torch.tensor([3]))),
        r"past count has dtype torch.int64 and shape \[1\]; wanted int64 \[\]",
    ),
    (
        lambda: kernels.causal_attention(Q, Q, V, past=PAST[:2]),
        r"past has 2 tensors; wanted \(keys, values, count\)",
    ),
    (
        lambda: kernels.causal_attention(Q, Q, V, BETA, past=PAST),
        r"past has 3 tensors; wanted \(keys, values, count, log decays\)",
    ),
    (
        lambda: kernels.causal_attention(Q, Q, V, BETA, past=(*PAST, BETA)),
        r"past log decays has .* 6 on axis 1; wanted P = 3 as in past keys",
    ),
    (
        lambda: kernels.causal_attention(Q, Q, V, Q),
        r"log_decay has shape \[2, 6, 4, 3\]; wanted \[H\] or \[B, T, H\]",
    ),
    (
        lambda: kernels.causal_attention(Q, Q, V, sinks=torch.zeros(2)),
        r"sinks has shape \[2\], 2 on axis 0; wanted H = 4 as in q",
    ),
    (
        lambda: kernels.short_convolution(X, torch.zeros(4, 3)),
        r"short_convolution: weight has .* 4 on axis 0; wanted D = 3 as in x",
    ),
    (
        lambda: kernels.short_convolution(X, torch.zeros(3, 4), initial_state=X[:, :2]),
        r"initial_state has .* 2 on axis 1; wanted W-1 = 3 as in weight",
    ),
    (
        lambda: kernels.short_convolution(X, torch.zeros(3, 4), activation="relu"),
        r"activation is 'relu'; wanted 'silu' or None",
    ),
    (
        lambda: kernels.short_convolution(X, torch.zeros(3, 4), normalise=3, head_dim=2),
        r"normalise is 3 and head_dim 2; wanted whole heads of up to D = 3 channels",
    ),
    (
        lambda: kernels.short_convolution(X, torch.zeros(3, 4), normalise=4, head_dim=2),
        r"normalise is 4 and head_dim 2; wanted whole heads",
    ),
    (
        lambda: kernels.rms_norm(X, torch.zeros(3), gate=X[:, :2]),
        r"rms_norm: gate has shape \[2, 2, 3\], 2 on axis 1; wanted axis1 = 6 as in x",
    ),
    (
        lambda: kernels.rms_norm(X, torch.zeros(3), gate=X, activation="tanh"),
        r"activation is 'tanh'; wanted one of silu, sigmoid",
    ),
    (
        lambda: kernels.rms_norm(X, torch.zeros(3), out_dtype=torch.int32),
        r"rms_norm: out_dtype is torch.int32; wanted a floating dtype, or None",
    ),
    (
        lambda: kernels.l2_norm(X, out_dtype=torch.int32),
        r"l2_norm: out_dtype is torch.int32; wanted a floating dtype, or None",
    ),
    (
        lambda: kernels.add_rms_norm(X, X[:1], torch.zeros(3)),
        r"add_rms_norm: residual has shape \[1, 6, 3\], 1 on axis 0; wanted axis0 = 2 as in x",
    ),
    (
        lambda: kernels.gated_product(X, X[..., :1]),
        r"gated_product: gate has shape \[2, 6, 1\], 1 on axis 2; wanted D = 3 as in x",
    ),
    (
        lambda: kernels.gated_product(X, X, activation="tanh"),
        r"gated_product: activation is 'tanh'; wanted one of silu, sigmoid",
    ),
    (
        lambda: kernels.gated_product(X, X, skip=X),
        r"gated_product: skip is given and skip_rate not given; wanted both or neither",
    ),
    (
        lambda: kernels.gated_product(X, X, skip=X, skip_rate=X[..., :2]),
        r"gated_product: skip_rate has shape \[2, 6, 2\]; wanted x's last axes, of \[2, 6, 3\]",
    ),
    (
        lambda: kernels.activation(X, "tanh"),
        r"activation: function is 'tanh'; wanted one of elu_plus_one, exp, log_sigmoid",
    ),
    (
        lambda: kernels.activation(X, "exp", floor=0.5),
        r"activation: floor is 0.5 for 'exp'; wanted 0, or below 1 for a log_sigmoid",
    ),
    (
        lambda: kernels.activation(X, "exp", bias=X[..., :2]),
        r"activation: bias has shape \[2, 6, 2\]; wanted x's last axes, of \[2, 6, 3\], or ones",
    ),
    (
        lambda: kernels.add_bonus(V, Q, Q, V, torch.zeros(4, 5)),
        r"add_bonus: bonus has shape \[4, 5\], 5 on axis 1; wanted K = 3 as in q",
    ),
    (
        lambda: kernels.add_bonus(Q, Q, Q, V, torch.zeros(4, 3)),
        r"add_bonus: v has shape \[2, 6, 4, 5\], 5 on axis 3; wanted V = 3 as in o",
    ),
    (
        lambda: kernels.rotary(Q, torch.tensor(0)),
        r"rotary: x has K = 3; wanted an even head width",
    ),
    (
        lambda: kernels.rotary(Q[..., :2], torch.zeros(2)),
        r"rotary: position has dtype torch.float32 and shape \[2\]; wanted one integer",
    ),
    (
        lambda: kernels.scaled_heads(Q, X),
        r"scaled_heads: strength has HV = 3; wanted a multiple of H = 4 as in x",
    ),
    (
        lambda: kernels.token_shift(X, torch.zeros(2, 4)),
        r"token_shift: shares has shape \[2, 4\], 4 on axis 1; wanted D = 3 as in x",
    ),
    (
        lambda: kernels.token_shift(X, X[0, :2], offsets=X),
        r"token_shift: offsets has shape .* \(3 axes\); wanted \[n, B, T, D\]",
    ),
    (
        lambda: kernels.token_shift(X, X[0, :2], initial_state=X[:, :2]),
        r"token_shift: initial_state has .* 2 on axis 1; wanted 1 = 1 as in one token",
    ),
    (
        lambda: kernels.swiglu(X),
        r"swiglu: gate_up has shape \[2, 6, 3\]; wanted an even last axis",
    ),
    (
        lambda: cross_entropy(torch.zeros(6)),
        r"linear_cross_entropy: targets has dtype torch.float32; wanted torch.int64",
    ),
    (
        lambda: cross_entropy(torch.zeros(5, dtype=torch.int64)),
        r"targets has shape \[5\], 5 on axis 0; wanted N = 6 as in hidden",
    ),
    (
        lambda: cross_entropy(torch.zeros(6, dtype=torch.int64), chunk=0),
        r"chunk is 0; wanted 1 or more, or None",
    ),
]


@pytest.mark.parametrize(("call", "message"), CASES)
def test_a_wrong_argument_is_named_with_what_it_had_and_what_is_wanted(
    call: Callable[[], Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call()


VALUES: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: kernels.chunk_decay(Q, Q, V, torch.full((4,), 0.5)),
        r"chunk_decay: log_decay has values up to 0.5; wanted 0 or below",
    ),
    (
        lambda: kernels.chunk_decay(Q, Q, V, value_log_decay=torch.full_like(V, torch.nan)),
        r"value_log_decay has values up to nan; wanted 0 or below",
    ),
    (
        lambda: kernels.causal_attention(Q, Q, V, torch.full((4,), 0.5)),
        r"causal_attention: log_decay has values up to 0.5; wanted 0 or below",
    ),
    (
        lambda: kernels.chunk_delta(Q, Q, V, BETA - 1.0),
        r"chunk_delta: beta has values from -1.0 to -1.0; wanted 0 to 2",
    ),
    (
        lambda: kernels.chunk_delta(Q, Q, V, BETA, value_log_decay=torch.ones_like(V)),
        r"chunk_delta: value_log_decay has values up to 1.0; wanted 0 or below",
    ),
    (
        lambda: cross_entropy(torch.full((6,), 9)),
        r"targets has values from 9 to 9; wanted 0 to V - 1 = 8",
    ),
]


@pytest.mark.parametrize(("call", "message"), VALUES)
def test_values_are_checked_under_linearch_debug(
    call: Callable[[], Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINEARCH_DEBUG", "1")
    with pytest.raises(ValueError, match=message):
        call()


def test_values_are_not_read_without_linearch_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LINEARCH_DEBUG", raising=False)
    _, state = kernels.chunk_decay(Q, Q, V, torch.full((4,), 0.5))
    assert state.shape == (2, 4, 3, 5)
