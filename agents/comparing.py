"""Each candidate on the last rung against each baseline there: by which seeds, and paired or not.

The rule is fixed beforehand. Fresh seeds alone speak for a candidate that has any; the difference
is paired where it has two or more and each is the baseline's too, and unpaired elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..db import LeaderboardRow, Score, StatisticRow
from ..evaluator.comparison import Comparison, SeedNoise, compare, pool_seed_noise
from ..evaluator.paired import (
    WindowDifference,
    in_bits_per_byte,
    pool_paired_noise,
    window_difference,
)

_FEWEST_PAIRS = 2
_FEWEST_WINDOWS = 2

_Windows = Mapping[str, tuple[float, ...]]  # nats by trial


@dataclass(frozen=True, kw_only=True, slots=True)
class _Contest:
    """One candidate and one baseline: the scores that speak for each, and for how many
    candidates the comparison is corrected."""

    row: LeaderboardRow
    baseline: LeaderboardRow
    ours: dict[int, Score]  # by seed
    theirs: dict[int, Score]
    is_fresh: bool
    n_candidates: int
    n_comparisons: int

    @property
    def common(self) -> list[int]:
        return sorted(self.ours.keys() & self.theirs.keys())

    @property
    def can_be_paired(self) -> bool:
        return self.is_fresh and len(self.common) == len(self.ours) >= _FEWEST_PAIRS


def comparisons(
    rows: Sequence[LeaderboardRow],
    scores: Mapping[str, Score],
    windows: _Windows,
    everything: Sequence[LeaderboardRow],
) -> Iterator[StatisticRow]:
    """Corrected for all pairs of fresh candidates with baselines; a candidate without fresh seeds,
    by whose one score it may have been chosen, for all candidates that were tried, those pruned on
    a lower rung included."""
    unpaired = pool_seed_noise(row.val_bpb_values for row in rows)
    paired = pool_paired_noise([_bpb(_quoted(row, scores)) for row in rows])
    if unpaired is None:
        return
    n_tried = sum(not row.is_baseline and row.val_bpb is not None for row in everything)
    for contest in _contests(rows, scores, n_tried):
        yield _comparison_row(contest, unpaired, paired, _over_windows(contest, windows))


def _contests(
    rows: Sequence[LeaderboardRow], scores: Mapping[str, Score], n_tried: int
) -> Iterator[_Contest]:
    baselines = [row for row in rows if row.is_baseline and not row.is_reference]
    candidates = [row for row in rows if not row.is_baseline]
    fresh = {row.id: _fresh(_quoted(row, scores)) for row in candidates}
    n_fresh = sum(bool(found) for found in fresh.values())
    for row in candidates:
        n_candidates = n_fresh if fresh[row.id] else n_tried
        for baseline in baselines:
            yield _Contest(
                row=row,
                baseline=baseline,
                ours=fresh[row.id] or _quoted(row, scores),
                theirs=_quoted(baseline, scores),
                is_fresh=bool(fresh[row.id]),
                n_candidates=n_candidates,
                n_comparisons=n_candidates * len(baselines),
            )


def _comparison_row(
    contest: _Contest,
    unpaired: SeedNoise,
    paired: SeedNoise | None,
    over_windows: WindowDifference | None,
) -> StatisticRow:
    by_all = _compare(contest, unpaired, contest.theirs)
    found, noise = by_all, unpaired
    if is_paired := paired is not None and contest.can_be_paired:
        assert paired is not None
        noise = paired
        found = _compare(contest, noise, contest.common, is_paired=True)
    detail: dict[str, Any] = {
        "name": contest.row.name,
        "baseline": contest.baseline.name,
        "baseline_id": contest.baseline.id,
        "baseline_bpb": contest.baseline.val_bpb,
        "n_baseline": found.n_second,
        "is_fresh": contest.is_fresh,
        "is_paired": is_paired,
        "n_candidates": contest.n_candidates,
        "n_comparisons": found.n_comparisons,
        "sd": noise.sd,
        "freedom": noise.freedom,
        "is_better": found.is_better,
        "is_worse": found.is_worse,
        "seeds_needed": found.seeds_needed,
        "unpaired": _interval(by_all) if is_paired else None,
        "windows": None if over_windows is None else _interval(over_windows),
        "n_windows": None if over_windows is None else over_windows.n,
    }
    return StatisticRow(
        architecture_id=contest.row.id,
        rung=contest.row.rung,
        metric="val_bpb",
        value=found.delta,
        low=found.low,
        high=found.high,
        n=found.n_first,
        detail=detail,
    )


def _compare(
    contest: _Contest, noise: SeedNoise, their_seeds: Iterable[int], *, is_paired: bool = False
) -> Comparison:
    theirs = _bpb(contest.theirs)
    return compare(
        list(_bpb(contest.ours).values()),
        [theirs[seed] for seed in their_seeds],
        noise,
        n_comparisons=contest.n_comparisons,
        is_paired=is_paired,
    )


def _over_windows(contest: _Contest, windows: _Windows) -> WindowDifference | None:
    """The difference of the weights of the seeds that both have; None where their windows were not
    stored, or are too few to spread."""
    both = [(contest.ours[seed], contest.theirs[seed]) for seed in contest.common]
    known = [pair for pair in both if all(score.trial_id in windows for score in pair)]
    if not known:
        return None
    first, second = (
        [in_bits_per_byte(windows[score.trial_id], score.val_bpb or 0.0) for score in scores]
        for scores in zip(*known, strict=True)
    )
    if len({len(shares) for shares in (*first, *second)}) > 1 or len(first[0]) < _FEWEST_WINDOWS:
        return None
    return window_difference(first, second, n_comparisons=contest.n_comparisons)


def _interval(found: Comparison | WindowDifference) -> dict[str, float]:
    return {"delta": found.delta, "low": found.low, "high": found.high}


def _quoted(row: LeaderboardRow, scores: Mapping[str, Score]) -> dict[int, Score]:
    """The scores behind the row's number, by seed."""
    return {scores[id_].seed: scores[id_] for id_ in row.trial_ids}


def _fresh(quoted: Mapping[int, Score]) -> dict[int, Score]:
    return {seed: score for seed, score in quoted.items() if score.purpose == "fresh"}


def _bpb(by_seed: Mapping[int, Score]) -> dict[int, float]:
    return {seed: score.val_bpb for seed, score in by_seed.items() if score.val_bpb is not None}
