"""Kernels: the recurrences that mixers are made of, importable on their own.

Every operation has a naive loop, which is its specification, and a chunked torch form. Tensors are
[B, T, H, K]; gates are natural-log decays; states go in and come out. See docs/kernels.md.
"""

from __future__ import annotations

from .attention import causal_attention
from .bonus import add_bonus
from .convolution import short_convolution
from .cross_entropy import linear_cross_entropy
from .decay import chunk_decay
from .delta import chunk_delta
from .dplr import chunk_dplr
from .elementwise import scan
from .gating import gated_product, swiglu
from .norm import add_rms_norm, l2_norm, rms_norm
from .oja import chunk_oja
from .pointwise import activation
from .rotary import rotary
from .strength import scaled_heads
from .token_shift import token_shift

__all__ = [
    "activation",
    "add_bonus",
    "add_rms_norm",
    "causal_attention",
    "chunk_decay",
    "chunk_delta",
    "chunk_dplr",
    "chunk_oja",
    "gated_product",
    "l2_norm",
    "linear_cross_entropy",
    "rms_norm",
    "rotary",
    "scaled_heads",
    "scan",
    "short_convolution",
    "swiglu",
    "token_shift",
]
