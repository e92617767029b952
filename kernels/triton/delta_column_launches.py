"""How the delta rule's kernels for decays of the state's columns are launched."""

from __future__ import annotations

from typing import Any

import triton
from torch import Tensor

from .column_decays import sum_columns_kernel
from .config_table import Config
from .configs import block
from .delta_column_pull import column_pairs_kernel, pull_columns_kernel
from .strides import rows


def sum_columns(value_log_decay: Tensor, columns: Tensor) -> None:
    """Fill columns [B, H, N, C, V] with log decays [B, T, H, V] summed in each chunk."""
    B, T, H, V = value_log_decay.shape
    chunks, C = columns.shape[2:4]
    width = block(V, 64)
    sum_columns_kernel[(B * H * chunks * triton.cdiv(V, width),)](
        value_log_decay.contiguous(), columns, T, H, V, chunks,
        C=C, BV=width, EVEN_V=V % width == 0,
    )  # fmt: skip


def launch_column_pairs(
    beta: Tensor,
    sums: Tensor,
    columns: Tensor,
    written: tuple[Tensor, Tensor, Tensor],  # c, do, dv [B, T, H, V]
    pairs: tuple[Tensor, Tensor],  # room, [B, H, N, C, C]
    scale: float,
    config: Config,
    shared: dict[str, Any],  # C, GATE, PRECISION
) -> tuple[Tensor, Tensor, Tensor]:
    """c, do and dv with the columns' decays on their way to the states that they meet."""
    c, do, dv = written
    B, H, chunks, C, V = columns.shape
    room = tuple(c.new_empty(c.shape) for _ in written)
    column_pairs_kernel[(B * H * chunks,)](
        beta, sums, columns, c, do, dv, *pairs, *room, scale, c.shape[1], H, V, chunks, *rows(do),
        C=C, BV=config.block_n, GATE=shared["GATE"], EVEN_V=V % config.block_n == 0,
        PRECISION=shared["PRECISION"], **config.compiled(),
    )  # fmt: skip
    of_c, of_do, of_dv = room
    return of_c, of_do, of_dv


def launch_column_pull(
    streams: tuple[Tensor, Tensor, Tensor],  # q, k, p, or what stands for them with channels' gates
    beta: Tensor,
    sums: Tensor,
    columns: Tensor,
    square: tuple[Tensor, Tensor],  # A and the scores [B, H, N, C, C]
    written: tuple[Tensor, Tensor, Tensor],  # c, do, dv [B, T, H, V]
    states: tuple[Tensor, Tensor],  # before each chunk, and gradients after it [B, H, N, K, V]
    dh: Tensor,  # room for the gradient of the columns' log decays [B, T, H, V]
    scale: float,
    config: Config,
    shared: dict[str, Any],  # C, GATE, PRECISION
    steps: int,
) -> None:
    q, k, p = streams
    _, do, _ = written
    B, H, chunks, K, V = states[0].shape
    T = q.shape[1]
    pull_columns_kernel[(B * H * chunks * triton.cdiv(V, config.block_n),)](
        *streams, beta, sums, columns, *square, *written, *states, dh, scale, T, H, K, V, chunks,
        *rows(q), *rows(k), *rows(p), *rows(do),
        C=shared["C"], GATE=shared["GATE"], STEPS=steps, PRECISION=shared["PRECISION"],
        **config.tile(K, V), **config.compiled(),
    )  # fmt: skip
