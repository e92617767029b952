"""An audit says in words what was asked, what was found and on what terms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from linearch.errors import PreflightError
from linearch.evaluator import Judge
from linearch.evaluator.audit import Audit, audit_source, convention_of, label
from linearch.evaluator.evidence import evidence_in_words
from linearch.evaluator.results import GateResult, Judgement
from linearch.search_space.library import baseline_source

GALLERY = Path(__file__).parents[1] / "data" / "gallery.json"
LEAK = GateResult(
    gate="causality", passed=False, reason="It sees the future.", evidence={"relative": 0.5}
)
PASSED = GateResult(gate="batch", passed=True, evidence={"relative": 1e-9})
LEFT_OUT = GateResult(gate="streaming", passed=None, reason="Its convention has none.")


class ScriptedJudge:
    """Answers with one judgement and keeps what it was asked."""

    def __init__(self, *results: GateResult, infra_error: str | None = None) -> None:
        self.judgement = Judgement(results=results, infra_error=infra_error, sandbox="isolated")
        self.asked: tuple[Any, ...] = ()

    def audit(self, *asked: Any) -> Judgement:
        self.asked = asked
        return self.judgement


def _audit(source: str, *results: GateResult, **options: Any) -> tuple[Audit, tuple[Any, ...]]:
    judge = ScriptedJudge(*results, infra_error=options.pop("infra_error", None))
    found = audit_source(
        cast(Judge, judge), source, name="it", device="cpu", profile="cpu", **options
    )
    return found, judge.asked


def _program(name: str) -> str:
    entries = {entry["name"]: entry["program"] for entry in json.loads(GALLERY.read_text())}
    return str(entries[name])


def test_the_judge_is_told_the_convention_and_the_pattern_of_the_source() -> None:
    ours = baseline_source("gla").replace(
        "class Mixer(nn.Module):", 'class Mixer(nn.Module):\n    pattern = "LLA"\n'
    )
    assert _audit(ours, PASSED)[1] == (ours, "LLA", False, "linearch")
    theirs = _program("delta_net_plain")
    assert _audit(theirs, PASSED)[1] == (theirs, "L", False, "asi-arch")
    assert _audit("not python (", PASSED)[1] == ("not python (", "L", False, "linearch")
    softmax = baseline_source("softmax_attention")
    assert _audit(softmax, PASSED, is_reference=True)[1][2] is True
    assert convention_of(ours) == "linearch"


def test_the_verdict_names_the_first_failure_and_counts_the_rest() -> None:
    assert _audit("", PASSED, LEFT_OUT)[0].verdict == (
        "it is sound: 1 checks passed, 1 not applicable."
    )
    on_device = GateResult(gate="batch", passed=False, reason="Rows mix.", stage="device")
    found, _ = _audit("", PASSED, LEAK, LEFT_OUT, on_device)
    assert not found.is_sound
    assert found.verdict == (
        "it is UNSOUND by causality: It sees the future. (also failed: batch (device))"
    )
    assert [label(result) for result in found.failures] == ["causality", "batch (device)"]


def test_nothing_asked_is_not_sound() -> None:
    found, _ = _audit("", LEFT_OUT)
    assert not found.is_sound
    assert "nothing could be checked" in found.verdict


def test_a_fault_of_the_machinery_is_nobodys_verdict() -> None:
    with pytest.raises(PreflightError, match="says nothing about it: the zygote died"):
        _audit("", infra_error="the zygote died")


def test_notes_say_what_the_adapter_left_out() -> None:
    assert _audit(_program("delta_net_plain"), PASSED)[0].notes == ()
    (dropped,) = _audit(_program("delta_net_entropy"), PASSED)[0].notes
    assert "gate_entropy" in dropped
    counting = _program("delta_net_plain").replace(
        "        batch, length", "        self._step += 1\n        batch, length"
    )
    (held,) = _audit(counting, PASSED)[0].notes
    assert "_step" in held


def test_everything_is_plain_data() -> None:
    found = json.loads(json.dumps(_audit("", PASSED, LEAK)[0].as_dict()))
    assert (found["is_sound"], found["sandbox"], found["device"]) == (False, "isolated", "cpu")
    assert found["gates"][1]["evidence"] == {"relative": 0.5}


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (LEAK, "It sees the future."),
        (LEFT_OUT, "Its convention has none."),
        (PASSED, "moved by at most 1e-09 of its RMS"),
        (
            GateResult(
                gate="prefix", passed=True, evidence={"relative": 2e-6, "limit": 1e-4, "layer": 1}
            ),
            "moved by at most 2e-06 of its RMS (allowed 0.0001)",
        ),
        (
            GateResult(
                gate="state", passed=True, evidence={"state_bytes_at": {"64": 8192, "128": 8192}}
            ),
            "8,192 bytes at 64 and 128 tokens",
        ),
        (GateResult(gate="source", passed=True), "–"),
        (GateResult(gate="batch", passed=True, evidence={"odd_key": 0.25}), "odd key 0.25"),
        (GateResult(gate="cost", passed=True, evidence={"phases": 3}), "phases 3"),
    ],
)
def test_evidence_is_put_in_words(result: GateResult, words: str) -> None:
    assert evidence_in_words(result) == words


def test_cost_is_told_as_exponents_between_the_two_largest_lengths() -> None:
    phase = {"elements": [100, 200, 800], "peak_bytes": [10, 20, 320]}
    evidence = {"lengths": [256, 512, 2048], "phases": {"forward": phase, "backward": phase}}
    words = evidence_in_words(GateResult(gate="cost", passed=True, evidence=evidence))
    assert words == ("forward work T^1.00, backward T^1.00, peak memory T^2.00 up to 2048 tokens")
