"""The public functions behind `import linearch`: stored architectures as live modules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import RunConfig, validate_config
from .db import ArchitectureDetail, ArchitectureRow, LeaderboardRow, RunRow, Store
from .errors import LinearchError, StoreError
from .search_space.asi_arch import is_asi_arch_source
from .search_space.library import BASELINES, baseline_source

if TYPE_CHECKING:
    from torch import nn

    from .search_space.backbone import Backbone


def load_mixer(
    which: str | Path, *, store: str | None = None, trust: bool = False
) -> type[nn.Module]:
    """The Mixer class of a baseline's name, a source file, or a stored architecture (id or name).

    The class takes (d_model, n_heads, layer_idx, n_layers). Loading runs its code in this process:
    a source that has not passed the store's gates raises UntrustedSource unless `trust`. One in
    ASI-Arch's convention comes behind an adapter that takes whole sequences alone.
    """
    from .search_space.replay import mixer_from_source

    if str(which) in BASELINES:
        return mixer_from_source(baseline_source(str(which)))
    file = Path(which)
    if file.suffix == ".py":
        return mixer_from_source(_read_source(file), _trusted(store), trust)
    with Store.open(store, create=False) as opened:
        row = opened.queries.architecture(str(which)).architecture
        return mixer_from_source(row.source, opened.queries.trusted_hashes(), trust)


def load_model(
    which: str, *, weights: bool = False, store: str | None = None, trust: bool = False
) -> Backbone:
    """The backbone of a stored architecture as its run sized it, in eval mode on the CPU.

    With `weights`, those of its quoted trial (the best one at its highest rung). Raises StoreError
    for an unknown architecture or one without weights, UntrustedSource as `load_mixer` does.
    """
    from .agents.standings import quoted_row
    from .search_space.replay import model_from_facts

    with Store.open(store, create=False) as opened:
        row = opened.queries.architecture(which).architecture
        blob = _weights(opened, quoted_row(opened, row)) if weights else None
        return model_from_facts(
            model_facts(row, validate_config(opened.run(row.run_id).config)),
            trusted_hashes=opened.queries.trusted_hashes(),
            trust=trust,
            weights=blob,
        )


def open_run(run: str | None = None, *, store: str | None = None) -> tuple[Store, RunRow]:
    """An open store and one of its runs, by default the newest; the caller closes the store.

    `store.queries.leaderboard(run.id)` and its neighbours give everything the dashboard shows.
    """
    opened = Store.open(store, create=False)
    try:
        return opened, newest_run(opened) if run is None else opened.run(run)
    except StoreError:
        opened.close()
        raise


def export_architecture(
    which: str, folder: Path, *, weights: bool = True, store: str | None = None
) -> Path:
    """Writes a stored architecture as a package below `folder`, running none of it; its path.

    With `weights`, those of its quoted trial where it has one. Raises StoreError for an unknown or
    unsized architecture and LinearchError if the package's folder is not empty.
    """
    import safetensors.torch

    from .agents.standings import noise_floors, quoted_row
    from .search_space.backbone import BackboneConfig
    from .search_space.export import export_module

    with Store.open(store, create=False) as opened:
        detail = opened.queries.architecture(which)
        row, run = detail.architecture, opened.run(detail.architecture.run_id)
        facts = model_facts(row, validate_config(run.config))
        source = facts.pop("source")
        if is_asi_arch_source(source):
            raise LinearchError(
                f"{row.name} is in ASI-Arch's convention, which needs the adapter in linearch: it "
                "cannot be exported; take it with linearch.load_mixer."
            )
        quoted = quoted_row(opened, row)
        has_weights = weights and quoted.trial_id is not None
        state = safetensors.torch.load(_weights(opened, quoted)) if has_weights else None
        card = _card(opened, detail, quoted, run, noise_floors(opened, run.id))
        return export_module(folder, source, BackboneConfig(**facts), state, card)


def newest_run(store: Store) -> RunRow:
    """The store's newest run; raises StoreError in an empty store."""
    run = store.latest_run()
    if run is None:
        raise StoreError("This store holds no run yet; start one with launch-search.")
    return run


def model_facts(row: ArchitectureRow, config: RunConfig) -> dict[str, Any]:
    """What the backbone of a stored architecture is built from."""
    if row.mlp_width is None:
        why = f": {row.reason}" if row.reason else ""
        raise StoreError(f"{row.name} was never sized, since it did not pass the gates{why}.")
    return {
        "source": row.source,
        "vocab_size": config.model.vocab_size,
        "d_model": config.model.d_model,
        "n_layers": config.model.n_layers,
        "n_heads": config.model.n_heads,
        "mlp_width": row.mlp_width,
        "pattern": row.pattern,
        "window": config.model.window,
    }


def _card(
    store: Store,
    detail: ArchitectureDetail,
    quoted: LeaderboardRow,
    run: RunRow,
    noise_bpb: dict[int, float],
) -> dict[str, Any]:
    """The measurements that an export is labelled with; what is not known is None."""
    row = detail.architecture
    trial = store.trial(quoted.trial_id) if quoted.trial_id else None
    environment = (trial.environment if trial else None) or {}
    return {
        "name": row.name,
        "motivation": row.motivation,
        "expectation": row.expectation,
        "architecture_id": row.id,
        "origin": row.origin,
        "run": run.id,
        "seed": trial.seed if trial else run.seed,
        "tokens": quoted.tokens,
        "corpus_hash": environment.get("corpus"),
        "gates": [gate.gate for gate in detail.gates if gate.passed],
        "val_bpb": quoted.val_bpb,
        "val_bpb_noise": noise_bpb.get(quoted.rung) if quoted.rung is not None else None,
        "n_params": row.n_params,
        "state_bytes": row.state_bytes,
        "tokens_per_s": quoted.tokens_per_s,
        "device": trial.device if trial else None,
        "recall": quoted.recall,
    }


def _weights(store: Store, quoted: LeaderboardRow) -> bytes:
    digest = store.trial(quoted.trial_id).weights_hash if quoted.trial_id else None
    if digest is None:
        raise StoreError(f"{quoted.name} has no trained weights: it has no finished trial.")
    return store.blobs.get(digest)


def _trusted(store: str | None) -> frozenset[str]:
    """The hashes a store vouches for; none where there is no store."""
    try:
        with Store.open(store, create=False) as opened:
            return opened.queries.trusted_hashes()
    except StoreError:
        return frozenset()


def _read_source(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"Cannot read {file}: {error}.") from None
