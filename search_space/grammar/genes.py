"""The genes of a linear-attention mixer: every choice with what it means, and which go together.

Genes are drawn in the order of GENES; a rule says which values the genes before it leave open, so
whatever is drawn is valid and nothing ever needs repair. None is the value of a gene that does not
apply (the form of a decay that is not there).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import TypeAlias

Value: TypeAlias = "str | int | None"
Rule: TypeAlias = "Callable[..., tuple[Value, ...]]"

GENES: dict[str, dict[Value, str]] = {
    "update": {
        "additive": "each token adds its key-value product to the memory",
        "delta": "what the key already reads is erased before the value is written",
        "product": "two delta steps a token, a product of two Householder reflections",
        "oja": "what points along the value is erased before it is written",
    },
    "decay": {
        "none": "the memory never forgets by itself",
        "constant": "one fixed rate of forgetting a head",
        "scalar": "one rate a head and token, chosen by the token",
        "channel": "one rate a key channel and token, chosen by the token",
    },
    "decay_form": {
        "fixed": "the rate is set at the start and not trained",
        "learned": "the rate is a parameter of the head",
        "sigmoid": "a = sigmoid(W x + b)^(1/16), slow to forget",
        "softplus": "a = exp(-exp(A) softplus(W x + b)), a learned rate times a step size",
        "bounded": "a = f + (1 - f) sigmoid(W x + b), the floor f rising with depth",
    },
    "time_scales": {
        "short": "every head starts with a half-life of 2 tokens",
        "long": "every head starts with a half-life of 16 tokens",
        "geometric": "half-lives start spread geometrically over heads, from 1 to 64 tokens",
    },
    "key": {
        "projected": "keys are a projection of the token",
        "tied": "keys are k = 1 - a, so that a channel takes in what it forgets",
    },
    "feature_map": {
        "identity": "queries and keys as projected",
        "elu": "elu + 1, positive",
        "relu": "relu, sparse",
        "squared_relu": "squared relu, sparse and sharper",
        "silu": "silu, smooth and signed",
        "softmax": "softmax over the channels of a head",
    },
    "qk_norm": {
        "none": "queries and keys keep their length",
        "l2": "queries and keys have length one",
        "rms": "queries and keys have learned channel scales and root mean square one",
    },
    "strength": {
        "plain": "every token writes with strength one",
        "unit": "each token chooses how strongly it writes, in (0, 1)",
        "double": "in (0, 2): above one a write overshoots, so that eigenvalues can be negative",
    },
    "normaliser": {
        "none": "the read is not divided",
        "sum": "the read is divided by what the query finds in the sum of keys",
    },
    "bonus": {
        "none": "the current token is read like any other",
        "current": "the current token is read through weights of its own before it is stored",
    },
    "conv_width": {
        0: "no short convolution",
        2: "a short convolution over 2 tokens",
        3: "a short convolution over 3 tokens",
        4: "a short convolution over 4 tokens",
    },
    "conv_over": {
        "qkv": "over queries, keys and values",
        "kv": "over keys and values alone",
    },
    "key_width": {
        "half": "keys half as wide as a head: half the memory",
        "full": "keys as wide as a head",
    },
    "value_width": {
        "full": "values as wide as a head",
        "double": "values twice as wide as a head: twice the memory",
    },
    "local": {
        "none": "no second branch",
        "value": "the token's own value beside what is read, as Mamba-2's D",
        "window16": "softmax attention over the last 16 tokens with the same queries and keys",
        "window32": "softmax attention over the last 32 tokens with the same queries and keys",
        "conv8": "a depthwise convolution of the values over 8 tokens",
        "conv16": "a depthwise convolution of the values over 16 tokens",
    },
    "mix": {
        "sum": "the branches are added",
        "head": "each head learns its share of the two branches",
        "input": "each token chooses each head's share of the two branches",
    },
    "output_norm": {
        "none": "what is read is not normalised",
        "rms": "RMS norm of what each head reads",
    },
    "output_gate": {
        "none": "no gate on the output",
        "silu": "a silu gate on the output",
        "sigmoid": "a sigmoid gate on the output",
    },
    "pattern": {
        "L": "this mixer in every layer",
        "LA": "this mixer and window attention in turn",
        "LLLA": "window attention in every fourth layer",
    },
}

POSITIVE_MAPS = ("elu", "softmax")


def options(gene: str, earlier: Mapping[str, Value]) -> tuple[Value, ...]:
    """The values of `gene` that agree with the genes before it; never empty."""
    rule = _RULES.get(gene)
    if rule is None:
        return tuple(GENES[gene])
    return rule(*(earlier[name] for name in reads(gene)))


@cache
def reads(gene: str) -> tuple[str, ...]:
    """The earlier genes that decide what is open to `gene`."""
    rule = _RULES.get(gene)
    return tuple(inspect.signature(rule).parameters) if rule else ()


def _decay(update: Value) -> tuple[Value, ...]:
    return ("none", "scalar") if update == "oja" else tuple(GENES["decay"])


def _decay_form(decay: Value) -> tuple[Value, ...]:
    if decay == "none":
        return (None,)
    return ("fixed", "learned") if decay == "constant" else ("sigmoid", "softplus", "bounded")


def _time_scales(decay: Value) -> tuple[Value, ...]:
    return (None,) if decay == "none" else tuple(GENES["time_scales"])


def _key(update: Value, decay: Value) -> tuple[Value, ...]:
    return ("projected", "tied") if (update, decay) == ("additive", "channel") else ("projected",)


def _qk_norm(update: Value, key: Value) -> tuple[Value, ...]:
    if key == "tied":
        return ("none",)  # the length of k = 1 - a is the point of it
    # A delta step is a contraction only for strength * |k|^2 <= 2.
    return ("l2",) if update in ("delta", "product") else tuple(GENES["qk_norm"])


def _strength(update: Value, key: Value) -> tuple[Value, ...]:
    if update == "additive":
        return ("plain",) if key == "tied" else ("plain", "unit")
    return ("unit",) if update == "oja" else ("unit", "double")


def _normaliser(update: Value, feature_map: Value, qk_norm: Value) -> tuple[Value, ...]:
    can_divide = update == "additive" and feature_map in POSITIVE_MAPS and qk_norm == "none"
    return ("none", "sum") if can_divide else ("none",)


def _bonus(update: Value, decay: Value, normaliser: Value) -> tuple[Value, ...]:
    applies = update == "additive" and decay != "none" and normaliser == "none"
    return ("none", "current") if applies else ("none",)


def _conv_over(conv_width: Value) -> tuple[Value, ...]:
    return tuple(GENES["conv_over"]) if conv_width else (None,)


def _value_width(update: Value) -> tuple[Value, ...]:
    # Two values a token are projected already; doubled, they would leave the MLP no parameters.
    return ("full",) if update == "product" else tuple(GENES["value_width"])


def _local(key: Value) -> tuple[Value, ...]:
    # A tied key says when to forget, not where to look, so it cannot address a window.
    return ("none", "value", "conv8", "conv16") if key == "tied" else tuple(GENES["local"])


def _mix(local: Value) -> tuple[Value, ...]:
    return (None,) if local == "none" else tuple(GENES["mix"])


def _output_norm(update: Value, decay: Value, normaliser: Value) -> tuple[Value, ...]:
    # Sums that neither decay nor are divided grow with the sequence (arXiv 2210.10340).
    grows = (update, decay, normaliser) == ("additive", "none", "none")
    return ("rms",) if grows else tuple(GENES["output_norm"])


_RULES: dict[str, Rule] = {
    "decay": _decay,
    "decay_form": _decay_form,
    "time_scales": _time_scales,
    "key": _key,
    "qk_norm": _qk_norm,
    "strength": _strength,
    "normaliser": _normaliser,
    "bonus": _bonus,
    "conv_over": _conv_over,
    "value_width": _value_width,
    "local": _local,
    "mix": _mix,
    "output_norm": _output_norm,
}
