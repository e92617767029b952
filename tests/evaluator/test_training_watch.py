"""A training is stopped for a loss that no sound one has, and not for one that comes back."""

from __future__ import annotations

import math

import pytest

from linearch.evaluator import training_watch
from linearch.evaluator.recipe import Recipe
from linearch.evaluator.stopped import TrialStopped
from linearch.evaluator.training_watch import TrainingWatch

UNIFORM_NATS = math.log(256)


def watch() -> TrainingWatch:
    recipe = Recipe(
        learning_rate=1e-3,
        total_steps=100,
        cooldown_steps=20,
        warmup_steps=10,
        weight_decay=0.1,
        betas=(0.9, 0.95),
        clip_norm=1.0,
        precision="fp32",
        seed=0,
        batch_size=4,
        seq_len=32,
    )
    return TrainingWatch(recipe, 256)


def hear(watch: TrainingWatch, *losses: float, first: int) -> None:
    for step, loss in enumerate(losses, first):
        watch.hear({"event": "progress", "step": step, "loss": loss})


def test_three_reports_in_a_row_far_above_uniform_guessing_are_a_divergence() -> None:
    far = UNIFORM_NATS + 5.1
    watched = watch()
    hear(watched, far, far, 3.0, far, far, first=11)
    with pytest.raises(TrialStopped, match=r"diverged.*exploded to 10\.65 nats"):
        hear(watched, far, first=16)
    assert watched.curve[-1] == (16 * 4 * 32, far)


def test_the_loss_of_the_warm_up_and_one_below_the_bar_stop_nothing() -> None:
    watched = watch()
    hear(watched, *[1e6] * 10, first=1)
    hear(watched, *[UNIFORM_NATS + 4.9] * 10, first=11)
    assert watched.step == 20


def test_patience_grows_with_what_a_report_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = iter((0.0, 2.0, 3.0, 13.0))
    monkeypatch.setattr(training_watch.time, "monotonic", lambda: next(now_s))
    watched = watch()
    watched.begin()
    assert watched.patience_s == 30.0
    hear(watched, 5.0, first=1)
    assert watched.patience_s == 100.0
    hear(watched, 5.0, 5.0, first=2)
    assert watched.patience_s == 100.0  # the median of 1, 2 and 10 s


def test_an_end_before_what_was_heard_or_beyond_the_last_step_is_not_believed() -> None:
    watched = watch()
    hear(watched, 5.0, first=7)
    for said in (3, 101, "8", True, None):
        watched.hear_end(said)
        assert watched.step == 7
    watched.hear_end(8)
    assert watched.step == 8
