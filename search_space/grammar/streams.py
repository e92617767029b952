"""Queries, keys and values: projections, short convolution, heads, feature map, normalisation."""

from __future__ import annotations

from .genome import Genome
from .part import Part

_MAPS = {
    "elu": "elu_plus_one({})",
    "relu": "relu({})",
    "squared_relu": "squared_relu({})",
    "silu": "F.silu({})",
    "softmax": "softmax_feature({})",
}


def key_dim(genome: Genome) -> str:
    """The name that `__init__` gives the keys' width per head."""
    return "key_dim" if genome.key_width == "half" else "head_dim"


def value_dim(genome: Genome) -> str:
    return "value_dim" if genome.value_width == "double" else "head_dim"


def widths(genome: Genome) -> Part:
    """The widths of a head and how many heads there are."""
    init = ["head_dim = d_model // n_heads"]
    if genome.key_width == "half":
        init.append("key_dim = head_dim // 2")
    if genome.value_width == "double":
        init.append("value_dim = 2 * head_dim")
    return Part(init=(*init, "self.n_heads = n_heads"))


def streams(genome: Genome) -> Part:
    """x to q [B, T, H, K], k [B, T, H, K] (unless tied) and v [B, T, H, V]; two of each a token
    for a product of two steps, as k and v of 2T tokens."""
    names = ["q", "v"] if genome.key == "tied" else ["q", "k", "v"]
    apart = genome.conv_over == "kv"
    packed = names[1:] if apart else names
    init = [*_packed_projection(genome, packed), *_convolution(genome, packed)]
    if apart:
        init.insert(0, f"self.query = {_linear(f'n_heads * {key_dim(genome)}')}")
    forward = [*_project(genome, packed, apart), *_heads(genome, names)]
    return Part(init=tuple(init), forward=tuple(forward))


def features(genome: Genome) -> Part:
    """The feature map, then the normalisation, of queries and (unless tied) keys."""
    names = ["q"] if genome.key == "tied" else ["q", "k"]
    if genome.feature_map == "identity" and genome.qk_norm == "none":
        return Part()
    norms = {"q": "query_norm", "k": "key_norm"}
    expressions = []
    for name in names:
        expression = _MAPS.get(genome.feature_map, "{}").format(name)
        if genome.qk_norm == "l2":
            expression = f"l2_norm({expression})"
        elif genome.qk_norm == "rms":
            expression = f"self.{norms[name]}({expression})"
        expressions.append(expression)
    is_rms = genome.qk_norm == "rms"
    init = tuple(f"self.{norms[name]} = RMSNorm({key_dim(genome)})" for name in names if is_rms)
    return Part(init=init, forward=(f"{', '.join(names)} = {', '.join(expressions)}",))


def _packed_projection(genome: Genome, packed: list[str]) -> list[str]:
    sizes = [_width(genome, name) for name in packed]
    if len(packed) == 1:
        return [f"self.value = {_linear(sizes[0])}"]
    return [
        f"# of {', '.join(packed)} over all heads",
        f"self.widths = ({', '.join(sizes)})",
        f"self.{_attribute(packed)} = {_linear('sum(self.widths)')}",
    ]


def _convolution(genome: Genome, packed: list[str]) -> list[str]:
    if not genome.conv_width:
        return []
    size = "sum(self.widths)" if len(packed) > 1 else _width(genome, packed[0])
    return [f"self.convolution = ShortConvolution({size}, width={genome.conv_width})"]


def _project(genome: Genome, packed: list[str], apart: bool) -> list[str]:
    joined = "".join(packed)
    projection = f"self.{_attribute(packed)}(x)"
    lines = ["q = self.query(x)"] if apart else []
    if genome.conv_width:
        state = f'{joined}, after["conv"]'
        lines.append(f'{state} = self.convolution({projection}, past.get("conv"))')
        projection = joined
    if len(packed) > 1:
        lines.append(f"{', '.join(packed)} = {projection}.split(self.widths, dim=-1)")
    return lines


def _heads(genome: Genome, names: list[str]) -> list[str]:
    if genome.steps == 1:
        left, split = ", ".join(names), "split_heads({}, self.n_heads)"
        if len(names) == 2:
            return [f"{left} = {', '.join(split.format(name) for name in names)}"]
        return [f"{left} = (split_heads(part, self.n_heads) for part in ({left}))"]
    return [
        "q = split_heads(q, self.n_heads)  # [B, T, H, K]",
        "# two steps a token stand one after the other: [B, 2T, H, K] and [B, 2T, H, V]",
        "k = split_heads(k.unflatten(-1, (2, -1)), self.n_heads).flatten(1, 2)",
        "v = split_heads(v.unflatten(-1, (2, -1)), self.n_heads).flatten(1, 2)",
    ]


def _width(genome: Genome, name: str) -> str:
    per_head = value_dim(genome) if name == "v" else key_dim(genome)
    steps = "2 * " if genome.steps == 2 and name != "q" else ""
    return f"{steps}n_heads * {per_head}"


def _attribute(packed: list[str]) -> str:
    words = {"q": "query", "k": "key", "v": "value"}
    return "_".join(words[name] for name in packed)


def _linear(width: str) -> str:
    return f"nn.Linear(d_model, {width}, bias=False)"
