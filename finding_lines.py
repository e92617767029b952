"""What a search found out, in sentences: how well its rungs rank, what luck the best had, and which
candidates are truly better than which baseline. docs/statistics.md explains every number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .db import StatisticRow

_CONFIDENCE = "95 %"
# What makes each pruner let more of a rung climb.
_PROMOTES_MORE = {
    "asha": "a higher ladder.promote_fraction",
    "successive_halving": "a lower ladder.reduction_factor",
    "hyperband": "a lower ladder.reduction_factor",
    "wilcoxon": "a lower ladder.wilcoxon_p",
}


def finding_lines(
    rank_correlations: Sequence[StatisticRow],
    winners_curse: Sequence[StatisticRow],
    comparisons: Sequence[StatisticRow],
) -> Iterator[str]:
    """All of a run's, in the order in which they are read."""
    yield from ranking_lines(rank_correlations)
    yield from curse_lines(winners_curse)
    yield from verdict_lines(comparisons)


def ranking_lines(found: Sequence[StatisticRow]) -> Iterator[str]:
    """How well each rung foretold the next, with what it means where it is not that it ranks."""
    by_rung: dict[int, dict[tuple[str, str], StatisticRow]] = defaultdict(dict)
    for row in found:
        detail = row.detail or {}
        if row.rung is not None and "population" in detail:
            by_rung[row.rung][detail["population"], detail["coefficient"]] = row
    for rung, rows in sorted(by_rung.items()):
        spearman = rows["all", "spearman"]
        if spearman.value is None:
            yield f"How well rung {rung} ranks is not measured: {spearman.n} reached the next."
            continue
        yield (
            f"Rung {rung} foretold the order on rung {rung + 1}: Spearman {_between(spearman)}, "
            f"Kendall {_between(rows['all', 'kendall'])}, "
            f"{_recalled(rows['all', 'top_recall'])}, over {spearman.n} architectures"
            f"{_stood_for(spearman.detail or {})}."
        )
        alone = rows["candidates", "spearman"]
        if alone.value is not None:
            yield f"  Among the {alone.n} candidates alone: Spearman {_between(alone)}."
        said = ranking_verdict(spearman)
        if said is not None:
            yield f"  {'WARNING: ' if not_ranking(spearman) else ''}{said}"


def not_ranking(row: StatisticRow) -> bool:
    """Whether a rung was shown not to rank, which is more than not shown to."""
    return _detail(row).get("verdict") == "does not rank"


def ranking_verdict(row: StatisticRow) -> str | None:
    """What follows from a rung's Spearman; None where it ranks, or was not judged."""
    detail = _detail(row)
    if not_ranking(row):
        return (
            f"Rung {row.rung} does not rank: what it prunes is close to chance. Train longer on it "
            f"(ladder.rung_tokens) or promote more of it ({_PROMOTES_MORE[detail['pruner']]})."
        )
    if detail.get("verdict") != "too few to say":
        return None
    needed, counted = detail["n_needed"], detail["n_effective"]
    decide = (
        f"at {row.value:.2f} about {needed} that weigh alike would decide"
        if needed is not None
        else f"at {row.value:.2f} no number within reach would decide"
    )
    uneven = (
        f"; the {row.n} count as {counted:.0f}, since few stand for many "
        "(ladder.random_promote_fraction draws more)"
        if counted < (row.n or 0) - 0.5
        else ""
    )
    return f"Too few to say whether rung {row.rung} ranks: {decide}{uneven}."


def curse_lines(found: Sequence[StatisticRow]) -> Iterator[str]:
    """What the best candidates' first scores owed to luck."""
    for row in found:
        if row.architecture_id is not None or row.value is None:
            continue
        who = "the best candidate" if row.n == 1 else f"the best {row.n} candidates"
        yield (
            f"Winner's curse: the first score of {who} minus the mean of fresh seeds is "
            f"{row.value:+.3f} bits per byte{_signed_interval(row)}; below zero it was flattered."
        )


def verdict_lines(found: Sequence[StatisticRow]) -> Iterator[str]:
    """Who is truly better than whom, or how many seeds would decide."""
    if not found:
        yield "No candidate can be compared: none, or no baseline, has seeds on the last rung."
        return
    by_candidate: dict[str, list[StatisticRow]] = defaultdict(list)
    for row in found:
        by_candidate[row.architecture_id or ""].append(row)
    groups = sorted(by_candidate.values(), key=_mean_delta)
    fresh = [rows for rows in groups if _detail(rows[0])["is_fresh"]]
    for rows in fresh or groups[:1]:
        yield _verdict(rows)
        yield from _on_windows(_hardest(rows))
    yield from _others([rows for rows in groups if not _detail(rows[0])["is_fresh"]])
    winners = [rows for rows in groups if all(_detail(row)["is_better"] for row in rows)]
    if winners:
        names = ", ".join(_detail(rows[0])["name"] for rows in winners)
        yield f"Truly better than every baseline: {names}."
    else:
        yield _none_is_better(fresh or groups[:1])


def _verdict(rows: list[StatisticRow]) -> str:
    first = _detail(rows[0])
    evidence = (
        f"{rows[0].n} fresh seed{'s' if rows[0].n != 1 else ''}"
        if first["is_fresh"]
        else "the score it was chosen by"
    )
    better = [_detail(row)["baseline"] for row in rows if _detail(row)["is_better"]]
    worse = [_detail(row)["baseline"] for row in rows if _detail(row)["is_worse"]]
    parts = [f"truly better than {', '.join(better)}"] if better else []
    parts += [f"truly worse than {', '.join(worse)}"] if worse else []
    open_ones = sorted(
        (row for row in rows if _detail(row)["baseline"] not in {*better, *worse}),
        key=lambda row: row.value or 0.0,
    )
    if open_ones:
        parts.append("undecided against " + ", ".join(map(_undecided, open_ones)))
    return (
        f"{first['name']} by {evidence} ({_CONFIDENCE}, corrected for {first['n_comparisons']} "
        f"comparisons{_pairing(rows)}): {'; '.join(parts)}."
    )


def _pairing(rows: list[StatisticRow]) -> str:
    """With whom it was compared seed by seed, on the same batches."""
    paired = [_detail(row)["baseline"] for row in rows if _detail(row).get("is_paired")]
    return f"; seed by seed with {', '.join(paired)}" if paired else ""


def _on_windows(row: StatisticRow) -> Iterator[str]:
    detail = _detail(row)
    found = detail.get("windows")
    if found is not None:
        yield (
            f"  Against {detail['baseline']} on the same {detail['n_windows']} windows: "
            f"{found['delta']:+.3f} ({_CONFIDENCE} {found['low']:+.3f} to {found['high']:+.3f}), "
            "which holds for these weights and not for other seeds."
        )


def _hardest(rows: list[StatisticRow]) -> StatisticRow:
    """The comparison with the baseline that is hardest to beat."""
    return min(rows, key=lambda row: _detail(row)["baseline_bpb"])


def _undecided(row: StatisticRow) -> str:
    seeds = _detail(row)["seeds_needed"]
    needs = f", {seeds} seeds each would decide" if seeds is not None else ""
    return f"{_detail(row)['baseline']} ({row.value:+.3f}{needs})"


def _others(groups: list[list[StatisticRow]]) -> Iterator[str]:
    """The candidates without fresh seeds that are better than something all the same."""
    if not groups:
        return
    n_better = sum(any(_detail(row)["is_better"] for row in rows) for rows in groups)
    first = _detail(groups[0][0])
    yield (
        f"Of {len(groups)} candidate{'s' if len(groups) > 1 else ''} with one score, {n_better} "
        f"{'is' if n_better == 1 else 'are'} truly better than some "
        f"baseline, corrected for all {first['n_candidates']} tried "
        f"({first['n_comparisons']} comparisons)."
    )


def _none_is_better(groups: list[list[StatisticRow]]) -> str:
    """About the candidate that is nearest to it, and the baseline that is hardest to beat."""
    best = groups[0]
    hardest = _hardest(best)
    seeds = _detail(hardest)["seeds_needed"]
    decide = (
        f"about {seeds} seeds each would decide if the difference of {hardest.value:+.3f} is real"
        if seeds is not None
        else f"at a difference of {hardest.value:+.3f} more seeds would not help"
    )
    name, rival = _detail(hardest)["name"], _detail(hardest)["baseline"]
    return f"No candidate is truly better than every baseline. {name} against {rival}: {decide}."


def _mean_delta(rows: list[StatisticRow]) -> float:
    return sum(row.value or 0.0 for row in rows) / len(rows)


def _detail(row: StatisticRow) -> dict[str, Any]:
    return row.detail or {}


def _between(row: StatisticRow) -> str:
    if row.value is None:
        return "unknown"
    if row.low is None or row.high is None:
        return f"{row.value:.2f}"
    return f"{row.value:.2f} ({_CONFIDENCE} {row.low:.2f} to {row.high:.2f})"


def _signed_interval(row: StatisticRow) -> str:
    if row.low is None or row.high is None:
        return ""
    return f" ({_CONFIDENCE} {row.low:+.3f} to {row.high:+.3f})"


def _recalled(row: StatisticRow) -> str:
    if row.value is None or row.low is None or row.high is None:
        return "recall of the best unknown"
    return (
        f"{row.value:.0%} of the best {_detail(row)['top']} found "
        f"({_CONFIDENCE} {row.low:.0%} to {row.high:.0%})"
    )


def _stood_for(detail: dict[str, Any]) -> str:
    pruned, drawn = detail["n_pruned"], detail["n_drawn"]
    if not pruned:
        return ""
    if not drawn:
        return f"; none of the {pruned} pruned was measured there, so of them it says nothing"
    return f", {drawn} of them drawn by lot from the {pruned} pruned and standing for all of these"
