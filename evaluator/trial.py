"""One trial from the outside: a child trains, its files are checked, fresh children are scored.

Time, steps, memory and parameters are counted here; of what the training child reports only the
curve is kept, to be shown and never ranked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..config import RunConfig
from .assignment import CORPUS_TASK, Assignment
from .checkpoint import CHECKPOINT_IN, CHECKPOINT_OUT, WEIGHTS
from .results import TrialResult, TrialSpec
from .sandbox.failures import SandboxFault
from .sandbox.handle import Child
from .sandbox.limits import MIB, Limits
from .sandbox.protocol import ProtocolError, load_tensors
from .sandbox.supervisor import Sandbox
from .scoring import HEAD, Score, score
from .stopped import TrialStopped, stops_on_failure


@dataclass(kw_only=True, slots=True)
class _Progress:
    """What the training child says on its way, and when it said that it started."""

    tokens_per_step: int
    started: float | None = None
    curve: list[tuple[int, float]] = field(default_factory=list)

    def __call__(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "started" and self.started is None:
            self.started = time.perf_counter()
        elif event["event"] == "progress":
            step, loss = event.get("step"), event.get("loss")
            if type(step) is not int or type(loss) is not float:
                raise ProtocolError("a progress report without step and loss")
            self.curve.append((step * self.tokens_per_step, loss))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trained:
    weights: bytes
    checkpoint: bytes
    n_tokens: int
    n_steps: int
    train_wall_s: float
    peak_memory_bytes: int | None


class Trial:
    """Runs one TrialSpec in `sandbox`; `run` always returns a result."""

    def __init__(
        self,
        sandbox: Sandbox,
        config: RunConfig,
        device: str,
        spec: TrialSpec,
        assignment: Assignment,
        environment: dict[str, Any],
    ) -> None:
        self._sandbox = sandbox
        self._config = config
        self._device = device
        self._spec = spec
        self._assignment = assignment
        self._environment = environment
        self._deadline = time.monotonic() + config.workers.trial_deadline_s
        recipe = assignment.recipe
        self._progress = _Progress(tokens_per_step=recipe.batch_size * recipe.seq_len)

    def run(self) -> TrialResult:
        started = time.perf_counter()
        outcome: dict[str, Any]
        try:
            outcome = self._train_and_score()
        except TrialStopped as stopped:
            outcome = {"status": stopped.status, "reason": stopped.reason}
        except (SandboxFault, OSError) as fault:
            outcome = {"status": "infra", "reason": str(fault)}
        return TrialResult(
            **outcome,
            curve=tuple(self._progress.curve),
            wall_s=time.perf_counter() - started,
            device=self._device,
            environment=self._environment,
        )

    def _train_and_score(self) -> dict[str, Any]:
        trained = self._train()
        weights = self._checked_weights(trained.weights)
        self._check_step(trained.checkpoint)
        scored = score(
            lambda: self._scoring_child(trained.weights),
            self._assignment.held_out,
            weights,
            self._precision,
        )
        metrics: dict[str, float | None] = {
            "tokens_per_s": trained.n_tokens / trained.train_wall_s,
            "step_time_s": trained.train_wall_s / trained.n_steps,
            "train_wall_s": trained.train_wall_s,
            "n_params": sum(tensor.numel() for tensor in weights.values()),
            "peak_memory_bytes": trained.peak_memory_bytes,
            **_task_metrics(self._spec.task, scored),
        }
        return {
            "status": "done",
            "metrics": metrics,
            "checkpoint": trained.checkpoint,
            "weights": trained.weights,
        }

    @property
    def _precision(self) -> str:
        return self._config.training.precision if self._device == "cuda" else "fp32"

    def _train(self) -> _Trained:
        recipe = self._assignment.recipe
        n_steps = recipe.total_steps - self._first_step()
        with (
            stops_on_failure("training"),
            self._sandbox.spawn(self._limits(), self._assignment.data) as child,
        ):
            if self._spec.checkpoint is not None:
                child.write(CHECKPOINT_IN, self._spec.checkpoint)
            self._build(child)
            begun = time.perf_counter()
            reply = child.call(
                "train",
                {
                    "recipe": asdict(recipe),
                    "data": self._assignment.data_kind,
                    "resume": self._spec.checkpoint is not None,
                },
                on_event=self._progress,
            )
            ended = time.perf_counter()
            if reply.values.get("diverged") is not False:
                raise TrialStopped("diverged", "training: the loss stopped being finite")
            if self._device == "cuda" and self._progress.started is not None:
                begun = self._progress.started  # kernels are compiled before it
            return _Trained(
                weights=child.read(WEIGHTS, self._largest_file(1)),
                checkpoint=child.read(CHECKPOINT_OUT, self._largest_file(3)),
                n_tokens=n_steps * recipe.batch_size * recipe.seq_len,
                n_steps=n_steps,
                train_wall_s=ended - begun,
                peak_memory_bytes=self._peak_memory(child, reply.values),
            )

    def _first_step(self) -> int:
        """Where training goes on; a checkpoint of the store that is unusable is no one's cheat."""
        if self._spec.checkpoint is None:
            return 0
        try:
            step = _stored_step(self._spec.checkpoint)
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

    def _build(self, child: Child) -> None:
        child.call("load", {"source": self._spec.source})
        child.call("build", {"model": self._assignment.model, "seed": self._spec.seed})

    def _limits(self) -> Limits:
        return Limits(
            wall_s=max(1.0, self._deadline - time.monotonic()),
            memory_bytes=self._config.workers.memory_limit_mib * MIB,
            caps_address_space=self._device == "cpu",
            scratch_bytes=self._largest_file(1) + 2 * self._largest_file(3) + 64 * MIB,
        )

    def _largest_file(self, numbers_per_parameter: int) -> int:
        """Twice what an honest model of this size leaves, in bytes."""
        return 8 * numbers_per_parameter * self._assignment.expected_params + MIB

    def _checked_weights(self, data: bytes) -> dict[str, Tensor]:
        """The weights, if they are finite, hold the head and are as many as the budget allows.

        Buffers are counted with the parameters, or they would be a place to hide some; twice the
        budget's tolerance leaves room for honest ones.
        """
        weights = _load(data, WEIGHTS)
        model = self._assignment.model
        head = weights.get(HEAD)
        if head is None or head.shape != (model["vocab_size"], model["d_model"]):
            raise TrialStopped("protocol", f"{WEIGHTS} holds no {HEAD} of the right shape")
        n_params = sum(tensor.numel() for tensor in weights.values())
        expected = self._assignment.expected_params
        if abs(n_params - expected) > 2 * self._config.model.param_tolerance * expected:
            reason = f"{WEIGHTS} holds {n_params} numbers where {expected} are the budget"
            raise TrialStopped("protocol", reason)
        if not all(tensor.isfinite().all() for tensor in weights.values()):
            raise TrialStopped("diverged", "training: the weights are not finite")
        return {**weights, HEAD: head.float()}

    def _check_step(self, checkpoint: bytes) -> None:
        expected = self._assignment.recipe.constant_steps
        if (step := _stored_step(checkpoint)) != expected:
            raise TrialStopped("protocol", f"the checkpoint is of step {step}, not {expected}")


def _load(data: bytes, name: str) -> dict[str, Tensor]:
    try:
        return load_tensors(data)
    except ProtocolError as error:
        raise TrialStopped("protocol", f"{name}: {error}") from None


def _stored_step(checkpoint: bytes) -> int:
    step = _load(checkpoint, CHECKPOINT_OUT).get("step")
    if step is None or step.shape != () or step.dtype != torch.int64:
        raise TrialStopped("protocol", f"{CHECKPOINT_OUT} holds no step")
    return int(step)


def _task_metrics(task: str, scored: Score) -> dict[str, float]:
    """Bits per byte, where a label is a byte; or the share of answers that are right."""
    if task == CORPUS_TASK:
        return {"val_bpb": scored.nats / (math.log(2) * scored.n_labels)}
    return {f"recall_{task}": scored.n_correct / scored.n_labels}
