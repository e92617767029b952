"""What one training is told: plain numbers that the supervisor decides and sends to the child."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..config import TrainingConfig
from ..errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """`total_steps` count from the very first step, also where a checkpoint is gone on from."""

    learning_rate: float
    total_steps: int
    cooldown_steps: int
    warmup_steps: int
    weight_decay: float
    betas: tuple[float, float]
    clip_norm: float
    precision: str
    seed: int
    batch_size: int
    seq_len: int
    accumulation: int = 1  # equal parts of a batch, whose gradients are added up

    @property
    def constant_steps(self) -> int:
        """Where the checkpoint is taken and the cooldown begins."""
        return self.total_steps - self.cooldown_steps

    def rate(self, step: int) -> float:
        """The learning rate of step 0, 1, ...; after the last step it would be zero."""
        if step >= self.constant_steps:
            left = self.total_steps - step
            return self.learning_rate * left / (self.cooldown_steps + 1)
        return self.learning_rate * min(1.0, (step + 1) / (self.warmup_steps + 1))


def trained_tokens(training: TrainingConfig, rung_tokens: Sequence[int]) -> list[int]:
    """What each rung of a ladder trains on, to rounding: it goes on from before the cooldown of the
    one below, a side branch whose tokens are trained on a second time."""
    below = (0, *rung_tokens)
    return [
        tokens - before + round(training.cooldown_fraction * before)
        for tokens, before in zip(rung_tokens, below, strict=False)
    ]


def make_recipe(
    training: TrainingConfig,
    *,
    tokens: int,
    learning_rate: float,
    seed: int,
    batch_size: int,
    seq_len: int,
) -> Recipe:
    """The recipe of one rung; a rest of `tokens` smaller than a batch is not trained on.

    A batch of another size than the configuration's is cut into as many parts as it can be.

    Raises ConfigError if they do not fill one batch.
    """
    total_steps = tokens // (batch_size * seq_len)
    if total_steps < 1:
        raise ConfigError(
            f"{tokens} tokens of training are less than one batch of {batch_size} x {seq_len}; "
            "raise ladder.rung_tokens or recall.train_tokens, or lower the batch."
        )
    return Recipe(
        learning_rate=learning_rate,
        total_steps=total_steps,
        cooldown_steps=round(training.cooldown_fraction * total_steps),
        warmup_steps=training.warmup_steps,
        weight_decay=training.weight_decay,
        betas=training.betas,
        clip_norm=training.clip_norm,
        precision=training.precision,
        seed=seed,
        batch_size=batch_size,
        seq_len=seq_len,
        accumulation=math.gcd(training.accumulation, batch_size),
    )
