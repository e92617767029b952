"""Run with TRITON_INTERPRET=1 by test_triton_interpreted: torch's checks of operators, as JSON."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor
from torch.library import opcheck

from linearch.kernels.triton import (
    bonus,
    decay,
    delta,
    dplr,
    gating,
    norm,
    normaliser,
    oja,
    pointwise,
    residual_norm,
    rotary,
    skip_product,
    strength,
    token_shift,
)


def leaf(*shape: int) -> Tensor:
    return torch.randn(shape, requires_grad=True)


Calls = dict[str, tuple[Any, tuple[Any, ...]]]  # by name: the operator and its arguments


def of_recurrences() -> Calls:
    q, k, v, do = (leaf(1, 3, 2, dim) for dim in (16, 16, 20, 20))
    beta, of_values, start = leaf(1, 3, 2), leaf(1, 3, 2, 20), leaf(1, 2, 20, 16)
    rule = [t.detach() for t in (q, k, v, beta, of_values)]
    kept = [torch.zeros(1, 3, 2, 16), torch.zeros(1, 2, 1, 20, 16)]
    asks, keys, a, b, gates = (leaf(1, 3, 1, 4) for _ in range(5))
    streams = (asks, keys, leaf(1, 3, 1, 5), a, b)
    made = dplr._forward_op(*streams, gates, None, 1.0, True)
    o, _, *streams_kept = (t.detach() for t in made)
    columns = leaf(1, 3, 1, 5)
    steps = (*streams[:3], leaf(1, 3, 1), gates, columns, streams[3], None)
    by_column = (*steps, 1.0, True, True, 1)
    o_of_steps, _, *steps_kept = (t.detach() for t in delta._forward_op(*by_column))
    q_k_v_beta_g = [t.detach() for t in (*streams[:3], steps[3], gates)]
    gated = (*streams[:3], gates, None, 1.0, True)
    o_of_decay, _, *decay_kept = (t.detach() for t in decay._forward_op(*gated))
    return {
        "decay": (decay._forward_op, gated),
        "decay's gradient": (
            decay._backward_op,
            (
                *(t.detach() for t in gated[:4]),
                *(None, decay_kept, o_of_decay, None, 1.0, True, False),
            ),
        ),
        "delta, values": (delta._forward_op, by_column),
        "delta's gradient, values": (
            delta._backward_op,
            (
                *(*q_k_v_beta_g, streams[3].detach(), steps_kept, o_of_steps),
                *(None, 1.0, 1, True, True, True),
            ),
        ),
        "delta's gradient, values that learn nothing": (
            delta._backward_op,
            (
                *(*q_k_v_beta_g, streams[3].detach(), steps_kept, o_of_steps),
                *(torch.randn(1, 1, 4, 5), 1.0, 1, False, False, False),
            ),
        ),
        "two streams": (dplr._forward_op, (*streams, gates, None, 1.0, True)),
        "two streams' gradient": (
            dplr._backward_op,
            (*(t.detach() for t in streams), streams_kept, o, None, 1.0, True, True),
        ),
        "oja": (oja._forward_op, (q, k, v, beta, of_values, start, 1.0, True)),
        "oja's gradient": (
            oja._backward_op,
            (*rule, kept, do.detach(), None, 1.0, True, True),
        ),
    }


def of_layers() -> Calls:
    wide, weight, narrow = leaf(5, 24), leaf(12), torch.float16
    x, y = wide.detach().chunk(2, dim=1)
    own = [leaf(6, 4), leaf(6, 4), leaf(6, 5), leaf(2, 4)]
    scale, rows = weight.detach(), [leaf(5, 12) for _ in range(3)]
    return {
        "product": (gating._product_op, (leaf(5, 12), leaf(5, 12), True)),
        "product's gradient": (gating._product_pull_op, (leaf(5, 12).detach(), x, y, True)),
        "product, skip": (skip_product._forward_op, (*rows, leaf(12), True)),
        "product's gradient, skip": (
            skip_product._backward_op,
            (x, *(t.detach() for t in rows), scale, False),
        ),
        "swiglu": (gating._swiglu_op, (wide,)),
        "swiglu's gradient": (gating._swiglu_pull_op, (x, wide.detach())),
        "activation": (
            pointwise._forward_op,
            (wide, "softplus", leaf(24), leaf(24), -0.5, 0.0, narrow),
        ),
        "activation's gradient": (
            pointwise._backward_op,
            (x, y, "log_sigmoid", scale, None, 1.0, 0.3),
        ),
        "norm": (norm._forward_op, (leaf(5, 12), weight, None, True, 1e-6, narrow)),
        "residual": (residual_norm._forward_op, (leaf(5, 12), leaf(5, 12), weight, 1e-6, narrow)),
        "residual's gradient": (
            residual_norm._backward_op,
            (x, y, x.contiguous(), scale, 1e-6, narrow),
        ),
        "bonus": (bonus._forward_op, (leaf(6, 5), *own, 0.3)),
        "bonus' gradient": (
            bonus._backward_op,
            (torch.randn(6, 5), *(t.detach() for t in own), 0.3),
        ),
        "normaliser": (normaliser._forward_op, (leaf(5, 12), 8)),
        "normaliser's gradient": (normaliser._backward_op, (torch.randn(5, 8), x)),
        "rotary": (rotary._rotate_op, (leaf(6, 12), x[:3, :2], y[:3, :2])),
        "strengths": (strength._forward_op, (leaf(5, 12), leaf(5, 6), 3)),
        "strengths' gradient": (
            strength._backward_op,
            (torch.randn(5, 24), x, torch.randn(5, 6), 3),
        ),
        "token shift": (
            token_shift._forward_op,
            (leaf(2, 3, 12), leaf(2, 12), leaf(2, 2, 3, 12), leaf(2, 1, 12)),
        ),
        "token shift's gradient": (
            token_shift._backward_op,
            ([torch.randn(2, 3, 12)] * 2, torch.randn(2, 3, 12), torch.randn(2, 12), None, None),
        ),
    }


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    calls = of_recurrences() | of_layers()
    print(json.dumps({name: opcheck(op.overload, given) for name, (op, given) in calls.items()}))


if __name__ == "__main__":
    main()
