"""What commands print: rows from the store as tables for people, or as JSON for programs."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from .finding_lines import finding_lines
from .progress import duration

if TYPE_CHECKING:
    from .agents.plan import Plan
    from .agents.start import Outcome
    from .agents.verification import Verification
    from .db import ArchitectureDetail, LeaderboardRow, RunRow
    from .doctor import Finding

_DASH = "–"
_VERDICTS = {True: "passed", False: "FAILED", None: "n/a"}
_FEW = 3
_PIPE_WIDTH = 230  # of a table in a pipe or a file


def terminal(*, stderr: bool = False) -> Console:
    """A console; off a terminal a wide one, since nothing there is only 80 columns."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=_PIPE_WIDTH)


def print_json(value: Any) -> None:
    """One JSON document on standard output; times as ISO 8601, unknown values as null."""
    json.dump(value, sys.stdout, indent=2, default=_plain)
    print()


def print_outcome(outcome: Outcome, console: Console, *, as_json: bool) -> None:
    """The end of a search: its leaderboard, how it went, and what to type next."""
    if as_json:
        print_json({**asdict(outcome), "rows": [asdict(row) for row in outcome.rows]})
        return
    console.print(leaderboard_table(outcome.rows, outcome.noise_bpb, console.width))
    rejected = sum(outcome.funnel["rejected"].values())
    console.print(
        f"{outcome.funnel['proposed']} proposed, {outcome.funnel['duplicates']} duplicates, "
        f"{rejected} rejected, {outcome.funnel['sound']} sound, {outcome.funnel['measured']} "
        f"measured, in {duration(outcome.elapsed_s)}: {outcome.reason}.",
        highlight=False,
    )
    found = outcome.rank_correlations, outcome.winners_curse, outcome.comparisons
    for line in (*finding_lines(*found), *outcome.cautions):
        print_plain(console, line)
    store = f" --store {outcome.store}"
    print_plain(console, f"run        {outcome.run_id} ({outcome.state})")
    print_plain(console, f"resume     launch-search --resume {outcome.run_id}{store}")
    print_plain(console, f"dashboard  linearch dashboard{store}")


def print_plain(console: Console, text: str) -> None:
    """A line that stays one line and carries no markup, so that it can be copied."""
    console.print(printable(text), highlight=False, markup=False, soft_wrap=True)


def printable(text: str) -> str:
    """`text` without control characters, which a terminal would obey; line breaks stay."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def plain_cell(text: str) -> Text:
    """A table's cell that shows names and reasons as they are: they are data, not markup."""
    return Text(printable(text))


def leaderboard_table(
    rows: Iterable[LeaderboardRow], noise_bpb: dict[int, float], width: int
) -> Table:
    """Scored rows, best first; rows that the noise cannot tell apart share a rank, marked `=`.

    `width` in characters decides how many columns are shown.
    """
    scored = [row for row in rows if row.val_bpb is not None]
    noise = ", ".join(f"rung {rung} ± {value:.3f}" for rung, value in sorted(noise_bpb.items()))
    table = Table(
        title="Validation bits per byte, lower is better",
        caption=f"seed noise: {noise or 'not measured'}; = tied within it; cyan: baselines",
        header_style="bold",
        box=SIMPLE_HEAD,
    )
    columns = [
        column
        for column in _COLUMNS
        if width >= column.needs_width
        and (column.only_with is None or _is_known_of(scored, column.only_with))
    ]
    groups = Counter(row.tie for row in scored)
    lines = [
        [plain_cell(column.cell(row, groups[row.tie] > 1)) for column in columns] for row in scored
    ]
    for place, column in enumerate(columns):
        widest = max((len(line[place]) for line in lines), default=0)
        # Where there is no room for all, a name is cut and a number never.
        is_name = column.heading == "name"
        table.add_column(
            column.heading,
            justify=column.justify,
            no_wrap=not is_name,
            overflow="ellipsis",
            min_width=None if is_name else max(widest, len(column.heading)),
        )
    for row, line in zip(scored, lines, strict=True):
        style = "dim cyan" if row.is_reference else "cyan" if row.is_baseline else ""
        table.add_row(*line, style=style)
    return table


def _is_known_of(rows: Iterable[LeaderboardRow], field: str) -> bool:
    return any(getattr(row, field) not in (None, {}) for row in rows)


def unscored_table(rows: Iterable[LeaderboardRow]) -> Table:
    """What has no score, and why."""
    table = Table(title="Without a score", header_style="bold")
    for heading in ("name", "by", "state", "why", "id"):
        table.add_column(heading)
    for row in rows:
        if row.val_bpb is None:
            why = f"{row.rejected_by}: {row.reason}" if row.rejected_by else row.reason or _DASH
            cells = (row.name, row.origin, row.state, why, row.id)
            table.add_row(*map(plain_cell, cells))
    return table


def runs_table(runs: Sequence[RunRow], funnels: Sequence[Any]) -> Table:
    """The runs of a store, newest first."""
    table = Table(header_style="bold")
    for heading in ("run", "started", "profile", "proposer", "state", "why", "took"):
        table.add_column(heading)
    table.add_column("measured", justify="right")
    for run, funnel in zip(runs, funnels, strict=True):
        table.add_row(
            run.id,
            f"{run.created_at:%Y-%m-%d %H:%M}",
            str(run.config.get("profile", _DASH)),
            plain_cell(run.name or str(run.config.get("proposer", {}).get("kind", _DASH))),
            run.state,
            plain_cell(run.stop_reason or _DASH),
            duration(run.elapsed_s),
            str(funnel.measured),
        )
    return table


def print_detail(detail: ArchitectureDetail, console: Console) -> None:
    """One architecture: what it is, how it was judged, what it scored, and its code."""
    row = detail.architecture
    print_plain(console, f"{row.name}  ({row.id}, {row.origin}, {row.state})")
    for text in (row.motivation, row.expectation, row.reason):
        if text:
            print_plain(console, text)
    for kind, relatives in (("parents", detail.parents), ("children", detail.children)):
        if relatives:
            named = ", ".join(f"{relative.name} ({relative.kind})" for relative in relatives)
            print_plain(console, f"{kind}: {named}")
    console.print(_gates_table(detail))
    if detail.trials:
        console.print(_trials_table(detail))
    console.print(Syntax(row.source, "python", theme="ansi_light", background_color="default"))


def print_plan(plan: Plan, *, as_json: bool) -> None:
    """What --dry-run shows: work, model calls with their price, settings, the first prompt."""
    if as_json:
        print_json(asdict(plan))
        return
    wanted = "no limit" if plan.n_candidates is None else str(plan.n_candidates)
    print(f"device       {plan.device}")
    print(f"baselines    {plan.n_baselines}")
    print(f"candidates   {wanted}")
    print(f"trials       at most {_whole(plan.n_trials_at_most)}")
    print(f"tokens       at most {_whole(plan.tokens_at_most)}")
    print(f"rates        {_rates(plan)}")
    if plan.llm_calls is not None:
        least, most = plan.llm_calls
        usd = plan.llm_usd
        price = f"${usd[0]:.2f} to ${usd[1]:.2f}" if usd else "cost unknown: no prices configured"
        print(f"model calls  {least:,} to {most:,} ({price})")
    print("settings")
    print(json.dumps(plan.config, indent=2))
    if plan.first_prompt is not None:
        print("first prompt")
        print(plan.first_prompt)


def _rates(plan: Plan) -> str:
    rates = plan.config["training"]["learning_rates"]
    if len(rates) > 1:
        return f"{len(rates)} on rung 0 for each architecture, the best of them above it"
    return "one for all, which is no grid: what wants another looks worse than it is"


def print_replay_hint(which: str, store: str | None) -> None:
    """How to load an architecture in Python."""
    given = f", store={store!r}" if store else ""
    print("import linearch")
    print(f"Mixer = linearch.load_mixer({which!r}{given})")
    print(f"model = linearch.load_model({which!r}, weights=True{given})")


def print_verification(found: Verification) -> None:
    """All numbers twice, how near they had to be, and what differs around them."""
    print(f"{found.name} (trial {found.trial_id})")
    for number in found.numbers:
        repeated = _fixed(number.repeated, ".6f")
        verdict = "reproduced" if number.is_reproduced else "NOT reproduced"
        allowed = _fixed(number.tolerance, ".2g")
        print(f"{number.metric}: stored {number.stored:.6f}, repeated {repeated}: {verdict}")
        print(f"    allowed difference {allowed}")
    for name, (then, now) in found.differences.items():
        print(f"differs: {name} was {then}, is {now}")
    if found.reason:
        print(found.reason)


def print_findings(findings: Iterable[Finding]) -> None:
    """One line for each thing looked at."""
    for finding in findings:
        print(f"{'ok  ' if finding.is_ok else 'FAIL'}  {finding.subject:8} {finding.text}")


def size(n_bytes: float | None) -> str:
    """`1.5 KiB`, `12 MiB`, or a dash where unknown."""
    if n_bytes is None:
        return _DASH
    for unit in ("B", "KiB", "MiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.1f} GiB"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Column:
    """A leaderboard column; `cell` gets the row and whether its rank is shared. `only_with` names
    what some row must have for the column to be shown."""

    heading: str
    cell: Callable[[LeaderboardRow, bool], str]
    needs_width: int = 0
    only_with: str | None = None
    justify: Literal["left", "right"] = "right"


def _rank(row: LeaderboardRow, is_tied: bool) -> str:
    return _DASH if row.rank is None else f"{'=' if is_tied else ''}{row.rank}"


def _score(row: LeaderboardRow) -> str:
    """With half the 95 % interval that the seed noise leaves to the mean."""
    if row.val_bpb is None or row.val_bpb_high is None:
        return _fixed(row.val_bpb, ".3f")
    return f"{row.val_bpb:.3f} ±{row.val_bpb_high - row.val_bpb:.3f}"


def _recalled(row: LeaderboardRow) -> str:
    """`mqar 83%, parity 51%`: the shares of right answers on the first few."""
    said = [f"{task} {share:.0%}" for task, share in row.recall.items()]
    more = [f"{len(said) - _FEW} more"] if len(said) > _FEW else []
    return ", ".join([*said[:_FEW], *more]) or _DASH


def _origin(row: LeaderboardRow, is_tied: bool) -> str:
    del is_tied
    return "reference" if row.is_reference else row.origin


_COLUMNS = (
    _Column(heading="rank", cell=_rank),
    _Column(heading="name", cell=lambda row, _: row.name, justify="left"),
    _Column(heading="by", cell=_origin, justify="left", needs_width=105),
    _Column(heading="rung", cell=lambda row, _: _whole(row.rung)),
    _Column(heading="val_bpb", cell=lambda row, _: _score(row)),
    _Column(
        heading="test_bpb", cell=lambda row, _: _fixed(row.test_bpb, ".3f"), only_with="test_bpb"
    ),
    _Column(
        heading="fitness", cell=lambda row, _: _fixed(row.fitness, "+.2f"), only_with="fitness"
    ),
    _Column(heading="seeds", cell=lambda row, _: _whole(row.n_seeds), needs_width=175),
    _Column(heading="Δ baseline", cell=lambda row, _: _fixed(row.delta, "+.3f"), needs_width=140),
    _Column(
        heading="tasks", cell=lambda row, _: _recalled(row), needs_width=150, only_with="recall"
    ),
    _Column(heading="params", cell=lambda row, _: _whole(row.n_params), needs_width=127),
    _Column(heading="kFLOP/token", cell=lambda row, _: _kilo(row.flops_per_token), needs_width=200),
    _Column(heading="state", cell=lambda row, _: size(row.state_bytes)),
    _Column(heading="tokens/s", cell=lambda row, _: _whole(row.tokens_per_s)),
    _Column(heading="ms/decoded", cell=lambda row, _: _milli(row.decode_time_s), needs_width=226),
    _Column(heading="memory", cell=lambda row, _: size(row.peak_memory_bytes), needs_width=215),
    _Column(heading="id", cell=lambda row, _: row.id, justify="left", needs_width=190),
)


def _gates_table(detail: ArchitectureDetail) -> Table:
    from .evaluator.evidence import evidence_in_words

    table = Table(title="Gates", header_style="bold", title_justify="left")
    for heading in ("stage", "gate", "verdict", "seconds", "evidence"):
        table.add_column(heading)
    for gate in detail.gates:
        seconds = _DASH if gate.duration_s is None else f"{gate.duration_s:.2f}"
        evidence = plain_cell(evidence_in_words(gate))
        table.add_row(gate.stage, gate.gate, _VERDICTS[gate.passed], seconds, evidence)
    return table


def _trials_table(detail: ArchitectureDetail) -> Table:
    table = Table(title="Trials", header_style="bold", title_justify="left")
    headings = ("trial", "for", "task", "rung", "tokens", "seed", "lr", "state", "result", "device")
    for heading in headings:
        table.add_column(heading)
    for item in detail.trials:
        trial = item.trial
        shown = (f"{name} {_short(value)}" for name, value in sorted(item.metrics.items()))
        table.add_row(
            trial.id,
            trial.purpose or _DASH,
            trial.task,
            str(trial.rung),
            f"{trial.tokens:,}",
            str(trial.seed),
            f"{trial.learning_rate:g}",
            trial.status or trial.state,
            plain_cell(trial.reason or ", ".join(shown)),
            trial.device or _DASH,
        )
    return table


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _fixed(value: float | None, form: str) -> str:
    return _DASH if value is None else format(value, form)


def _kilo(value: float | None) -> str:
    return _whole(None if value is None else value / 1000)


def _milli(value: float | None) -> str:
    return _DASH if value is None else f"{1000 * value:,.2f}"


def _whole(value: float | None) -> str:
    return _DASH if value is None else f"{value:,.0f}"


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not plain data")
