"""The recipe in the test's own process, on a model of a few thousand parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from linearch.config import TrainingConfig
from linearch.errors import ConfigError
from linearch.evaluator.batches import Batches, NoiseBatches, open_batches, write_windows
from linearch.evaluator.checkpoint import load_weights, model_tensors, save_tensors
from linearch.evaluator.recipe import Recipe, make_recipe
from linearch.evaluator.training import Trainer
from linearch.search_space.backbone import Backbone, BackboneConfig
from linearch.search_space.loading import load_mixer_class

CPU = torch.device("cpu")
MakeModel = Callable[..., Backbone]

_RECIPE = make_recipe(
    TrainingConfig(warmup_steps=3, cooldown_fraction=0.25),
    tokens=20 * 4 * 16,
    learning_rate=1e-2,
    seed=5,
    batch_size=4,
    seq_len=16,
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_model(mixer_source: Callable[..., str]) -> MakeModel:
    def make(**lines: str) -> Backbone:
        config = BackboneConfig(vocab_size=256, d_model=8, n_layers=2, n_heads=1, mlp_width=8)
        torch.manual_seed(0)
        return Backbone(config, load_mixer_class(mixer_source(**lines), "trained"))

    return make


def _served(folder: Path, recipe: Recipe, first: int = 0) -> Path:
    return folder / f"served-{recipe.seed}-{recipe.total_steps}-{first}"


def _windows(text_file: Path, folder: Path, recipe: Recipe, first: int = 0) -> Batches:
    """What a trial's child would be served from step `first` on, opened as it would."""
    served = _served(folder, recipe, first)
    write_windows(text_file, "uint8", recipe, first, served)
    with served.open("rb") as file:
        return open_batches("uint8", file.fileno(), recipe, CPU)


def _train(
    model: Backbone,
    text_file: Path,
    recipe: Recipe,
    checkpoint: Path,
    resume: Path | None = None,
    first: int = 0,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []

    def report(event: str, **values: Any) -> None:
        events.append({"event": event, **values})

    trainer = Trainer(model, recipe, report)
    if resume is not None:
        trainer.restore(resume)
    trainer.warm_up()
    batches = _windows(text_file, checkpoint.parent, recipe, first)
    return trainer.train(batches, checkpoint), events


def test_the_rate_warms_up_stays_and_falls_towards_zero() -> None:
    rates = [_RECIPE.rate(step) / _RECIPE.learning_rate for step in range(20)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[3:15] == pytest.approx([1.0] * 12)
    assert rates[15:] == pytest.approx([5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


def test_a_rung_smaller_than_one_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match="less than one batch"):
        make_recipe(
            TrainingConfig(), tokens=63, learning_rate=1.0, seed=0, batch_size=4, seq_len=16
        )


def test_training_learns_and_reports_its_way(
    make_model: MakeModel, text_file: Path, tmp_path: Path
) -> None:
    outcome, events = _train(make_model(), text_file, _RECIPE, tmp_path / "checkpoint")
    assert outcome == {"diverged": False, "steps": 20}
    assert {event["event"] for event in events} == {"progress"}
    assert events[-1]["step"] == 20
    assert events[-1]["loss"] < events[0]["loss"] - 0.5


def test_going_on_from_a_checkpoint_equals_never_having_stopped(
    make_model: MakeModel, text_file: Path, tmp_path: Path
) -> None:
    longer = replace(_RECIPE, total_steps=40, cooldown_steps=10)
    whole, _ = _train(make_model(), text_file, longer, tmp_path / "whole")
    _train(make_model(), text_file, _RECIPE, tmp_path / "short")
    resumed = make_model()
    outcome, events = _train(resumed, text_file, longer, tmp_path / "both", tmp_path / "short", 15)

    assert events[0]["step"] > 15
    assert outcome == whole
    expected = safetensors.torch.load_file(tmp_path / "whole")
    found = safetensors.torch.load_file(tmp_path / "both")
    assert found["step"] == 30
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_gives_the_same_training(
    parts: int, make_model: MakeModel, text_file: Path, tmp_path: Path
) -> None:
    found = []
    for accumulation in (1, parts):
        model, recipe = make_model(), replace(_RECIPE, accumulation=accumulation)
        batches = _windows(text_file, tmp_path, recipe)

        def uneven(i: int, batches: Batches = batches) -> tuple[torch.Tensor, torch.Tensor]:
            """The first row's labels count but for one."""
            inputs, labels = batches(i)
            return inputs, labels.index_fill(0, torch.tensor([0]), -100).index_put(
                (torch.tensor([0]), torch.tensor([3])), labels[0, 3]
            )

        assert Trainer(model, recipe, lambda *_, **__: None).train(uneven)["diverged"] is False
        found.append(torch.cat([p.flatten() for p in model.parameters()]))
    whole, in_parts = found
    assert not torch.equal(whole, in_parts)
    torch.testing.assert_close(in_parts, whole, rtol=1e-3, atol=1e-4)


def test_the_checkpoint_is_from_before_the_cooldown(
    make_model: MakeModel, text_file: Path, tmp_path: Path
) -> None:
    model = make_model()
    _train(model, text_file, _RECIPE, tmp_path / "checkpoint")
    stored = safetensors.torch.load_file(tmp_path / "checkpoint")
    assert stored["step"] == 15
    assert not torch.equal(stored["model.embedding.weight"], model.embedding.weight)


def test_a_checkpoint_from_too_late_is_refused(
    make_model: MakeModel, text_file: Path, tmp_path: Path
) -> None:
    _train(make_model(), text_file, _RECIPE, tmp_path / "late")
    shorter = replace(_RECIPE, total_steps=10, cooldown_steps=2)
    with pytest.raises(ValueError, match="too late"):
        _train(make_model(), text_file, shorter, tmp_path / "unused", tmp_path / "late")


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_no_number_ends_training_at_once(
    value: str, make_model: MakeModel, text_file: Path, tmp_path: Path
) -> None:
    init = "self.calls = 0"
    forward = f"self.calls += 1\nif self.calls > 6: y = y * float('{value}')"
    model = make_model(init=init, forward=forward)
    outcome, events = _train(model, text_file, _RECIPE, tmp_path / "checkpoint")
    assert outcome == {"diverged": True, "steps": 7}
    assert not (tmp_path / "checkpoint").exists()
    assert all(event["loss"] < 10 for event in events if event["event"] == "progress")


def test_an_update_that_breaks_the_weights_leaves_no_checkpoint(
    make_model: MakeModel, text_file: Path, tmp_path: Path
) -> None:
    """Step 15 is the last before the checkpoint; its loss is from before its update."""
    top = """
    class Break(torch.autograd.Function):
        @staticmethod
        def forward(ctx, y, calls):
            ctx.calls = calls
            return y.clone()

        @staticmethod
        def backward(ctx, grad):
            return (grad * float("nan") if ctx.calls == 15 else grad), None
    """
    forward = "self.calls += 1\ny = Break.apply(y, self.calls)"
    model = make_model(top=top, init="self.calls = 0", forward=forward)
    outcome, _ = _train(model, text_file, _RECIPE, tmp_path / "checkpoint")
    assert outcome == {"diverged": True, "steps": 15}
    assert not (tmp_path / "checkpoint").exists()


def test_after_a_divergence_in_the_cooldown_the_checkpoint_before_it_is_there(
    make_model: MakeModel, text_file: Path, tmp_path: Path
) -> None:
    forward = "self.calls += 1\nif self.calls > 17: y = y * float('nan')"
    model = make_model(init="self.calls = 0", forward=forward)
    outcome, _ = _train(model, text_file, _RECIPE, tmp_path / "checkpoint")
    assert outcome == {"diverged": True, "steps": 18}
    stored = safetensors.torch.load_file(tmp_path / "checkpoint")
    assert all(tensor.isfinite().all() for tensor in stored.values())


def test_a_batch_depends_on_the_seed_and_its_number_alone(text_file: Path, tmp_path: Path) -> None:
    longer = replace(_RECIPE, total_steps=40)
    batches, same = (_windows(text_file, tmp_path, recipe) for recipe in (_RECIPE, longer))
    other = _windows(text_file, tmp_path, replace(_RECIPE, seed=6))
    same(3)
    inputs, labels = batches(7)
    assert inputs.shape == labels.shape == (4, 16)
    assert torch.equal(inputs, same(7)[0])
    assert not torch.equal(inputs, same(8)[0])
    assert not torch.equal(inputs, other(7)[0])


def test_a_trial_is_served_the_windows_of_its_own_steps_and_no_more(
    text_file: Path, tmp_path: Path
) -> None:
    whole = _windows(text_file, tmp_path, _RECIPE)
    assert _served(tmp_path, _RECIPE).stat().st_size == 20 * 4 * 17
    expected = whole(15)[0]
    rest = _windows(text_file, tmp_path, _RECIPE, first=15)
    assert _served(tmp_path, _RECIPE, 15).stat().st_size == 5 * 4 * 17
    assert torch.equal(rest(15)[0], expected)


def test_the_label_of_a_token_is_the_next_token_of_the_file(
    text_file: Path, tmp_path: Path
) -> None:
    inputs, labels = _windows(text_file, tmp_path, _RECIPE)(0)
    assert torch.equal(inputs[:, 1:], labels[:, :-1])
    assert bytes([*inputs[0].tolist(), int(labels[0, -1])]) in text_file.read_bytes()


def test_a_text_shorter_than_a_window_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(bytes(16))
    with pytest.raises(ValueError, match="no window of 16"):
        write_windows(tmp_path / "short", "uint8", _RECIPE, 0, tmp_path / "served")


@pytest.mark.parametrize(("kind", "first"), [("uint16", 0), ("uint32", 2**32 - 65_536)])
def test_wide_tokens_are_read_as_unsigned(kind: str, first: int, tmp_path: Path) -> None:
    path, served = tmp_path / "tokens.bin", tmp_path / "served"
    np.arange(first, first + 65_536).astype(kind).tofile(path)
    write_windows(path, kind, _RECIPE, 0, served)
    with served.open("rb") as file:
        inputs, labels = open_batches(kind, file.fileno(), _RECIPE, CPU)(0)
    assert torch.equal(labels, inputs + 1)
    assert inputs.min() >= first
    assert inputs.max() > first + 32_767


def test_noise_is_fresh_at_every_step_and_has_no_next_token_to_know() -> None:
    noise = NoiseBatches(16, _RECIPE, CPU)
    inputs, labels = noise(0)
    assert inputs.shape == labels.shape == (4, 16)
    assert torch.equal(inputs[:, 1:], labels[:, :-1])
    assert not torch.equal(inputs, noise(1)[0])
    counts = torch.bincount(torch.cat([noise(i)[0].flatten() for i in range(50)]), minlength=16)
    assert counts.shape == (16,)
    assert counts.min() > 0.7 * counts.float().mean()


def test_rows_of_a_task_come_in_order_and_again_from_the_first(tmp_path: Path) -> None:
    rows = torch.arange(6 * 16, dtype=torch.int32).view(6, 16)
    safetensors.torch.save_file({"inputs": rows, "labels": -rows}, tmp_path / "rows")
    with (tmp_path / "rows").open("rb") as file:
        batches = open_batches("rows", file.fileno(), _RECIPE, CPU)
    inputs, labels = batches(1)
    assert torch.equal(inputs, rows[[4, 5, 0, 1]].long())
    assert torch.equal(labels, -inputs)


def test_shared_parameters_are_stored_once_and_loaded_everywhere(
    make_model: MakeModel, tmp_path: Path
) -> None:
    init = "self.again = self.proj\nself.register_buffer('kept', torch.ones(2))"
    init += "\nself.register_buffer('derived', torch.ones(3), persistent=False)"
    model, other = make_model(init=init), make_model(init=init)
    torch.nn.init.normal_(model.blocks[0].mixer.proj.weight)
    tensors = model_tensors(model)
    assert sum(tensor.numel() for tensor in tensors.values()) == 2 * 2 + sum(
        parameter.numel() for parameter in model.parameters()
    )
    save_tensors(tensors, tmp_path / "weights")
    load_weights(other, tmp_path / "weights")
    assert torch.equal(other.blocks[0].mixer.again.weight, model.blocks[0].mixer.proj.weight)


def test_weights_of_another_model_are_refused(make_model: MakeModel, tmp_path: Path) -> None:
    save_tensors(model_tensors(make_model()), tmp_path / "weights")
    with pytest.raises(ValueError, match="extra"):
        load_weights(make_model(init="self.extra = nn.Linear(2, 2)"), tmp_path / "weights")
