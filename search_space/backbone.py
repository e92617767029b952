"""The decoder that every mixer is put into: embedding, pre-norm blocks, SwiGLU MLPs, tied head.

Self-contained on purpose (torch, linearch.kernels, layers.py): exports carry a copy of this file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import causal_attention, rotary, swiglu
from .layers import RMSNorm, merge_heads, split_heads

State = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneConfig:
    """Sizes of a model. `pattern` repeats over the layers: L the mixer, A window attention."""

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    mlp_width: int
    pattern: str = "L"
    window: int | None = 32  # tokens an A layer sees; None: all of them, with a growing state

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "n_layers", "n_heads", "mlp_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.d_model % self.n_heads:
            raise ValueError(f"n_heads={self.n_heads} must divide d_model={self.d_model}")
        if not self.pattern or set(self.pattern) - {"L", "A"}:
            raise ValueError(f"pattern must consist of the letters L and A, got {self.pattern!r}")
        if "L" not in self.layer_kinds:
            raise ValueError(
                f"pattern {self.pattern!r} puts no mixer (L) into {self.n_layers} layers"
            )
        if self.window is not None and self.window < 1:
            raise ValueError(f"window must be at least 1 or None, got {self.window}")

    @property
    def layer_kinds(self) -> str:
        """One letter a layer: the pattern "LA" on four layers is "LALA"."""
        return (self.pattern * self.n_layers)[: self.n_layers]


class WindowAttention(nn.Module):
    """Softmax attention over the last `window` tokens with rotary positions; an `A` layer."""

    def __init__(self, d_model: int, n_heads: int, window: int | None) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.window = window
        self.qkv_proj = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        qk, v = self.qkv_proj(x).split([2 * x.shape[-1], x.shape[-1]], dim=-1)
        start = x.new_zeros((), dtype=torch.int64) if state is None else state["position"]
        # Rotated keys are cached: scores depend on distances alone.
        q, k = rotary(split_heads(qk, 2 * self.n_heads), start).chunk(2, dim=2)  # [B, T, H, K]
        past = None if state is None else (state["keys"], state["values"], state["length"])
        y, (keys, values, length) = causal_attention(
            q, k, split_heads(v, self.n_heads), window=self.window, past=past
        )
        after = {
            "keys": keys,
            "values": values,
            "length": length,
            "position": start + x.shape[1],
        }
        return self.out_proj(merge_heads(y)), after


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)), gate and up in one matrix (arXiv 2002.05202)."""

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(d_model, 2 * width, bias=False)
        self.down = nn.Linear(width, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(swiglu(self.gate_up(x)))
        return y


class Block(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x)). The residual stream keeps its own dtype.

    What is added last is handed on beside the stream: the next norm adds it, in one pass over both.
    """

    def __init__(self, d_model: int, mlp_width: int, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer_norm = RMSNorm(d_model)
        self.mixer = mixer
        self.mlp_norm = RMSNorm(d_model)
        self.mlp = SwiGLU(d_model, mlp_width)

    def forward(
        self, x: Tensor, added: Tensor | None, state: State | None
    ) -> tuple[Tensor, Tensor, State]:
        """x: the stream [B, T, D]; added: what belongs to it too, or None. Both are returned."""
        dtype = _compute_dtype(x)
        if added is None:
            y = self.mixer_norm(x, dtype)
        else:
            y, x = self.mixer_norm.of_sum(added, x, dtype)
        y, state = self.mixer(y, state)
        if y.shape != x.shape:
            wanted, found = tuple(x.shape), tuple(y.shape)
            raise ValueError(f"the mixer returned shape {found} for x of shape {wanted}")
        y, x = self.mlp_norm.of_sum(y, x, dtype)
        return x, self.mlp(y), state


class Backbone(nn.Module):
    """A language model around `mixer_class`, which initialises itself and is left as it is."""

    def __init__(self, config: BackboneConfig, mixer_class: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        # The head is tied to it: with this deviation logits start with variance 1.
        nn.init.normal_(self.embedding.weight, std=config.d_model**-0.5)
        self.blocks = nn.ModuleList(
            Block(config.d_model, config.mlp_width, _mixer(config, i, kind, mixer_class))
            for i, kind in enumerate(config.layer_kinds)
        )
        self.norm = RMSNorm(config.d_model)

    def forward(
        self, tokens: Tensor, states: list[State] | None = None
    ) -> tuple[Tensor, list[State]]:
        """tokens int64 [B, T] to normalised hidden states [B, T, D], and each layer's state."""
        x = self.embedding(tokens)  # [B, T, D]
        added: Tensor | None = None
        after = []
        for i, block in enumerate(self.blocks):
            x, added, state = block(x, added, None if states is None else states[i])
            after.append(state)
        assert added is not None  # there is a layer at least
        hidden, _ = self.norm.of_sum(added, x)
        return hidden, after

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., D] to [..., vocab_size], with the embedding as the head."""
        return F.linear(hidden, self.embedding.weight)

    @torch.inference_mode()
    def generate(
        self,
        prompt_ids: Tensor,
        max_new_tokens: int,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The prompt [B, T] followed by `max_new_tokens` more: [B, T + max_new_tokens].

        Memory does not grow with the number of tokens: a state is carried, no cache. Temperature 0
        takes the most likely token, else tokens are drawn with `generator`.
        """
        if prompt_ids.ndim != 2 or prompt_ids.shape[1] < 1:
            raise ValueError(
                f"prompt_ids must be [B, T] with T >= 1, got {tuple(prompt_ids.shape)}"
            )
        new = prompt_ids.new_empty(prompt_ids.shape[0], max_new_tokens)
        step, states = prompt_ids, None
        for i in range(max_new_tokens):
            hidden, states = self(step, states)
            states = clone_states(states)
            step = _next_token(self.logits(hidden[:, -1]), temperature, generator)  # [B, 1]
            new[:, i : i + 1] = step
        return torch.cat([prompt_ids, new], dim=1)


def clone_states(states: list[State]) -> list[State]:
    """Compact copies: a mixer's state may be a view that keeps a whole sequence alive."""
    return [{name: tensor.clone() for name, tensor in state.items()} for state in states]


def optimizer_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's parameter groups: decay on parameters with two or more axes only."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]


def _mixer(
    config: BackboneConfig, layer_idx: int, kind: str, mixer_class: Callable[..., nn.Module]
) -> nn.Module:
    if kind == "A":
        return WindowAttention(config.d_model, config.n_heads, config.window)
    return mixer_class(config.d_model, config.n_heads, layer_idx, config.n_layers)


def _compute_dtype(x: Tensor) -> torch.dtype:
    """What autocast computes in, where it is on: a mixer sees one dtype throughout."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _next_token(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    if temperature <= 0:
        return logits.argmax(dim=-1, keepdim=True)
    chances = F.softmax(logits.float() / temperature, dim=-1)
    return torch.multinomial(chances, 1, generator=generator)
