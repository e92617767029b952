"""What `linearch audit` and `linearch import-asi-arch` print: verdicts with their evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .progress import duration
from .tables import plain_cell, print_plain

if TYPE_CHECKING:
    from .agents.gallery import Imported, ImportOutcome, Tally
    from .evaluator.audit import Audit

_DASH = "–"
_VERDICTS = {True: ("sound", "green"), False: ("FAILED", "bold red"), None: ("n/a", "dim")}


def print_audit(audit: Audit, console: Console) -> None:
    """Every check with its verdict and evidence, then the verdict on the whole in one line."""
    from .evaluator.evidence import evidence_in_words

    table = Table(box=SIMPLE_HEAD, header_style="bold")
    for heading in ("stage", "gate", "verdict", "evidence"):
        table.add_column(heading, overflow="fold")
    table.add_column("seconds", justify="right")
    for result in audit.judgement.results:
        word, style = _VERDICTS[result.passed]
        seconds = _DASH if result.duration_s is None else f"{result.duration_s:.2f}"
        evidence = evidence_in_words(result)
        table.add_row(result.stage, result.gate, Text(word, style), plain_cell(evidence), seconds)
    console.print(table)
    for note in audit.notes:
        print_plain(console, f"note: {note}")
    print_plain(console, audit.verdict)
    print_plain(
        console,
        f"judged on {audit.device} with the profile {audit.profile} in "
        f"{duration(audit.judgement.wall_s)}, contained: {audit.judgement.sandbox or 'unknown'}",
    )


def print_import(outcome: ImportOutcome, console: Console) -> None:
    """Each architecture's verdict beside its publishers' score, and what fails how often."""
    if any(item.audit for item in outcome.imported):
        console.print(_verdicts(outcome.imported))
    if outcome.tallies:
        console.print(_failures(outcome.tallies))
    for problem in outcome.problems:
        print_plain(console, f"passed over: {problem}")
    print_plain(console, _summary(outcome))
    print_plain(console, f"run {outcome.run_id} in {outcome.store} ({outcome.state})")


def import_as_dict(outcome: ImportOutcome) -> dict[str, Any]:
    """The same as plain data."""
    return {
        "run_id": outcome.run_id,
        "store": outcome.store,
        "state": outcome.state,
        "architectures": [_plain(item) for item in outcome.imported],
        "failures": [asdict(tally) for tally in outcome.tallies],
        "passed_over": list(outcome.problems),
    }


def _verdicts(imported: Sequence[Imported]) -> Table:
    table = Table(title="Verdicts", box=SIMPLE_HEAD, header_style="bold")
    table.add_column("name", overflow="fold")
    table.add_column("their score", justify="right")
    table.add_column("verdict")
    table.add_column("why", overflow="fold")
    for item in imported:
        is_sound, why = _verdict(item)
        word, style = _VERDICTS[is_sound]
        score = _DASH if item.entry.score is None else f"{item.entry.score:.3f}"
        row = (plain_cell(item.entry.name), score, Text(word, style), plain_cell(why))
        table.add_row(*row)
    return table


def _verdict(item: Imported) -> tuple[bool | None, str]:
    if item.duplicate_of is not None:
        return None, f"the same as {item.duplicate_of}"
    if item.rejection is not None:
        return False, f"source: {item.rejection}"
    if item.audit is None:
        return None, item.fault or "not audited"
    if item.audit.is_sound:
        return True, _DASH
    reasons = (f"{result.gate}: {result.reason}" for result in item.audit.failures)
    return False, "\n".join(reasons) or item.audit.verdict


def _failures(found: Sequence[Tally]) -> Table:
    table = Table(title="What fails", box=SIMPLE_HEAD, header_style="bold")
    table.add_column("check")
    table.add_column("fail", justify="right")
    table.add_column("worst", overflow="fold")
    table.add_column("evidence", overflow="fold")
    for tally in found:
        evidence = plain_cell(tally.reason)
        table.add_row(tally.check, str(tally.n_failed), plain_cell(tally.worst), evidence)
    return table


def _summary(outcome: ImportOutcome) -> str:
    audits = [item.audit for item in outcome.imported if item.audit is not None]
    sound = sum(audit.is_sound for audit in audits)
    rejected = sum(item.rejection is not None for item in outcome.imported)
    duplicates = sum(item.duplicate_of is not None for item in outcome.imported)
    told = f"{sound} of {len(audits)} audited are sound; " if audits else ""
    return (
        f"{told}{len(outcome.imported) - duplicates} stored ({rejected} of them rejected unread), "
        f"{duplicates} duplicates, {len(outcome.problems)} entries passed over."
    )


def _plain(item: Imported) -> dict[str, Any]:
    is_sound, why = _verdict(item)
    return {
        "name": item.entry.name,
        "id": item.row.id if item.row else None,
        "state": item.row.state if item.row else None,
        "duplicate_of": item.duplicate_of,
        "is_sound": is_sound,
        "why": why,
        "index": item.entry.index,
        "parent": item.entry.parent,
        "score": item.entry.score,
        "audit": item.audit.as_dict() if item.audit else None,
    }
