from __future__ import annotations

import random

import pytest

from linearch.evaluator.alarm import (
    effort_alarm,
    lzma_bits_per_byte,
    preparation_alarm,
    rival_alarm,
    text_alarm,
    time_alarm,
)


def test_text_without_order_takes_its_entropy_and_repetition_next_to_nothing() -> None:
    rng = random.Random(0)
    letters = bytes(rng.choices(b"abcdefghijklmnop", k=1 << 16))
    assert lzma_bits_per_byte(letters) == pytest.approx(4.0, rel=0.15)  # 16 letters: 4 bits
    assert lzma_bits_per_byte(bytes(1 << 16)) < 0.05


def test_a_score_below_what_xz_reaches_sets_the_alarm_off_with_both_numbers() -> None:
    alarm = text_alarm(0.31, 1.63)
    assert alarm is not None
    assert "0.310" in alarm
    assert "1.630" in alarm
    assert text_alarm(1.63, 1.63) is None


def test_a_lead_beyond_the_share_sets_the_alarm_off_and_one_within_it_does_not() -> None:
    alarm = rival_alarm(2.0, 1, "gated_deltanet", 2.5, 0.15)
    assert alarm is not None
    assert "20% below" in alarm
    assert "gated_deltanet" in alarm
    assert rival_alarm(2.2, 1, "gated_deltanet", 2.5, 0.15) is None
    assert rival_alarm(2.9, 1, "gated_deltanet", 2.5, 0.15) is None


def test_only_a_winner_that_took_many_times_the_time_is_suspected_of_training_more() -> None:
    alarm = time_alarm(2.4, 5_000, 60.0, 2.5, 30_000)
    assert alarm is not None
    assert "6.0 times slower" in alarm
    assert time_alarm(2.6, 5_000, 60.0, 2.5, 30_000) is None
    assert time_alarm(2.4, 15_000, 60.0, 2.5, 30_000) is None


def test_only_a_winner_whose_training_costs_much_more_than_its_scoring_is_suspected() -> None:
    alarm = effort_alarm(2.4, 6.0, 8.0, 2.5, 3.0)
    assert alarm is not None
    assert "2.0 times the most of any baseline" in alarm
    assert effort_alarm(2.6, 6.0, 8.0, 2.5, 3.0) is None
    assert effort_alarm(2.4, 4.0, 8.0, 2.5, 3.0) is None


def test_a_training_too_short_to_hide_another_in_is_not_suspected_of_it() -> None:
    """A stalled machine makes any ratio of two moments."""
    assert effort_alarm(2.4, 6.0, 0.3, 2.5, 3.0) is None
    assert time_alarm(2.4, 5_000, 0.6, 2.5, 30_000) is None


def test_work_before_the_data_are_served_is_suspicious_beyond_what_building_takes() -> None:
    alarm = preparation_alarm(6.0, 4.0)
    assert alarm is not None
    assert "computed for 6.0 s" in alarm
    assert preparation_alarm(0.3, 4.0) is None
    assert preparation_alarm(6.0, 200.0) is None  # a larger model takes longer to build
    assert preparation_alarm(None, 4.0) is None
