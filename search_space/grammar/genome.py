"""A genome: one valid choice for every gene of a mixer, as plain data."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from .genes import GENES, Value, options


@dataclass(frozen=True, kw_only=True, slots=True)
class Genome:
    """One point of the search space; raises ValueError where genes do not go together.

    `genes.GENES` says what each choice means. None marks a gene that does not apply.
    """

    update: Literal["additive", "delta", "product", "oja"]
    decay: Literal["none", "constant", "scalar", "channel"]
    decay_form: Literal["fixed", "learned", "sigmoid", "softplus", "bounded"] | None
    time_scales: Literal["short", "long", "geometric"] | None
    key: Literal["projected", "tied"]
    feature_map: Literal["identity", "elu", "relu", "squared_relu", "silu", "softmax"]
    qk_norm: Literal["none", "l2", "rms"]
    strength: Literal["plain", "unit", "double"]
    normaliser: Literal["none", "sum"]
    bonus: Literal["none", "current"]
    conv_width: Literal[0, 2, 3, 4]
    conv_over: Literal["qkv", "kv"] | None
    key_width: Literal["half", "full"]
    value_width: Literal["full", "double"]
    local: Literal["none", "value", "window16", "window32", "conv8", "conv16"]
    mix: Literal["sum", "head", "input"] | None
    output_norm: Literal["none", "rms"]
    output_gate: Literal["none", "silu", "sigmoid"]
    pattern: Literal["L", "LA", "LLLA"]

    def __post_init__(self) -> None:
        values = self.to_dict()
        for gene, value in values.items():
            allowed = options(gene, values)
            if value not in allowed:
                raise ValueError(
                    f"gene {gene}={value!r} does not go with the genes before it; "
                    f"they leave {', '.join(map(repr, allowed))}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Genes by name in the order they are drawn, as JSON can hold them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, genes: Mapping[str, Value]) -> Self:
        """The genome of these genes; raises ValueError for a gene unknown, missing or not valid."""
        for name in genes:
            if name not in GENES:
                near = difflib.get_close_matches(name, GENES, n=1)
                raise ValueError(
                    f"unknown gene {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
                )
        missing = [name for name in GENES if name not in genes]
        if missing:
            raise ValueError(f"the genome lacks {', '.join(missing)}")
        return cls(**genes)  # type: ignore[arg-type]  # __post_init__ checks every value

    @property
    def steps(self) -> int:
        """Writes to the memory per token."""
        return 2 if self.update == "product" else 1

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(json.dumps(self.to_dict()).encode()).digest()


def family(genome: Genome) -> str:
    """Update and decay in words, such as "gated delta, scalar decay"."""
    return family_name(genome.update, genome.decay)


def family_name(update: str, decay: str) -> str:
    rule = {"product": "product of Householders", "oja": "Oja"}.get(update, update)
    is_gated = update != "additive" and decay != "none"
    return f"{'gated ' if is_gated else ''}{rule}, {decay} decay".replace("none decay", "no decay")


def changes(parent: Genome, child: Genome) -> list[tuple[str, Value, Value]]:
    """(gene, the parent's value, the child's value) wherever they differ."""
    before, after = parent.to_dict(), child.to_dict()
    return [(gene, before[gene], after[gene]) for gene in GENES if before[gene] != after[gene]]
