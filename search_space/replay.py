"""Makes a stored architecture a live module again, in the user's own process.

That runs its code, so it is a second way in beside the sandbox: only baselines, sources that
passed the gates in this store, and sources the user vouches for are let through.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ..errors import LinearchError, UntrustedSource
from .asi_arch import check_asi_arch_source, is_asi_arch_source, load_asi_arch_class
from .backbone import Backbone, BackboneConfig
from .library import BASELINES, baseline_source
from .loading import load_mixer_class
from .source_check import CheckedSource, check_source, source_hash

TrustedHashes = Collection[str] | Callable[[str], bool]

_CONFIG_FIELDS = tuple(BackboneConfig.__dataclass_fields__)


def mixer_from_source(
    source: str, trusted_hashes: TrustedHashes = (), trust: bool = False
) -> type[nn.Module]:
    """The Mixer class of a source that may be run here, in the contract's form or in ASI-Arch's.

    `trusted_hashes` holds the sha256 of sources that passed the gates, or tells whether one did.
    Raises UntrustedSource for any other unless `trust`, and CandidateRejected for a source that is
    in neither form, trusted or not.
    """
    is_foreign = is_asi_arch_source(source)
    checked = check_asi_arch_source(source) if is_foreign else check_source(source)
    if not (trust or _is_trusted(checked, trusted_hashes)):
        raise UntrustedSource(
            f"This source (sha256 {checked.source_hash[:16]}…) has not passed the store's gates, "
            "and loading it runs its code here: read it first, then pass trust=True."
        )
    load = load_asi_arch_class if is_foreign else load_mixer_class
    return load(source, f"linearch_mixer_{checked.source_hash[:16]}")


def model_from_facts(
    facts: Mapping[str, Any],
    *,
    trusted_hashes: TrustedHashes = (),
    trust: bool = False,
    weights: bytes | Path | None = None,
) -> Backbone:
    """A Backbone in eval mode from a stored row's facts: `source` and BackboneConfig's fields.

    `weights` are safetensors, as bytes or as a file; without them the model is freshly initialised.
    Raises what `mixer_from_source` raises, and LinearchError if facts or weights do not fit.
    """
    missing = [name for name in ("source", *_CONFIG_FIELDS) if name not in facts]
    if missing:
        raise LinearchError(f"The stored architecture lacks {', '.join(missing)}.")
    mixer_class = mixer_from_source(facts["source"], trusted_hashes, trust)
    try:
        config = BackboneConfig(**{name: facts[name] for name in _CONFIG_FIELDS})
    except ValueError as error:
        raise LinearchError(f"The stored sizes make no model: {error}.") from None
    model = Backbone(config, mixer_class)
    if weights is not None:
        _load_weights(model, weights)
    return model.eval()


def _is_trusted(checked: CheckedSource, trusted_hashes: TrustedHashes) -> bool:
    if checked.source_hash in {source_hash(baseline_source(name)) for name in BASELINES}:
        return True
    if callable(trusted_hashes):
        return trusted_hashes(checked.source_hash)
    return checked.source_hash in trusted_hashes


def _load_weights(model: nn.Module, weights: bytes | Path) -> None:
    try:
        model.load_state_dict(_read_tensors(weights))
    except (OSError, SafetensorError) as error:
        raise LinearchError(f"The weights cannot be read as safetensors: {error}.") from None
    except RuntimeError as error:  # missing, unexpected or misshapen tensors
        raise LinearchError(f"The weights do not fit the model: {error}") from None


def _read_tensors(weights: bytes | Path) -> dict[str, Tensor]:
    if isinstance(weights, bytes):
        return safetensors.torch.load(weights)
    return safetensors.torch.load_file(weights)
