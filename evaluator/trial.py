"""One trial from the outside: a child trains, its files are checked, fresh children are scored.

Time, data, memory and parameters are counted here; of what the training child reports only the
curve is kept, to be shown and never ranked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from ..config import RunConfig
from .alarm import preparation_alarm, text_alarm
from .assignment import CORPUS_TASK, Assignment
from .checkpoint import CHECKPOINT_IN, CHECKPOINT_OUT, WEIGHTS
from .decoding import decode_time_s
from .device import limits_on, precision_on
from .hidden_states import ModelStream
from .leavings import checked_weights, stored_step
from .results import GateResult, TrialResult, TrialSpec, TrialStatus
from .sandbox.failures import ChildFailed, SandboxFault
from .sandbox.handle import Child
from .sandbox.limits import MIB, Limits
from .sandbox.protocol import dump_tensors
from .sandbox.supervisor import Sandbox
from .scoring import Score, difference, score
from .sizing import load
from .stopped import TrialStopped, stops_on_failure
from .subject import Subject
from .trained_gates import run_trained_gates
from .training_watch import TrainingWatch

# Ends after which a checkpoint is worth keeping: nobody was found out.
_ACCIDENTS: tuple[TrialStatus, ...] = ("diverged", "timeout", "stalled", "oom", "crashed")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trained:
    """`shapes`: of the model's tensors by name, as they were before it was served its data."""

    shapes: object
    weights: bytes
    checkpoint: bytes
    n_tokens: int
    n_steps: int
    prepare_wall_s: float  # from the child's start to its first step
    train_wall_s: float
    prepare_cpu_s: float | None
    train_cpu_s: float | None
    peak_memory_bytes: int | None


class Trial:
    """Runs one TrialSpec in `sandbox`; `run` always returns a result.

    `lzma_bpb` is the least that a score on the corpus is believed to be without a closer look.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        config: RunConfig,
        device: str,
        spec: TrialSpec,
        assignment: Assignment,
        environment: dict[str, Any],
        *,
        lzma_bpb: float | None = None,
    ) -> None:
        self._sandbox = sandbox
        self._config = config
        self._device = device
        self._spec = spec
        self._subject = Subject(
            source=spec.source, pattern=spec.pattern, is_reference=spec.is_reference
        )
        self._assignment = assignment
        self._environment = environment
        self._lzma_bpb = lzma_bpb
        self._precision = precision_on(config, device)
        self._deadline = time.monotonic() + config.workers.trial_deadline_s
        self._watch = TrainingWatch(assignment.recipe, assignment.model["vocab_size"])
        self._last_step: int | None = None  # of a training that came to no end
        self._checkpoint: bytes | None = None  # as the training child left it, unchecked
        self._gates: tuple[GateResult, ...] = ()
        self._decode_time_s: float | None = None

    def run(self) -> TrialResult:
        started = time.perf_counter()
        level = None
        outcome: dict[str, Any]
        try:
            level = self._sandbox.containment.level
            outcome = self._train_and_score()
        except TrialStopped as stopped:
            outcome = self._outcome_of(stopped)
        except (SandboxFault, OSError) as fault:
            outcome = {"status": "infra", "reason": str(fault)}
        return TrialResult(
            **outcome,
            curve=tuple(self._watch.curve),
            gates=self._gates,
            wall_s=time.perf_counter() - started,
            device=self._device,
            sandbox=level,
            environment=self._environment,
        )

    def _outcome_of(self, stopped: TrialStopped) -> dict[str, Any]:
        """How far it came, and the last good checkpoint where it left one."""
        return {
            "status": stopped.status,
            "reason": stopped.reason,
            "metrics": {} if self._last_step is None else {"last_step": self._last_step},
            "checkpoint": self._good_checkpoint() if stopped.status in _ACCIDENTS else None,
        }

    def _good_checkpoint(self) -> bytes | None:
        if self._checkpoint is not None:
            with suppress(TrialStopped):
                self._check_step(self._checkpoint)
                return self._checkpoint
        return None

    def _train_and_score(self) -> dict[str, Any]:
        trained = self._train()
        assignment = self._assignment
        weights = checked_weights(
            trained.weights,
            assignment.model,
            trained.shapes,
            assignment.expected_params,
            2 * self._config.model.param_tolerance,
        )
        self._check_step(trained.checkpoint)
        stored = dump_tensors(weights)  # the file has room for more than was counted
        begun = time.perf_counter()
        scored = score(
            lambda: self._scoring_child(stored),
            assignment.held_out,
            weights,
            self._precision,
            self._look_closer if self._spec.task == CORPUS_TASK else None,
        )
        score_wall_s = time.perf_counter() - begun
        self._check_state(scored)
        metrics: dict[str, float | None] = {
            "tokens_per_s": trained.n_tokens / trained.train_wall_s,
            "step_time_s": trained.train_wall_s / trained.n_steps,
            "train_wall_s": trained.train_wall_s,
            "prepare_wall_s": trained.prepare_wall_s,
            "score_wall_s": score_wall_s,  # with the gates on trained weights
            "decode_time_s": self._decode_time_s,
            "train_cpu_s": trained.train_cpu_s if self._device == "cpu" else None,
            "trained_tokens": trained.n_tokens,
            "n_params": sum(tensor.numel() for tensor in weights.values()),
            "peak_memory_bytes": trained.peak_memory_bytes,
            "prefix_shift_nats": scored.prefix_shift_nats,
            "train_cost_ratio": self._cost_ratio(trained, scored),
            **self._task_metrics(scored),
            **self._longer_metrics(weights, stored),
            **self._shard_metrics(weights, stored),
        }
        return {
            "status": "done",
            "metrics": metrics,
            "window_nats": scored.nats_by_row if self._spec.task == CORPUS_TASK else None,
            "alarm": self._alarm(metrics, trained),
            "checkpoint": trained.checkpoint,
            "weights": stored,
        }

    def _task_metrics(self, scored: Score) -> dict[str, float]:
        """Bits per byte of the text that the labels stand for; or the share of right answers."""
        n_bytes = self._assignment.held_out.n_bytes
        if n_bytes is not None:
            return {"val_bpb": _bits_per_byte(scored, n_bytes)}
        return {f"recall_{self._spec.task}": scored.n_correct / scored.n_labels}

    def _longer_metrics(self, weights: Mapping[str, Tensor], stored: bytes) -> dict[str, float]:
        """A task's accuracy on rows of other lengths than it was trained at, each apart."""
        metrics = {}
        for length, rows in self._assignment.longer.items():
            scored = score(lambda: self._scoring_child(stored), rows, weights, self._precision)
            metrics[f"recall_{self._spec.task}@{length}"] = scored.n_correct / scored.n_labels
        return metrics

    def _shard_metrics(self, weights: Mapping[str, Tensor], stored: bytes) -> dict[str, float]:
        shard = self._assignment.shard
        if shard is None or shard.n_bytes is None:
            return {}
        scored = score(lambda: self._scoring_child(stored), shard, weights, self._precision)
        return {"test_bpb": _bits_per_byte(scored, shard.n_bytes)}

    def _alarm(self, metrics: Mapping[str, float | None], trained: _Trained) -> str | None:
        val_bpb = metrics.get("val_bpb")
        if val_bpb is not None and self._lzma_bpb is not None:
            found = text_alarm(val_bpb, self._lzma_bpb)
            if found is not None:
                return found
        if self._device != "cpu":  # where kernels may be compiled before the clock starts
            return None
        return preparation_alarm(trained.prepare_cpu_s, trained.train_cpu_s)

    def _cost_ratio(self, trained: _Trained, scored: Score) -> float | None:
        """What a token costs in training, as a multiple of what it costs in scoring."""
        if self._device != "cpu" or trained.train_cpu_s is None or not scored.cpu_s_per_token:
            return None
        return trained.train_cpu_s / trained.n_tokens / scored.cpu_s_per_token

    def _look_closer(self, child: Child) -> None:
        """At the weights just scored: how fast they decode, and the gates."""
        row = self._assignment.held_out.inputs[0]
        if len(row) > 1:
            width = self._assignment.model["d_model"]
            self._decode_time_s = decode_time_s(ModelStream(child, width, self._precision), row)
        self._run_gates(child)

    def _run_gates(self, child: Child) -> None:
        """Raises TrialStopped for a failure, and keeps the results."""
        self._gates = run_trained_gates(child, self._config, self._subject, self._precision)
        failure = next((result for result in self._gates if result.passed is False), None)
        if failure is not None:
            is_leak = failure.gate in ("causality", "prefix")
            reason = f"the trained weights fail the gate {failure.gate!r}: {failure.reason}"
            raise TrialStopped("noncausal" if is_leak else "unsound", reason)

    def _check_state(self, scored: Score) -> None:
        if self._spec.is_reference:
            return
        if not scored.state_keeps_form:
            reason = (
                "the trained model's state changes its names, shapes or types from token to token"
            )
            raise TrialStopped("unsound", reason)
        judged = self._spec.state_bytes
        if judged is None or scored.state_bytes_per_row <= judged:
            return
        reason = (
            f"the trained model's state holds {scored.state_bytes_per_row:,.0f} bytes a sequence, "
            f"and before training it was {judged:,.0f}"
        )
        raise TrialStopped("unsound", reason)

    def _train(self) -> _Trained:
        try:
            return self._train_in_a_child()
        except TrialStopped as stopped:
            if not self._watch.step:
                raise
            self._last_step = self._watch.step
            reason = f"{stopped.reason} ({self._watch.where})"
            raise TrialStopped(stopped.status, reason) from None

    def _train_in_a_child(self) -> _Trained:
        recipe = self._assignment.recipe
        resumes = self._spec.checkpoint is not None
        first = self._first_step()
        n_steps = recipe.total_steps - first
        started = time.perf_counter()
        with (
            stops_on_failure("training"),
            self._sandbox.spawn(self._limits(), self._assignment.data) as child,
        ):
            shapes = self._build(child)
            if self._spec.checkpoint is not None:
                child.write(CHECKPOINT_IN, self._spec.checkpoint)
            child.call("prepare", {"recipe": asdict(recipe), "resume": resumes})
            prepare_cpu_s = child.cpu_s
            self._assignment.serve(first)
            # Nothing could be learned before: kernels are compiled, and the data came just now.
            begun = time.perf_counter()
            claims = self._watch_training(child)
            ended, cpu_s = time.perf_counter(), child.cpu_s
            weights = child.read(WEIGHTS, self._largest_file(1))
            self._checkpoint = child.read(CHECKPOINT_OUT, self._largest_file(3))
            return _Trained(
                shapes=shapes,
                weights=weights,
                checkpoint=self._checkpoint,
                n_tokens=n_steps * recipe.batch_size * recipe.seq_len,
                n_steps=n_steps,
                prepare_wall_s=begun - started,
                train_wall_s=ended - begun,
                prepare_cpu_s=prepare_cpu_s,
                train_cpu_s=difference(prepare_cpu_s, cpu_s),
                peak_memory_bytes=self._peak_memory(child, claims),
            )

    def _watch_training(self, child: Child) -> dict[str, Any]:
        """What the child says in the end; raises where it came to none, with its checkpoint kept
        where it had left one."""

        def report(event: dict[str, Any]) -> None:
            self._watch.hear(event)
            child.expect_within(self._watch.patience_s)

        self._watch.begin()
        try:
            data = {"data": self._assignment.data_kind}
            claims = child.call("train", data, on_event=report).values
            if claims.get("diverged") is not False:
                self._watch.hear_end(claims.get("steps"))
                raise TrialStopped("diverged", "training: the loss stopped being finite")
        except (ChildFailed, TrialStopped):
            with suppress(ChildFailed):  # most often there is none yet
                self._checkpoint = child.read(CHECKPOINT_OUT, self._largest_file(3))
            raise
        return claims

    def _first_step(self) -> int:
        """Where training goes on; a checkpoint of the store that is unusable is no one's cheat."""
        if self._spec.checkpoint is None:
            return 0
        try:
            step = stored_step(self._spec.checkpoint)
        except TrialStopped as stopped:
            raise TrialStopped("infra", f"cannot go on: {stopped.reason}") from None
        if step > (last := self._assignment.recipe.constant_steps):
            reason = f"cannot go on from step {step}: this rung's cooldown begins after {last}"
            raise TrialStopped("infra", reason)
        return step

    def _peak_memory(self, child: Child, claims: Mapping[str, Any]) -> int | None:
        """Measured outside on a CPU; on a GPU the child's word is all there is."""
        if self._device == "cpu":
            return child.peak_memory_bytes
        claim = claims.get("cuda_peak_bytes")
        return claim if type(claim) is int and claim > 0 else None

    @contextmanager
    def _scoring_child(self, weights: bytes) -> Iterator[Child]:
        with self._sandbox.spawn(self._limits()) as child:
            with stops_on_failure("scoring"):
                child.write(WEIGHTS, weights)
                self._build(child)
                child.call("load_weights")
            yield child

    def _build(self, child: Child) -> object:
        """What the child says of its tensors' shapes, by name."""
        load(child, self._subject)
        values = {"model": self._assignment.model, "seed": self._spec.seed}
        return child.call("build", values).values.get("shapes")

    def _limits(self) -> Limits:
        return limits_on(
            self._config,
            self._device,
            max(1.0, self._deadline - time.monotonic()),
            scratch_bytes=self._largest_file(1) + 2 * self._largest_file(3) + 64 * MIB,
        )

    def _largest_file(self, numbers_per_parameter: int) -> int:
        """Twice what an honest model of this size leaves, in bytes."""
        return 8 * numbers_per_parameter * self._assignment.expected_params + MIB

    def _check_step(self, checkpoint: bytes) -> None:
        expected = self._assignment.recipe.constant_steps
        if (step := stored_step(checkpoint)) != expected:
            raise TrialStopped("protocol", f"the checkpoint is of step {step}, not {expected}")


def _bits_per_byte(scored: Score, n_bytes: float) -> float:
    return scored.nats / (math.log(2) * n_bytes)
