"""The second, local branch, how the two mix, and the norm and gate of what leaves the mixer."""

from __future__ import annotations

from .genome import Genome
from .part import Part, call
from .streams import value_dim


def local_branch(genome: Genome) -> Part:
    """`local` [B, T, H, V] from q, k, v before feature maps; a plain value needs no code."""
    if genome.local.startswith("window"):
        return _window(genome, int(genome.local.removeprefix("window")))
    if genome.local.startswith("conv"):
        return _convolution(genome, int(genome.local.removeprefix("conv")))
    return Part()


def mixture(genome: Genome) -> Part:
    """`o` as the mixture of what was read from the memory and the local branch."""
    if genome.mix is None:
        return Part()
    local = _first_step(genome, "v") if genome.local == "value" else "local"
    if genome.mix == "sum":
        return Part(forward=(f"o = o + {local}",))
    blend = f"o = {local} + share * (o - {local})"
    if genome.mix == "head":
        init = "self.share = nn.Parameter(torch.zeros(n_heads))  # sigmoid: half and half at first"
        return Part(
            init=(init,), forward=("share = self.share.sigmoid().unsqueeze(-1)  # [H, 1]", blend)
        )
    share = "share = self.share(x).sigmoid().unsqueeze(-1)  # [B, T, H, 1]"
    return Part(init=("self.share = nn.Linear(d_model, n_heads)",), forward=(share, blend))


def output(genome: Genome) -> Part:
    """Norm and gate per head, then the projection back to [B, T, D]."""
    width = value_dim(genome)
    init: list[str] = []
    forward: list[str] = []
    if genome.output_gate != "none":
        init.append(f"self.gate = nn.Linear(d_model, n_heads * {width}, bias=False)")
        forward.append("gate = split_heads(self.gate(x), self.n_heads)")
    if genome.output_norm == "rms" and genome.output_gate == "none":
        init.append(f"self.norm = RMSNorm({width})")
        forward.append("o = self.norm(o)")
    elif genome.output_norm == "rms":
        init.append(f'self.norm = GatedRMSNorm({width}, activation="{genome.output_gate}")')
        forward.append("o = self.norm(o, gate)")
    elif genome.output_gate != "none":
        forward.append(f'o = gated_product(o, gate, activation="{genome.output_gate}")')
    init.append(f"self.output = nn.Linear(n_heads * {width}, d_model, bias=False)")
    forward.append("return self.output(merge_heads(o)), after")
    return Part(init=tuple(init), forward=tuple(forward))


def _first_step(genome: Genome, stream: str) -> str:
    """Of two steps a token, the local branch sees the first."""
    return f"{stream}[:, ::2]" if genome.steps == 2 else stream


def _window(genome: Genome, width: int) -> Part:
    k, v = _first_step(genome, "k"), _first_step(genome, "v")
    seen = ("window_k", "window_v", "window_length")
    past = ", ".join(f'past["{name}"]' for name in seen)
    after = ", ".join(f'after["{name}"]' for name in seen)
    return Part(
        forward=(
            f"# local branch: softmax over the last {width} tokens, by relative position",
            'position = past.get("position", x.new_zeros((), dtype=torch.int64))',
            'after["position"] = position + x.shape[1]',
            *call(
                "local, window = causal_attention",
                "rotary(q, position)",
                f"rotary({k}, position)",
                v,
                f"window={width}",
                f"past=({past}) if past else None",
            ),
            f"{after} = window",
        )
    )


def _convolution(genome: Genome, width: int) -> Part:
    v = _first_step(genome, "v")
    size = f"n_heads * {value_dim(genome)}"
    return Part(
        init=(f"self.local = ShortConvolution({size}, width={width}, activation=None)",),
        forward=(
            f'local, after["local"] = self.local(merge_heads({v}), past.get("local"))',
            "local = split_heads(local, self.n_heads)  # [B, T, H, V]",
        ),
    )
