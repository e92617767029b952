"""The library's mixers as the genomes nearest to them, so that measured baselines can be parents.

What the genes cannot say is left out: RetNet's rotated keys, Mamba-2's step size that also writes,
RWKV's blends of two tokens, for which a convolution over both stands.
"""

from __future__ import annotations

from typing import Any

from .genome import Genome

_PLAIN: dict[str, Any] = {
    "update": "additive",
    "decay": "none",
    "decay_form": None,
    "time_scales": None,
    "key": "projected",
    "feature_map": "identity",
    "qk_norm": "none",
    "strength": "plain",
    "normaliser": "none",
    "bonus": "none",
    "conv_width": 0,
    "conv_over": None,
    "key_width": "full",
    "value_width": "full",
    "local": "none",
    "mix": None,
    "output_norm": "rms",
    "output_gate": "none",
    "pattern": "L",
}
_SHORT_CONV = {"conv_width": 4, "conv_over": "qkv"}
_DELTA = {"update": "delta", "qk_norm": "l2", "strength": "unit", **_SHORT_CONV}


def _genome(**genes: Any) -> Genome:
    return Genome.from_dict({**_PLAIN, **genes})


KNOWN: dict[str, Genome] = {
    "linear_attention": _genome(feature_map="elu", normaliser="sum", output_norm="none"),
    "retnet": _genome(
        decay="constant",
        decay_form="fixed",
        time_scales="geometric",
        value_width="double",
        output_gate="silu",
    ),
    "gla": _genome(
        decay="channel",
        decay_form="sigmoid",
        time_scales="long",
        key_width="half",
        output_gate="silu",
    ),
    "mamba2": _genome(
        decay="scalar",
        decay_form="softplus",
        time_scales="geometric",
        value_width="double",
        local="value",
        mix="sum",
        output_gate="silu",
        **_SHORT_CONV,
    ),
    "deltanet": _genome(**_DELTA),
    "gated_deltanet": _genome(
        **_DELTA,
        decay="scalar",
        decay_form="softplus",
        time_scales="geometric",
        output_gate="silu",
    ),
    "kda": _genome(
        **_DELTA,
        decay="channel",
        decay_form="softplus",
        time_scales="geometric",
        output_gate="sigmoid",
    ),
    "hgrn2": _genome(
        decay="channel",
        decay_form="bounded",
        time_scales="short",
        key="tied",
        feature_map="silu",
    ),
    "rwkv6": _genome(
        decay="channel",
        decay_form="softplus",
        time_scales="geometric",
        bonus="current",
        conv_width=2,
        conv_over="qkv",
        output_gate="silu",
    ),
    "rwkv7": _genome(
        **{**_DELTA, "update": "product", "conv_width": 2},
        decay="channel",
        decay_form="sigmoid",
        time_scales="geometric",
        local="value",
        mix="sum",
        output_gate="sigmoid",
    ),
}
