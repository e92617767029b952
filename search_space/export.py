"""Writes an architecture as a package that needs torch and linearch.kernels alone.

Nothing is executed: the files are text, a state dict and a card, and importing them is the user's.
"""

from __future__ import annotations

import ast
import json
import keyword
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import LinearchError
from .backbone import BackboneConfig
from .card import render_card
from .parsing import parse
from .source_check import check_source

_COPIED = ("layers.py", "backbone.py")
_TAKEN_NAMES = frozenset({"torch", "linearch", "einops", "numpy", "safetensors", "triton"})
_LAYERS = "linearch.search_space.layers"

_INIT = '''\
"""A token mixer exported by linearch; README.md is its card."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from .backbone import Backbone, BackboneConfig
from .mixer import Mixer

__all__ = ["Backbone", "BackboneConfig", "Mixer", "load_model"]

_FOLDER = Path(__file__).parent


def load_model(device: str = "cpu") -> Backbone:
    """The model in eval mode: with its trained weights if weights.pt is there, else a fresh one."""
    config = BackboneConfig(**json.loads((_FOLDER / "config.json").read_text(encoding="utf-8")))
    model = Backbone(config, Mixer)
    weights = _FOLDER / "weights.pt"
    if weights.exists():
        model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return model.to(device).eval()
'''


def export_module(
    folder: Path,
    source: str,
    config: BackboneConfig,
    state_dict: Mapping[str, Tensor] | None,
    card: Mapping[str, Any],
) -> Path:
    """Writes the package `folder/<package_name(card["name"])>` and returns its path.

    `card` names the architecture and holds its measurements (see card.py). Raises LinearchError if
    the package's folder exists and is not empty, and CandidateRejected for a malformed source.
    """
    checked = check_source(source)
    package = folder / package_name(str(card.get("name") or "mixer"))
    _make_empty_folder(package)
    files = {
        "__init__.py": _INIT,
        "mixer.py": _relative_layers(source),
        **{name: _copied_text(name) for name in _COPIED},
        "config.json": json.dumps(asdict(config), indent=2) + "\n",
        "README.md": render_card(
            card, package.name, checked, config, has_weights=state_dict is not None
        ),
    }
    for name, text in files.items():
        (package / name).write_text(text, encoding="utf-8")
    if state_dict is not None:
        on_cpu = {name: tensor.detach().cpu() for name, tensor in state_dict.items()}
        torch.save(on_cpu, package / "weights.pt")
    return package


def package_name(name: str) -> str:
    """An importable name: "Gated Δ-Net 2" becomes "gated_net_2"; it shadows no known package."""
    cleaned = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:60] or "mixer"
    if cleaned[0].isdigit():
        cleaned = f"mixer_{cleaned}"
    is_taken = keyword.iskeyword(cleaned) or cleaned in sys.stdlib_module_names | _TAKEN_NAMES
    return f"{cleaned}_mixer" if is_taken else cleaned


def _make_empty_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_empty = not any(folder.iterdir())
    except OSError as error:
        raise LinearchError(f"Cannot write the export to {folder}: {error}.") from None
    if not is_empty:
        raise LinearchError(
            f"{folder} exists and is not empty: name another folder, or remove it first."
        )


def _copied_text(name: str) -> str:
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    return text.replace("from ..kernels import", "from linearch.kernels import")


def _relative_layers(source: str) -> str:
    """The source with its imports of the layers module pointed at the copy beside it."""
    text = source.replace("\r\n", "\n").replace("\r", "\n")
    lines = text.encode().split(b"\n")  # ast counts columns in bytes
    nodes = [n for n in ast.walk(parse(text)) if isinstance(n, (ast.Import, ast.ImportFrom))]
    for node in sorted(nodes, key=lambda n: (n.lineno, n.col_offset), reverse=True):
        replacement = _relative_import(node)
        if replacement is not None:
            first, last = node.lineno - 1, node.end_lineno or node.lineno
            head, tail = lines[first][: node.col_offset], lines[last - 1][node.end_col_offset :]
            lines[first:last] = [head + replacement.encode() + tail]
    return b"\n".join(lines).decode()


def _relative_import(node: ast.Import | ast.ImportFrom) -> str | None:
    """The statement's relative form; None if it does not import the layers module."""
    if isinstance(node, ast.Import):
        if all(alias.name != _LAYERS for alias in node.names):
            return None
        others = ast.Import([a for a in node.names if a.name != _LAYERS])
        ours = [ast.alias("layers", a.asname) for a in node.names if a.name == _LAYERS]
        statements = ([others] if others.names else []) + [ast.ImportFrom(None, ours, 1)]
        return "; ".join(ast.unparse(statement) for statement in statements)
    package, _, module = _LAYERS.rpartition(".")
    if node.module == _LAYERS:
        return ast.unparse(ast.ImportFrom(module, node.names, 1))
    if node.module == package:
        return ast.unparse(ast.ImportFrom(None, node.names, 1))
    return None
