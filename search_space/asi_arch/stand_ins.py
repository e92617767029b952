"""What files in ASI-Arch's convention import from `fla`, written from its documented meaning.

Only what one whole, unpadded sequence needs is exact; packed sequences are refused.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels import l2_norm, short_convolution
from ..layers import GatedRMSNorm, RMSNorm

FusedRMSNormGated = GatedRMSNorm  # rms_norm(x) * silu(gate)
__all__ = [
    "Cache",
    "FusedRMSNormGated",
    "RMSNorm",
    "ShortConvolution",
    "Unpack",
    "get_unpad_data",
    "index_first_axis",
    "l2norm",
    "pad_input",
]


def l2norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    return l2_norm(x, eps=eps)


class Cache:
    """A name in annotations; no cache is ever passed."""


Unpack: TypeAlias = tuple  # type: ignore[type-arg]  # a name in annotations, too


class ShortConvolution(nn.Module):
    """A causal convolution of each channel over its last `kernel_size` tokens."""

    def __init__(
        self,
        hidden_size: int,
        kernel_size: int,
        bias: bool = False,
        activation: Literal["silu", "swish"] | None = "silu",
    ) -> None:
        super().__init__()
        self.activation: Literal["silu"] | None = None if activation is None else "silu"
        bound = kernel_size**-0.5
        self.weight = nn.Parameter(torch.empty(hidden_size, kernel_size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(hidden_size)) if bias else None

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cache: Tensor | None = None,
        output_final_state: bool = False,
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """x [B, T, D] to y [B, T, D], and the last inputs where `output_final_state`."""
        if cu_seqlens is not None:
            raise ValueError("ShortConvolution got cu_seqlens; give sequences of one length")
        if mask is not None:
            x = x * mask.unsqueeze(-1)
        y, state = short_convolution(
            x, self.weight, bias=self.bias, activation=self.activation, initial_state=cache
        )
        return y, state if output_final_state else None


def get_unpad_data(attention_mask: Tensor) -> tuple[Tensor, Tensor, int]:
    """Of a mask [B, T]: the flat places of its ones, where each row starts, the longest row."""
    lengths = attention_mask.sum(dim=-1, dtype=torch.int32)
    indices = attention_mask.flatten().nonzero().flatten()
    starts = F.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
    return indices, starts, int(lengths.max())


def index_first_axis(x: Tensor, indices: Tensor) -> Tensor:
    """The rows of x at `indices`."""
    return x[indices]


def pad_input(x: Tensor, indices: Tensor, batch_size: int, seq_len: int) -> Tensor:
    """x [N, ...] put back to its places in zeros [batch_size, seq_len, ...]."""
    padded = x.new_zeros(batch_size * seq_len, *x.shape[1:])
    return padded.index_copy(0, indices, x).view(batch_size, seq_len, *x.shape[1:])
