"""Every known mixer of the library passes every gate: one that does not is a false alarm."""

from __future__ import annotations

import pytest

from linearch.evaluator.gates import DEVICE_GATES, GATES, run_gates
from linearch.search_space.library import BASELINES, baseline_source
from linearch.search_space.loading import load_mixer_class


def _probe(name, make_probe, **options):
    mixer_class = load_mixer_class(baseline_source(name), f"gated_{name}")
    return make_probe(mixer_class, d_model=64, is_reference=BASELINES[name].is_reference, **options)


@pytest.mark.parametrize("layer_index", [0, 1])
@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_passes_every_gate(name, layer_index, make_probe, config):
    results = run_gates(_probe(name, make_probe, layer_index=layer_index), config, layer_index)

    unasked = ["cost"] if BASELINES[name].is_reference else []
    assert [(r.gate, r.reason) for r in results if r.passed is False] == []
    assert [r.gate for r in results if r.passed is None] == unasked
    assert [result.gate for result in results] == list(GATES)


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_passes_in_bfloat16(name, make_probe, config):
    results = run_gates(_probe(name, make_probe, precision="bf16"), config, 0, DEVICE_GATES)

    assert [(result.gate, result.reason) for result in results if not result.passed] == []
