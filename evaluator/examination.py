"""The gates of one candidate, in order, on a child that holds it; the first failure ends it."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import Any

from ..config import RunConfig
from ..errors import CandidateRejected
from ..search_space.parameters import MIN_MLP_WIDTH, match_mlp_width
from ..search_space.source_check import check_source
from .assignment import model_sizes
from .gates.budget import parameter_budget, rejection
from .gates.probe import ProbeFacts, ProbeFailed
from .gates.runner import run_gates_on_layers
from .results import GateResult, Judgement
from .sandbox.failures import ChildFailed, FailureKind, SandboxFault
from .sandbox.handle import Child
from .sandbox.limits import MIB, Limits
from .sandbox.remote_probe import RemoteProbe
from .sandbox.supervisor import Sandbox

_INIT_SEED = 0


class Examination:
    """Fills in a Judgement step by step; `judge` always returns one."""

    def __init__(
        self, sandbox: Sandbox, config: RunConfig, source: str, pattern: str, is_reference: bool
    ) -> None:
        self._sandbox = sandbox
        self._config = config
        self._source = source
        self._pattern = pattern
        self._is_reference = is_reference
        self._results: list[GateResult] = []
        self._sizes: dict[str, Any] = {}

    def judge(self) -> Judgement:
        started = time.perf_counter()
        infra_error = None
        try:
            if self._passes_source_check():
                self._examine()
        except (SandboxFault, OSError) as fault:
            infra_error = str(fault)
        return Judgement(
            results=() if infra_error else tuple(self._results),
            **self._sizes,
            wall_s=time.perf_counter() - started,
            infra_error=infra_error,
        )

    def _passes_source_check(self) -> bool:
        started = time.perf_counter()
        try:
            check_source(self._source, self._config.gates.max_source_bytes)
            result = GateResult(gate="source", passed=True)
        except CandidateRejected as error:
            result = rejection(error)
        return self._add(result, started)

    def _examine(self) -> None:
        limits = Limits(
            wall_s=self._config.gates.deadline_s,
            memory_bytes=self._config.workers.memory_limit_mib * MIB,
        )
        if not self._probed_layers():
            n_layers = self._config.model.n_layers
            reason = f"The pattern {self._pattern!r} gives none of {n_layers} layers to the mixer."
            self._results.append(GateResult(gate="build", passed=False, reason=reason))
            return
        with self._sandbox.spawn(limits, device="cpu") as child:
            if not (self._builds(child) and self._keeps_its_state_size(child)):
                return
            try:
                probes = [self._probe(child, layer) for layer in self._probed_layers()]
            except ProbeFailed as failure:
                self._results.append(_failed("build", failure.kind, failure.message))
                return
            # The inputs' seed is new each time: no candidate can have seen them.
            seed = random.SystemRandom().getrandbits(31)
            self._results += run_gates_on_layers(probes, self._config.gates, seed)

    def _builds(self, child: Child) -> bool:
        """The gates "build" and "parameters": the model exists, at a width that fits the budget."""
        started = time.perf_counter()
        model = self._config.model
        try:
            child.call("load", {"source": self._source})
            counts = {w: self._count(child, w) for w in (MIN_MLP_WIDTH, MIN_MLP_WIDTH + 1)}
            if counts[MIN_MLP_WIDTH] >= counts[MIN_MLP_WIDTH + 1]:
                raise ChildFailed("protocol", "a wider MLP did not add parameters")
            width = match_mlp_width(
                counts.__getitem__, model.param_budget, model.param_tolerance, MIN_MLP_WIDTH
            )
            n_params = self._count(child, width)
        except ChildFailed as failure:
            return self._add(_failed("build", failure.kind, failure.message), started)
        except CandidateRejected as error:
            return self._add(rejection(error), started)
        self._add(GateResult(gate="build", passed=True), started)
        self._sizes.update(mlp_width=width, n_params=n_params)
        return self._add(parameter_budget(n_params, width, model), time.perf_counter())

    def _count(self, child: Child, width: int) -> int:
        sizes = model_sizes(self._config, self._pattern, width)
        reply = child.call("build", {"model": sizes, "seed": _INIT_SEED})
        return _count_in(reply.values.get("n_params"))

    def _keeps_its_state_size(self, child: Child) -> bool:
        """The gate "state": the whole model's, at half, one and two times the training length."""
        started = time.perf_counter()
        seq_len = self._config.data.seq_len
        lengths = [seq_len // 2, seq_len, 2 * seq_len]
        try:
            reply = child.call("state", {"lengths": lengths})
            claims = reply.values.get("bytes")
            if not isinstance(claims, list) or len(claims) != len(lengths):
                raise ChildFailed("protocol", "the reply holds no state sizes")
            sizes = [_count_in(claim) for claim in claims]
        except ChildFailed as failure:
            return self._add(_failed("state", failure.kind, failure.message), started)
        at = dict(zip(lengths, sizes, strict=True))
        self._sizes.update(state_bytes=at[seq_len], state_bytes_at=at)
        grows = len(set(sizes)) > 1 and not self._is_reference
        reason = f"The state's bytes depend on the number of tokens seen: {at}." if grows else None
        evidence = {"state_bytes_at": {str(length): n_bytes for length, n_bytes in at.items()}}
        return self._add(
            GateResult(gate="state", passed=not grows, reason=reason, evidence=evidence), started
        )

    def _probed_layers(self) -> list[int]:
        """The first and the last layer that hold the candidate's mixer."""
        kinds = (self._pattern * self._config.model.n_layers)[: self._config.model.n_layers]
        layers = [i for i, kind in enumerate(kinds) if kind == "L"]
        return sorted({*layers[:1], *layers[-1:]})

    def _probe(self, child: Child, layer: int) -> RemoteProbe:
        model = self._config.model
        facts = ProbeFacts(
            d_model=model.d_model,
            seq_len=self._config.data.seq_len,
            n_layers=model.n_layers,
            layer_index=layer,
            is_reference=self._is_reference,
        )
        return RemoteProbe(child, facts, n_heads=model.n_heads, seed=_INIT_SEED)

    def _add(self, result: GateResult, started: float) -> bool:
        self._results.append(replace(result, duration_s=time.perf_counter() - started))
        return result.passed


def _count_in(claim: object) -> int:
    if type(claim) is not int or claim < 0:
        raise ChildFailed("protocol", f"the reply holds {claim!r} where a count belongs")
    return claim


def _failed(gate: str, kind: FailureKind | str, message: str) -> GateResult:
    reason = f"The candidate gave no usable answer ({kind}): {message}."
    return GateResult(gate=gate, passed=False, reason=reason, evidence={"kind": kind})
