"""Every baseline honours the contract that candidates are held to."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from linearch.errors import ConfigError
from linearch.search_space import (
    BASELINES,
    Backbone,
    BackboneConfig,
    baseline_source,
    check_source,
    count_parameters,
    load_mixer_class,
    match_mlp_width,
    state_bytes,
)

D_MODEL, N_HEADS, N_LAYERS = 32, 2, 2
LINEAR = [name for name, baseline in BASELINES.items() if not baseline.is_reference]


def make(name: str, d_model: int = D_MODEL, n_heads: int = N_HEADS) -> nn.Module:
    torch.manual_seed(0)
    mixer_class = load_mixer_class(baseline_source(name), f"baseline_under_test_{name}")
    return mixer_class(d_model, n_heads, 1, N_LAYERS)


def stream(mixer: nn.Module, x: Tensor, pieces: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
    outputs, state = [], None
    for piece in x.split(pieces, dim=1):
        y, state = mixer(piece, state)
        outputs.append(y)
    assert state is not None
    return torch.cat(outputs, dim=1), state


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_is_a_candidate_in_form(name: str) -> None:
    checked = check_source(baseline_source(name))
    assert checked.pattern == "L"
    assert checked.docstring is not None
    assert f"arXiv {BASELINES[name].paper}" in checked.docstring
    assert 30 <= len(checked.source.splitlines()) <= 75


def test_the_baselines_are_distinct_and_only_softmax_is_a_reference() -> None:
    hashes = {check_source(baseline_source(name)).normalised_hash for name in BASELINES}
    assert len(hashes) == len(BASELINES) == 11
    assert set(BASELINES) - set(LINEAR) == {"softmax_attention"}


def test_an_unknown_baseline_is_named() -> None:
    with pytest.raises(ConfigError, match="no baseline 'gated_delta'; known are softmax_attention"):
        baseline_source("gated_delta")


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("length", [1, 2, 70])
def test_output_has_the_input_shape_and_dtype(name: str, length: int) -> None:
    x = torch.randn(3, length, D_MODEL)
    y, state = make(name)(x)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    assert y.isfinite().all()
    assert all(isinstance(value, Tensor) for value in state.values())


@pytest.mark.parametrize("name", BASELINES)
def test_heads_of_another_width_work(name: str) -> None:
    y, _ = make(name, d_model=24, n_heads=4)(torch.randn(1, 5, 24))
    assert y.shape == (1, 5, 24)


@pytest.mark.parametrize("name", BASELINES)
def test_streaming_in_random_pieces_equals_the_whole(name: str) -> None:
    mixer, x = make(name), torch.randn(2, 80, D_MODEL)
    whole, final = mixer(x)
    for pieces in ([1, 1, 2, 5, 71], [64, 1, 15], [33, 47]):
        pieced, state = stream(mixer, x, pieces)
        torch.testing.assert_close(pieced, whole, rtol=1e-4, atol=1e-5)
        assert state.keys() == final.keys()
        for key, value in final.items():
            torch.testing.assert_close(state[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BASELINES)
def test_later_tokens_do_not_change_earlier_outputs(name: str) -> None:
    mixer, x = make(name), torch.randn(2, 70, D_MODEL)
    changed = torch.cat([x[:, :41], torch.randn(2, 29, D_MODEL)], dim=1)
    difference = (mixer(x)[0] - mixer(changed)[0]).abs().amax(dim=(0, 2))
    assert difference[:41].max() < 1e-6
    assert difference[41:].min() > 1e-6


def test_rwkv7_takes_the_papers_step() -> None:
    mixer, x = make("rwkv7"), torch.randn(1, 2, D_MODEL)
    _, first = mixer(x[:, :1])
    _, second = mixer(x[:, 1:], first)
    seen = x[0, 1] + (x[0, 0] - x[0, 1]) * mixer.blends[:, 0, 0]  # r, k, v, decay, rate, gate
    keys, rate = mixer.k_proj(seen[1]), mixer.rate(seen[4]).sigmoid()
    decay = (-math.exp(-0.5) * mixer.decay(seen[3]).sigmoid()).exp()
    k, c, a, v, w = (
        t.view(N_HEADS, -1, 1)
        for t in (
            keys * (1 + (rate - 1) * mixer.write_share),
            keys * mixer.erase_scale,
            rate,
            mixer.v_proj(seen[2]),
            decay,
        )
    )
    c = c / c.norm(dim=1, keepdim=True)
    memory = first["memory"][0]
    wanted = w * memory - (a * c) @ (c.mT @ memory) + k @ v.mT
    torch.testing.assert_close(second["memory"][0], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BASELINES)
def test_sequences_of_a_batch_do_not_mix(name: str) -> None:
    mixer, x = make(name), torch.randn(3, 20, D_MODEL)
    torch.testing.assert_close(mixer(x)[0][1:2], mixer(x[1:2])[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", BASELINES)
def test_every_parameter_gets_a_finite_gradient(name: str) -> None:
    mixer, x = make(name), torch.randn(2, 70, D_MODEL, requires_grad=True)
    (mixer(x)[0] * torch.randn(2, 70, D_MODEL)).sum().backward()
    for key, tensor in [("x", x), *mixer.named_parameters()]:
        assert tensor.grad is not None, key
        assert tensor.grad.isfinite().all(), key
        assert tensor.grad.abs().max() > 0, key


@pytest.mark.parametrize("name", LINEAR)
def test_the_state_does_not_grow_or_change_form(name: str) -> None:
    mixer, x = make(name), torch.randn(2, 70, D_MODEL)
    seen = []
    with torch.no_grad():
        for pieces in ([1], [10], [69], [10, 1, 58]):
            _, state = stream(mixer, x[:, : sum(pieces)], pieces)
            form = {key: (value.shape, value.dtype) for key, value in state.items()}
            seen.append((form, state_bytes([{k: v.clone() for k, v in state.items()}])))
    assert all(entry == seen[0] for entry in seen)


@pytest.mark.parametrize("name", LINEAR)
def test_a_raw_state_holds_no_longer_sequence_alive(name: str) -> None:
    mixer = make(name)
    with torch.no_grad():
        _, short = mixer(torch.randn(1, 8, D_MODEL))
        _, long = mixer(torch.randn(1, 256, D_MODEL))
    assert state_bytes([long]) == state_bytes([short])


def test_the_references_state_grows() -> None:
    mixer = make("softmax_attention")
    _, short = mixer(torch.randn(1, 8, D_MODEL))
    _, long = mixer(torch.randn(1, 64, D_MODEL))
    assert state_bytes([long]) > 4 * state_bytes([short])
    assert long["position"].dtype == torch.int64


@pytest.mark.parametrize("name", BASELINES)
def test_autocast_keeps_the_dtype_of_x(name: str) -> None:
    mixer = make(name)
    x = torch.randn(2, 20, D_MODEL, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        whole, final = mixer(x)
        pieced, state = stream(mixer, x, [7, 1, 12])
    assert whole.dtype == torch.bfloat16
    assert {k: v.dtype for k, v in state.items()} == {k: v.dtype for k, v in final.items()}
    scale = whole.float().square().mean().sqrt()
    assert (pieced.float() - whole.float()).abs().max() < 0.1 * scale


@pytest.mark.parametrize("name", BASELINES)
def test_the_default_budget_is_met_within_two_percent(name: str) -> None:
    mixer_class = load_mixer_class(baseline_source(name), f"baseline_under_test_{name}")

    def count(width: int) -> int:
        config = BackboneConfig(vocab_size=256, d_model=64, n_layers=2, n_heads=2, mlp_width=width)
        return count_parameters(Backbone(config, mixer_class))

    width = match_mlp_width(count, budget=120_000, tolerance=0.02)
    assert width >= 16
    assert count(width) == pytest.approx(120_000, rel=0.02)
