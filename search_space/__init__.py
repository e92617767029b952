"""What candidates are: the contract, its checks, the backbone, known mixers, replay and export.

Names load on first use, so importing this package (or checking a source) loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backbone import Backbone, BackboneConfig, optimizer_groups
    from .contract import CONTRACT, State, TokenMixer, state_bytes
    from .export import export_module, package_name
    from .library import BASELINES, Baseline, baseline_source
    from .loading import load_mixer_class
    from .parameters import count_parameters, match_mlp_width
    from .replay import mixer_from_source, model_from_facts
    from .source_check import CheckedSource, check_source, source_hash

_HOME = {
    "BASELINES": "library",
    "Backbone": "backbone",
    "BackboneConfig": "backbone",
    "Baseline": "library",
    "CONTRACT": "contract",
    "CheckedSource": "source_check",
    "State": "contract",
    "TokenMixer": "contract",
    "baseline_source": "library",
    "check_source": "source_check",
    "count_parameters": "parameters",
    "export_module": "export",
    "load_mixer_class": "loading",
    "match_mlp_width": "parameters",
    "mixer_from_source": "replay",
    "model_from_facts": "replay",
    "optimizer_groups": "backbone",
    "package_name": "export",
    "source_hash": "source_check",
    "state_bytes": "contract",
}
__all__ = [
    "BASELINES",
    "CONTRACT",
    "Backbone",
    "BackboneConfig",
    "Baseline",
    "CheckedSource",
    "State",
    "TokenMixer",
    "baseline_source",
    "check_source",
    "count_parameters",
    "export_module",
    "load_mixer_class",
    "match_mlp_width",
    "mixer_from_source",
    "model_from_facts",
    "optimizer_groups",
    "package_name",
    "source_hash",
    "state_bytes",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
