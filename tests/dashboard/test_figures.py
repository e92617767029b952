"""What the figures draw, read from their traces."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from linearch.dashboard.figures import Noise, noise_of
from linearch.dashboard.leaderboard_figures import pareto_figure, score_figure
from linearch.dashboard.lineage_figure import ancestry, generations, lineage_figure, pruned
from linearch.dashboard.progress_figures import (
    best_baseline_at,
    best_figure,
    funnel_figure,
    rejections_figure,
)
from linearch.dashboard.trial_views import curve_figure
from linearch.db import CURVE, LeaderboardRow, Lineage, LineageEdge, LineageNode, Store


def _trace(figure: Any, name: str) -> Any:
    return next(trace for trace in figure.data if trace.name == name)


@pytest.fixture
def top(rows: tuple[LeaderboardRow, ...]) -> list[LeaderboardRow]:
    """What was scored on the highest rung."""
    return [row for row in rows if row.rung == 1]


@pytest.fixture
def noise(store: Store, run: Any) -> Noise:
    return noise_of(store.queries.statistics(run.run_id, "noise_floor"), "gated_deltanet")[1]


def test_the_noise_band_lies_around_its_baseline(top: list[LeaderboardRow], noise: Noise) -> None:
    figure = score_figure(top, noise)
    band, line = figure.layout.shapes
    assert (band.x0 + band.x1) / 2 == pytest.approx(line.x0)
    assert (band.x1 - band.x0) / 2 == pytest.approx(noise.resolution)


def test_error_bars_are_the_stored_intervals(top: list[LeaderboardRow], noise: Noise) -> None:
    trace = _trace(score_figure(top, noise), "candidate")
    by_id = {row.id: row for row in top}
    for id_, above, below in zip(
        trace.customdata, trace.error_x.array, trace.error_x.arrayminus, strict=True
    ):
        row = by_id[id_]
        assert above == pytest.approx(row.delta_high - row.delta)
        assert below == pytest.approx(row.delta - row.delta_low)


def test_without_a_noise_floor_no_band_is_drawn(top: list[LeaderboardRow]) -> None:
    assert not score_figure(top, None).layout.shapes


def test_the_front_is_the_rows_of_pareto_rank_zero(top: list[LeaderboardRow]) -> None:
    figure = pareto_figure(top, "state_bytes", ["val_bpb", "state_bytes"])
    front = _trace(figure, "Pareto front")
    wanted = [row.val_bpb for row in top if row.pareto_rank == 0]
    assert sorted(front.y) == sorted(wanted)
    assert front.mode == "markers+lines"


def test_a_front_over_other_objectives_is_not_joined(top: list[LeaderboardRow]) -> None:
    figure = pareto_figure(top, "state_bytes", ["val_bpb", "state_bytes", "tokens_per_s"])
    assert _trace(figure, "Pareto front").mode == "markers"


def test_a_missing_cost_is_not_drawn_as_zero(top: list[LeaderboardRow]) -> None:
    rows = [replace(top[0], recall={}), replace(top[1], recall={"mqar": 0.4})]
    figure = pareto_figure(rows, "recall_mqar", ["val_bpb"])
    drawn = [x for trace in figure.data if trace.name != "Pareto front" for x in trace.x]
    assert drawn == [0.4]


def test_a_name_cannot_bring_markup_into_a_figure(top: list[LeaderboardRow]) -> None:
    figure = score_figure([replace(top[0], name="<a href='x'>y</a>")], None)
    assert figure.layout.yaxis.ticktext == ("&lt;a href=&#x27;x&#x27;&gt;y&lt;/a&gt;",)


def _node(number: int, **changes: Any) -> LineageNode:
    facts: dict[str, Any] = {
        "id": str(number),
        "number": number,
        "name": f"n{number}",
        "origin": "grammar",
        "state": "measured",
        "is_reference": False,
        "rung": 1,
        "val_bpb": 2.0 + number / 10,
    }
    return LineageNode(**{**facts, **changes})


@pytest.fixture
def family() -> Lineage:
    """1 and 2 have the child 3, which has the child 4; 5 stands alone and was rejected."""
    edges = [("1", "3"), ("2", "3"), ("3", "4"), ("elsewhere", "4")]
    return Lineage(
        nodes=(
            *(_node(number) for number in (1, 2, 3, 4)),
            _node(5, state="rejected", rung=None, val_bpb=None),
        ),
        edges=tuple(
            LineageEdge(parent_id=parent, child_id=child, kind="crossover")
            for parent, child in edges
        ),
    )


def test_a_generation_is_one_more_than_the_latest_parents(family: Lineage) -> None:
    assert generations(family) == {"1": 0, "2": 0, "3": 1, "4": 2, "5": 0}


def test_pruning_keeps_an_architecture_with_all_it_descends_from(family: Lineage) -> None:
    assert ancestry(family, ["3"]) == {"1", "2", "3"}
    kept = pruned(family, ["3"])
    assert [node.id for node in kept.nodes] == ["1", "2", "3"]
    assert [(edge.parent_id, edge.child_id) for edge in kept.edges] == [("1", "3"), ("2", "3")]


def test_the_lineage_draws_every_node_once_and_only_edges_it_knows(family: Lineage) -> None:
    figure = lineage_figure(family, {"1": "because"}, best_id="4")
    drawn = [id_ for trace in figure.data if trace.mode == "markers" for id_ in trace.customdata]
    assert sorted(drawn) == ["1", "2", "3", "4", "5"]
    assert len(_trace(figure, "crossover").x) == 3 * 3  # two ends and a gap
    assert [note.text for note in figure.layout.annotations] == ["n4"]
    hovers = [text for trace in figure.data for text in trace.hovertext or ()]
    assert any("because" in text for text in hovers)


def test_best_so_far_never_rises(store: Store, run: Any, noise: Noise) -> None:
    points = store.queries.best_so_far(run.run_id, 1)
    rows = store.queries.leaderboard(run.run_id)
    figure = best_figure(points, noise, best_baseline_at(rows, 1))
    best = list(_trace(figure, "best so far").y)
    assert best == sorted(best, reverse=True)
    assert best[-1] == min(_trace(figure, "candidate").y)


def test_the_best_baseline_is_no_reference(rows: tuple[LeaderboardRow, ...]) -> None:
    assert best_baseline_at(rows, 1) == ("gated_deltanet", pytest.approx(2.541))
    references = [row for row in rows if row.is_reference]
    assert best_baseline_at(references, 1) is None


def test_the_funnel_narrows_from_proposed_to_measured(store: Store, run: Any) -> None:
    funnel = store.queries.funnel(run.run_id)
    counts = list(funnel_figure(funnel).data[0].x)
    assert counts == [21, 19, 15, 12]  # one is in quarantine
    bars = rejections_figure(funnel.rejected).data[0]
    assert dict(zip(bars.y, bars.x, strict=True)) == {"causality": 2, "source": 1, "streaming": 1}


def test_a_curve_is_drawn_in_bits_or_nats(store: Store, rows: tuple[LeaderboardRow, ...]) -> None:
    trials = store.queries.architecture(rows[0].id).trials
    corpus = [item for item in trials if item.curves.get(CURVE)]
    bits, nats = (curve_figure(corpus, unit).data[0].y for unit in ("bits", "nats"))
    assert bits[0] == pytest.approx(nats[0] / math.log(2))
    assert len(bits) == 32
