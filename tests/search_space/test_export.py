"""An exported architecture lives on torch and linearch.kernels alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from linearch.errors import LinearchError
from linearch.search_space import (
    Backbone,
    BackboneConfig,
    baseline_source,
    export_module,
    load_mixer_class,
    package_name,
)

CONFIG = BackboneConfig(
    vocab_size=31, d_model=16, n_layers=2, n_heads=2, mlp_width=24, pattern="LA", window=8
)
CARD: dict[str, Any] = {
    "name": "Gated DeltaNet (2)",
    "motivation": "Erase, then write.\nForget what is left.",
    "val_bpb": 2.5432,
    "val_bpb_noise": 0.0512,
    "n_params": 120_064,
    "tokens_per_s": 23_456.7,
    "device": "CPU, 1 thread",
    "run": "01JD",
    "seed": 0,
    "gates": ["causality", "streaming"],
    "corpus_hash": "abc|def",
    "architecture_id": "01JE",
}

IN_A_FRESH_INTERPRETER = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[:2] in (["linearch", "search_space"], ["linearch", "evaluator"]):
            raise ImportError(name)

sys.meta_path.insert(0, Blocked())
import torch
torch.set_num_threads(1)
import PACKAGE

def size(states):
    storages = [tensor.untyped_storage() for state in states for tensor in state.values()]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

model = PACKAGE.load_model()
tokens = torch.randint(31, (1, 1000), generator=torch.Generator().manual_seed(1))
with torch.inference_mode():
    whole = model.logits(model(tokens)[0])
    steps, states, sizes = [], None, {}
    for t in range(1000):
        hidden, states = model(tokens[:, t : t + 1], states)
        states = PACKAGE.backbone.clone_states(states)
        steps.append(model.logits(hidden))
        sizes[t + 1] = size(states)
error = (torch.cat(steps, 1) - whole).abs().max() / whole.square().mean().sqrt()
assert error < 1e-4, error
assert sizes[10] == sizes[1000] > 0, sizes
assert PACKAGE.Mixer(16, 2, 0, 2)(torch.randn(1, 3, 16))[0].shape == (1, 3, 16)
assert model.generate(tokens[:, :5], 3).shape == (1, 8)
assert not [name for name in sys.modules if name.startswith("linearch.search_space")]
torch.save(whole, sys.argv[1])
"""


def trained_model(source: str) -> Backbone:
    torch.manual_seed(0)
    return Backbone(CONFIG, load_mixer_class(source, "export_test_mixer")).eval()


def run_outside(folder: Path, package: Path) -> torch.Tensor:
    """Runs the script with only the export's parent on the path; returns the whole logits."""
    script = IN_A_FRESH_INTERPRETER.replace("PACKAGE", package.name)
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    out = folder / "whole.pt"
    subprocess.run(
        [sys.executable, "-c", script, str(out)], check=True, cwd=folder, env=environment
    )
    return torch.load(out, weights_only=True)


def test_an_export_decodes_as_the_model_it_came_from(tmp_path: Path) -> None:
    source = baseline_source("gated_deltanet")
    model = trained_model(source)
    package = export_module(tmp_path / "out", source, CONFIG, model.state_dict(), CARD)
    assert package == tmp_path / "out" / "gated_deltanet_2"
    whole = run_outside(tmp_path, package)
    tokens = torch.randint(31, (1, 1000), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(whole, model.logits(model(tokens)[0]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("from linearch.search_space.layers import RMSNorm", "from .layers import RMSNorm"),
        ("from linearch.search_space import layers as L", "from . import layers as L"),
        ("import math, linearch.search_space.layers as L",
         "import math; from . import layers as L"),
        ("import math; from linearch.search_space.layers import relu; A = 'Δ'",
         "import math; from .layers import relu; A = 'Δ'"),
        ("from linearch.search_space.layers import (\n    RMSNorm,\n    relu as r,  # why\n)",
         "from .layers import RMSNorm, relu as r"),
        ("from linearch.kernels import scan", "from linearch.kernels import scan"),
    ],
)  # fmt: skip
def test_every_form_of_importing_the_layers_is_rewritten(
    written: str, expected: str, tmp_path: Path
) -> None:
    body = baseline_source("linear_attention")
    source = body.replace("import Tensor, nn\n", f"import Tensor, nn\n{written}\nX = 'Δ'\n", 1)
    package = export_module(tmp_path, source, CONFIG, None, CARD)
    text = (package / "mixer.py").read_text(encoding="utf-8")
    assert f"\n{expected}\nX = 'Δ'\n" in text
    assert "linearch.search_space" not in text


def test_no_copied_file_reaches_back_into_the_package(tmp_path: Path) -> None:
    package = export_module(tmp_path, baseline_source("gla"), CONFIG, None, CARD)
    for file in package.glob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert "from .." not in text, file
        assert "import linearch" not in text, file
    assert not (package / "weights.pt").exists()
    assert json.loads((package / "config.json").read_text())["pattern"] == "LA"


def test_the_card_shows_what_was_measured_and_what_was_not(tmp_path: Path) -> None:
    package = export_module(tmp_path, baseline_source("gla"), CONFIG, None, CARD)
    card = (package / "README.md").read_text(encoding="utf-8")
    for line in (
        "# Gated DeltaNet (2)",
        "> Forget what is left.",
        "| validation bits per byte | 2.5432 ± 0.0512 (seed noise) |",
        "| training speed, tokens/s | 23,457 on CPU, 1 thread |",
        "| state of one sequence, bytes | not measured |",
        "| gates passed | causality, streaming |",
        r"| corpus | abc\|def |",
        "| seed | 0 |",
    ):
        assert line in card.splitlines(), line
    assert "from gated_deltanet_2 import Mixer, load_model" in card


def test_an_empty_card_invents_no_number(tmp_path: Path) -> None:
    package = export_module(tmp_path, baseline_source("gla"), CONFIG, None, {})
    card = (package / "README.md").read_text(encoding="utf-8")
    assert "| validation bits per byte | not measured |" in card
    assert "| run | unknown |" in card
    assert "| seed | unknown |" in card
    assert package.name == "mixer"


def test_a_folder_that_holds_something_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mixer").mkdir()
    (tmp_path / "mixer" / "notes.txt").write_text("mine")
    with pytest.raises(LinearchError, match="exists and is not empty: name another folder"):
        export_module(tmp_path, baseline_source("gla"), CONFIG, None, {})
    assert [file.name for file in (tmp_path / "mixer").iterdir()] == ["notes.txt"]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LinearchError, match="Cannot write the export"):
        export_module(tmp_path / "file", baseline_source("gla"), CONFIG, None, {})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Gated DeltaNet", "gated_deltanet"),
        ("2-step Δ rule", "mixer_2_step_rule"),
        ("class", "class_mixer"),
        ("torch", "torch_mixer"),
        ("json", "json_mixer"),
        ("Δ", "mixer"),
        ("../../etc", "etc"),
    ],
)
def test_a_package_name_is_importable_and_shadows_nothing(name: str, expected: str) -> None:
    assert package_name(name) == expected
    assert expected.isidentifier()
