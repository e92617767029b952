"""The one training recipe, run whole in the candidate's process: nothing it reports is believed.

AdamW, linear warm-up, constant rate, then a linear cooldown as a side branch: the checkpoint before
it is what a longer training goes on from, so a shorter rung is a prefix of a longer one. On a GPU
the step is one CUDA graph where the candidate allows it, and nothing waits for the GPU between
steps; either way the numbers are the same.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels import linear_cross_entropy
from ..search_space.backbone import Backbone, optimizer_groups
from .batches import Batches
from .checkpoint import load_checkpoint, save_checkpoint
from .recipe import Recipe
from .step_graph import Advance, NotRecordable, record

IGNORED = -100  # the label of what is not learned
_REPORTS = 32
_CUDA_CHECK_STEPS = 16


class _Diverged(Exception):
    """The loss is no longer a finite number, or a parameter is not."""


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """bfloat16 where the recipe says so and a GPU makes it faster; a CPU stays in float32."""
    is_on = device.type == "cuda" and precision == "bf16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_on)


class Step:
    """Forward, backward, clipping and AdamW on one batch, whose loss is added to `total`.

    A batch in parts gives the same step to rounding: each counts by its share of the labels, of
    which it needs one. In memory only one part's activations are there at a time.
    """

    def __init__(self, model: Backbone, recipe: Recipe) -> None:
        self.model = model.train()
        self.device = model.embedding.weight.device
        self.total = torch.zeros((), device=self.device)
        self._precision, self._clip_norm = recipe.precision, recipe.clip_norm
        self._parts = recipe.accumulation
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        is_cuda = self.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            optimizer_groups(model, recipe.weight_decay),
            lr=recipe.learning_rate,
            betas=recipe.betas,
            fused=True,
            capturable=is_cuda,
        )
        if is_cuda:  # a graph repeats the numbers that it was recorded with, but not a tensor's
            rate = torch.full((), recipe.learning_rate, device=self.device)
            for group in self.optimizer.param_groups:
                group["lr"] = rate

    def set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)  # one tensor of all groups
                return
            group["lr"] = rate

    def __call__(self, inputs: Tensor, labels: Tensor) -> None:
        """inputs, labels: int64 [B, T]."""
        for part, of_part in zip(inputs.chunk(self._parts), labels.chunk(self._parts), strict=True):
            loss = self._loss(part, of_part)
            if self._parts > 1:
                loss = loss * ((of_part != IGNORED).sum() / (labels != IGNORED).sum())
            torch.autograd.backward(loss)
            self.total += loss.detach()
        nn.utils.clip_grad_norm_(self._parameters, self._clip_norm, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        with autocast(self.device, self._precision):
            hidden, _ = self.model(inputs)  # [B, T, D]
            head = self.model.embedding.weight  # [vocabulary, D]
            return linear_cross_entropy(hidden.flatten(0, 1), head, labels.flatten())


class Trainer:
    """One training, made ready before its data are there.

    `report("progress", step=, loss=)` is called about 32 times on the way. `not_recorded` says why
    the steps of a warmed-up training on a GPU are no graph, None if they are one.
    """

    def __init__(self, model: Backbone, recipe: Recipe, report: Callable[..., None]) -> None:
        self._model = model
        self._recipe = recipe
        self._report = report
        self._step = Step(model, recipe)
        self._advance: Advance = self._step
        self._n_done = 0
        self.not_recorded: str | None = None

    def restore(self, path: Path) -> None:
        """Goes on from a checkpoint; raises ValueError for one from after this rung's cooldown."""
        self._n_done = load_checkpoint(self._model, self._step.optimizer, path)
        if self._n_done > self._recipe.constant_steps:
            raise ValueError(f"a checkpoint after {self._n_done} steps is too late for this rung")

    def warm_up(self) -> None:
        """On a GPU, compiles kernels and records the step, on tokens that mean nothing."""
        if self._step.device.type != "cuda":
            return
        shape = (self._recipe.batch_size, self._recipe.seq_len)
        tokens = torch.arange(math.prod(shape), device=self._step.device).view(shape)
        try:
            self._advance = record(self._step, tokens % self._model.config.vocab_size)
        except NotRecordable as reason:
            self.not_recorded = str(reason)
        if self.not_recorded:
            gc.collect()  # the failure's frames hold a step's memory
        torch.cuda.synchronize()

    def train(self, batches: Batches, checkpoint: Path | None = None) -> dict[str, Any]:
        """To the recipe's end, leaving `checkpoint` from before the cooldown.

        Returns whether it diverged, how many steps were done, and `not_recorded` where it is known.
        After a divergence in the cooldown the checkpoint is there and good; before it, the one that
        training went on from is the last.
        """
        known = {"not_recorded": self.not_recorded} if self.not_recorded else {}
        pause = max(self._n_done, self._recipe.constant_steps)
        try:
            self._run(batches, self._n_done, pause)
            if checkpoint is not None:
                self._require_finite()
                save_checkpoint(self._model, self._step.optimizer, pause, checkpoint)
            self._run(batches, pause, self._recipe.total_steps)
        except _Diverged:
            return {"diverged": True, "steps": self._n_done, **known}
        return {"diverged": False, "steps": self._n_done, **known}

    def _run(self, batches: Batches, first: int, last: int) -> None:
        """Steps first, ..., last - 1; raises _Diverged soon after the loss stops being finite."""
        # Reading the loss waits for the GPU, so it is read now and then; on a CPU it is free.
        check_steps = _CUDA_CHECK_STEPS if self._step.device.type == "cuda" else 1
        report_steps = max(1, self._recipe.total_steps // _REPORTS)
        total = self._step.total.zero_()
        n_summed = 0
        for step in range(first, last):
            self._step.set_rate(self._recipe.rate(step))
            self._advance(*batches(step))
            n_summed += 1
            self._n_done = step + 1
            is_last = self._n_done == last
            if is_last or self._n_done % check_steps == 0:
                summed = total.item()  # once infinite or NaN, it stays so
                if not math.isfinite(summed):
                    raise _Diverged
                if is_last or n_summed >= report_steps:
                    self._report("progress", step=self._n_done, loss=summed / n_summed)
                    total.zero_()
                    n_summed = 0

    def _require_finite(self) -> None:
        """The last loss says nothing of the update after it."""
        if not all(bool(parameter.isfinite().all()) for parameter in self._model.parameters()):
            raise _Diverged
