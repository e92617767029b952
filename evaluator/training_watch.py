"""What a training child says on its way, and when it is stopped for that or for its silence.

All of it is a claim. A claim can end a trial early, which harms whoever makes it and nobody else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from statistics import median
from typing import Any

from .recipe import Recipe
from .sandbox.protocol import ProtocolError
from .stopped import TrialStopped

_EXPLODED_NATS = 5.0  # above uniform guessing, where no sound training stays after its warm-up
_EXPLODED_REPORTS = 3  # in a row
_LEAST_PATIENCE_S = 30.0
_PATIENCE_REPORTS = 50  # so many times what one took, usually


class TrainingWatch:
    """Takes a training's reports one by one."""

    def __init__(self, recipe: Recipe, vocab_size: int) -> None:
        self.step = 0  # that was last heard of
        self.curve: list[tuple[int, float]] = []  # tokens seen, training loss in nats
        self._recipe = recipe
        self._bar_nats = math.log(vocab_size) + _EXPLODED_NATS
        self._n_above = 0
        self._last_s: float | None = None
        self._waits_s: list[float] = []

    def begin(self) -> None:
        """Training was asked for just now."""
        self._last_s = time.monotonic()

    def hear(self, event: Mapping[str, Any]) -> None:
        """Takes a report; raises ProtocolError for an impossible one, TrialStopped for the one by
        which the loss has exploded, though it is finite."""
        step, loss = event.get("step"), event.get("loss")
        if type(step) is not int or type(loss) is not float:
            raise ProtocolError("a progress report without step and loss")
        if not self.step < step <= self._recipe.total_steps:  # the store takes each step once
            raise ProtocolError(f"a progress report of step {step} after {self.step}")
        self.step = step
        self.curve.append((step * self._recipe.batch_size * self._recipe.seq_len, loss))
        now_s = time.monotonic()
        if self._last_s is not None:
            self._waits_s.append(now_s - self._last_s)
        self._last_s = now_s
        self._check_loss(loss)

    def hear_end(self, step: object) -> None:
        """Takes how many steps the child says it did in all; what is impossible is left out."""
        if type(step) is int and self.step < step <= self._recipe.total_steps:
            self.step = step

    @property
    def patience_s(self) -> float:
        """The longest silence after a report that is not a stall."""
        usual_s = median(self._waits_s) if self._waits_s else 0.0
        return max(_LEAST_PATIENCE_S, _PATIENCE_REPORTS * usual_s)

    @property
    def where(self) -> str:
        """How far training had come when it was last heard of."""
        return f"last heard of at step {self.step} of {self._recipe.total_steps}"

    def _check_loss(self, loss: float) -> None:
        is_above = self.step > self._recipe.warmup_steps and loss > self._bar_nats
        self._n_above = self._n_above + 1 if is_above else 0
        if self._n_above == _EXPLODED_REPORTS:
            raise TrialStopped(
                "diverged",
                f"training: the loss exploded to {loss:.4g} nats, and {_EXPLODED_REPORTS} reports "
                f"in a row were above {self._bar_nats:.1f}",
            )
