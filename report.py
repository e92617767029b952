"""A run as one document: where it ran, every architecture, every trial, and what it all says.

The facts are plain data that can be kept as JSON. Its Markdown is made of nothing else, so a page
and the file behind it cannot disagree.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from .errors import LinearchError
from .finding_lines import finding_lines
from .progress import duration

if TYPE_CHECKING:
    from .db import ArchitectureDetail, RunRow, Store

_DASH = "–"
_OF_A_TRIAL = ("id", "task", "rung", "tokens", "seed", "learning_rate", "state", "reason", "device")
_SAID_BY_MIXERS = ("proposer.kind", "budget.max_candidates")
_STATISTICS = ("rank_correlation", "winners_curse", "comparison")
_OF_A_ROW = (
    "id", "name", "origin", "is_reference", "family", "rank", "tie", "rung", "val_bpb",
    "val_bpb_low", "val_bpb_high", "n_seeds", "val_bpb_by_rung", "delta", "test_bpb", "n_params",
    "flops_per_token", "state_bytes", "tokens_per_s", "decode_time_s",
    "peak_memory_bytes", "learning_rate",
)  # fmt: skip


def facts(store: Store, run: RunRow) -> dict[str, Any]:
    """Everything a reader needs to judge the numbers and to repeat each from its trial."""
    from .agents.cautions import cautions

    rows = [row for row in store.queries.leaderboard(run.id) if row.val_bpb is not None]
    details = [store.queries.architecture(row.id) for row in rows]
    statistics = {
        name: [asdict(row) for row in store.queries.statistics(run.id, name)]
        for name in (*_STATISTICS, "noise_floor")
    }
    return {
        "run": run.id,
        "command": _command(run),
        "created_at": run.created_at.isoformat(),
        "elapsed_s": run.elapsed_s,
        "state": run.state,
        "versions": run.versions,
        "machine": _machine(details),
        "architectures": [
            {**{name: getattr(row, name) for name in _OF_A_ROW}, "trials": list(_trials(detail))}
            for row, detail in zip(rows, details, strict=True)
        ],
        "statistics": statistics,
        "cautions": list(cautions(store, run.id)),
    }


def read_facts(file: Path) -> dict[str, Any]:
    """What `linearch report --json` wrote; raises LinearchError for another file."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise LinearchError(f"{file} cannot be read as a report: {error}") from None
    if not isinstance(found, dict) or "architectures" not in found:
        raise LinearchError(f"{file} is no report; `linearch report RUN --json` writes one.")
    return found


def markdown(found: Mapping[str, Any]) -> str:
    """The facts as a page: how they were got, a table of the architectures, what is found."""
    from .db import StatisticRow

    statistics = {
        name: [StatisticRow(**row) for row in rows] for name, rows in found["statistics"].items()
    }
    lines = [
        f"    {found['command']}",
        "",
        f"Run {found['run']}, {found['created_at'][:10]}, {_where(found)}, {_length(found)}.",
        "",
        *_table(found["architectures"]),
        "",
        f"Seed noise of one training: {_noise(statistics['noise_floor'])}.",
        *(
            f"\n{line.strip()}"
            for line in finding_lines(*(statistics[name] for name in _STATISTICS))
        ),
        *(f"\n{line}" for line in found.get("cautions", ())),
        "",
        "Each number again from its trial: `linearch replay ID --verify`.",
    ]
    return "\n".join(lines)


def _command(run: RunRow) -> str:
    """What starts the same run; settings that the profile has are left out."""
    from .config import load_config

    profile = run.config["profile"]
    usual = _flat(load_config(profile).model_dump(mode="json"))
    others = {
        name: value
        for name, value in _flat(run.config).items()
        if name in usual and usual[name] != value
    }
    mixers = [f"--mixer {Path(file).name}" for file in others.pop("proposer.files", ())]
    if mixers:
        others = {name: others[name] for name in others if name not in _SAID_BY_MIXERS}
    settings = [f"--set {name}='{json.dumps(value)}'" for name, value in sorted(others.items())]
    return " ".join([f"launch-search --profile {profile}", *mixers, *settings])


def _flat(table: Mapping[str, Any], under: str = "") -> dict[str, Any]:
    """By dotted name; lists and the tables of tasks' sizes are values."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        dotted = f"{under}{name}"
        if isinstance(value, Mapping) and dotted != "recall.sizes":
            flat.update(_flat(value, f"{dotted}."))
        else:
            flat[dotted] = list(value) if isinstance(value, tuple) else value
    return flat


def _machine(details: Sequence[ArchitectureDetail]) -> str | None:
    """What the trials ran on, by their own word; None before the first."""
    trials = (item.trial for detail in details for item in detail.trials)
    return next((str(t.environment["machine"]) for t in trials if t.environment), None)


def _trials(detail: ArchitectureDetail) -> Iterator[dict[str, Any]]:
    for item in detail.trials:
        yield {
            **{name: getattr(item.trial, name) for name in _OF_A_TRIAL},
            "metrics": item.metrics,
        }


def _where(found: Mapping[str, Any]) -> str:
    torch = found["versions"].get("torch", "of an unknown version")
    return f"{found['machine'] or 'an unknown machine'}, torch {torch}"


def _length(found: Mapping[str, Any]) -> str:
    elapsed_s = found["elapsed_s"]
    return found["state"] if elapsed_s is None else f"{found['state']} in {duration(elapsed_s)}"


def _table(architectures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rungs = sorted({int(rung) for row in architectures for rung in row["val_bpb_by_rung"]})
    tasks = sorted({trial["task"] for row in architectures for trial in row["trials"]} - {"corpus"})
    headings = ["rank", "architecture", "by", *(f"rung {rung}" for rung in rungs), *tasks]
    headings += ["seeds", "parameters", "MFLOP/token", "state, KiB", "k tokens/s"]
    headings += ["decoding, ms a token", "peak, MiB"]
    tied = [row["tie"] for row in architectures]
    yield f"| {' | '.join(headings)} |"
    yield "|" + "---|" * len(headings)
    for row in architectures:
        cells = [
            _rank(row, tied.count(row["tie"]) > 1),
            row["name"].replace("|", "\\|"),
            "reference" if row["is_reference"] else row["origin"],
            *(_score(row, rung) for rung in rungs),
            *(_solved(row, task) for task in tasks),
            str(row["n_seeds"]),
            f"{row['n_params']:,}",
            _scaled(row.get("flops_per_token"), 1_000_000, 2),
            _scaled(row["state_bytes"], 1024, 1),
            _scaled(row["tokens_per_s"], 1000, 0),
            _scaled(row.get("decode_time_s"), 1e-3, 2),
            _scaled(row.get("peak_memory_bytes"), 1 << 20, 0),
        ]
        yield f"| {' | '.join(cells)} |"


def _rank(row: Mapping[str, Any], is_tied: bool) -> str:
    return _DASH if row["rank"] is None else f"{'=' if is_tied else ''}{row['rank']}"


def _score(row: Mapping[str, Any], rung: int) -> str:
    """The mean on a rung; on the last that was reached with half the interval."""
    by_rung = {int(name): value for name, value in row["val_bpb_by_rung"].items()}
    value = by_rung.get(rung)
    if value is None:
        return _DASH
    if rung != row["rung"] or row["val_bpb_high"] is None:
        return f"{value:.3f}"
    return f"{value:.3f} ± {row['val_bpb_high'] - row['val_bpb']:.3f}"


def _solved(row: Mapping[str, Any], task: str) -> str:
    """The share of right answers at the best rate: the mean over seeds, and from where to where."""
    from .db import best_shares

    measured = (
        (trial["rung"], trial["learning_rate"], trial["metrics"].get(f"recall_{task}"))
        for trial in row["trials"]
    )
    shares = best_shares(recall for recall in measured if recall[-1] is not None)
    if not shares:
        return _DASH
    around = f" ({min(shares):.0%} to {max(shares):.0%})" if len(shares) > 1 else ""
    return f"{fmean(shares):.0%}{around}"


def _scaled(value: float | None, unit: float, digits: int) -> str:
    return _DASH if value is None else f"{value / unit:,.{digits}f}"


def _noise(rows: Sequence[Any]) -> str:
    known = [row for row in rows if row.rung is not None and row.value is not None]
    said = ", ".join(f"± {row.value:.3f} on rung {row.rung}" for row in known)
    return said or "not measured"
