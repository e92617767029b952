"""The models of flash-linear-attention in the same widths, run as they come: without a graph."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from typing import Any

import torch
from torch import nn

from ..search_space.parameters import count_parameters
from .train_bench import (
    SIZES,
    Clock,
    Speed,
    begin_memory,
    matmul_params,
    peak_memory,
    run_until_time_is_up,
)

# Ours by name, and what makes theirs as wide: their prefix, and settings beside the common ones.
_THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "linear_attention": ("LinearAttention", {}),
    "retnet": ("RetNet", {}),
    "gla": ("GLA", {}),
    "deltanet": ("DeltaNet", {}),
    "gated_deltanet": ("GatedDeltaNet", {"expand_v": 1.0}),
    "hgrn2": ("HGRN2", {}),
}


def is_installed() -> bool:
    return all(importlib.util.find_spec(name) for name in ("fla", "transformers"))


def has_model(baseline: str) -> bool:
    return baseline in _THEIRS


def measure_fla(
    baseline: str, size_name: str, device: torch.device, *, seconds: float, matmul_rate: float
) -> Speed:
    """Trains their model for `seconds`: bfloat16 autocast and fused AdamW, as ours."""
    size = SIZES[size_name]
    begin_memory(device)
    torch.manual_seed(0)
    model = _model(baseline, size_name).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), fused=True)
    clock = Clock(size, device, seconds)

    def train() -> None:
        step = 0
        while True:
            inputs, labels = clock(step)
            with torch.autocast(device.type, dtype=torch.bfloat16):
                loss = model(input_ids=inputs, labels=labels).loss
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        run_until_time_is_up(train)
    n_used = matmul_params(model) - size.model.vocab_size * size.model.d_model
    return Speed(
        size=size_name,
        model=baseline,
        source="fla",
        n_params=count_parameters(model),
        tokens_per_s=clock.tokens_per_s,
        step_ms=clock.step_ms,
        matmul_share=6.0 * n_used * clock.tokens_per_s / matmul_rate,
        peak_memory_bytes=peak_memory(device),
        first_step_s=clock.first_step_s,
        is_graph=False,
    )


def _model(baseline: str, size_name: str) -> nn.Module:
    models = importlib.import_module("fla.models")
    prefix, settings = _THEIRS[baseline]
    sizes = SIZES[size_name].model
    common = {
        "hidden_size": sizes.d_model,
        "num_hidden_layers": sizes.n_layers,
        "num_heads": sizes.n_heads,
        "intermediate_size": sizes.mlp_width,
        "vocab_size": sizes.vocab_size,
        "use_cache": False,
    }
    if baseline == "gated_deltanet":
        common["head_dim"] = sizes.d_model // sizes.n_heads
    if baseline == "hgrn2":
        common["expand_ratio"] = sizes.d_model // sizes.n_heads
    config = getattr(models, f"{prefix}Config")(**common, **settings)
    model: nn.Module = getattr(models, f"{prefix}ForCausalLM")(config)
    return model
