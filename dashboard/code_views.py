"""An architecture's source, beside that of another. Code is shown here, never imported."""

from __future__ import annotations

import difflib

import pandas as pd
import streamlit as st

from ..db import ArchitectureDetail, ArchitectureRow
from ..search_space.grammar import GENES, Genome, changes
from .reading import View
from .wording import DASH

_HEIGHT_PX = 640


def show_code(row: ArchitectureRow) -> None:
    st.code(row.source, language="python", line_numbers=True, height=_HEIGHT_PX)


def show_difference(view: View, detail: ArchitectureDetail) -> None:
    """What changed from a parent, or from any baseline; the choice outlives changes of the run."""
    row = detail.architecture
    names = {parent.id: f"{parent.name} ({parent.kind})" for parent in detail.parents}
    names |= {
        other.id: f"{other.name} (baseline)"
        for other in view.leaderboard()
        if other.is_baseline and other.id != row.id
    }
    if not names:
        st.info("There is nothing to compare it with.")
        return
    key = f"against_{row.id}"
    against_id = st.selectbox("Against", list(names), format_func=names.__getitem__, key=key)
    against = view.sources((against_id,))[against_id]
    _show_changed_genes(against, row)
    st.code(unified(against, row) or "The sources are equal.", language="diff", height=_HEIGHT_PX)


def unified(old: ArchitectureRow, new: ArchitectureRow) -> str:
    """The unified diff of their sources; empty if there is none."""
    lines = difflib.unified_diff(
        old.source.splitlines(), new.source.splitlines(), old.name, new.name, lineterm=""
    )
    return "\n".join(lines)


def _show_changed_genes(old: ArchitectureRow, new: ArchitectureRow) -> None:
    before, after = _genome_of(old), _genome_of(new)
    if before is None or after is None:
        return
    changed = changes(before, after)
    said = [f"**{gene.replace('_', ' ')}** {a} → {b}" for gene, a, b in changed]
    st.markdown("Genes changed: " + (", ".join(said) or "none"))


def _genome_of(row: ArchitectureRow) -> Genome | None:
    """None without one, or for one that this version's grammar no longer reads."""
    if row.genome is None:
        return None
    try:
        return Genome.from_dict(row.genome)
    except ValueError:
        return None


def show_genes(row: ArchitectureRow) -> None:
    """Each gene that it was generated from, and what its value means in this version's grammar."""
    if row.genome is None:
        st.info("It was written as code, not generated from genes.")
        return
    lines = [
        {
            "gene": gene.replace("_", " "),
            "value": DASH if value is None else str(value),
            "meaning": GENES.get(gene, {}).get(value, ""),
        }
        for gene, value in row.genome.items()
    ]
    st.dataframe(pd.DataFrame(lines), key="genes", hide_index=True, height=_HEIGHT_PX)
