"""Candidates that train more than is paid for, or hide what they learned beside their weights.

They run with imports that the source check refuses: here the design alone must hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from linearch.evaluator import Judge, TrialResult, TrialSpec
from linearch.evaluator.sandbox.handle import Child
from linearch.evaluator.sandbox.limits import Limits
from linearch.evaluator.sizing import Sizing
from linearch.evaluator.subject import Subject

MakeSource = Callable[..., str]
Run = Callable[..., TrialResult]


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
