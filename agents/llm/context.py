"""Fills the prompts with what a run knows, within a size: the least important parts go first.

The parent's code and numbers, the latest failure and the task are never cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...config import RunConfig
from ...search_space.contract import CONTRACT
from ...search_space.library import BASELINES, baseline_source
from ..proposers.proposal import Evidence, Measured, Proposal
from . import prompts
from .quoting import inline, quote_source, quote_text
from .reference import kernels_and_layers
from .tables import (
    METRICS,
    comparison_table,
    describe_metric,
    metric_names,
    summary_head,
    summary_row,
)

MAX_PROMPT_CHARS = 100_000  # about 30,000 tokens, of which a third is the system prompt
MAX_FAILURES = 8
MAX_SIBLINGS = 8
MAX_ARCHIVE_ROWS = 8
MAX_OTHER_SOURCES = 2
EXAMPLE = "gated_deltanet"
_FAILED = ("rejected", "failed", "quarantined")

ALWAYS = 0  # importance of what is never cut; larger numbers are cut earlier


@dataclass(frozen=True, kw_only=True, slots=True)
class Brief:
    """What one proposal starts from. `ranked` holds other measured architectures, best first."""

    parent: Measured
    ranked: tuple[Measured, ...]
    evidence: Evidence
    direction: str


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a section, kept or cut as one; `about` is the id of the code it shows."""

    text: str
    importance: int
    about: str | None = None


@dataclass(frozen=True, slots=True)
class _Section:
    """A heading (with a table's head) and pieces; it vanishes with its last piece."""

    heading: str
    pieces: list[_Piece]

    def __str__(self) -> str:
        return "\n".join([self.heading, *(piece.text for piece in self.pieces)])


def system_prompt(config: RunConfig) -> str:
    """The contract, the setting, the kernels and an example: the same text for a whole run."""
    model = config.model
    return prompts.SYSTEM.substitute(
        contract=CONTRACT,
        d_model=model.d_model,
        n_heads=model.n_heads,
        head_dim=model.d_model // model.n_heads,
        n_layers=model.n_layers,
        vocab_size=model.vocab_size,
        window=model.window,
        seq_len=config.data.seq_len,
        rungs=" then ".join(str(tokens) for tokens in config.ladder.rung_tokens),
        param_budget=model.param_budget,
        tolerance_percent=f"{100 * model.param_tolerance:g}",
        four_projections=4 * model.d_model**2,
        objectives=", ".join(config.objectives),
        interface=kernels_and_layers(),
        metrics="\n".join(f"  - {describe_metric(name)}" for name in METRICS),
        known="\n".join(f"- {b.title} ({b.name}): {b.recurrence}" for b in BASELINES.values()),
        example_name=EXAMPLE,
        example=quote_source(baseline_source(EXAMPLE)),
    )


def proposal_prompt(brief: Brief, max_chars: int) -> tuple[str, tuple[str, ...]]:
    """The request for one architecture, and the ids of the others whose code it shows."""
    task = prompts.TASK.substitute(direction=brief.direction)
    sections = [
        _parent_section(brief),
        _baseline_section(brief),
        _archive_section(brief),
        *_other_sources(brief),
        _sibling_section(brief),
        _failure_section(brief),
    ]
    kept = _fit(sections, max_chars - len(task))
    shown = tuple(piece.about for section in kept for piece in section.pieces if piece.about)
    return "\n\n".join([*map(str, kept), task]), shown


def is_reference(row: Measured) -> bool:
    """Whether this is a baseline for comparison alone, such as softmax attention."""
    return row.origin == "baseline" and row.name in BASELINES and BASELINES[row.name].is_reference


def repair_prompt(proposal: Proposal, check: str, reason: str) -> str:
    """The request to mend code that failed a check."""
    return prompts.REPAIR.substitute(
        name=inline(proposal.name),
        motivation=quote_text(proposal.motivation, 2_000),
        expectation=quote_text(proposal.expectation, 1_000),
        source=quote_source(proposal.source),
        check=inline(check),
        reason=quote_text(reason, 2_000),
    )


def _fit(sections: Sequence[_Section], max_chars: int) -> list[_Section]:
    """The sections without their least important pieces, so that their text fits if it can."""
    kept = list(sections)
    for level in sorted({p.importance for s in sections for p in s.pieces}, reverse=True):
        parts = [
            _Section(s.heading, [p for p in s.pieces if p.importance <= level]) for s in sections
        ]
        kept = [section for section in parts if section.pieces]
        if sum(len(str(section)) + 2 for section in kept) <= max_chars:
            break
    return kept


def _parent_section(brief: Brief) -> _Section:
    parent = brief.parent
    known = {m.id: m for m in (*brief.evidence.candidates, *brief.evidence.baselines)}
    others = [("its parent", known[name]) for name in parent.parent_ids[:1] if name in known]
    best = _best_baseline(brief.evidence)
    if best is not None and best.id != parent.id:
        others.append(("the best baseline", best))
    text = "\n".join(
        [
            f"Motivation: {quote_text(parent.motivation, 2_000)}",
            quote_source(parent.source),
            "",
            comparison_table(parent, others),
        ]
    )
    return _Section(f"## The parent: {inline(parent.name)}", [_Piece(text, ALWAYS)])


def _best_baseline(evidence: Evidence) -> Measured | None:
    """The lowest val_bpb at the highest rung that any baseline but the references has reached."""
    baselines = [m for m in evidence.baselines if not is_reference(m)]
    scored = [m for m in baselines if m.metrics.get("val_bpb") is not None]
    return min(scored, key=lambda m: (-(m.rung or 0), m.metrics["val_bpb"] or 0.0), default=None)


def _baseline_section(brief: Brief) -> _Section:
    baselines = [m for m in brief.evidence.baselines if m.rung is not None]
    names = metric_names(baselines)
    title = "## Baselines, measured on the same path"
    head = "\n".join([title, *summary_head(names, "kind")])
    pieces = [
        _Piece(summary_row(m, names, "reference" if is_reference(m) else "baseline"), 100 + i)
        for i, m in enumerate(baselines)
    ]
    return _Section(head, pieces)


def _archive_section(brief: Brief) -> _Section:
    best = [m for m in brief.ranked if m.origin != "baseline"][:MAX_ARCHIVE_ROWS]
    names = metric_names(best)
    title = "## Best of what was proposed so far, best first"
    head = "\n".join([title, *summary_head(names, "motivation")])
    pieces = [
        _Piece(summary_row(m, names, quote_text(m.motivation, 200)), 300 + i)
        for i, m in enumerate(best)
    ]
    return _Section(head, pieces)


def _other_sources(brief: Brief) -> list[_Section]:
    others = [m for m in brief.ranked if m.id != brief.parent.id and m.name != EXAMPLE]
    return [
        _Section(
            f"## Another good architecture: {inline(m.name)}",
            [_Piece(quote_source(m.source), 500 + i, about=m.id)],
        )
        for i, m in enumerate(others[:MAX_OTHER_SOURCES])
    ]


def _sibling_section(brief: Brief) -> _Section:
    siblings = [m for m in brief.evidence.candidates if brief.parent.id in m.parent_ids]
    latest = siblings[::-1][:MAX_SIBLINGS]
    names = metric_names(latest)
    title = "## Already tried from this parent, newest first"
    head = "\n".join([title, *summary_head(names, "state", "motivation")])
    pieces = [
        _Piece(summary_row(m, names, m.state, quote_text(m.motivation, 200)), 400 + i)
        for i, m in enumerate(latest)
    ]
    return _Section(head, pieces)


def _failure_section(brief: Brief) -> _Section:
    failed = [m for m in brief.evidence.candidates if m.state in _FAILED]
    pieces = [
        _Piece(
            f"- {inline(m.name)} ({m.state}): {quote_text(m.reason or 'no reason given', 600)}",
            200 + i if i else ALWAYS,
        )
        for i, m in enumerate(failed[::-1][:MAX_FAILURES])
    ]
    return _Section("## Recent failures, newest first", pieces)
