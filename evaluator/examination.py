"""All checks of one candidate before money is spent: cheapest first, each in a fresh child.

The source, the model's sizes and the gates come first, in float32 on the processor; then the gates
again where and how the search trains, if that is a GPU; then the noise canary.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..config import RunConfig
from ..errors import CandidateRejected
from ..search_space.chunk_sizes import chunk_sizes_in
from .assignment import model_sizes
from .canary import GATE as CANARY
from .canary import noise_canary
from .device import limits_on, precision_on
from .gates.budget import rejection
from .gates.probe import Precision, ProbeFacts, ProbeFailed
from .gates.runner import DEVICE_GATES, GATES, Gate, run_gates_on_layers
from .handover import GATE as HANDOVER
from .handover import Handed, hand_over, take_over
from .hidden_states import ModelStream
from .results import GateResult, Judgement, Stage
from .sandbox.failures import ChildFailed, SandboxFault
from .sandbox.handle import Child
from .sandbox.remote_probe import RemoteProbe
from .sandbox.supervisor import Sandbox
from .sizing import INIT_SEED, Sizing, failed, load, not_streamed
from .stopped import TrialStopped
from .subject import Subject


class Examination:
    """Fills in a Judgement step by step; `judge` always returns one.

    With `is_whole` a failure does not end it: everything that can still be asked is.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        config: RunConfig,
        subject: Subject,
        *,
        device: str = "cpu",
        is_whole: bool = False,
    ) -> None:
        self._sandbox, self._config, self._subject = sandbox, config, subject
        self._device, self._is_whole = device, is_whole
        self._precision = precision_on(config, device)
        self._results: list[GateResult] = []
        self._sizes: dict[str, Any] = {}
        self._width = 0

    def judge(self) -> Judgement:
        started = time.perf_counter()
        level = infra_error = None
        try:
            level = self._sandbox.containment.level
            self._examine()
        except (SandboxFault, OSError) as fault:
            infra_error = str(fault)
        return Judgement(
            results=() if infra_error else tuple(self._results),
            **self._sizes,
            wall_s=time.perf_counter() - started,
            sandbox=level,
            infra_error=infra_error,
        )

    def _examine(self) -> None:
        if not (self._goes_on(self._check_source()) and self._goes_on(self._size())):
            return
        if not self._goes_on(self._run_gates("cpu", "cpu", "fp32", GATES)):
            return
        if self._device == "cuda" and not self._goes_on(
            self._run_gates("device", "cuda", self._precision, DEVICE_GATES)
        ):
            return
        self._goes_on(self._ask_canary())

    def _goes_on(self, found: Iterable[GateResult]) -> bool:
        """Books results; whether there is anything more to ask."""
        new = list(found)
        self._results += new
        has_failed = any(result.passed is False for result in new)
        is_built = all(result.passed for result in new if result.gate in ("source", "build"))
        return is_built and (self._is_whole or not has_failed)

    def _check_source(self) -> Iterable[GateResult]:
        started = time.perf_counter()
        try:
            self._subject.check(self._config.gates.max_source_bytes)
            result = GateResult(gate="source", passed=True)
        except CandidateRejected as error:
            result = rejection(error)
        yield _timed(result, started)

    def _size(self) -> list[GateResult]:
        n_layers = self._config.model.n_layers
        if not self._subject.probed_layers(n_layers):
            pattern = self._subject.pattern
            reason = f"The pattern {pattern!r} gives none of {n_layers} layers to the mixer."
            return [GateResult(gate="build", passed=False, reason=reason)]
        with self._spawn("cpu") as child:
            sizing = Sizing(child, self._config, self._subject)
            can_go_on = sizing.builds() and (sizing.fits() or self._is_whole)
            self._sizes, self._width = sizing.found, sizing.width
            if not (can_go_on and sizing.keeps_its_state_size() and self._subject.can_stream):
                return sizing.results
            started = time.perf_counter()
            try:
                handed = hand_over(self._stream(child), self._config)
            except TrialStopped as stopped:
                return [*sizing.results, _timed(not_streamed(HANDOVER, stopped), started)]
        return [*sizing.results, _timed(self._take_over(handed), started)]

    def _take_over(self, handed: Handed) -> GateResult:
        """By a second process, with the same model."""
        model = model_sizes(self._config, self._subject.pattern, self._width)
        with self._spawn("cpu") as child:
            try:
                load(child, self._subject)
                child.call("build", {"model": model, "seed": INIT_SEED})
                return take_over(self._stream(child), handed, self._config)
            except ChildFailed as failure:
                return failed(HANDOVER, failure)
            except TrialStopped as stopped:
                return not_streamed(HANDOVER, stopped)

    def _stream(self, child: Child) -> ModelStream:
        return ModelStream(child, self._config.model.d_model, "fp32")

    def _run_gates(
        self, stage: Stage, device: str, precision: Precision, gates: Mapping[str, Gate]
    ) -> list[GateResult]:
        with self._spawn(device) as child:
            try:
                load(child, self._subject)
                layers = self._subject.probed_layers(self._config.model.n_layers)
                probes = [self._probe(child, layer, precision) for layer in layers]
            except ChildFailed as failure:
                return [replace(failed("build", failure), stage=stage)]
            except ProbeFailed as failure:
                reason = f"The layer cannot be made ({failure.kind}): {failure.message}."
                return [GateResult(gate="build", passed=False, reason=reason, stage=stage)]
            # The inputs' seed is new each time: no candidate can have seen them.
            seed = random.SystemRandom().getrandbits(31)
            return run_gates_on_layers(
                probes, self._config.gates, seed, gates, is_whole=self._is_whole, stage=stage
            )

    def _probe(self, child: Child, layer: int, precision: Precision) -> RemoteProbe:
        facts = probe_facts(self._config, self._subject, layer)
        n_heads = self._config.model.n_heads
        return RemoteProbe(child, facts, n_heads=n_heads, seed=INIT_SEED, precision=precision)

    def _ask_canary(self) -> Iterable[GateResult]:
        started = time.perf_counter()
        stage: Stage = "device" if self._device == "cuda" else "cpu"
        model = model_sizes(self._config, self._subject.pattern, self._width)
        with self._spawn(self._device) as child:
            try:
                load(child, self._subject)
                result = noise_canary(child, model, self._config, self._device, self._precision)
            except ChildFailed as failure:
                result = failed(CANARY, failure)
        yield replace(_timed(result, started), stage=stage)

    def _spawn(self, device: str) -> Child:
        limits = limits_on(self._config, device, self._config.gates.deadline_s)
        return self._sandbox.spawn(limits, device=device)


def probe_facts(config: RunConfig, subject: Subject, layer: int) -> ProbeFacts:
    """What trusted code knows about the mixer in one layer."""
    return ProbeFacts(
        d_model=config.model.d_model,
        seq_len=config.data.seq_len,
        n_layers=config.model.n_layers,
        layer_index=layer,
        is_reference=subject.is_reference,
        can_stream=subject.can_stream,
        chunk_sizes=chunk_sizes_in(subject.source),
    )


def _timed(result: GateResult, started: float) -> GateResult:
    return replace(result, duration_s=time.perf_counter() - started)
