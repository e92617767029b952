"""What a model remembers is in its state: a process that gets the state alone says the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from linearch.evaluator import Judge, TrialSpec
from linearch.evaluator.results import GateResult

MakeSource = Callable[..., str]

# The state holds a ticket of 8 bytes; the past is kept in the process, at that ticket.
_CLOAKROOM = '''
import torch
from torch import nn


def _attendant():
    pasts, answer = {}, None
    while True:
        ticket, past = yield answer
        answer = pasts.get(ticket) if past is None else pasts.update({ticket: past})


class Mixer(nn.Module):
    """y_t = tanh(W (x_1 + ... + x_t))."""

    def __init__(self, d_model, n_heads, layer_idx, n_layers):
        super().__init__()
        self.proj = nn.Linear(d_model, d_model, bias=False)
        self.attendant = _attendant()
        next(self.attendant)

    def forward(self, x, state=None):
        total = x.cumsum(1)
        if state is not None:
            past = self.attendant.send((str(state["ticket"]), None))
            total = total if past is None else total + past
        ticket = total[:, -1, 0].sum().detach().double()
        self.attendant.send((str(ticket), total[:, -1:].detach().clone()))
        return torch.tanh(self.proj(total)), {"ticket": ticket}
'''


def test_a_past_that_is_kept_in_the_process_is_found(judge: Judge) -> None:
    failure = judge.judge(_CLOAKROOM, "L").failure
    assert failure is not None
    assert failure.gate == "handover"
    assert "does not hold all that the model remembers" in (failure.reason or "")


def test_without_the_handover_its_small_state_would_have_been_believed(
    judge: Judge, mixer_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "linearch.evaluator.examination.take_over",
        lambda *_: GateResult(gate="handover", passed=True),
    )
    cheat, honest = judge.judge(_CLOAKROOM, "L"), judge.judge(mixer_source(), "L")
    assert cheat.is_sound, cheat.failure
    assert cheat.state_bytes == 2 * 8  # layers, bytes of a ticket
    assert honest.state_bytes == 2 * 16 * 4  # layers, width, float32


def test_a_model_whose_state_holds_its_past_is_handed_over(
    judge: Judge, mixer_source: MakeSource
) -> None:
    judgement = judge.judge(mixer_source(), "L")
    (handover,) = (result for result in judgement.results if result.gate == "handover")
    assert handover.passed
    assert handover.evidence["state_bytes"] == judgement.state_bytes


@pytest.mark.parametrize("dtype", ["complex64", "bfloat16", "float64", "int64"])
def test_a_state_of_any_type_is_handed_over(
    dtype: str, judge: Judge, mixer_source: MakeSource
) -> None:
    lines = f"state['other'] = torch.ones(len(x), 3).to(torch.{dtype})"
    (handover,) = (
        result
        for result in judge.judge(mixer_source(forward=lines), "L").results
        if result.gate == "handover"
    )
    assert handover.passed, handover.reason


def test_a_past_that_is_kept_once_trained_ends_the_trial(judge: Judge, spec: TrialSpec) -> None:
    result = judge.run_trial(replace(spec, source=_CLOAKROOM))
    assert (result.status, result.metrics) == ("unsound", {})
    assert "handed the state alone" in (result.reason or "")


# The state holds no number: its past is written into the names of empty tensors, which are sent.
_IN_NAMES = '''
import torch
from torch import nn

_EACH = 6  # numbers in a name


def _written(past):
    numbers = [f"{number:.9e}" for number in past.detach().flatten()]
    starts = range(0, len(numbers), _EACH)
    return {f"{i:04d} " + " ".join(numbers[i : i + _EACH]): torch.zeros(0) for i in starts}


def _read(state, shape):
    return torch.tensor([float(n) for name in sorted(state) for n in name.split()[1:]]).view(shape)


class Mixer(nn.Module):
    """y_t = tanh(W (x_1 + ... + x_t))."""

    def __init__(self, d_model, n_heads, layer_idx, n_layers):
        super().__init__()
        self.proj = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x, state=None):
        total = x.cumsum(1)
        if state is not None:
            total = total + _read(state, (len(x), 1, -1))
        return torch.tanh(self.proj(total)), _written(total[:, -1:])
'''


def test_a_past_that_is_written_into_names_is_found(judge: Judge) -> None:
    failure = judge.judge(_IN_NAMES, "L").failure
    assert failure is not None
    assert failure.gate == "state"
    assert "names, shapes or types" in (failure.reason or "")


def test_unseen_it_would_be_handed_over_and_count_no_byte(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linearch.evaluator.sizing.form_of", lambda state: None)
    judgement = judge.judge(_IN_NAMES, "L")
    passed = {result.gate for result in judgement.results if result.passed}
    assert {"state", "handover"} <= passed
    assert judgement.state_bytes == 0


def test_names_that_change_once_trained_end_the_trial(
    judge: Judge, spec: TrialSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linearch.evaluator.trial.run_trained_gates", lambda *_: ())
    cheat = replace(spec, source=_IN_NAMES, state_bytes=0)
    result = judge.run_trial(cheat)
    assert (result.status, result.metrics) == ("unsound", {})
    assert "names, shapes or types" in (result.reason or "")
    monkeypatch.setattr("linearch.evaluator.scoring.form_of", lambda state: None)
    assert judge.run_trial(cheat).status == "done"
