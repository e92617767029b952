"""The stand-ins mean what the originals are documented to mean."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from linearch.search_space.asi_arch import stand_ins
from linearch.search_space.asi_arch.source import STAND_INS


def test_every_name_that_may_be_imported_is_there() -> None:
    offered = {name for names in STAND_INS.values() for name in names}
    assert offered == set(stand_ins.__all__)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", [None, "silu", "swish"])
def test_a_short_convolution_is_a_causal_depthwise_one(activation: str | None, bias: bool) -> None:
    conv = stand_ins.ShortConvolution(6, kernel_size=4, activation=activation, bias=bias)
    x = torch.randn(2, 9, 6)
    y, state = conv(x, cache=None, output_final_state=False, cu_seqlens=None)
    assert state is None
    wanted = F.conv1d(F.pad(x.mT, (3, 0)), conv.weight[:, None], conv.bias, groups=6).mT
    torch.testing.assert_close(y, wanted if activation is None else F.silu(wanted))


def test_a_short_convolution_goes_on_from_its_cache() -> None:
    conv = stand_ins.ShortConvolution(6, 4)
    x = torch.randn(2, 9, 6)
    whole, _ = conv(x)
    first, cache = conv(x[:, :5], output_final_state=True)
    second, _ = conv(x=x[:, 5:], cache=cache)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    with pytest.raises(ValueError, match="cu_seqlens"):
        conv(x, cu_seqlens=torch.tensor([0, 9]))


def test_a_mask_silences_tokens_before_the_convolution() -> None:
    conv = stand_ins.ShortConvolution(3, 4)
    x = torch.randn(1, 6, 3)
    mask = torch.tensor([[1, 1, 0, 1, 1, 1]])
    torch.testing.assert_close(conv(x, mask=mask)[0], conv(x * mask[..., None])[0])


def test_norms_divide_by_the_root_mean_square() -> None:
    x, gate = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    wanted = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(stand_ins.RMSNorm(8, eps=1e-5)(x), wanted)
    gated = stand_ins.FusedRMSNormGated(8, eps=1e-5)(x, gate)
    torch.testing.assert_close(gated, wanted * F.silu(gate))
    torch.testing.assert_close(stand_ins.l2norm(x), F.normalize(x, dim=-1))


def test_padding_goes_out_and_comes_back() -> None:
    mask = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1]])
    x = torch.randn(2, 4, 3)
    indices, starts, longest = stand_ins.get_unpad_data(mask)
    assert indices.tolist() == [1, 2, 4, 5, 6, 7]
    assert (starts.tolist(), longest) == ([0, 2, 6], 4)
    packed = stand_ins.index_first_axis(x.flatten(0, 1), indices)
    torch.testing.assert_close(packed, torch.cat([x[0, 1:3], x[1]]))
    padded = stand_ins.pad_input(packed, indices, 2, 4)
    torch.testing.assert_close(padded, x * mask[..., None])
