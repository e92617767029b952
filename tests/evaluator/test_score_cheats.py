"""Candidates that attack their score instead of earning one. Each gets the true score or none.

They run with imports that the source check refuses: here the design alone must hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch

from linearch.evaluator import Judge, TrialResult, TrialSpec
from linearch.evaluator.sandbox.handle import Child
from linearch.evaluator.sandbox.limits import Limits
from linearch.evaluator.sandbox.supervisor import Sandbox
from linearch.evaluator.scoring import HeldOut, score
from linearch.evaluator.sizing import load
from linearch.evaluator.stopped import TrialStopped
from linearch.evaluator.subject import Subject

MakeSource = Callable[..., str]
Run = Callable[..., TrialResult]


@pytest.fixture
def undefended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scoring as it would be without pieces and without gates on the trained weights."""
    monkeypatch.setattr("linearch.evaluator.scoring._StreamCheck._compare", lambda *_: None)
    monkeypatch.setattr("linearch.evaluator.trial.run_trained_gates", lambda *_: ())


# S1: what the child computes with is its own.
_REBINDS_LOSSES = """
def _nothing(*arguments, **options):
    return torch.zeros(())
torch.nn.functional.cross_entropy = torch.nn.functional.log_softmax = _nothing
torch.Tensor.log_softmax = torch.Tensor.argmax = _nothing
"""
_REPORTS_ZERO = """
import linearch.evaluator.training as training
_real = training.Trainer.__init__
def _lying(self, model, recipe, report):
    _real(self, model, recipe, lambda event, step, loss: report(event, step=step, loss=0.0))
training.Trainer.__init__ = _lying
"""


_REPORTS_STEPS = """
import linearch.evaluator.training as training
_real = training.Trainer.__init__
def _lying(self, model, recipe, report):
    _real(self, model, recipe, lambda event, step, loss: report(event, step={step}, loss=1.0))
training.Trainer.__init__ = _lying
"""


@pytest.mark.parametrize("step", ["1", "9 * 10**18", "-step"])
def test_reports_of_steps_that_cannot_be_are_refused_before_they_reach_a_store(
    step: str, run: Run
) -> None:
    result = run(top=_REPORTS_STEPS.replace("{step}", step))
    assert result.status == "protocol"
    assert "a progress report of step" in (result.reason or "")


def test_rebinding_the_loss_does_not_change_the_score(run: Run, honest: TrialResult) -> None:
    result = run(top=_REBINDS_LOSSES)
    assert result.metrics["val_bpb"] == honest.metrics["val_bpb"]


def test_a_reported_loss_of_zero_shows_in_the_curve_and_not_in_the_score(
    run: Run, honest: TrialResult
) -> None:
    result = run(top=_REPORTS_ZERO)
    assert {loss for _, loss in result.curve} == {0.0}
    assert result.metrics["val_bpb"] == honest.metrics["val_bpb"]


def test_a_rebound_module_call_gets_the_score_of_what_it_returns(
    run: Run, honest: TrialResult
) -> None:
    """It flattens every hidden state in scoring: all bytes become equally likely, 8 bits."""
    top = """
    import linearch.search_space.backbone as backbone
    _call = nn.Module.__call__
    def _flat(self, *arguments, **options):
        returned = _call(self, *arguments, **options)
        if type(self) is backbone.Backbone and not self.training:
            return 1e-20 * returned[0], returned[1]
        return returned
    nn.Module.__call__ = _flat
    """
    result = run(top=top)
    assert result.metrics["val_bpb"] == pytest.approx(8.0, abs=1e-4)
    assert (honest.metrics["val_bpb"] or 9) < 7


# S2
def test_a_stopped_clock_does_not_shorten_the_time_that_is_billed(run: Run) -> None:
    top = """
    time.perf_counter = time.monotonic = time.time = lambda: 0.0
    _started = time.perf_counter()
    """
    forward = """
    if self.training:
        time.sleep(0.01)
        assert time.perf_counter() - _started == 0.0  # by its own clock no time has passed
    """
    result = run(top=top, forward=forward)
    assert result.status == "done", result.reason
    assert (result.metrics["train_wall_s"] or 0) > 20 * 2 * 0.01  # steps, layers


# S3: the search is told what it looks for, and finds it wherever it is.
_SEARCH = """
import gc
def _find_labels():
    found = [name for name in sys.modules if name.startswith("linearch.evaluator.trial")]
    found += [type(o).__name__ for o in gc.get_objects() if type(o).__name__ == "HeldOut"]
    frame = sys._getframe()
    while frame is not None:
        found += [name for name in frame.f_locals if name in ("held_out", "labels")]
        frame = frame.f_back
    return found
"""


def test_the_labels_are_nowhere_in_the_scoring_process(run: Run) -> None:
    forward = """
    if not self.training and (found := _find_labels()):
        raise LookupError(f"found {found}")
    """
    result = run(top=_SEARCH, forward=forward)
    assert result.status == "done", result.reason


def test_the_same_search_finds_them_where_they_are() -> None:
    held_out = HeldOut(inputs=torch.zeros(1, 1), labels=torch.zeros(1, 1))
    names: dict[str, Any] = {}
    exec("import sys\n" + _SEARCH, names)
    found = names["_find_labels"]()
    assert isinstance(held_out, HeldOut)
    assert {"held_out", "linearch.evaluator.trial"} <= set(found)


# S8: honest wherever a probe looks, and not where it is scored. The head is tied to the embedding,
# so the next token's own vector is worth bits at once.
_LEAK = "5 * x.roll(-1, 1)"
_SLEEPERS = {
    "length": f"if x.shape[1] == 32: y = y + {_LEAK}",
    "batch": f"if x.shape[0] > 8 or self.training: y = y + {_LEAK}",
    "a fifth of the positions": f"""
        where = (torch.arange(x.shape[1], device=x.device) % 5 == 3)[:, None]
        y = y + torch.where(where, {_LEAK}, 0.0)
    """,
    "every second call": f"""
        Mixer.calls = getattr(Mixer, "calls", 0) + 1
        if Mixer.calls % 2 == 0: y = y + {_LEAK}
    """,
}


@pytest.mark.parametrize("trigger", list(_SLEEPERS))
def test_a_leak_that_hides_from_probes_is_found_in_pieces(trigger: str, run: Run) -> None:
    result = run(forward=_SLEEPERS[trigger])
    assert (result.status, result.metrics) == ("noncausal", {})
    assert "without the tokens after it" in (result.reason or "")


@pytest.mark.parametrize("trigger", list(_SLEEPERS))
def test_scored_without_pieces_the_leak_would_have_won(
    trigger: str, run: Run, honest: TrialResult, undefended: None
) -> None:
    result = run(forward=_SLEEPERS[trigger])
    assert result.status == "done"
    assert (result.metrics["val_bpb"] or 9) < (honest.metrics["val_bpb"] or 0) - 0.1


def test_a_leak_that_wakes_in_training_is_found_on_the_trained_weights(run: Run) -> None:
    """In scoring it is honest, and at the gates it slept: only its trained self shows it."""
    forward = """
    if self.training:
        self.n += 1
        if self.n > 15: y = y + self.proj(x.roll(-1, 1))
    """
    result = run(init="self.register_buffer('n', torch.zeros(()))", forward=forward)
    assert result.status == "noncausal"
    assert "the trained weights fail the gate 'causality'" in (result.reason or "")
    assert [gate.passed for gate in result.gates] == [True, True, False]
    assert {gate.stage for gate in result.gates} == {"trained"}


def test_a_row_that_reads_others_only_when_trained_is_unsound(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linearch.evaluator.scoring._StreamCheck._compare", lambda *_: None)
    forward = "if self.n > 15: y = y + x.roll(1, 0)\nif self.training: self.n += 1"
    result = run(init="self.register_buffer('n', torch.zeros(()))", forward=forward)
    assert (result.status, result.metrics) == ("unsound", {})
    assert "'batch'" in (result.reason or "")


# S9: what was seen whole is remembered, and given out again when it is asked for in pieces.
_CACHE = """
_SEEN = []
_READ = []
def _longest(row):
    for seen in _SEEN:
        if len(seen) > len(row) and torch.equal(seen[: len(row)], row):
            return seen
    _SEEN.append(row.clone())
    return row
def _next_tokens(row):
    following = _longest(row)[1 : len(row) + 1]
    return nn.functional.pad(following, (0, 0, 0, len(row) - len(following)))
def _read_on(x, is_first):
    _READ[:] = [x] if is_first else [torch.cat([_READ[0], x], dim=1)]
    return torch.stack([_next_tokens(row) for row in _READ[0]])[:, -x.shape[1]:]
"""
_FROM_CACHE = """
is_first = torch.equal(state["sum"], x.cumsum(1)[:, -1:])
y = 5 * _read_on(x, is_first)
"""


@contextmanager
def _child(sandbox: Sandbox, limits: Limits, source: str) -> Iterator[Child]:
    model = {"vocab_size": 32, "d_model": 8, "n_layers": 1, "n_heads": 1, "mlp_width": 8}
    with sandbox.spawn(limits) as child:
        load(child, Subject(source=source))
        child.call("build", {"model": model, "seed": 0})
        yield child


def test_a_cache_of_whole_rows_is_empty_in_the_process_that_gets_pieces(
    sandbox: Sandbox, limits: Limits, hostile_source: MakeSource
) -> None:
    source = hostile_source(top=_CACHE, forward=_FROM_CACHE)
    tokens = torch.randint(32, (6, 13), generator=torch.Generator().manual_seed(0))
    held_out = HeldOut(inputs=tokens[:, :-1], labels=tokens[:, 1:])
    weights = {"embedding.weight": torch.randn(32, 8)}
    with pytest.raises(TrialStopped, match="without the tokens after it"):
        score(lambda: _child(sandbox, limits, source), held_out, weights, "fp32")
    with _child(sandbox, limits, source) as one:  # both halves in one process: the cache works
        scored = score(lambda: nullcontext(one), held_out, weights, "fp32")
    assert scored.prefix_shift_nats < 1e-3


# S10
_REPLIES = """
import linearch.evaluator.sandbox.workbench as workbench
_true = workbench.Workbench._hidden
def _forged(self, tokens, values):
    hidden = _true(self, tokens, values)
    {change}
    return hidden
workbench.Workbench._hidden = _forged
"""


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ("hidden[-1, -1, -1] = float('nan')", "diverged"),
        ("hidden[0] = float('-inf')", "diverged"),
        ("hidden[:] = 1e38", "diverged"),
        ("hidden = hidden[:, :-1]", "protocol"),
        ("hidden = hidden[None]", "protocol"),
        ("hidden = hidden.double()", "protocol"),
        ("hidden = hidden.half()", "protocol"),
        ("hidden = hidden.to_sparse()", "crashed"),
        ("hidden = None", "crashed"),
        ("hidden = torch.empty(0)", "protocol"),
    ],
)
def test_an_unusable_reply_ends_the_trial_in_its_class(change: str, status: str, run: Run) -> None:
    result = run(top=_REPLIES.format(change=change))
    assert (result.status, result.metrics) == (status, {}), result.reason


def test_a_tensor_subclass_is_only_its_numbers_on_the_other_side(
    run: Run, honest: TrialResult
) -> None:
    top = """
    class _Sly(torch.Tensor):
        def __eq__(self, other): return True
        def isfinite(self): return torch.ones(())
    """
    change = "hidden = hidden.as_subclass(_Sly)"
    result = run(top=top + _REPLIES.format(change=change))
    assert result.metrics.get("val_bpb", honest.metrics["val_bpb"]) == honest.metrics["val_bpb"]
    assert result.status in ("done", "crashed")


# S11
def test_changing_its_inputs_changes_only_its_own_copies(
    run: Run, judge: Judge, spec: TrialSpec, honest: TrialResult
) -> None:
    top = _REPLIES.format(change="tokens.zero_()")
    assert run(top=top).metrics["val_bpb"] == honest.metrics["val_bpb"]
    assert judge.run_trial(spec).metrics["val_bpb"] == honest.metrics["val_bpb"]


# S14
def test_rows_that_see_each_other_are_rejected_at_the_gates(
    judge: Judge, mixer_source: MakeSource
) -> None:
    judgement = judge.judge(mixer_source(forward="y = y + x.roll(1, 0)"), "L")
    assert judgement.failure is not None
    assert judgement.failure.gate == "batch"


# S15
def test_a_score_below_the_texts_own_bound_comes_with_an_alarm(
    judge: Judge, spec: TrialSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert judge.run_trial(spec).alarm is None  # xz makes next to nothing of this corpus
    monkeypatch.setitem(judge.__dict__, "_lzma_bpb", 7.9)
    result = judge.run_trial(spec)
    assert result.status == "done"
    assert "7.900" in (result.alarm or "")
