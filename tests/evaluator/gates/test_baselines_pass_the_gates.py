"""Every known mixer of the library passes every gate: one that does not is a false alarm."""

from __future__ import annotations

import pytest

from linearch.evaluator.gates import GATES, run_gates
from linearch.search_space.library import BASELINES, baseline_source
from linearch.search_space.loading import load_mixer_class


@pytest.mark.parametrize("layer_index", [0, 1])
@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_passes_every_gate(name, layer_index, make_probe, config):
    mixer_class = load_mixer_class(baseline_source(name), f"gated_{name}")
    probe = make_probe(
        mixer_class,
        d_model=64,
        layer_index=layer_index,
        is_reference=BASELINES[name].is_reference,
    )

    results = run_gates(probe, config, seed=layer_index)

    assert [(result.gate, result.reason) for result in results if not result.passed] == []
    assert [result.gate for result in results] == list(GATES)
