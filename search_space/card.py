"""The README of an exported mixer: what it is, what was measured, how to load it.

A card is a plain mapping that the caller fills; what it lacks is shown as not measured:
name, motivation, expectation, architecture_id, run, seed, tokens, corpus_hash, gates (the names of
those passed), val_bpb, val_bpb_noise, n_params, state_bytes, tokens_per_s, device, recall (by
task), origin.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from .backbone import BackboneConfig
from .parsing import parse
from .source_check import CheckedSource

_MISSING = "not measured"


def render_card(
    card: Mapping[str, Any],
    package: str,
    checked: CheckedSource,
    config: BackboneConfig,
    *,
    has_weights: bool,
) -> str:
    """The card as Markdown."""
    sections = [
        f"# {_line(card.get('name') or package)}",
        _quoted(card.get("motivation")) or "A linear-attention mixer found with linearch.",
        _quoted(card.get("expectation")),
        "## Measurements",
        _measurements(card),
        f"Model: {config.n_layers} layers of width {config.d_model}, {config.n_heads} heads, MLP "
        f"width {config.mlp_width}, pattern `{config.pattern}`, vocabulary {config.vocab_size}.",
        "## Use",
        _usage(package, config, has_weights),
        "## State",
        _STATE,
        "## Origin and licence",
        _origin(card, checked),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _measurements(card: Mapping[str, Any]) -> str:
    device = card.get("device")
    speed = _number(card.get("tokens_per_s"), ",.0f")
    if device and speed != _MISSING:
        speed += f" on {_line(device)}"
    bpb = _number(card.get("val_bpb"), ".4f")
    noise = card.get("val_bpb_noise")
    rows = {
        "validation bits per byte": bpb if noise is None else f"{bpb} ± {noise:.4f} (seed noise)",
        "trained on, tokens": _number(card.get("tokens"), ","),
        "parameters": _number(card.get("n_params"), ","),
        "state of one sequence, bytes": _number(card.get("state_bytes"), ","),
        "training speed, tokens/s": speed,
        **_recalled(card.get("recall") or {}),
        "gates passed": ", ".join(_line(gate) for gate in card.get("gates") or ()) or _MISSING,
        "run": _line(card.get("run") or "unknown"),
        "seed": "unknown" if card.get("seed") is None else _line(card["seed"]),
        "corpus": _line(card.get("corpus_hash") or "unknown"),
    }
    return "\n".join(
        ["| what | value |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows.items())]
    )


def _recalled(shares: Mapping[str, float]) -> dict[str, str]:
    return {f"right answers on {_line(t)}": _number(v, ".3f") for t, v in shares.items()}


def _usage(package: str, config: BackboneConfig, has_weights: bool) -> str:
    layer = f"Mixer({config.d_model}, {config.n_heads}, 0, {config.n_layers})"
    code = [
        f"from {package} import Mixer, load_model",
        "",
        f"mixer = {layer}  # d_model, n_heads, layer_idx, n_layers",
        "y, state = mixer(x)  # x: [B, T, D]; hand the state to the next call",
        f"model = load_model()  # the {'trained' if has_weights else 'freshly initialised'} model",
        "tokens = model.generate(prompt_ids, max_new_tokens=64)  # constant memory",
    ]
    return "Put this folder's parent on the Python path:\n\n```python\n" + "\n".join(code) + "\n```"


_STATE = """\
The first call gets `state=None`. Each call returns `(y, state)`: a flat dict of tensors whose keys,
shapes and dtypes stay the same, so its bytes do not depend on how many tokens were seen (in a
hybrid, attention layers keep their last `window` tokens). Feeding a sequence in pieces gives what
feeding it whole gives. Clone a state before keeping it: it may be a view of a larger tensor."""


def _origin(card: Mapping[str, Any], checked: CheckedSource) -> str:
    uses_einops = any(
        "einops" in ast.unparse(node)
        for node in ast.walk(parse(checked.source))
        if isinstance(node, (ast.Import, ast.ImportFrom))
    )
    needs = "torch and linearch.kernels" + (" and einops" if uses_einops else "")
    architecture = card.get("architecture_id")
    which = f" as architecture `{_line(architecture)}`" if architecture else ""
    origin = f" (written by: {_line(card['origin'])})" if card.get("origin") else ""
    return (
        f"Exported by linearch{which}{origin}; source sha256 `{checked.source_hash}`. "
        f"Needs {needs}.\n\n"
        "`layers.py`, `backbone.py` and `__init__.py` come from linearch (Apache-2.0). The terms "
        "of `mixer.py` are for whoever ran the search to set; code that a language model wrote may "
        "fall under its provider's terms. The weights learned from the corpus named above."
    )


def _number(value: float | int | None, form: str) -> str:
    return _MISSING if value is None else format(value, form)


def _line(value: object) -> str:
    """One table-safe line."""
    return " ".join(str(value).split()).replace("|", "\\|")


def _quoted(text: object) -> str:
    return "\n".join(f"> {line}" for line in str(text).splitlines()) if text else ""
