"""The loop over the gates, and the results that are not judged through a probe."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from linearch.config import ModelConfig
from linearch.errors import CandidateRejected
from linearch.evaluator.gates import (
    DEVICE_GATES,
    GATES,
    TRAINED_GATES,
    ProbeFacts,
    ProbeFailed,
    parameter_budget,
    rejection,
    run_gates,
    run_gates_on_layers,
)
from linearch.evaluator.gates.causality import cut_positions
from linearch.evaluator.gates.compare import largest_difference
from linearch.evaluator.gates.streaming import random_pieces
from linearch.evaluator.results import GateResult


class SilentProbe:
    """Answers nothing; raises what it was given."""

    facts = ProbeFacts(d_model=8, seq_len=16, n_layers=1, layer_index=0)

    def __init__(self, error: Exception) -> None:
        self.error = error

    def forward(self, x, train=False):
        raise self.error

    stream = gradients = step = inventory = cost = forward


def passing(probe, config, generator):
    return GateResult(
        gate="passing", passed=True, evidence={"x": float(torch.rand((), generator=generator))}
    )


def failing(probe, config, generator):
    return GateResult(gate="failing", passed=False, reason="No.")


def test_a_probe_that_fails_fails_the_gate_in_progress(config):
    (result,) = run_gates(SilentProbe(ProbeFailed("timeout", "no reply in 5 s")), config, seed=0)

    assert (result.gate, result.passed) == ("shape", False)
    assert result.evidence["kind"] == "timeout"
    assert "no reply in 5 s" in result.reason


def test_a_fault_of_the_machinery_is_not_the_candidates(config):
    with pytest.raises(ConnectionError):
        run_gates(SilentProbe(ConnectionError("the zygote is gone")), config, seed=0)


def test_gates_run_in_order_up_to_the_first_failure(config):
    gates = {"first": passing, "second": failing, "third": passing}

    results = run_gates(SilentProbe(ValueError()), config, seed=0, gates=gates)

    assert [result.gate for result in results] == ["passing", "failing"]
    assert all(result.duration_s is not None for result in results)


def test_a_gate_draws_the_same_whichever_gates_run_before_it(config):
    probe = SilentProbe(ValueError())
    alone, *_ = run_gates(probe, config, seed=4, gates={"a": passing})
    *_, after = run_gates(probe, config, seed=4, gates={"b": passing, "a": passing})

    assert replace(alone, duration_s=None) == replace(after, duration_s=None)


def test_the_gates_that_others_rely_on_come_first():
    assert list(GATES)[:3] == ["shape", "replay", "batch"]
    assert list(TRAINED_GATES)[:2] == ["replay", "batch"]
    assert list(DEVICE_GATES)[:3] == ["shape", "replay", "batch"]


def test_a_whole_run_goes_on_after_a_failure_and_says_its_stage(config):
    gates = {"first": failing, "second": passing, "third": failing}

    results = run_gates_on_layers(
        [SilentProbe(ValueError())], config, 0, gates, is_whole=True, stage="device"
    )

    assert [result.passed for result in results] == [False, True, False]
    assert {result.stage for result in results} == {"device"}


def test_what_could_not_run_after_a_death_has_neither_passed_nor_failed(config):
    death = ProbeFailed("timeout", "no reply in 5 s", is_final=True)

    results = run_gates_on_layers([SilentProbe(death)], config, 0, is_whole=True)

    assert [result.gate for result in results] == list(GATES)
    assert [result.passed for result in results] == [False] + [None] * (len(GATES) - 1)
    assert all("ended in the gate shape" in result.reason for result in results[1:])


def _differs(*relatives):
    """A gate that finds these differences, one a call, under a limit of 1e-5."""
    found = iter(relatives)

    def gate(probe, config, generator):
        relative = next(found)
        evidence = {"relative": relative, "limit": 1e-5}
        return GateResult(gate="differs", passed=relative <= 1e-5, reason="No.", evidence=evidence)

    return {"differs": gate}


@pytest.mark.parametrize(
    ("relatives", "passed"),
    [
        ([5e-5, 0.0], True),  # rounding that one unlucky token blew up
        ([5e-5, 6e-5, 1e-6], True),
        ([5e-5, 6e-5, 5e-5], False),  # a faint leak shows on every input
        ([5e-5, 1e-2], False),
        ([1e-3], False),
    ],
)
def test_a_difference_that_could_be_rounding_must_show_again(relatives, passed, config):
    (result,) = run_gates(SilentProbe(ValueError()), config, 0, _differs(*relatives))

    assert result.passed is passed


class ProbeInBothPrecisions(SilentProbe):
    def __init__(self, error=None):
        super().__init__(error or ValueError())

    def in_float64(self):
        exact = ProbeInBothPrecisions(self.error)
        exact.facts = replace(self.facts, precision="fp64")
        return exact


def _by_precision(name, float32, float64):
    """A gate that finds one difference in float32 and another in float64, under 1e-5."""

    def gate(probe, config, generator):
        is_exact = probe.facts.precision == "fp64"
        if is_exact and float64 is None:
            probe.forward(None)
        evidence = {"relative": float64 if is_exact else float32, "limit": 1e-5}
        passed = evidence["relative"] <= 1e-5
        return GateResult(gate=name, passed=passed, reason="No.", evidence=evidence)

    return {name: gate}


@pytest.mark.parametrize(
    ("gate", "float32", "float64", "passed"),
    [
        ("streaming", 5e-5, 1e-9, True),
        ("prefix", 5e-5, 1e-9, True),
        ("streaming", 5e-5, 5e-5, False),  # no rounding: it is still there
        ("streaming", 2e-4, 1e-9, False),  # more than rounding is excused for
        ("causality", 5e-5, 1e-9, False),  # where nothing at all may change
    ],
)
def test_only_a_faint_difference_between_forms_is_excused_by_float64(
    gate, float32, float64, passed, config
):
    gates = _by_precision(gate, float32, float64)
    (result,) = run_gates(ProbeInBothPrecisions(), config, 0, gates)

    assert result.passed is passed


def test_a_mixer_that_cannot_compute_in_float64_is_judged_in_float32(config):
    gates = _by_precision("streaming", 5e-5, None)
    (result,) = run_gates(ProbeInBothPrecisions(ProbeFailed("raised", "no")), config, 0, gates)

    assert (result.passed, result.evidence["relative"]) == (False, 5e-5)


def test_a_death_in_float64_fails_the_gate(config):
    death = ProbeFailed("timeout", "no reply in 5 s", is_final=True)
    gates = _by_precision("streaming", 5e-5, None)
    (result,) = run_gates(ProbeInBothPrecisions(death), config, 0, gates)

    assert (result.passed, result.evidence["kind"]) == (False, "timeout")


def test_cuts_stand_on_both_sides_of_every_named_chunk():
    cuts = cut_positions(128, (44, 100, 3000), torch.Generator().manual_seed(0))

    assert {43, 44, 99, 100, 15, 16, 63, 64, 0, 126} <= set(cuts)
    assert max(cuts) == 126
    many = cut_positions(4096, tuple(range(8, 1000)), torch.Generator().manual_seed(0))
    assert len(many) <= 48


def test_evidence_is_plain_json(make_probe, config):
    def mixer(d_model, *_):
        return _Identity()

    results = run_gates_on_layers([make_probe(mixer)], config, 0, is_whole=True)

    assert json.loads(json.dumps([result.evidence for result in results], allow_nan=False))


class _Identity(torch.nn.Module):
    def forward(self, x, state=None):
        return x, {}


@pytest.mark.parametrize(
    ("n_params", "passed"), [(100_000, True), (101_900, True), (98_100, True), (102_100, False)]
)
def test_the_budget_allows_its_tolerance_and_no_more(n_params, passed):
    model = ModelConfig(param_budget=100_000, param_tolerance=0.02)

    result = parameter_budget(n_params, mlp_width=64, model=model)

    assert (result.gate, result.passed) == ("parameters", passed)
    assert (result.reason is None) is passed


def test_a_rejection_becomes_the_failing_result_of_its_check():
    result = rejection(CandidateRejected("source", "two public classes."))

    assert (result.gate, result.passed, result.reason) == ("source", False, "two public classes.")


@pytest.mark.parametrize("total", [1, 2, 6, 126, 1000])
def test_random_pieces_add_up_and_hold_single_tokens(total):
    pieces = random_pieces(total, torch.Generator().manual_seed(0))

    assert sum(pieces) == total
    assert min(pieces) == 1


def test_a_large_constant_or_a_large_position_hides_no_difference():
    y = torch.randn(2, 50, 8, generator=torch.Generator().manual_seed(0))
    y += 1e3
    y[:, 0] *= 1e3
    changed = y.clone()
    changed[1, 30] += 0.1

    difference = largest_difference(y, changed)

    assert (difference.row, difference.position) == (1, 30)
    assert 0.08 < difference.relative < 0.2
