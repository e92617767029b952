"""The decay of the memory: its projection, its parameterisation and how it starts."""

from __future__ import annotations

from .genome import Genome
from .part import Part, call
from .streams import key_dim

RANK = 16  # of a per-channel decay's projection, as in GLA (arXiv 2312.06635)

_HALF_LIFE = {
    "short": "half_life = torch.full((n_heads,), 2.0)  # tokens",
    "long": "half_life = torch.full((n_heads,), 16.0)  # tokens",
    "geometric": "half_life = torch.logspace(0, 6, n_heads, base=2.0)  # 1 to 64 tokens",
}
# the bias that gives `half_life` at a zero projection (for "bounded": above its floor)
_BIAS = {
    "sigmoid": "torch.logit(2.0 ** (-16.0 / half_life))",
    "softplus": "torch.log(torch.expm1(math.log(2.0) / half_life))",
    "bounded": "torch.logit(2.0 ** (-1.0 / half_life))",
}
_LOG_DECAY = {
    "sigmoid": ('"log_sigmoid"', "rate=1.0 / 16.0"),
    "softplus": ('"softplus"', "rate=-{rate}"),
    "bounded": ('"log_sigmoid"', "floor=self.floor"),
}


def forgetting(genome: Genome) -> Part:
    """`log_decay`: [H] if constant, [B, T, H] if scalar, else [B, T, H, K]; in float32."""
    if genome.decay == "none":
        return Part()
    if genome.decay == "constant":
        return _constant(genome)
    return _from_token(genome)


def _constant(genome: Genome) -> Part:
    assert genome.time_scales is not None
    half_life = _HALF_LIFE[genome.time_scales]
    if genome.decay_form == "fixed":
        buffer = 'self.register_buffer("log_decay", -math.log(2.0) / half_life)'
        return Part(init=(half_life, buffer))
    rate = "self.log_rate = nn.Parameter(torch.log(math.log(2.0) / half_life))"
    return Part(init=(half_life, rate), forward=("log_decay = -self.log_rate.exp()  # [H]",))


def _from_token(genome: Genome) -> Part:
    assert genome.decay_form is not None
    if genome.decay == "channel":
        logits = f"split_heads({_projected(genome)}, self.n_heads)  # [B, T, H, K]"
        rate = "self.log_rate.exp().unsqueeze(-1)"
    else:
        logits = "self.decay(x)  # [B, T, H]"
        rate = "self.log_rate.exp()"
    function, option = _LOG_DECAY[genome.decay_form]
    arguments = ("logits", function, option.format(rate=rate), "out_dtype=torch.float32")
    forward = [f"logits = {logits}", *call("log_decay = activation", *arguments)]
    if genome.key == "tied":
        forward.append("k = -torch.expm1(log_decay).to(v.dtype)  # 1 - a: takes in what it forgets")
    return Part(init=tuple(_init(genome)), forward=tuple(forward))


def _projected(genome: Genome) -> str:
    return "self.decay(x)" if genome.key == "tied" else "self.decay(self.squeeze(x))"


def _init(genome: Genome) -> list[str]:
    assert genome.decay_form is not None
    assert genome.time_scales is not None
    lines = [_HALF_LIFE[genome.time_scales]]
    width = f"n_heads * {key_dim(genome)}" if genome.decay == "channel" else "n_heads"
    if genome.decay == "channel" and genome.key == "projected":
        lines += [
            f"self.squeeze = nn.Linear(d_model, {RANK}, bias=False)",
            f"self.decay = nn.Linear({RANK}, {width})",
        ]
    else:
        lines.append(f"self.decay = nn.Linear(d_model, {width})")
    bias = "bias"
    if genome.decay == "channel":
        bias = f"bias.repeat_interleave({key_dim(genome)})"
    lines += [
        f"bias = {_BIAS[genome.decay_form]}",
        "with torch.no_grad():",
        f"    self.decay.bias.copy_({bias})",
    ]
    if genome.decay_form == "softplus":
        lines.append("self.log_rate = nn.Parameter(torch.zeros(n_heads))")
    if genome.decay_form == "bounded":
        lines.append("self.floor = (layer_idx + 1) / (n_layers + 1)  # deeper layers forget less")
    return lines
