"""The offline grammar: genomes of linear-attention mixers, and the sources written from them."""

from .describe import Description, describe
from .genes import GENES, Value
from .genome import Genome, changes, family, family_name
from .known import KNOWN
from .render import render
from .space import Space

__all__ = [
    "GENES",
    "KNOWN",
    "Description",
    "Genome",
    "Space",
    "Value",
    "changes",
    "describe",
    "family",
    "family_name",
    "render",
]
