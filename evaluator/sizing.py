"""The gates on the whole model: it can be built, fits the budget and keeps its state's size.

What a child counts is a claim. It decides the MLP's width and no score: trained weights are counted
again outside.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from ..config import RunConfig
from ..errors import CandidateRejected
from ..search_space.parameters import MIN_MLP_WIDTH, match_mlp_width
from .assignment import model_sizes
from .gates.budget import parameter_budget, rejection
from .handover import random_tokens, size_of, state_after
from .hidden_states import ModelStream, form_of
from .results import GateResult
from .sandbox.failures import ChildFailed
from .sandbox.handle import Child
from .stopped import TrialStopped
from .subject import Subject

INIT_SEED = 0
_LARGEST_COUNT = 1 << 53  # of what a database and JSON hold exactly


class Sizing:
    """Fills `results` and `found` (a Judgement's sizes) from a child that has loaded nothing yet.

    `width` is the MLP's width to go on with: the one that fits the budget, else the smallest.
    """

    def __init__(self, child: Child, config: RunConfig, subject: Subject) -> None:
        self._child, self._config, self._subject = child, config, subject
        self.results: list[GateResult] = []
        self.found: dict[str, Any] = {}
        self.width = MIN_MLP_WIDTH

    def builds(self) -> bool:
        """The gate "build"."""
        started = time.perf_counter()
        try:
            load(self._child, self._subject)
            narrow, wider = self._count(MIN_MLP_WIDTH), self._count(MIN_MLP_WIDTH + 1)
            if narrow >= wider:
                raise ChildFailed("protocol", "a wider MLP did not add parameters")
        except ChildFailed as failure:
            return self._add(failed("build", failure), started)
        self._counts = {MIN_MLP_WIDTH: narrow, MIN_MLP_WIDTH + 1: wider}
        return self._add(GateResult(gate="build", passed=True), started)

    def fits(self) -> bool:
        """The gate "parameters", at the width that comes nearest to the budget."""
        started = time.perf_counter()
        model = self._config.model
        try:
            width = match_mlp_width(
                self._counts.__getitem__,
                model.param_budget,
                model.param_tolerance,
                MIN_MLP_WIDTH,
                model.mlp_multiple,
            )
            n_params = self._count(width)
        except CandidateRejected as error:
            self.found["n_params"] = self._counts[MIN_MLP_WIDTH]
            return self._add(rejection(error), started)
        except ChildFailed as failure:
            return self._add(failed("parameters", failure), started)
        self.found.update(mlp_width=width, n_params=n_params)
        self.width = width
        return self._add(parameter_budget(n_params, width, model), started)

    def keeps_its_state_size(self) -> bool:
        """The gate "state": the whole model's, at half, one and two times the training length.

        The same model's work is counted here.
        """
        started = time.perf_counter()
        if not self._subject.can_stream:
            why = "Its convention has no state between calls, so it has no size."
            return self._add(GateResult(gate="state", passed=None, reason=why), started)
        seq_len = self._config.data.seq_len
        lengths = [seq_len // 2, seq_len, 2 * seq_len]
        try:
            self._count(self.width)  # a narrow model may have been built last
        except ChildFailed as failure:
            return self._add(failed("state", failure), started)
        model = self._config.model
        stream = ModelStream(self._child, model.d_model, "fp32")
        try:
            states = {
                length: state_after(stream, random_tokens(1, length, model.vocab_size))
                for length in lengths
            }
            self.found.update(flops_per_token=self._flops_per_token())
        except ChildFailed as failure:
            return self._add(failed("state", failure), started)
        except TrialStopped as stopped:
            return self._add(not_streamed("state", stopped), started)
        at = {length: size_of(state) for length, state in states.items()}
        self.found.update(state_bytes=at[seq_len], state_bytes_at=at)
        reason = None
        if len(set(at.values())) > 1:
            reason = f"The state's bytes depend on the number of tokens seen: {at}."
        elif any(form_of(state) != form_of(states[seq_len]) for state in states.values()):
            reason = "The state's names, shapes or types depend on the tokens seen."
        if self._subject.is_reference:
            reason = None
        evidence = {"state_bytes_at": {str(length): n_bytes for length, n_bytes in at.items()}}
        return self._add(
            GateResult(gate="state", passed=reason is None, reason=reason, evidence=evidence),
            started,
        )

    def _count(self, width: int) -> int:
        sizes = model_sizes(self._config, self._subject.pattern, width)
        reply = self._child.call("build", {"model": sizes, "seed": INIT_SEED})
        return _count_in(reply.values.get("n_params"))

    def _flops_per_token(self) -> float:
        """Of a training step, forward and backward: two for each multiplication that is added."""
        seq_len = self._config.data.seq_len
        reply = self._child.call("work", {"length": seq_len})
        return 2 * _count_in(reply.values.get("multiply_adds")) / seq_len

    def _add(self, result: GateResult, started: float) -> bool:
        """Whether nothing speaks against going on."""
        self.results.append(replace(result, duration_s=time.perf_counter() - started))
        return result.passed is not False


def load(child: Child, subject: Subject) -> None:
    """Has the child run the source; raises ChildFailed."""
    child.call("load", {"source": subject.source, "convention": subject.convention})


def failed(gate: str, failure: ChildFailed) -> GateResult:
    """A failing result of a child that gave no answer."""
    reason = f"The candidate gave no usable answer ({failure.kind}): {failure.message}."
    return GateResult(gate=gate, passed=False, reason=reason, evidence={"kind": failure.kind})


def not_streamed(gate: str, stopped: TrialStopped) -> GateResult:
    """The result for a model whose stream ended; what is not finite is another gate's to judge."""
    passed = None if stopped.status == "diverged" else False
    reason = f"It gave no usable answer in pieces ({stopped.status}): {stopped.reason}."
    return GateResult(gate=gate, passed=passed, reason=reason)


def _count_in(claim: object) -> int:
    if type(claim) is not int or not 0 <= claim <= _LARGEST_COUNT:
        raise ChildFailed("protocol", f"the reply holds {claim!r} where a count belongs")
    return claim
