"""The building blocks that mixers are written from."""

from __future__ import annotations

import pytest
import torch

from linearch.kernels import l2_norm, rotary
from linearch.search_space import layers


def test_heads_split_and_merge_back() -> None:
    x = torch.randn(2, 3, 8)
    heads = layers.split_heads(x, 4)
    assert heads.shape == (2, 3, 4, 2)
    assert torch.equal(heads[..., 1, :], x[..., 2:4])
    assert torch.equal(layers.merge_heads(heads), x)


def test_l2_norm_gives_unit_length_in_the_dtype_of_its_input() -> None:
    x = torch.randn(2, 3, 4, 5, dtype=torch.bfloat16)
    y = l2_norm(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float().norm(dim=-1), torch.ones(2, 3, 4), rtol=0.02, atol=0)


def test_l2_norm_has_finite_gradients_at_zero() -> None:
    x = torch.zeros(1, 1, 1, 4, requires_grad=True)
    l2_norm(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("name", ["elu_plus_one", "relu", "squared_relu", "softmax_feature"])
def test_feature_maps_are_never_negative(name: str) -> None:
    feature = getattr(layers, name)(torch.randn(2, 3, 2, 8))
    assert feature.shape == (2, 3, 2, 8)
    assert (feature >= 0).all()


def test_rotated_scores_depend_on_distance_alone() -> None:
    q, k = torch.randn(1, 5, 2, 8), torch.randn(1, 5, 2, 8)

    def scores(start: int) -> torch.Tensor:
        position = torch.tensor(start)
        return torch.einsum("bihk,bjhk->bhij", rotary(q, position), rotary(k, position))

    torch.testing.assert_close(scores(0), scores(1_000), rtol=1e-3, atol=1e-3)


def test_rotary_continues_where_its_position_says() -> None:
    x = torch.randn(1, 6, 2, 8)
    whole = rotary(x, torch.tensor(0))
    torch.testing.assert_close(rotary(x[:, 4:], torch.tensor(4)), whole[:, 4:])


def test_rotary_refuses_an_odd_head_width() -> None:
    with pytest.raises(ValueError, match="even head width"):
        rotary(torch.randn(1, 2, 1, 5), torch.tensor(0))


def test_the_short_convolution_streams() -> None:
    torch.manual_seed(0)
    convolution = layers.ShortConvolution(6, bias=True)
    x = torch.randn(2, 7, 6)
    whole, final = convolution(x)
    first, state = convolution(x[:, :2])
    second, state = convolution(x[:, 2:], state)
    assert state.shape == final.shape == (2, 3, 6)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)


def test_the_short_convolution_normalises_heads_as_l2_norm_does() -> None:
    convolution = layers.ShortConvolution(12, normalise=8, head_dim=4)
    plain = layers.ShortConvolution(12)
    plain.load_state_dict(convolution.state_dict())
    x = torch.randn(2, 7, 12)
    (y, _), (wanted, _) = convolution(x), plain(x)
    heads = l2_norm(layers.split_heads(wanted[..., :8], 2))
    assert torch.equal(y[..., :8], layers.merge_heads(heads))
    assert torch.equal(y[..., 8:], wanted[..., 8:])


def test_a_gated_norm_is_the_norm_times_the_activated_gate() -> None:
    x, gate = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    plain, gated = layers.RMSNorm(8), layers.GatedRMSNorm(8, activation="sigmoid")
    torch.testing.assert_close(gated(x, gate), plain(x) * gate.sigmoid())
    torch.testing.assert_close(plain(x).square().mean(-1), torch.ones(2, 3), rtol=1e-3, atol=0)


@pytest.mark.parametrize("is_filled_up", [True, False])
@pytest.mark.parametrize("n_heads", [2, 16])
def test_a_packed_projection_is_one_matrix_whatever_it_is_filled_up_to(
    n_heads: int, is_filled_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "_has_fast_widths", lambda x: is_filled_up)
    project = layers.PackedProjection(8, [24, n_heads, 8])
    x = torch.randn(2, 3, 8)
    assert {name: p.shape for name, p in project.named_parameters()} == {
        "weight": (32 + n_heads, 8)
    }
    outputs = project(x)
    assert [y.shape[-1] for y in outputs] == [24, n_heads, 8]
    assert outputs[0].stride(-2) == (48 if is_filled_up else 32 + n_heads)
    torch.testing.assert_close(torch.cat(outputs, -1), x @ project.weight.T)
    outputs[1].sum().backward()
    assert project.weight.grad is not None
    torch.testing.assert_close(project.weight.grad[24:-8], x.sum((0, 1)).expand(n_heads, 8))
