"""Building blocks for mixers: norms, short convolution, heads, feature maps, rotary positions.

Self-contained on purpose (torch and linearch.kernels alone): an export carries a copy of this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import activation, add_rms_norm, rms_norm, short_convolution

__all__ = [
    "GatedRMSNorm",
    "PackedProjection",
    "RMSNorm",
    "ShortConvolution",
    "elu_plus_one",
    "merge_heads",
    "relu",
    "softmax_feature",
    "split_heads",
    "squared_relu",
]


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis (arXiv 1910.07467)."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
        return rms_norm(x, self.weight, eps=self.eps, out_dtype=out_dtype)

    def of_sum(
        self, x: Tensor, residual: Tensor, out_dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor]:
        """The norm of residual + x, and that sum."""
        return add_rms_norm(x, residual, self.weight, eps=self.eps, out_dtype=out_dtype)


class GatedRMSNorm(nn.Module):
    """RMSNorm of x over the last axis, times activation(gate); x and gate have one shape."""

    def __init__(
        self, dim: int, activation: Literal["silu", "sigmoid"] = "silu", eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.activation = activation
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        return rms_norm(x, self.weight, gate=gate, activation=self.activation, eps=self.eps)


class PackedProjection(nn.Module):
    """One matrix product, without bias, for several outputs of `widths`.

    Packing a gate of n_heads with wide outputs may give a width that a GPU's fast matrix kernels
    do not take, and rows that fused kernels cannot read at full speed. So there the product is
    filled up with zero rows of the weight to a multiple of 16; nothing outside shows them.
    """

    def __init__(self, d_model: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = list(widths)
        self.weight = nn.Linear(d_model, sum(widths), bias=False).weight

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        missing = -self.weight.shape[0] % 16 if _has_fast_widths(x) else 0
        if not missing:
            return F.linear(x, self.weight).split_with_sizes(self.widths, dim=-1)
        y = F.linear(x, F.pad(self.weight, (0, 0, 0, missing)))
        return y.split_with_sizes([*self.widths, missing], dim=-1)[:-1]


class ShortConvolution(nn.Module):
    """A causal convolution of each channel over its last `width` tokens, then the activation.

    Its state is the last width - 1 inputs, [B, width - 1, dim]. Pack all channels that want one
    (q, k and v, say) into one call: it costs hardly more than a third of it. The first `normalise`
    channels come out as `l2_norm` leaves heads of `head_dim` (q's and k's), which is cheaper
    here than on its own.
    """

    def __init__(
        self,
        dim: int,
        width: int = 4,
        activation: Literal["silu"] | None = "silu",
        bias: bool = False,
        normalise: int = 0,
        head_dim: int = 1,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.normalise, self.head_dim = normalise, head_dim
        bound = width**-0.5  # nn.Conv1d's default for depthwise kernels
        self.weight = nn.Parameter(torch.empty(dim, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return short_convolution(
            x,
            self.weight,
            bias=self.bias,
            activation=self.activation,
            initial_state=state,
            normalise=self.normalise,
            head_dim=self.head_dim,
        )


def _has_fast_widths(x: Tensor) -> bool:
    return x.is_cuda


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """[B, T, H*K] to [B, T, H, K]."""
    return x.reshape(*x.shape[:-1], n_heads, -1)


def merge_heads(x: Tensor) -> Tensor:
    """[B, T, H, K] to [B, T, H*K]."""
    return x.flatten(-2)


def elu_plus_one(x: Tensor) -> Tensor:
    """The positive feature map elu(x) + 1 of Linear Transformers (arXiv 2006.16236)."""
    return activation(x, "elu_plus_one")


def relu(x: Tensor) -> Tensor:
    return F.relu(x)


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)^2 (Primer, arXiv 2109.08668)."""
    return activation(x, "squared_relu")


def softmax_feature(x: Tensor) -> Tensor:
    """softmax over the last axis, as efficient attention's feature map (arXiv 1812.01243)."""
    return F.softmax(x, dim=-1, dtype=torch.promote_types(x.dtype, torch.float32)).to(x.dtype)
