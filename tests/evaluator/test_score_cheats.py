"""Candidates that attack their score instead of earning one. Each gets the true score or none.

They run with imports that the source check refuses: here the design alone must hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
import safetensors.torch
import torch

from linearch.evaluator import Judge, TrialResult, TrialSpec
from linearch.evaluator.sandbox.handle import Child
from linearch.evaluator.sandbox.limits import Limits
from linearch.evaluator.sandbox.supervisor import Sandbox
from linearch.evaluator.scoring import HeldOut, score
from linearch.evaluator.sizing import Sizing, load
from linearch.evaluator.stopped import TrialStopped
from linearch.evaluator.subject import Subject

MakeSource = Callable[..., str]
Run = Callable[..., TrialResult]


@pytest.fixture(scope="module")
def honest(judge: Judge, spec: TrialSpec) -> TrialResult:
    result = judge.run_trial(spec)
    assert result.status == "done"
    return result


@pytest.fixture
def run(judge: Judge, spec: TrialSpec, hostile_source: MakeSource) -> Run:
    def run(**lines: str) -> TrialResult:
        return judge.run_trial(replace(spec, source=hostile_source(**lines)))

    return run


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


# S12: more optimiser steps than were paid for.
_OVERTRAINS = """
import linearch.evaluator.training as training
_once = training.Step.__call__
def _often(self, inputs, labels):
    told = self.total.clone()  # of losses: the sum of all would look like an explosion
    for _ in range(4):
        time.sleep(0.01)
        self.total.copy_(told)
        _once(self, inputs, labels)
training.Step.__call__ = _often
"""


def test_extra_optimiser_steps_are_billed_in_full_though_not_refused(
    run: Run, honest: TrialResult
) -> None:
    """Not refused: the step count of a checkpoint is the child's to write."""
    result = run(top=_OVERTRAINS)
    assert result.status == "done"
    assert result.metrics["val_bpb"] != honest.metrics["val_bpb"]
    assert (result.metrics["train_wall_s"] or 0) > 20 * 4 * 0.01


def test_extra_optimiser_steps_show_in_what_a_token_costs(run: Run, honest: TrialResult) -> None:
    twelvefold = _OVERTRAINS.replace("range(4)", "range(12)")
    result = run(top=twelvefold)
    assert (result.metrics["train_cost_ratio"] or 0) > 2 * (honest.metrics["train_cost_ratio"] or 9)


def test_work_before_the_data_are_served_sets_an_alarm_off(run: Run, honest: TrialResult) -> None:
    top = """
    import linearch.evaluator.sandbox.workbench as workbench
    _prepare = workbench.Workbench._prepare
    def _busy(self, values, report):
        while time.process_time() < 4:
            pass
        return _prepare(self, values, report)
    workbench.Workbench._prepare = _busy
    """
    result = run(top=top)
    assert result.status == "done", result.reason
    assert honest.alarm is None
    assert "before it was served its data" in (result.alarm or "")


def test_before_the_clock_starts_there_is_nothing_to_train_on(run: Run) -> None:
    top = """
    import linearch.evaluator.sandbox.workbench as workbench
    _sizes = []
    _prepare, _train = workbench.Workbench._prepare, workbench.Workbench._train
    def _look(self):
        _sizes.append(os.fstat(self._data).st_size)
    def _early(self, values, report):
        _look(self)
        return _prepare(self, values, report)
    def _late(self, values):
        _look(self)
        if _sizes != [0, 20 * 4 * 33]:  # steps, rows, tokens with the last one's label
            raise LookupError(f"served {_sizes}")
        return _train(self, values)
    workbench.Workbench._prepare, workbench.Workbench._train = _early, _late
    """
    result = run(top=top)
    assert result.status == "done", result.reason


def test_a_checkpoint_of_fewer_steps_than_were_asked_for_is_refused(run: Run) -> None:
    top = """
    import linearch.evaluator.training as training
    _save = training.save_checkpoint
    training.save_checkpoint = lambda model, optimizer, step, path: _save(model, optimizer, 9, path)
    """
    result = run(top=top)
    assert (result.status, "of step 9, not 16" in (result.reason or "")) == ("protocol", True)


def test_a_state_that_has_grown_since_it_was_judged_is_unsound(
    judge: Judge, spec: TrialSpec, mixer_source: MakeSource
) -> None:
    source = mixer_source(
        init="self.register_buffer('n', torch.zeros(()))",
        forward="if self.training: self.n += 1\n"
        "if self.n > 15: state['more'] = torch.zeros(len(x), 9)",
    )
    judged = 2 * 16 * 4  # layers, width, float32
    result = judge.run_trial(replace(spec, source=source, state_bytes=judged))
    assert (result.status, result.metrics) == ("unsound", {})
    assert "before training it was 128" in (result.reason or "")
    assert judge.run_trial(replace(spec, state_bytes=judged)).status == "done"


# S13
_SAVES = """
import linearch.evaluator.sandbox.workbench as workbench
_save = workbench.save_tensors
def _saved(tensors, path):
    {change}
    _save(tensors, path)
workbench.save_tensors = _saved
"""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("tensors = {**tensors, 'hidden': torch.zeros(30)}", "other tensors than before training"),
        ("tensors = {**tensors, 'x' * 999: torch.zeros(0)}", "other tensors than before training"),
        ("tensors = {name: tensor.double() for name, tensor in tensors.items()}", "numbers where"),
    ],
    ids=["more numbers", "more names", "wider numbers"],
)
def test_what_hides_in_the_weights_file_is_found(change: str, reason: str, run: Run) -> None:
    result = run(top=_SAVES.replace("{change}", change))
    assert (result.status, reason in (result.reason or "")) == ("protocol", True), result.reason


# What no tensor holds, and the same file read again where it is scored.
_HIDES_BESIDE_THE_TENSORS = """
import safetensors.torch
import linearch.evaluator.sandbox.workbench as workbench
def _saved(tensors, path):
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(plain, path, metadata={"learned": "x" * 4096})
workbench.save_tensors = _saved
"""
_READS_IT = """
if os.path.exists("weights.safetensors"):
    with open("weights.safetensors", "rb") as file:
        if b"learned" in file.read():
            raise LookupError("here it is")
"""


def test_of_the_weights_file_only_the_tensors_are_handed_on(run: Run, honest: TrialResult) -> None:
    result = run(top=_HIDES_BESIDE_THE_TENSORS, forward=_READS_IT)
    assert result.status == "done", result.reason
    assert result.metrics["val_bpb"] == honest.metrics["val_bpb"]
    assert b"learned" not in (result.weights or b"")


def test_handed_on_as_it_is_the_file_would_hold_more(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_it_is(tensors: dict[str, torch.Tensor]) -> bytes:
        return safetensors.torch.save(tensors, metadata={"learned": "x"})

    monkeypatch.setattr("linearch.evaluator.trial.dump_tensors", as_it_is)
    result = run(top=_HIDES_BESIDE_THE_TENSORS, forward=_READS_IT)
    assert (result.status, "here it is" in (result.reason or "")) == ("crashed", True)


def test_nothing_of_a_checkpoint_is_there_before_the_model_has_said_its_shapes(
    judge: Judge, spec: TrialSpec, honest: TrialResult, hostile_source: MakeSource
) -> None:
    """Else they could hold what was learned up to it."""
    looks = hostile_source(init="assert not os.path.exists('resume.safetensors')")
    occupies = hostile_source(init="open('resume.safetensors', 'w')")
    resumed = replace(spec, checkpoint=honest.checkpoint)
    assert judge.run_trial(replace(resumed, source=looks)).status == "done"
    refused = judge.run_trial(replace(resumed, source=occupies))
    assert (refused.status, refused.metrics) == ("protocol", {})
    assert "in the place of resume.safetensors" in (refused.reason or "")


def test_a_lie_about_the_parameters_ends_when_the_weights_are_counted(
    judge: Judge, spec: TrialSpec, hostile_source: MakeSource
) -> None:
    top = """
    import linearch.evaluator.sandbox.workbench as workbench
    _count = workbench.count_parameters
    workbench.count_parameters = lambda model: _count(model) - 4_000
    """
    liar = hostile_source(top=top)
    with judge._sandbox.spawn(Limits(wall_s=20, memory_bytes=1 << 29)) as child:
        sizing = Sizing(child, judge._config, Subject(source=liar))
        assert sizing.builds()
        assert sizing.fits()  # the gate believes it ...
    result = judge.run_trial(replace(spec, source=liar, mlp_width=sizing.width))
    assert (result.status, "numbers where" in (result.reason or "")) == ("protocol", True)


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


# S16
_LATE_THREAD = """
import threading
import linearch.evaluator.sandbox.workbench as workbench
_save = workbench.save_tensors
def _late():
    time.sleep(0.2)
    open("weights.safetensors", "wb").write(bytes(99))
def _saved(tensors, path):
    _save(tensors, path)
    threading.Thread(target=_late, daemon=True).start()
workbench.save_tensors = _saved
"""


def test_a_thread_that_works_on_after_the_reply_is_dead_before_its_files_are_read(
    run: Run, honest: TrialResult
) -> None:
    assert run(top=_LATE_THREAD).metrics["val_bpb"] == honest.metrics["val_bpb"]


def test_files_read_from_a_living_process_would_have_been_changed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Child.read

    def read_late(self: Child, name: str, at_most: int) -> bytes:
        time.sleep(0.5)
        return read(self, name, at_most)

    monkeypatch.setattr(Child, "read", read_late)
    assert run(top=_LATE_THREAD).status == "protocol"
