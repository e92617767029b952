"""The decoder around a mixer: patterns, states, generation, optimiser groups."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from linearch.search_space import (
    Backbone,
    BackboneConfig,
    baseline_source,
    load_mixer_class,
    optimizer_groups,
    state_bytes,
)
from linearch.search_space.backbone import WindowAttention, clone_states

GatedDeltaNet = load_mixer_class(baseline_source("gated_deltanet"), "backbone_test_mixer")


def make(pattern: str = "L", n_layers: int = 2, window: int | None = 4) -> Backbone:
    torch.manual_seed(0)
    config = BackboneConfig(
        vocab_size=17,
        d_model=16,
        n_layers=n_layers,
        n_heads=2,
        mlp_width=24,
        pattern=pattern,
        window=window,
    )
    model = Backbone(config, GatedDeltaNet).eval()
    nn.init.normal_(model.embedding.weight)  # decisive logits
    return model


def kinds(model: Backbone) -> str:
    return "".join("A" if isinstance(b.mixer, WindowAttention) else "L" for b in model.blocks)


@pytest.mark.parametrize(
    ("pattern", "n_layers", "expected"),
    [("L", 3, "LLL"), ("LA", 4, "LALA"), ("LLLA", 6, "LLLALL"), ("LLLA", 2, "LL")],
)
def test_a_pattern_repeats_over_the_layers(pattern: str, n_layers: int, expected: str) -> None:
    model = make(pattern, n_layers)
    assert kinds(model) == model.config.layer_kinds == expected


def test_a_mixer_is_told_its_layer_and_left_as_it_initialised_itself() -> None:
    class Recorder(nn.Module):
        def __init__(self, d_model: int, n_heads: int, layer_idx: int, n_layers: int) -> None:
            super().__init__()
            self.told = (d_model, n_heads, layer_idx, n_layers)
            self.weight = nn.Parameter(torch.full((2, 2), 7.0))

    config = BackboneConfig(vocab_size=5, d_model=8, n_layers=3, n_heads=2, mlp_width=8)
    mixers = [block.mixer for block in Backbone(config, Recorder).blocks]
    assert [mixer.told for mixer in mixers] == [(8, 2, i, 3) for i in range(3)]
    assert all(torch.equal(mixer.weight, torch.full((2, 2), 7.0)) for mixer in mixers)


@pytest.mark.parametrize("pattern", ["L", "LA"])
def test_streaming_equals_the_whole(pattern: str) -> None:
    model, tokens = make(pattern), torch.randint(17, (2, 30))
    whole, _ = model(tokens)
    pieces, states = [], None
    for piece in tokens.split([1, 3, 10, 1, 15], dim=1):
        hidden, states = model(piece, states)
        pieces.append(hidden)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-4, atol=1e-5)


def test_window_attention_sees_exactly_its_window() -> None:
    torch.manual_seed(0)
    attention, x = WindowAttention(16, 2, window=4), torch.randn(1, 12, 16)
    changed = x.clone()
    changed[:, 3] += 1
    difference = (attention(x)[0] - attention(changed)[0]).abs().amax(dim=(0, 2))
    assert torch.equal(difference > 1e-6, torch.tensor([3 <= t <= 6 for t in range(12)]))


def test_a_hybrids_state_keeps_its_size_once_its_window_is_full() -> None:
    model = make("LA")
    sizes = set()
    for length in (1, 4, 30):
        _, states = model(torch.randint(17, (1, length)))
        sizes.add(state_bytes(clone_states(states)))
    assert len(sizes) == 1


def test_full_attention_layers_grow_their_state() -> None:
    model = make("LA", window=None)
    short, long = (state_bytes(model(torch.randint(17, (1, n)))[1]) for n in (4, 64))
    assert long > short


def greedy_by_whole_forwards(model: Backbone, prompt: Tensor, n: int) -> Tensor:
    tokens = prompt
    for _ in range(n):
        hidden, _ = model(tokens)
        tokens = torch.cat([tokens, model.logits(hidden[:, -1]).argmax(-1, keepdim=True)], dim=1)
    return tokens


@pytest.mark.parametrize("pattern", ["L", "LA"])
def test_greedy_generation_equals_the_argmax_of_whole_forwards(pattern: str) -> None:
    model, prompt = make(pattern), torch.randint(17, (2, 6))
    with torch.no_grad():
        expected = greedy_by_whole_forwards(model, prompt, 20)
    assert torch.equal(model.generate(prompt, 20), expected)


def test_sampling_follows_its_generator() -> None:
    model, prompt = make(), torch.randint(17, (1, 4))

    def sample(seed: int) -> Tensor:
        return model.generate(
            prompt, 30, temperature=2.0, generator=torch.Generator().manual_seed(seed)
        )

    assert torch.equal(sample(1), sample(1))
    assert not torch.equal(sample(1), sample(2))
    assert torch.equal(sample(1)[:, :4], prompt)


def test_generating_nothing_returns_the_prompt_and_an_empty_prompt_is_refused() -> None:
    model, prompt = make(), torch.randint(17, (1, 4))
    assert torch.equal(model.generate(prompt, 0), prompt)
    with pytest.raises(ValueError, match="T >= 1"):
        model.generate(prompt[:, :0], 3)


def test_the_head_is_the_embedding() -> None:
    model = make()
    hidden, _ = model(torch.randint(17, (1, 3)))
    torch.testing.assert_close(model.logits(hidden), hidden @ model.embedding.weight.T)
    assert sum("embedding" in name for name in model.state_dict()) == 1


def test_only_matrices_decay_and_every_parameter_is_optimised() -> None:
    model = make("LA")
    decayed, others = optimizer_groups(model, weight_decay=0.1)
    assert decayed["weight_decay"] == 0.1
    assert others["weight_decay"] == 0.0
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert all(p.ndim < 2 for p in others["params"])
    assert len(decayed["params"]) + len(others["params"]) == len(list(model.parameters()))


def test_a_mixer_sees_the_autocast_dtype() -> None:
    seen = []

    class Recorder(nn.Module):
        def __init__(self, *sizes: int) -> None:
            super().__init__()

        def forward(self, x: Tensor, state: None = None) -> tuple[Tensor, dict[str, Tensor]]:
            seen.append(x.dtype)
            return x, {}

    config = BackboneConfig(vocab_size=5, d_model=8, n_layers=1, n_heads=2, mlp_width=8)
    model = Backbone(config, Recorder)
    tokens = torch.zeros(1, 2, dtype=torch.int64)
    model(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(tokens)
    assert seen == [torch.float32, torch.bfloat16]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_heads", 3),
        ("pattern", "LX"),
        ("pattern", ""),
        ("pattern", "AL"),
        ("window", 0),
        ("mlp_width", 0),
    ],
)
def test_impossible_sizes_are_refused(field: str, value: object) -> None:
    sizes = {"vocab_size": 5, "d_model": 8, "n_layers": 1, "n_heads": 2, "mlp_width": 8}
    with pytest.raises(ValueError, match=field):
        BackboneConfig(**{**sizes, field: value})
