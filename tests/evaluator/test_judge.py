"""Gates, training and scoring from end to end, on a corpus of a few kilobytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from linearch.config import GateConfig, RunConfig, SandboxConfig
from linearch.evaluator import Judge, Judgement, TrialSpec, training_watch
from linearch.evaluator.examination import Examination
from linearch.evaluator.leavings import stored_step
from linearch.evaluator.recipe import trained_tokens
from linearch.evaluator.sandbox.supervisor import Sandbox
from linearch.evaluator.subject import Subject
from linearch.evaluator.trial import Trial
from linearch.search_space.library import baseline_source

MakeSource = Callable[..., str]

_STEP_TOKENS = 4 * 32  # of the fixture `spec`


def _failed_gate(judgement: Judgement) -> tuple[str, str]:
    assert judgement.infra_error is None
    assert judgement.failure is not None
    assert judgement.failure.reason is not None
    return judgement.failure.gate, judgement.failure.reason


def _impatient(config: RunConfig) -> RunConfig:
    """With deadlines that an endless loop soon meets."""
    workers = config.workers.model_copy(update={"trial_deadline_s": 1.5})
    return config.model_copy(update={"gates": GateConfig(deadline_s=1.5), "workers": workers})


@pytest.mark.parametrize(("name", "pattern"), [("linear_attention", "L"), ("gated_deltanet", "AL")])
def test_a_baseline_passes_every_gate_and_is_measured(
    name: str, pattern: str, judge: Judge, config: RunConfig
) -> None:
    judgement = judge.judge(baseline_source(name), pattern)
    assert judgement.is_sound, judgement.failure
    assert judgement.n_params == pytest.approx(config.model.param_budget, rel=0.02)
    assert judgement.state_bytes == judgement.state_bytes_at[32] > 0
    assert judgement.flops_per_token is not None
    assert judgement.n_params is not None
    assert judgement.flops_per_token > 4 * judgement.n_params  # each weight is multiplied thrice
    assert len(set(judgement.state_bytes_at.values())) == 1
    assert [result.gate for result in judgement.results][:4] == [
        "source",
        "build",
        "parameters",
        "state",
    ]
    json.dumps([result.evidence for result in judgement.results])


def test_a_reference_mixer_may_keep_everything_it_saw_and_a_candidate_may_not(
    judge: Judge,
) -> None:
    source = baseline_source("softmax_attention")
    reference = judge.judge(source, "L", is_reference=True)
    assert reference.is_sound, reference.failure
    assert reference.state_bytes_at[64] > 1.5 * reference.state_bytes_at[32]
    gate, reason = _failed_gate(judge.judge(source, "L"))
    assert gate == "state"
    assert "number of tokens" in reason


def test_a_leak_is_rejected_by_its_gate(judge: Judge, mixer_source: MakeSource) -> None:
    gate, reason = _failed_gate(judge.judge(mixer_source(forward="y = y + x.flip(1)"), "L"))
    assert (gate, "future" in reason) == ("causality", True)


@pytest.mark.parametrize(
    ("lines", "gate", "says"),
    [
        ({"init": "raise RuntimeError('no weights')"}, "build", "no weights"),
        ({"init": "self.big = nn.Parameter(torch.zeros(50_000))"}, "parameters", "105,456"),
        ({"forward": "y = y * float('nan')"}, "shape", "nan"),
        ({"forward": "y = y[:, :1]"}, "state", "returned shape"),
        ({"init": "self.idle = nn.Parameter(torch.zeros(4, 4))"}, "gradients", "idle"),
    ],
)
def test_an_unsound_candidate_is_stored_with_the_gate_and_the_reason(
    lines: dict[str, str], gate: str, says: str, judge: Judge, mixer_source: MakeSource
) -> None:
    found, reason = _failed_gate(judge.judge(mixer_source(**lines), "L"))
    assert (found, says in reason) == (gate, True), reason


def test_a_source_that_imports_os_never_runs(judge: Judge, hostile_source: MakeSource) -> None:
    judgement = judge.judge(hostile_source(), "L")
    assert _failed_gate(judgement)[0] == "source"
    assert len(judgement.results) == 1


def test_a_pattern_without_the_mixer_is_refused(judge: Judge, mixer_source: MakeSource) -> None:
    gate, reason = _failed_gate(judge.judge(mixer_source(), "AAL"))
    assert (gate, "AAL" in reason) == ("build", True)


@pytest.mark.parametrize("place", ["init", "forward"])
def test_a_hanging_candidate_is_rejected_at_the_gates_deadline(
    place: str, config: RunConfig, sandbox: Sandbox, mixer_source: MakeSource
) -> None:
    source = mixer_source(**{place: "while True: pass"})
    judgement = Examination(sandbox, _impatient(config), Subject(source=source)).judge()
    gate, reason = _failed_gate(judgement)
    assert (gate, "timeout" in reason) == ("build" if place == "init" else "state", True)


def test_a_fault_of_the_machinery_is_not_booked_on_the_candidate(
    config: RunConfig, tmp_path: Path, mixer_source: MakeSource
) -> None:
    (tmp_path / "file").touch()
    broken = Sandbox(tmp_path / "file")  # no folder can be made there
    judgement = Examination(broken, config, Subject(source=mixer_source())).judge()
    assert judgement.infra_error is not None
    assert judgement.results == ()
    assert not judgement.is_sound


def test_a_trial_is_trained_scored_and_measured(judge: Judge, spec: TrialSpec) -> None:
    result = judge.run_trial(spec)
    assert (result.status, result.reason) == ("done", None)
    metrics = result.metrics
    assert 1 < metrics["val_bpb"] < 8
    assert metrics["n_params"] == pytest.approx(10_000, rel=0.02)
    assert metrics["tokens_per_s"] * metrics["train_wall_s"] == pytest.approx(spec.tokens)
    assert metrics["step_time_s"] * 20 == pytest.approx(metrics["train_wall_s"])
    assert metrics["peak_memory_bytes"] > 0
    parts_s = [metrics[name] for name in ("prepare_wall_s", "train_wall_s", "score_wall_s")]
    assert min(parts_s) > 0
    assert 0 < metrics["decode_time_s"] < 1
    assert sum(parts_s) < result.wall_s
    assert result.curve[-1][0] == spec.tokens
    assert result.curve[-1][1] < result.curve[0][1]
    assert result.environment["threads"] == 1
    json.dumps(result.environment)


def test_the_same_seed_gives_the_same_score_and_another_seed_another(
    judge: Judge, spec: TrialSpec
) -> None:
    first, again = judge.run_trial(spec), judge.run_trial(spec)
    other = judge.run_trial(replace(spec, seed=1))
    assert first.metrics["val_bpb"] == again.metrics["val_bpb"]
    assert first.weights == again.weights
    assert first.metrics["val_bpb"] != other.metrics["val_bpb"]


def test_a_longer_rung_goes_on_from_a_shorter_ones_checkpoint(
    judge: Judge, spec: TrialSpec, config: RunConfig
) -> None:
    longer = replace(spec, rung=1, tokens=2 * spec.tokens)
    whole = judge.run_trial(longer)
    short = judge.run_trial(spec)
    resumed = judge.run_trial(replace(longer, checkpoint=short.checkpoint))
    assert resumed.metrics["val_bpb"] == pytest.approx(whole.metrics["val_bpb"], rel=1e-6)
    assert resumed.curve[0][0] > 16 * _STEP_TOKENS  # 20 steps less 4 of cooldown
    trained = resumed.metrics["tokens_per_s"] * resumed.metrics["train_wall_s"]
    assert trained == pytest.approx((40 - 16) * _STEP_TOKENS)
    assert resumed.metrics["trained_tokens"] == (40 - 16) * _STEP_TOKENS
    rungs = trained_tokens(config.training, (spec.tokens, longer.tokens))
    assert rungs == [short.metrics["trained_tokens"], resumed.metrics["trained_tokens"]]


def test_the_test_shard_is_scored_only_where_it_is_opened(
    judge: Judge, spec: TrialSpec, config: RunConfig, tmp_path: Path
) -> None:
    assert "test_bpb" not in judge.run_trial(spec).metrics
    opened = config.model_copy(update={"data": config.data.model_copy(update={"test_windows": 16})})
    with Judge(opened, device="cpu", folder=tmp_path) as finals:
        metrics = finals.run_trial(spec).metrics
    assert metrics["test_bpb"] == pytest.approx(metrics["val_bpb"], abs=0.5)
    assert metrics["test_bpb"] != metrics["val_bpb"]


def test_recall_is_trained_and_scored_at_its_own_sizes(judge: Judge, spec: TrialSpec) -> None:
    result = judge.run_trial(replace(spec, task="mqar", tokens=10 * 8 * 32))
    assert (result.status, result.reason) == ("done", None)
    assert 0 <= result.metrics["recall_mqar"] <= 1
    assert "val_bpb" not in result.metrics
    assert result.metrics["n_params"] < 7_000  # 32 token vectors instead of 256


def test_a_task_is_scored_at_other_lengths_apart(judge: Judge, spec: TrialSpec) -> None:
    result = judge.run_trial(replace(spec, task="parity", tokens=10 * 8 * 40))
    assert (result.status, result.reason) == ("done", None)
    assert 0 <= (result.metrics["recall_parity"] or 0) <= 1
    assert 0 <= (result.metrics["recall_parity@256"] or 0) <= 1


# In training it is honest, in scoring it is not: only the score can tell.
_PEEKS_IN_SCORING = "y = y if self.training else y + x.roll(-1, 1)"
# What it claims to have written is not what it leaves behind.
_HIDES_PARAMETERS = """
import safetensors.torch
def _padded(tensors, path, save=safetensors.torch.save_file):
    save({**tensors, "hidden": torch.zeros(3000)}, path)
safetensors.torch.save_file = _padded
"""
_WIDENS_PARAMETERS = """
import safetensors.torch
def _wide(tensors, path, save=safetensors.torch.save_file):
    save({name: tensor.double() for name, tensor in tensors.items()}, path)
safetensors.torch.save_file = _wide
"""
_BREAKS_WEIGHTS = """
import safetensors.torch
safetensors.torch.save_file = lambda tensors, path: open(path, "wb").write(bytes(99))
"""
_LINKS_WEIGHTS = """
import safetensors.torch
safetensors.torch.save_file = lambda tensors, path: os.symlink("/etc/hostname", path)
"""
_SKIPS_TRAINING = """
import linearch.evaluator.sandbox.workbench as workbench
workbench.Trainer.train = lambda *arguments: {"diverged": False, "steps": 20}
"""


@pytest.mark.parametrize(
    ("lines", "status", "says"),
    [
        ({"forward": _PEEKS_IN_SCORING}, "noncausal", "without the tokens after it"),
        ({"forward": "y = y * float('nan')"}, "diverged", "training"),
        ({"forward": "y = y if self.training else y * float('nan')"}, "diverged", "scoring"),
        ({"forward": "y = y if self.training else y.repeat(1, 2, 1)"}, "crashed", "scoring"),
        ({"forward": "raise ValueError('bad sizes')"}, "crashed", "ValueError: bad sizes"),
        ({"forward": "if self.training: os._exit(0)"}, "crashed", "training: exited"),
        ({"forward": "kept = torch.zeros(1 << 30)"}, "oom", "allocate"),
        ({"top": _HIDES_PARAMETERS}, "protocol", "other tensors than before"),
        ({"top": _WIDENS_PARAMETERS}, "protocol", "numbers where"),
        ({"top": _BREAKS_WEIGHTS}, "protocol", "safetensors"),
        ({"top": _LINKS_WEIGHTS}, "crashed", "not permitted"),
        ({"top": _SKIPS_TRAINING}, "protocol", "no readable checkpoint"),
    ],
)
def test_a_trial_that_fails_says_how(
    lines: dict[str, str],
    status: str,
    says: str,
    judge: Judge,
    spec: TrialSpec,
    hostile_source: MakeSource,
) -> None:
    result = judge.run_trial(replace(spec, source=hostile_source(**lines)))
    assert result.reason is not None
    assert (result.status, says in result.reason) == (status, True), result.reason
    assert "val_bpb" not in result.metrics
    assert result.weights is None


def test_a_trial_that_hangs_is_ended_at_its_deadline(
    config: RunConfig,
    judge: Judge,
    spec: TrialSpec,
    sandbox: Sandbox,
    mixer_source: MakeSource,
) -> None:
    hanging = replace(spec, source=mixer_source(forward="while self.training: pass"))
    assignment = judge._assignment(hanging)
    result = Trial(sandbox, _impatient(config), "cpu", hanging, assignment, {}).run()
    assert (result.status, result.weights) == ("timeout", None)
    assert result.wall_s < 1.5 + 2


_COUNTS_STEPS = "self.steps = getattr(self, 'steps', 0) + self.training"


@pytest.mark.parametrize(
    ("after", "line", "status"),
    [
        (18, "y = y * float('nan')", "diverged"),
        (18, "raise ValueError('bad sizes')", "crashed"),
        (18, "os._exit(1)", "crashed"),
        (18, "kept = torch.zeros(1 << 40)", "oom"),
        (10, "raise ValueError('bad sizes')", "crashed"),  # before the cooldown of steps 17 to 20
    ],
)
def test_a_trial_that_ends_early_keeps_its_step_and_the_checkpoint_before_the_cooldown(
    after: int, line: str, status: str, judge: Judge, spec: TrialSpec, hostile_source: MakeSource
) -> None:
    lines = f"{_COUNTS_STEPS}\nif self.training and self.steps > {after}: {line}"
    source = hostile_source(init="self.steps = 0", forward=lines)
    result = judge.run_trial(replace(spec, source=source))
    assert result.status == status, result.reason
    assert result.metrics["last_step"] in {after, after + 1}
    has_checkpoint = after > 16
    assert (result.checkpoint is not None) is has_checkpoint
    if result.checkpoint is not None:
        assert stored_step(result.checkpoint) == 16


def test_a_checkpoint_that_is_none_is_not_kept_after_a_failure(
    judge: Judge, spec: TrialSpec, hostile_source: MakeSource
) -> None:
    false = "open('checkpoint.safetensors', 'wb').write(bytes(99)); raise ValueError('done')"
    result = judge.run_trial(replace(spec, source=hostile_source(forward=f"if 1: {false}")))
    assert (result.status, result.checkpoint) == ("crashed", None), result.reason


def test_a_finite_explosion_ends_a_trial_before_its_last_step(
    judge: Judge, spec: TrialSpec
) -> None:
    result = judge.run_trial(replace(spec, learning_rate=10.0))
    assert (result.status, "exploded" in (result.reason or "")) == ("diverged", True), result.reason
    assert result.metrics["last_step"] < 20


def test_a_trial_that_stalls_on_its_way_is_ended_long_before_its_deadline(
    judge: Judge, spec: TrialSpec, mixer_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_watch, "_LEAST_PATIENCE_S", 0.5)
    monkeypatch.setattr(training_watch, "_PATIENCE_REPORTS", 5)
    hangs = f"{_COUNTS_STEPS}\nwhile self.training and self.steps > 18: pass"
    result = judge.run_trial(replace(spec, source=mixer_source(forward=hangs)))
    assert (result.status, result.metrics["last_step"]) == ("stalled", 18), result.reason
    assert "nothing was heard" in (result.reason or "")
    assert result.checkpoint is not None


def test_a_stored_checkpoint_that_cannot_be_used_is_not_the_candidates_fault(
    judge: Judge, spec: TrialSpec
) -> None:
    broken = judge.run_trial(replace(spec, checkpoint=b"no checkpoint"))
    assert (broken.status, "cannot go on" in (broken.reason or "")) == ("infra", True)
    late = judge.run_trial(spec).checkpoint
    too_short = judge.run_trial(replace(spec, tokens=spec.tokens // 2, checkpoint=late))
    assert (too_short.status, "step 16" in (too_short.reason or "")) == ("infra", True)


def test_an_audit_asks_on_after_a_failure(judge: Judge, mixer_source: MakeSource) -> None:
    source = mixer_source(forward="y = y + self.proj(x.roll(-1, 1))")
    first = judge.judge(source, "L")
    whole = judge.audit(source, "L")
    assert first.failure is not None
    assert whole.failure is not None
    assert first.failure.gate == whole.failure.gate == "causality"
    assert [result.gate for result in first.results][-1] == "causality"
    failed = [result.gate for result in whole.results if result.passed is False]
    assert {"causality", "prefix", "canary"} <= set(failed)
    assert {result.stage for result in whole.results} == {"cpu"}
    assert not whole.is_sound


def test_an_audit_of_what_does_not_fit_the_budget_says_so_and_asks_the_rest(
    judge: Judge, mixer_source: MakeSource
) -> None:
    source = mixer_source(
        init="self.big = nn.Linear(16, 2000)", forward="y = y + self.big(x)[..., :16]"
    )
    judgement = judge.audit(source, "L")
    verdicts = {result.gate: result.passed for result in judgement.results}
    assert verdicts["parameters"] is False
    assert verdicts["causality"] is verdicts["canary"] is True
    assert judgement.mlp_width is None
    assert judgement.n_params is not None


def test_what_dies_at_one_gate_is_still_asked_the_gates_of_a_fresh_process(
    sandbox: Sandbox, config: RunConfig, hostile_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Subject, "check", lambda *_: None)  # it imports os
    source = hostile_source(forward="if x.shape[:2] == (1, 16): os._exit(0)")
    judgement = Examination(sandbox, config, Subject(source=source), is_whole=True).judge()
    verdicts = {result.gate: result.passed for result in judgement.results}
    assert verdicts["state"] is False
    assert verdicts["shape"] is True
    assert verdicts["canary"] is True


_FOREIGN = """
import torch
from torch import nn

class DeltaNet(nn.Module):
    def __init__(self, hidden_size=16, num_heads=2, layer_idx=None, **kwargs):
        super().__init__()
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden_states, attention_mask=None, past_key_values=None, **kwargs):
        y = torch.tanh(self.proj(hidden_states.cumsum(1) / {scale}))
        return y, None, past_key_values
"""


def test_a_file_in_another_convention_is_audited_where_its_convention_allows(judge: Judge) -> None:
    sound = judge.audit(_FOREIGN.format(scale="8"), convention="asi-arch")
    assert sound.is_sound, sound.failure
    absent = {result.gate: result.reason for result in sound.results if result.passed is None}
    assert {"state", "streaming"} <= set(absent)
    assert all(absent.values())
    assert sound.n_params == pytest.approx(10_000, rel=0.02)
    leaky = _FOREIGN.format(scale="hidden_states.norm(dim=1, keepdim=True)")
    failure = judge.audit(leaky, convention="asi-arch").failure
    assert failure is not None
    assert failure.gate == "causality"


def test_every_judgement_and_trial_says_how_it_was_contained(
    judge: Judge, spec: TrialSpec, mixer_source: MakeSource
) -> None:
    level = judge.containment.level
    assert judge.judge(mixer_source(), "L").sandbox == level
    result = judge.run_trial(spec)
    assert result.sandbox == level
    assert result.environment["sandbox"]["level"] == level


def test_a_worker_that_cannot_confine_runs_nothing_and_says_why(
    judge: Judge, spec: TrialSpec, mixer_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    poor = replace(judge.containment, level="process", missing=("landlock: this kernel has none",))
    monkeypatch.setattr(type(judge), "containment", property(lambda self: poor))
    judgement = judge.judge(mixer_source(), "L")
    assert judgement.results == ()
    assert "landlock: this kernel has none" in (judgement.infra_error or "")
    trial = judge.run_trial(spec)
    assert (trial.status, "--unsafe-no-sandbox" in (trial.reason or "")) == ("infra", True)
    unsafe = judge._config.model_copy(update={"sandbox": SandboxConfig(allow_unsafe=True)})
    monkeypatch.setattr(judge, "_config", unsafe)
    assert judge.judge(mixer_source(), "L").is_sound


def test_trained_weights_go_through_the_gates_and_the_score_keeps_its_prefix_shift(
    judge: Judge, spec: TrialSpec
) -> None:
    result = judge.run_trial(spec)
    assert {gate.stage for gate in result.gates} == {"trained"}
    assert all(gate.passed for gate in result.gates)
    assert {"causality", "batch", "replay"} <= {gate.gate for gate in result.gates}
    assert 0 <= (result.metrics["prefix_shift_nats"] or 0.0) < 1e-3


def test_a_reference_mixer_is_one_on_its_trained_weights_too(judge: Judge, spec: TrialSpec) -> None:
    source = baseline_source("softmax_attention")
    width = judge.judge(source, "L", is_reference=True).mlp_width
    assert width is not None
    reference = replace(spec, source=source, mlp_width=width, is_reference=True)
    assert judge.run_trial(reference).status == "done"
    assert judge.run_trial(replace(reference, is_reference=False)).status == "unsound"
