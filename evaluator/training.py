"""The one training recipe, run whole in the candidate's process: nothing it reports is believed.

AdamW, linear warm-up, constant rate, then a linear cooldown as a side branch: the checkpoint before
it is what a longer training goes on from, so a shorter rung is a prefix of a longer one.
"""

from __future__ import annotations

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

_REPORTS = 32
_CUDA_CHECK_STEPS = 16


class _Diverged(Exception):
    """The loss is no longer a finite number."""


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """bfloat16 where the recipe says so and a GPU makes it faster; a CPU stays in float32."""
    is_on = device.type == "cuda" and precision == "bf16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_on)


class Trainer:
    """One training, made ready before its data are there.

    `report("progress", step=, loss=)` is called about 32 times on the way.
    """

    def __init__(self, model: Backbone, recipe: Recipe, report: Callable[..., None]) -> None:
        self._model = model.train()
        self._recipe = recipe
        self._report = report
        self._device = model.embedding.weight.device
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        groups = optimizer_groups(model, recipe.weight_decay)
        self._optimizer = torch.optim.AdamW(
            groups, lr=recipe.learning_rate, betas=recipe.betas, fused=True
        )
        self._n_done = 0

    def restore(self, path: Path) -> None:
        """Goes on from a checkpoint; raises ValueError for one from after this rung's cooldown."""
        self._n_done = load_checkpoint(self._model, self._optimizer, path)
        if self._n_done > self._recipe.constant_steps:
            raise ValueError(f"a checkpoint after {self._n_done} steps is too late for this rung")

    def warm_up(self) -> None:
        """On a GPU, compiles kernels and fills the allocator, on tokens that mean nothing."""
        if self._device.type == "cuda":
            shape = (self._recipe.batch_size, self._recipe.seq_len)
            tokens = torch.arange(math.prod(shape), device=self._device).view(shape)
            tokens = tokens % self._model.config.vocab_size
            torch.autograd.backward(self._loss(tokens, tokens))
            self._optimizer.zero_grad(set_to_none=True)
            torch.cuda.synchronize()

    def train(self, batches: Batches, checkpoint: Path | None = None) -> dict[str, Any]:
        """To the recipe's end, leaving `checkpoint` from before the cooldown.

        Returns whether it diverged and how many steps were done.
        """
        pause = max(self._n_done, self._recipe.constant_steps)
        try:
            self._run(batches, self._n_done, pause)
            if checkpoint is not None:
                save_checkpoint(self._model, self._optimizer, pause, checkpoint)
            self._run(batches, pause, self._recipe.total_steps)
        except _Diverged:
            return {"diverged": True, "steps": self._n_done}
        return {"diverged": False, "steps": self._n_done}

    def _run(self, batches: Batches, first: int, last: int) -> None:
        """Steps first, ..., last - 1; raises _Diverged soon after the loss stops being finite."""
        # Reading the loss waits for the GPU, so it is read now and then; on a CPU it is free.
        check_steps = _CUDA_CHECK_STEPS if self._device.type == "cuda" else 1
        report_steps = max(1, self._recipe.total_steps // _REPORTS)
        total = torch.zeros((), device=self._device)
        n_summed = 0
        for step in range(first, last):
            total += self._step(step, batches)
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

    def _step(self, step: int, batches: Batches) -> Tensor:
        loss = self._loss(*batches(step))
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self._parameters, self._recipe.clip_norm, foreach=True)
        for group in self._optimizer.param_groups:
            group["lr"] = self._recipe.rate(step)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def _loss(self, inputs: Tensor, labels: Tensor) -> Tensor:  # both [B, T]
        with autocast(self._device, self._recipe.precision):
            hidden, _ = self._model(inputs)  # [B, T, D]
            head = self._model.embedding.weight  # [vocabulary, D]
            return linear_cross_entropy(hidden.flatten(0, 1), head, labels.flatten())
