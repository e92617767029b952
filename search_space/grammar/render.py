"""From a genome to the source of a mixer, as one would write it by hand under the contract."""

from __future__ import annotations

import re
import textwrap

from .describe import describe, spoken_genes
from .forgetting import forgetting
from .formula import recurrence
from .genome import Genome, family
from .memory import memory
from .output import local_branch, mixture, output
from .streams import features, streams, widths

_KERNELS = (
    "activation",
    "causal_attention",
    "chunk_decay",
    "chunk_delta",
    "chunk_oja",
    "gated_product",
    "l2_norm",
    "rotary",
)
_LAYERS = (
    "GatedRMSNorm",
    "RMSNorm",
    "ShortConvolution",
    "elu_plus_one",
    "merge_heads",
    "relu",
    "softmax_feature",
    "split_heads",
    "squared_relu",
)

_CLASS = """\
class Mixer(nn.Module):
{pattern}    def __init__(self, d_model: int, n_heads: int, layer_idx: int, n_layers: int) -> None:
        super().__init__()
{init}

    def forward(
        self, x: Tensor, state: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        past = state or {{}}
        after: dict[str, Tensor] = {{}}

{forward}
"""


def render(genome: Genome) -> str:
    """The source of the mixer: one file under the contract, only the code that its genes need."""
    paragraphs = [
        [widths(genome), streams(genome)],
        [local_branch(genome)],
        [forgetting(genome), features(genome), memory(genome)],
        [mixture(genome), output(genome)],
    ]
    init = [line for parts in paragraphs for part in parts for line in part.init]
    forward = ["\n".join(line for part in parts for line in part.forward) for parts in paragraphs]
    mixer = _CLASS.format(
        pattern="" if genome.pattern == "L" else f'    pattern = "{genome.pattern}"\n\n',
        init=textwrap.indent("\n".join(init), " " * 8),
        forward=textwrap.indent("\n\n".join(filter(None, forward)), " " * 8),
    )
    return f"{_docstring(genome)}\n\n{_imports(mixer)}\n\n\n{mixer}"


def _docstring(genome: Genome) -> str:
    name = family(genome)
    lines = [
        f'"""{describe(genome).name}.',
        "",
        f"{name[0].upper()}{name[1:]}. Each head keeps a memory S of K x V numbers:",
        *(f"    {line}" for line in recurrence(genome)),
        "",
        *(f"- {gene}: {meaning}" for gene, meaning in spoken_genes(genome)),
        '"""',
    ]
    return "\n".join(lines)


def _imports(mixer: str) -> str:
    plain = [f"import {name}" for name in ("math", "torch") if re.search(rf"\b{name}\.", mixer)]
    standard = [line for line in plain if line != "import torch"]
    torch = [line for line in plain if line == "import torch"]
    if re.search(r"\bF\.", mixer):
        torch.append("import torch.nn.functional as F")
    torch.append("from torch import Tensor, nn")
    ours = [
        *_from("linearch.kernels", _KERNELS, mixer),
        *_from("linearch.search_space.layers", _LAYERS, mixer),
    ]
    blocks = [["from __future__ import annotations"], standard, torch, ours]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _from(module: str, names: tuple[str, ...], mixer: str) -> list[str]:
    """The import of those `names` that the mixer calls, laid out as ruff format would."""
    called = [name for name in names if re.search(rf"(?<![\w.]){name}\(", mixer)]
    line = f"from {module} import {', '.join(called)}"
    if len(line) <= 100:
        return [line]
    return [f"from {module} import (", *(f"    {name}," for name in called), ")"]
