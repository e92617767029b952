"""A genome in words: its name, why its parts go together, and what it should improve."""

from __future__ import annotations

from dataclasses import dataclass

from .genes import GENES
from .genome import Genome

_UNSPOKEN = ("none", 0, None, "projected", "identity", "plain", "full", "L")
_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"

_UPDATE_NAMES = {"delta": "Delta", "product": "Product", "oja": "Oja"}
_DECAY_NAMES = {"constant": "Constant", "scalar": "Scalar", "channel": "Channel"}

# gene, value: why one would choose it
_REASONS: dict[tuple[str, object], str] = {
    ("update", "additive"): "Adding key-value products is the cheapest update there is.",
    ("update", "delta"): (
        "The delta rule overwrites what a key already holds, so that associations do not pile up."
    ),
    ("update", "product"): (
        "Two delta steps a token reach state transitions that one reflection cannot."
    ),
    ("update", "oja"): (
        "Erasing along the value keeps the memory from storing one value under many keys."
    ),
    ("decay", "constant"): "A constant decay frees the memory at no cost in parameters.",
    ("decay", "scalar"): "A decay chosen by the token clears the memory where the topic changes.",
    ("decay", "channel"): "Each key channel forgets at its own, token-dependent rate.",
    ("time_scales", "geometric"): "Heads start on different time scales, from one token to 64.",
    ("key", "tied"): "Tying the key to the decay makes the memory an average that cannot grow.",
    ("bonus", "current"): "The current token is read apart from the past.",
    ("normaliser", "sum"): "Dividing by the sum of keys makes the read a weighted mean.",
    ("strength", "double"): "Write strengths up to two allow negative eigenvalues.",
    ("local", "value"): "The token's own value passes by the memory, which need not hold it.",
    ("local", "window"): "A short softmax window takes over what needs exact local lookup.",
    ("local", "conv"): "A longer convolution of the values takes over fixed local patterns.",
    ("conv_width", "some"): "A short convolution lets keys and values see their neighbours.",
    ("pattern", "A"): "Window attention in some layers adds precise local recall.",
}

# gene, value: what should be seen in the measurements
_EXPECTATIONS: dict[tuple[str, object], str] = {
    ("update", "additive"): "higher tokens_per_s than the delta rules",
    ("update", "delta"): "higher recall_mqar and lower val_bpb than additive updates",
    ("update", "product"): "higher recall_mqar than a single delta step, at lower tokens_per_s",
    ("update", "oja"): "recall_mqar between additive and delta updates",
    ("decay", "scalar"): "lower val_bpb than without a decay, because old text stops interfering",
    ("decay", "channel"): "lower val_bpb than a scalar decay, at lower tokens_per_s",
    ("key_width", "half"): "about half the state_bytes",
    ("value_width", "double"): "lower val_bpb for twice the state_bytes",
    ("local", "value"): "lower val_bpb early in training, at no cost in state_bytes",
    ("local", "window"): "lower val_bpb from local text, for a fixed number of state_bytes",
    ("local", "conv"): "lower val_bpb from local text, for few state_bytes",
    ("conv_width", "some"): "lower val_bpb early in training",
    ("pattern", "A"): "lower val_bpb for the state_bytes of the attention windows",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """What a proposal says about a genome beside its code."""

    name: str
    motivation: str
    expectation: str


def describe(genome: Genome) -> Description:
    """Name (the last word is drawn from the genome's digest), motivation and expectation."""
    traits = _traits(genome)
    reasons = [_REASONS[trait] for trait in traits if trait in _REASONS]
    expected = [_EXPECTATIONS[trait] for trait in traits if trait in _EXPECTATIONS]
    sentence = "; ".join(expected)
    return Description(
        name=_name(genome),
        motivation=" ".join(reasons),
        expectation=f"{sentence[:1].upper()}{sentence[1:]}.",
    )


def spoken_genes(genome: Genome) -> list[tuple[str, str]]:
    """(gene, what its value means), without genes that are absent or at their plainest."""
    return [
        (gene.replace("_", " "), GENES[gene][value])
        for gene, value in genome.to_dict().items()
        if value not in _UNSPOKEN
    ]


def _traits(genome: Genome) -> list[tuple[str, object]]:
    """The genome's genes under the keys of the tables above, in the order they are drawn."""
    traits: list[tuple[str, object]] = []
    for gene, value in genome.to_dict().items():
        if gene == "conv_width":
            value = "some" if value else "none"
        elif gene == "local":
            value = value.rstrip("0123456789")
        elif gene == "pattern":
            value = "A" if "A" in value else "L"
        traits.append((gene, value))
    return traits


def _name(genome: Genome) -> str:
    words = [_rule_name(genome)]
    if genome.local != "none":
        words.append(genome.local.replace("conv", "local"))
    if genome.pattern != "L":
        words.append(genome.pattern)
    return "-".join([*words, _word(genome.digest)])


def _rule_name(genome: Genome) -> str:
    decay = _DECAY_NAMES.get(genome.decay, "")
    if genome.update == "additive":
        tied = "Tied" if genome.key == "tied" else ""
        return f"{tied}{decay}Decay" if decay else "Linear"
    return f"{decay}Gated{_UPDATE_NAMES[genome.update]}" if decay else _UPDATE_NAMES[genome.update]


def _word(digest: bytes) -> str:
    """Three syllables, one of 343,000 words."""
    syllables = (
        _CONSONANTS[digest[2 * i] % len(_CONSONANTS)] + _VOWELS[digest[2 * i + 1] % len(_VOWELS)]
        for i in range(3)
    )
    return "".join(syllables)
