"""Chunked torch form of `scan`: all chunks step together, then the chunks' ends, then both meet.

Chunks of sqrt(T) tokens make that 2 sqrt(T) steps. Only products of decays appear, never a
quotient, so any gate is exact.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def scan_chunks(
    x: Tensor,  # [B, T, D]
    log_decay: Tensor,  # [B, T, D]
    initial_state: Tensor | None,  # [B, D]
) -> tuple[Tensor, Tensor]:
    h, final = _Scan.apply(x, log_decay, initial_state)
    return h, final


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, log_decay: Tensor, initial_state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        decay = log_decay.exp()
        h = _recur(x, decay, initial_state)
        ctx.save_for_backward(decay, h, initial_state)
        return h, h[:, -1].clone()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_h: Tensor | None, grad_final: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        decay, h, initial_state = ctx.saved_tensors
        reverse = torch.zeros_like(h) if grad_h is None else grad_h.flip(1)
        if grad_final is not None:
            reverse[:, 0] += grad_final
        # Seen from the end, token t's gradient is its own plus decay[t + 1] times its successor's.
        to_earlier = F.pad(decay[:, 1:].flip(1), (0, 0, 1, 0))
        grad_x = _recur(reverse, to_earlier, None).flip(1)
        start = torch.zeros_like(h[:, 0]) if initial_state is None else initial_state
        before = torch.cat((start[:, None], h[:, :-1]), dim=1)
        grad_decayed = grad_x * decay  # of h_{t-1}
        grad_start = grad_decayed[:, 0] if ctx.needs_input_grad[2] else None
        return grad_x, before.mul_(grad_decayed), grad_start


def _recur(x: Tensor, decay: Tensor, start: Tensor | None) -> Tensor:
    """h_t = decay_t h_{t-1} + x_t from h = start (zeros if None)."""
    batch, length, width = x.shape
    chunk = math.isqrt(length - 1) + 1
    chunks = -(-length // chunk)
    missing = chunks * chunk - length
    h = F.pad(x, (0, 0, 0, missing)) if missing else x.clone(memory_format=torch.contiguous_format)
    h = h.view(batch, chunks, chunk, width)
    decay = F.pad(decay, (0, 0, 0, missing)).reshape(batch, chunks, chunk, width)
    for i in range(1, chunk):
        h[:, :, i].addcmul_(decay[:, :, i], h[:, :, i - 1])
    through = decay.cumprod(2)  # from the chunk's start
    carried = torch.empty_like(h[:, :, 0])  # [B, N, D], the state before each chunk
    carried[:, 0] = 0 if start is None else start
    for n in range(1, chunks):
        before = carried[:, n - 1]
        torch.addcmul(h[:, n - 1, -1], through[:, n - 1, -1], before, out=carried[:, n])
    h.addcmul_(through, carried[:, :, None])
    return h.view(batch, -1, width)[:, :length].contiguous()
