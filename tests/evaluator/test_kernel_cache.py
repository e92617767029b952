"""Compiled kernels are shared with contained children, which may read them and no more."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from linearch.config import ModelConfig, RunConfig, SandboxConfig, TrainingConfig
from linearch.evaluator import kernel_cache
from linearch.evaluator.kernel_cache import (
    fill,
    has_to_compile,
    is_shared,
    kernel_cases,
    kernels_in,
    reading_from,
)
from linearch.evaluator.sandbox.limits import MIB, Limits
from linearch.evaluator.sandbox.supervisor import Sandbox
from linearch.search_space.library import BASELINES, baseline_source

MakeSource = Callable[..., str]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)

_CONFIG = RunConfig(
    model=ModelConfig(d_model=64, n_heads=2),
    training=TrainingConfig(precision="bf16"),
    sandbox=SandboxConfig(profile="compile"),
)


def smallest_case() -> list[Any]:
    return [
        case for case in kernel_cases(_CONFIG) if str(case) == "loss none, 256, bfloat16, T 128"
    ]


def test_only_a_gpus_children_that_may_compile_take_triton_unasked() -> None:
    strict = _CONFIG.model_copy(update={"sandbox": SandboxConfig(profile="strict")})
    assert is_shared(_CONFIG, "cuda")
    assert not is_shared(_CONFIG, "cpu")
    assert not is_shared(strict, "cuda")


def test_a_run_whose_kernels_are_there_has_nothing_to_compile(tmp_path: Path) -> None:
    assert has_to_compile(_CONFIG, "cuda", tmp_path)
    assert not has_to_compile(_CONFIG, "cpu", tmp_path)
    fill(kernels_in(tmp_path), [], capability=90)
    assert not has_to_compile(_CONFIG, "cuda", tmp_path)


def test_a_runs_cases_are_those_of_its_heads_and_precision() -> None:
    names = {str(case) for case in kernel_cases(_CONFIG)}
    assert "product scalar, 32, bfloat16, T 128" in names
    assert "scan channel, 128, bfloat16, T 1024" in names
    assert "decay channel, 32, bfloat16, T 512" in names
    assert "erase channel, 32, bfloat16, T 128" in names
    assert "decay scalar, 16x64, bfloat16, T 512" in names
    assert "decay none, 32x48, bfloat16, T 128" in names
    assert not any("32x48" in name and "none" not in name for name in names)
    assert "unit heads silu, 16, bfloat16, T 128" in names
    assert not any("decay" in name and "float32" in name for name in names)
    assert "oja scalar, 32, bfloat16, T 128" in names
    assert "dplr channel, 32, bfloat16, T 128" in names
    assert not any(name.startswith("columns") for name in names)
    assert "activation softplus, 4, bfloat16, T 128" in names
    plain = _CONFIG.model_copy(update={"training": TrainingConfig(precision="fp32")})
    assert {str(case).split()[0] for case in kernel_cases(plain)} == {
        "norm",
        "residual",
        "gated",
        "skip",
        "swiglu",
        "token",
        "activation",
        "convolution",
        "loss",
        "scan",
        "unit",
        "bonus",
        "rotary",
        "strengths",
    }


def test_a_training_step_of_every_baseline_launches_foreseen_kernels_alone() -> None:
    path = Path(__file__).with_name("foreseen_kernels.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert set(found) == {name + run for name in BASELINES for run in ("", ", no candidates")}
    assert all(n_kernels > 0 for n_kernels, _ in found.values())
    assert {name: missing for name, (_, missing) in found.items() if missing} == {}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kernels")
    fill(folder, smallest_case(), capability=90)
    return folder


@pytest.mark.slow
def test_a_filled_cache_is_not_filled_again(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(filled.rglob("*.cubin"))
    asked: list[int] = []

    def count(*_: object) -> Iterator[None]:
        asked.append(1)
        yield None

    monkeypatch.setattr("linearch.kernels.triton.warm.warm", count)
    fill(filled, smallest_case(), capability=90)
    assert not asked
    fill(filled, smallest_case(), capability=100)
    assert asked


@pytest.mark.slow
def test_what_was_compiled_is_found_by_a_process_that_writes_elsewhere(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in reading_from(filled).items():
        monkeypatch.setenv(name, value)
    fill(tmp_path / "own", smallest_case(), capability=90)
    assert not list((tmp_path / "own").rglob("*.cubin"))
    fill(tmp_path / "other", smallest_case(), capability=80)
    assert list((tmp_path / "other").rglob("*.cubin"))


@pytest.mark.slow
def test_tools_that_torch_compile_names_in_this_process_change_no_shared_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triton.knobs import nvidia

    other = tmp_path / "ptxas"
    other.write_text(
        f'#!/bin/sh\n"{nvidia.ptxas.path}" "$@" && if [ "$1" = --version ]; then echo other; fi\n'
    )
    other.chmod(0o755)
    monkeypatch.setenv("TRITON_PTXAS_PATH", str(other))
    fill(tmp_path / "kernels", smallest_case(), capability=80)
    monkeypatch.delenv("TRITON_PTXAS_PATH")
    for name, value in reading_from(tmp_path / "kernels").items():
        monkeypatch.setenv(name, value)
    fill(tmp_path / "own", smallest_case(), capability=80)
    assert not list((tmp_path / "own").rglob("*.cubin"))


def test_a_child_reads_the_shared_kernels_and_cannot_change_them(
    tmp_path: Path, hostile_source: MakeSource, limits: Limits
) -> None:
    cache = tmp_path / "kernels"
    cache.mkdir()
    (cache / "one").write_text("compiled")
    top = f"""
    cache = {str(cache)!r}
    assert open(cache + "/one").read() == "compiled"
    assert os.environ[{kernel_cache.KERNEL_CACHE!r}] == cache
    for act in (lambda: open(cache + "/two", "w"), lambda: os.remove(cache + "/one")):
        try:
            act()
        except PermissionError:
            print("refused")
    """
    with (
        Sandbox(tmp_path / "sandbox", profile="compile", kernel_cache=cache) as sandbox,
        sandbox.spawn(limits) as child,
    ):
        child.call("load", {"source": hostile_source(top=top), "convention": "linearch"})
        child.close()
        assert child.printed.split() == ["refused", "refused"]


@pytest.mark.gpu
@pytest.mark.parametrize(("profile", "is_warm"), [("compile", True), ("compile", False)])
def test_a_contained_child_trains_on_triton_and_compiles_only_what_is_missing(
    profile: Any, is_warm: bool, tmp_path: Path
) -> None:
    compiled = _compiled_in_training(profile, is_warm, tmp_path)
    assert bool(compiled) is not is_warm, compiled


@pytest.mark.gpu
def test_a_child_that_may_not_compile_trains_on_torchs_kernels(tmp_path: Path) -> None:
    assert _compiled_in_training("strict", False, tmp_path) == []


def _compiled_in_training(profile: Any, is_warm: bool, tmp_path: Path) -> list[str]:
    """The kernels that a training step's process compiled for itself."""
    import torch

    cache = tmp_path / "kernels"
    if is_warm:
        major, minor = torch.cuda.get_device_capability()
        mine = [case for case in kernel_cases(_CONFIG) if _is_of_gated_deltanet(str(case))]
        fill(cache, mine, 10 * major + minor)
    limits = Limits(wall_s=120, memory_bytes=16_384 * MIB, caps_address_space=False)
    model = {"vocab_size": 256, "d_model": 64, "n_layers": 2, "n_heads": 2, "mlp_width": 128}
    recipe = {
        "learning_rate": 1e-3, "total_steps": 5, "cooldown_steps": 1, "warmup_steps": 1,
        "weight_decay": 0.1, "betas": (0.9, 0.95), "clip_norm": 1.0, "precision": "bf16",
        "seed": 0, "batch_size": 8, "seq_len": 128,
    }  # fmt: skip
    sandbox = Sandbox(tmp_path / "box", device="cuda", profile=profile, kernel_cache=cache)
    with sandbox, sandbox.spawn(limits) as child:
        load = {"source": baseline_source("gated_deltanet"), "convention": "linearch"}
        child.call("load", load)
        child.call("build", {"model": model, "seed": 0})
        assert child.call("practise", {"recipe": recipe}).values["diverged"] is False
        return sorted(path.name for path in (tmp_path / "box").rglob("*.cubin"))


def _is_of_gated_deltanet(case: str) -> bool:
    """Heads of 32 in layers of 64 channels, and 256 words."""
    norms = [f"norm {gate}, {n}," for gate in ("none", "silu") for n in (32, 64)]
    layers = ("convolution", "unit heads silu, 32,", "activation softplus", "activation sigmoid")
    others = ("delta scalar, 32,", "loss none, 256,", "residual none, 64,", "swiglu", *layers)
    return case.startswith((*others, *norms))
