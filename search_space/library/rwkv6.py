"""RWKV-6 (Finch), its time mixing: channels forget at rates that the token chooses.

Peng et al., "Eagle and Finch", 2024 (arXiv 2404.05892), section 4.2.

    o_t = (S_{t-1} + diag(u) k_t v_t^T)^T r_t     S_t = diag(w_t) S_{t-1} + k_t v_t^T
    w_t = exp(-exp(d + B tanh(A x^w_t)))          y_t = W_o (swish(W_g x^g_t) * norm_h(o_t))

The token's own pair is read through the bonus u before it is stored. Each of r, k, v, g and w sees
its own blend x^i of the token with the one before it, whose shares depend on both. Heads are
normalised by their root mean square, as in the other mixers here, not by their variance.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from linearch.kernels import activation, chunk_decay, token_shift
from linearch.search_space.layers import GatedRMSNorm, merge_heads, split_heads

BLEND_RANK, DECAY_RANK = 8, 16


class Mixer(nn.Module):
    def __init__(self, d_model: int, n_heads: int, layer_idx: int, n_layers: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        place = torch.arange(d_model) / d_model  # of a channel, 0 to 1
        blend = 1 - place ** (1 - layer_idx / n_layers)
        self.first_blend = nn.Parameter(blend.clone())
        self.blends = nn.Parameter(blend.repeat(5, 1, 1, 1))  # r, k, v, g, w
        self.blend_in = nn.Linear(d_model, 5 * BLEND_RANK, bias=False)
        self.blend_out = nn.Parameter(torch.empty(5, 1, BLEND_RANK, d_model).uniform_(-0.01, 0.01))
        self.projections = nn.ModuleList(nn.Linear(d_model, d_model, bias=False) for _ in range(4))
        self.decay = nn.Parameter(-6 + 5 * place ** (0.7 + 1.3 * layer_idx / n_layers))
        self.decay_in = nn.Linear(d_model, DECAY_RANK, bias=False)
        self.decay_out = nn.Linear(DECAY_RANK, d_model, bias=False)
        self.bonus = nn.Parameter(split_heads(1 - place, n_heads).clone())  # [H, K]
        self.norm = GatedRMSNorm(d_model // n_heads)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def forward(
        self, x: Tensor, state: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        before = None if state is None else state["token"]
        (blend,), token = token_shift(x, self.first_blend[None], initial_state=before)
        low_rank = torch.stack(self.blend_in(blend).tanh().chunk(5, dim=-1))  # [5, B, T, R]
        offsets = torch.matmul(low_rank, self.blend_out)  # [5, B, T, D]
        shares = self.blends.flatten(1)  # [5, D]
        blends, _ = token_shift(x, shares, offsets=offsets, initial_state=before)
        *seen, for_decay = blends
        r, k, v, gate = (
            split_heads(project(part), self.n_heads)
            for project, part in zip(self.projections, seen, strict=True)
        )
        rate = self.decay_out(self.decay_in(for_decay).tanh())
        log_decay = activation(rate, "exp", bias=self.decay, rate=-1.0, out_dtype=torch.float32)

        o, memory = chunk_decay(
            r,
            k,
            v,
            split_heads(log_decay, self.n_heads),
            bonus=self.bonus,
            initial_state=None if state is None else state["memory"],
        )

        return self.out_proj(merge_heads(self.norm(o, gate))), {
            "memory": memory,
            "token": token,
        }
