"""A step recorded as a CUDA graph does what it does when it is run, or is not recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from linearch.config import TrainingConfig
from linearch.evaluator import step_graph
from linearch.evaluator.batches import open_batches, write_windows
from linearch.evaluator.recipe import Recipe, make_recipe
from linearch.evaluator.sandbox.limits import MIB, Limits
from linearch.evaluator.sandbox.supervisor import Sandbox
from linearch.evaluator.step_graph import Advance, NotRecordable, record
from linearch.evaluator.training import Step, Trainer
from linearch.search_space.backbone import Backbone, BackboneConfig
from linearch.search_space.library import BASELINES, baseline_source
from linearch.search_space.loading import load_mixer_class

pytestmark = pytest.mark.gpu

MakeSource = Callable[..., str]

_STEPS, _BATCH, _LENGTH = 20, 4, 64
_RECIPE = make_recipe(
    TrainingConfig(warmup_steps=3, cooldown_fraction=0.25),
    tokens=_STEPS * _BATCH * _LENGTH,
    learning_rate=3e-3,
    seed=5,
    batch_size=_BATCH,
    seq_len=_LENGTH,
)

WAITING = {
    "reads a number": "if y.sum().item() > 1e9: y = -y",
    "branches on a tensor": "if bool(y.mean() > 0): y = y * 0.9",
    "allocates on the CPU": "y = y + torch.full((), 0.1).to(y.device)",
    "waits for the GPU": "torch.cuda.synchronize()",
    "selects by a mask": "y = y * (y[y > 0].numel() / y.numel())",
}
CHANGING = {
    "draws on the CPU": "y = y * torch.rand(()).item()",
    "counts its calls": "self.calls += 1\ny = y * (1 + 1 / self.calls)",
}


@pytest.fixture(autouse=True)
def _as_in_a_child() -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    yield
    torch.use_deterministic_algorithms(False)


def make_model(source: str) -> Backbone:
    torch.manual_seed(0)
    config = BackboneConfig(vocab_size=256, d_model=64, n_layers=2, n_heads=2, mlp_width=32)
    return Backbone(config, load_mixer_class(source, "recorded")).to("cuda")


def tokens(i: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(i)
    return torch.randint(256, (_BATCH, _LENGTH), generator=generator).cuda()


def losses(step: Step, advance: Advance) -> list[float]:
    found = []
    for i in range(_STEPS):
        step.set_rate(_RECIPE.rate(i))
        step.total.zero_()
        advance(tokens(i), tokens(i).roll(-1, 1))
        found.append(step.total.item())
    return found


def both_ways(source: str) -> tuple[list[float], list[float]]:
    """The losses of a step that is run, and of the same one recorded."""
    run = Step(make_model(source), _RECIPE)
    expected = losses(run, run)
    recorded = Step(make_model(source), _RECIPE)
    return expected, losses(recorded, record(recorded, tokens()))


def trained(
    source: str, text_file: Path, folder: Path, recipe: Recipe = _RECIPE, **how: Any
) -> tuple[dict[str, Tensor], Trainer]:
    """The checkpoint's tensors; `how`: warms_up, and a checkpoint to `resume` after `first`."""
    trainer = Trainer(make_model(source), recipe, lambda *_, **__: None)
    if how.get("resume"):
        trainer.restore(how["resume"])
    if how.get("warms_up", True):
        trainer.warm_up()
    write_windows(text_file, "uint8", recipe, how.get("first", 0), folder / "served")
    with (folder / "served").open("rb") as file:
        batches = open_batches("uint8", file.fileno(), recipe, torch.device("cuda"))
    outcome = trainer.train(batches, folder / "checkpoint")
    assert (outcome["diverged"], outcome["steps"]) == (False, recipe.total_steps)
    assert outcome.get("not_recorded") == trainer.not_recorded
    return safetensors.torch.load_file(folder / "checkpoint"), trainer


@pytest.mark.parametrize("name", list(BASELINES))
def test_a_recorded_step_has_the_losses_of_the_step_itself(name: str) -> None:
    expected, found = both_ways(baseline_source(name))
    assert expected[-1] != expected[0]
    assert found == pytest.approx(expected, rel=1e-5)


def test_random_numbers_in_a_graph_are_those_of_the_step_itself(mixer_source: MakeSource) -> None:
    source = mixer_source(forward="y = nn.functional.dropout(y, 0.3, self.training)")
    expected, found = both_ways(source)
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_batch_in_parts_is_recorded_too(mixer_source: MakeSource) -> None:
    whole, parts = (
        Step(make_model(mixer_source()), replace(_RECIPE, accumulation=n)) for n in (1, 2)
    )
    expected = losses(whole, whole)
    assert losses(parts, record(parts, tokens())) == pytest.approx(expected, rel=1e-3)


def test_recording_leaves_everything_as_it_was(mixer_source: MakeSource) -> None:
    forward = "self.seen += 1\ny = nn.functional.dropout(y, 0.3, self.training)"
    model = make_model(
        mixer_source(init="self.register_buffer('seen', torch.zeros(()))", forward=forward)
    )
    step = Step(model, _RECIPE)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state(), torch.cuda.get_rng_state()
    record(step, tokens())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    states = [value for state in step.optimizer.state.values() for value in state.values()]
    assert len(states) == 3 * len(list(model.parameters()))
    assert not any(state.any() for state in states)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert step.total.item() == 0
    assert torch.equal(torch.get_rng_state(), random[0])
    assert torch.equal(torch.cuda.get_rng_state(), random[1])


@pytest.mark.parametrize(
    "forward", [*WAITING.values(), CHANGING["draws on the CPU"]], ids=[*WAITING, "draws on the CPU"]
)
def test_a_step_that_cannot_be_recorded_trains_to_the_same_numbers(
    forward: str, mixer_source: MakeSource, text_file: Path, tmp_path: Path
) -> None:
    source = mixer_source(forward=forward)
    expected, _ = trained(source, text_file, tmp_path, warms_up=False)
    found, trainer = trained(source, text_file, tmp_path)
    assert trainer.not_recorded
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-7)


def test_a_step_that_changes_from_call_to_call_is_not_recorded(
    mixer_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = mixer_source(init="self.calls = 0", forward=CHANGING["counts its calls"])
    with pytest.raises(NotRecordable, match="became"):
        record(Step(make_model(source), _RECIPE), tokens())
    monkeypatch.setattr(step_graph, "_compare", lambda *_: None)
    expected, found = both_ways(source)
    assert found != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("forward", WAITING.values(), ids=WAITING)
def test_a_recording_that_cuda_breaks_off_poisons_nothing(
    forward: str, mixer_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda _: None)
    for _ in range(3):
        with pytest.raises(NotRecordable):
            record(Step(make_model(mixer_source(forward=forward)), _RECIPE), tokens())
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert torch.rand(4, device="cuda").isfinite().all()
    block = torch.empty(2**28, device="cuda")
    held = torch.cuda.memory_reserved()
    del block
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= held - 2**30
    expected, found = both_ways(mixer_source(forward="y = nn.functional.dropout(y, 0.3)"))
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_step_of_a_sandboxed_child_is_recorded(text_file: Path, tmp_path: Path) -> None:
    served = tmp_path / "served"
    write_windows(text_file, "uint8", _RECIPE, 0, served)
    limits = Limits(wall_s=60, memory_bytes=16_384 * MIB, caps_address_space=False)
    model = {"vocab_size": 256, "d_model": 64, "n_layers": 2, "n_heads": 2, "mlp_width": 32}
    load = {"source": baseline_source("gla"), "convention": "linearch"}
    with (
        Sandbox(tmp_path / "sandbox", device="cuda") as sandbox,
        sandbox.spawn(limits, served) as child,
    ):
        child.call("load", load)
        child.call("build", {"model": model, "seed": 0})
        child.call("prepare", {"recipe": asdict(_RECIPE), "resume": False})
        values = child.call("train", {"data": "uint8"}, on_event=lambda _: None).values
    assert (values["diverged"], values["steps"]) == (False, _STEPS)
    assert values.get("not_recorded") is None


@pytest.mark.parametrize("warms_up", [True, False])
@pytest.mark.parametrize("kind", ["uint8", "rows"])
def test_between_two_checks_of_the_loss_nothing_waits_for_the_gpu(
    kind: str, warms_up: bool, text_file: Path, tmp_path: Path
) -> None:
    recipe = replace(_RECIPE, total_steps=32, cooldown_steps=0)
    if kind == "rows":
        rows = torch.arange(64 * _LENGTH, dtype=torch.int32).view(64, _LENGTH) % 256
        safetensors.torch.save_file({"inputs": rows, "labels": rows + 0}, tmp_path / "served")
    else:
        write_windows(text_file, kind, recipe, 0, tmp_path / "served")
    with (tmp_path / "served").open("rb") as file:
        batches = open_batches(kind, file.fileno(), recipe, torch.device("cuda"))

    def watched(i: int) -> tuple[Tensor, Tensor]:
        torch.cuda.set_sync_debug_mode("default" if i % 16 in (0, 15) else "error")
        return batches(i)

    trainer = Trainer(make_model(baseline_source("gla")), recipe, lambda *_, **__: None)
    if warms_up:
        trainer.warm_up()
    try:
        assert trainer.train(watched)["steps"] == 32
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_recorded_training_goes_on_from_a_checkpoint(text_file: Path, tmp_path: Path) -> None:
    source = baseline_source("gated_deltanet")
    longer = replace(_RECIPE, total_steps=40, cooldown_steps=10)
    for name in ("whole", "short", "both", "run"):
        (tmp_path / name).mkdir()
    whole, trainer = trained(source, text_file, tmp_path / "whole", longer)
    assert trainer.not_recorded is None
    run, _ = trained(source, text_file, tmp_path / "run", longer, warms_up=False)
    trained(source, text_file, tmp_path / "short")
    resume = tmp_path / "short" / "checkpoint"
    found, _ = trained(source, text_file, tmp_path / "both", longer, resume=resume, first=15)
    assert found["step"] == whole["step"] == run["step"] == 30
    for name, tensor in whole.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(run[name], tensor, rtol=1e-4, atol=1e-5)
