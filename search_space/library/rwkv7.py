"""RWKV-7 (Goose), its time mixing: the delta rule with keys of its own for erasing and for writing.

Peng et al., 2025 (arXiv 2503.14456), section 4.1, without the values shared between layers.

    S_t = (diag(w_t) - (a_t * c_t) c_t^T) S_{t-1} + k_t v_t^T     c_t = m * W_k x_t, at length one
    o_t = S_t^T r_t       y_t = W_o (g_t * (norm_h(o_t) + (r_t . u k_t) v_t))

c_t reads the memory before the decay, which stays above exp(-exp(-1/2)) = 0.55. Heads are
normalised by their root mean square.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from linearch.kernels import activation, add_bonus, chunk_dplr, l2_norm, token_shift
from linearch.search_space.layers import RMSNorm, merge_heads, split_heads

RANK = 16


class Mixer(nn.Module):
    def __init__(self, d_model: int, n_heads: int, layer_idx: int, n_layers: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        place = torch.arange(d_model) / d_model  # of a channel, 0 to 1
        blend = 1 - place ** (1 - layer_idx / n_layers)
        self.blends = nn.Parameter(blend.repeat(6, 1, 1, 1))  # r, k, v, decay, rate, gate
        self.r_proj, self.k_proj, self.v_proj = (
            nn.Linear(d_model, d_model, bias=False) for _ in range(3)
        )
        self.decay = nn.Sequential(nn.Linear(d_model, RANK), nn.Tanh(), nn.Linear(RANK, d_model))
        self.rate = nn.Sequential(nn.Linear(d_model, RANK), nn.Linear(RANK, d_model))
        self.gate = nn.Sequential(nn.Linear(d_model, RANK), nn.Sigmoid(), nn.Linear(RANK, d_model))
        self.erase_scale = nn.Parameter(torch.full((d_model,), 0.85))
        self.write_share = nn.Parameter(torch.ones(d_model))
        self.bonus = nn.Parameter(torch.full((n_heads, d_model // n_heads), 0.1))
        self.norm = RMSNorm(d_model // n_heads)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def forward(
        self, x: Tensor, state: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        before = None if state is None else state["token"]
        seen, token = token_shift(x, self.blends.flatten(1), initial_state=before)
        r, k, v = self.r_proj(seen[0]), self.k_proj(seen[1]), self.v_proj(seen[2])
        log_decay = activation(
            self.decay(seen[3]), "sigmoid", rate=-math.exp(-0.5), out_dtype=torch.float32
        )
        rate, gate = activation(self.rate(seen[4]), "sigmoid"), self.gate(seen[5])
        erase_key = l2_norm(split_heads(k * self.erase_scale.to(k.dtype), self.n_heads))
        k = torch.lerp(k, k * rate, self.write_share.to(k.dtype))
        r, k, v, rate, log_decay = (
            split_heads(t, self.n_heads) for t in (r, k, v, rate, log_decay)
        )

        o, memory = chunk_dplr(
            r,
            k,
            v,
            erase_key,
            -rate * erase_key,
            log_decay,
            initial_state=None if state is None else state["memory"],
        )

        o = add_bonus(self.norm(o), r, k, v, self.bonus)
        return self.out_proj(merge_heads(o).to(gate.dtype) * gate), {
            "memory": memory,
            "token": token,
        }
