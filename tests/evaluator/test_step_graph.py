"""What recording a step refuses and puts back, on a stand-in for the GPU that runs at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from linearch.config import TrainingConfig
from linearch.evaluator import step_graph
from linearch.evaluator.recipe import make_recipe
from linearch.evaluator.step_graph import NotRecordable, record
from linearch.evaluator.training import Step
from linearch.search_space.backbone import Backbone, BackboneConfig
from linearch.search_space.loading import load_mixer_class

_RECIPE = make_recipe(
    TrainingConfig(), tokens=320, learning_rate=1e-2, seed=0, batch_size=2, seq_len=16
)
_TOKENS = torch.arange(32).view(2, 16)
_STATEFUL = "self.seen += 1\ny = nn.functional.dropout(y, 0.3, self.training)"
_BUFFER = "self.register_buffer('seen', torch.zeros(()))"


class _Step(Step):
    """Keeps the tensors of its last call, which a replay calls it on."""

    last: tuple[Tensor, Tensor]

    def __call__(self, inputs: Tensor, labels: Tensor) -> None:
        self.last = inputs, labels
        super().__call__(inputs, labels)


@pytest.fixture
def make_step(
    mixer_source: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., _Step]:
    """`kept`: what a replay multiplies the loss with, 1 for an honest one."""

    def make(kept: float = 1.0, **lines: str) -> _Step:
        torch.manual_seed(0)
        config = BackboneConfig(vocab_size=32, d_model=8, n_layers=2, n_heads=1, mlp_width=8)
        step = _Step(Backbone(config, load_mixer_class(mixer_source(**lines), "m")), _RECIPE)

        class Graph:
            def capture_begin(self, **_: Any) -> None: ...

            def capture_end(self) -> None:
                self.batch = step.last

            def replay(self) -> None:
                step(*self.batch)
                step.total *= kept

        monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
        return step

    for name in ("synchronize", "empty_cache", "graph_pool_handle", "Stream"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda _: None)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda _: torch.get_rng_state())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, _: torch.set_rng_state(state))
    return make


def test_a_replay_gets_the_new_batch(make_step: Callable[..., _Step]) -> None:
    step = make_step()
    advance, same = record(step, _TOKENS), make_step()
    for i in range(3):
        advance(_TOKENS.roll(i, 1), _TOKENS)
        same(_TOKENS.roll(i, 1), _TOKENS)
    assert step.total.item() == same.total.item()


def test_recording_puts_back_everything_that_it_changed(make_step: Callable[..., _Step]) -> None:
    step = make_step(init=_BUFFER, forward=_STATEFUL)
    before = {name: tensor.clone() for name, tensor in step.model.state_dict().items()}
    random = torch.get_rng_state()
    record(step, _TOKENS)
    assert all(torch.equal(new, before[name]) for name, new in step.model.state_dict().items())
    states = [value for state in step.optimizer.state.values() for value in state.values()]
    assert len(states) == 3 * len(list(step.model.parameters()))
    assert not any(state.any() for state in states)
    assert all(parameter.grad is None for parameter in step.model.parameters())
    assert step.total.item() == 0
    assert torch.equal(torch.get_rng_state(), random)


def test_the_state_of_a_training_that_goes_on_is_kept(make_step: Callable[..., _Step]) -> None:
    step = make_step()
    step(_TOKENS, _TOKENS)
    states = [value for state in step.optimizer.state.values() for value in state.values()]
    before = [state.clone() for state in states]
    record(step, _TOKENS)
    assert all(torch.equal(state, old) for state, old in zip(states, before, strict=True))
    assert any(state.any() for state in states)


def test_a_replay_with_other_losses_is_refused(make_step: Callable[..., _Step]) -> None:
    step = make_step(kept=1.001)
    before = {name: tensor.clone() for name, tensor in step.model.state_dict().items()}
    with pytest.raises(NotRecordable, match="became"):
        record(step, _TOKENS)
    assert all(torch.equal(new, before[name]) for name, new in step.model.state_dict().items())
    record(make_step(kept=1.00001), _TOKENS)


def test_a_step_that_changes_from_call_to_call_is_refused(make_step: Callable[..., _Step]) -> None:
    forward = "self.calls += 1\ny = y * (1 + 1 / self.calls)"
    with pytest.raises(NotRecordable, match="became"):
        record(make_step(init="self.calls = 0", forward=forward), _TOKENS)


def test_a_step_that_fails_by_itself_is_no_matter_of_recording(
    make_step: Callable[..., _Step],
) -> None:
    with pytest.raises(LookupError, match="mine"):
        record(make_step(forward="raise LookupError('mine')"), _TOKENS)


def test_a_recording_that_is_broken_off_is_cleaned_up_and_told_by_its_cause(
    make_step: Callable[..., _Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = "self.calls += 1\nif self.calls > 3: raise RuntimeError('waited')"
    step = make_step(init="self.calls = 0", forward=forward)
    cleaned: list[Step] = []
    monkeypatch.setattr(step_graph, "_clean_up", lambda step, pool: cleaned.append(step))

    def capture_end(_: Any) -> None:
        raise RuntimeError("a previous error during capture")

    monkeypatch.setattr(torch.cuda.CUDAGraph, "capture_end", capture_end)
    with pytest.raises(NotRecordable, match="RuntimeError: waited"):
        record(step, _TOKENS)
    assert cleaned == [step]


def test_what_fails_while_recording_is_told_and_put_back(make_step: Callable[..., _Step]) -> None:
    forward = "self.calls += 1\nif self.calls > 3: raise RuntimeError('mine')"
    step = make_step(init="self.calls = 0", forward=forward)
    before = {name: tensor.clone() for name, tensor in step.model.state_dict().items()}
    with pytest.raises(NotRecordable, match="RuntimeError: mine"):
        record(step, _TOKENS)
    assert all(torch.equal(new, before[name]) for name, new in step.model.state_dict().items())
