"""A grid of rates grows beyond the edge that its best rate stands at, by its own spacing."""

from __future__ import annotations

import pytest

from linearch.agents.board import Candidate, Trial, TrialKey
from linearch.agents.rates import edge_rate, is_grid_complete, rates_of
from linearch.config import RunConfig, TrainingConfig

GRID = (1e-3, 2e-3, 4e-3)


def config(*rates: float, widen: int = 2) -> RunConfig:
    return RunConfig(training=TrainingConfig(learning_rates=rates, widen_rates=widen))


def candidate(scores: dict[float, float | None]) -> Candidate:
    who = Candidate(
        id="one",
        name="one",
        motivation="",
        source="",
        origin="grammar",
        pattern="L",
        is_reference=False,
        genome=None,
        parent_ids=(),
    )
    for rate, val_bpb in scores.items():
        key = TrialKey(task="corpus", rung=0, seed=0, learning_rate=rate)
        state = "failed" if val_bpb is None else "done"
        who.trials[key] = Trial(
            id=str(rate), key=key, tokens=1, state=state, metrics={"val_bpb": val_bpb}
        )
    return who


@pytest.mark.parametrize(
    ("scores", "added"),
    [
        ((2.0, 2.1, 2.2), [5e-4]),
        ((2.2, 2.1, 2.0), [8e-3]),
        ((2.1, 2.0, 2.2), []),
        ((None, 2.0, 2.1), []),
        ((2.0, None, None), [5e-4]),
        ((None, None, None), []),
    ],
)
def test_the_grid_grows_at_the_edge_that_is_best(
    scores: tuple[float | None, ...], added: list[float]
) -> None:
    who = candidate(dict(zip(GRID, scores, strict=True)))
    assert sorted(rates_of(who, config(*GRID))) == sorted([*GRID, *added])
    assert is_grid_complete(who, config(*GRID)) is not bool(added)


def test_the_grid_waits_for_its_last_trial_and_stops_when_the_best_is_inside() -> None:
    grid = config(*GRID)
    assert rates_of(candidate({1e-3: 2.0, 2e-3: 2.1}), grid) == GRID
    scores = {1e-3: 2.2, 2e-3: 2.1, 4e-3: 2.0, 8e-3: 1.9}
    assert rates_of(candidate(scores), grid) == (*GRID, 8e-3, 1.6e-2)
    inside = candidate({**scores, 1.6e-2: 2.5})
    assert rates_of(inside, grid) == (*GRID, 8e-3, 1.6e-2)
    assert is_grid_complete(inside, grid)
    still_falling = candidate({**scores, 1.6e-2: 1.8})
    assert rates_of(still_falling, grid) == (*GRID, 8e-3, 1.6e-2)


@pytest.mark.parametrize(
    ("scores", "edge"),
    [
        ({8e-3: 1.9, 1.6e-2: 1.8}, 1.6e-2),  # widened as often as it may be, and still falling
        ({8e-3: 1.9, 1.6e-2: 2.5}, None),  # inside
        ({8e-3: 1.9, 1.6e-2: None}, None),  # what lies beyond was tried, and failed
        ({8e-3: 1.9}, None),  # not known yet
    ],
)
def test_a_best_rate_at_the_edge_of_a_complete_grid_is_told(
    scores: dict[float, float | None], edge: float | None
) -> None:
    who = candidate({1e-3: 2.2, 2e-3: 2.1, 4e-3: 2.0, **scores})
    assert edge_rate(who, config(*GRID)) == edge


def test_one_rate_is_no_grid_and_widening_can_be_switched_off() -> None:
    assert rates_of(candidate({1e-3: 2.0}), config(1e-3)) == (1e-3,)
    assert edge_rate(candidate({1e-3: 2.0}), config(1e-3)) is None
    falling = candidate(dict(zip(GRID, (2.2, 2.1, 2.0), strict=True)))
    assert rates_of(falling, config(*GRID, widen=0)) == GRID
