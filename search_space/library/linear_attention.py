"""Linear attention: softmax's exponential kernel replaced by a product of positive features.

Katharopoulos et al., "Transformers are RNNs", 2020 (arXiv 2006.16236), equations 16 to 20.

    S_t = S_{t-1} + phi(k_t) v_t^T        phi(x) = elu(x) + 1
    z_t = z_{t-1} + phi(k_t)
    o_t = S_t^T phi(q_t) / (z_t . phi(q_t))

Nothing is ever forgotten: the state sums up all tokens alike and the normaliser z keeps the output
an average of values. The kernel stores z as one more column of S.
"""

from __future__ import annotations

from torch import Tensor, nn

from linearch.kernels import chunk_decay
from linearch.search_space.layers import elu_plus_one, merge_heads, split_heads


class Mixer(nn.Module):
    def __init__(self, d_model: int, n_heads: int, layer_idx: int, n_layers: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv_proj = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def forward(
        self, x: Tensor, state: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        D = x.shape[-1]
        qk, v = self.qkv_proj(x).split([2 * D, D], dim=-1)
        q, k = elu_plus_one(split_heads(qk, 2 * self.n_heads)).chunk(2, dim=2)  # [B, T, H, K]

        o, memory = chunk_decay(
            q,
            k,
            split_heads(v, self.n_heads),
            normalise=True,
            initial_state=None if state is None else state["memory"],
        )

        return self.out_proj(merge_heads(o)), {"memory": memory}
