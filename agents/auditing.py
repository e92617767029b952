"""What `linearch audit` is told, found: a file, a baseline, or an architecture in the store."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..config import RunConfig, load_config, validate_config
from ..db import ArchitectureRow, Store
from ..errors import ConfigError, StoreError
from ..evaluator.audit import Audit, audit_source, convention_of
from ..search_space.contract import MAX_SOURCE_BYTES
from ..search_space.library import BASELINES, baseline_source
from ..search_space.source_check import source_hash
from .preflight import cache_folder, check_containment, resolve_device

# Published layers in ASI-Arch's convention hold up to 196,022 parameters at width 64, and two
# of them must fit: a budget is for fair comparisons in a search, and these are not compared.
_ASI_ARCH_PARAM_BUDGET = 420_000
_N_NEAR = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What is to be audited, and under which settings. `row` is its place in the store, if any."""

    name: str
    source: str
    config: RunConfig
    device: str
    is_reference: bool = False
    row: ArchitectureRow | None = None


def find_target(
    which: str,
    *,
    store: str | None,
    profile: str | None,
    device: str | None,
    unsafe: bool = False,
) -> Target:
    """A baseline's name, a file's path, or an architecture's id, start of an id, or name.

    A stored one is judged under its run's settings unless `profile` is given. Raises StoreError for
    an unknown or unreadable target, with the names nearest to it, and ConfigError or PreflightError
    for a profile or device that there is not.
    """
    name, source, row, run_config = _found(which, store)
    if run_config is None or profile is not None:
        run_config = load_config(profile or ("gpu" if device == "cuda" else "cpu"))
        if convention_of(source) == "asi-arch":
            run_config = with_room(run_config)
    resolved = resolve_device(device or "cpu")
    workers = run_config.workers.model_copy(update={"device": resolved})
    sandbox = run_config.sandbox.model_copy(update={"allow_unsafe": unsafe})
    return Target(
        name=name,
        source=source,
        config=run_config.model_copy(update={"workers": workers, "sandbox": sandbox}),
        device=resolved,
        is_reference=_is_reference(source),
        row=row,
    )


def with_room(config: RunConfig) -> RunConfig:
    """The same settings with a parameter budget that large published layers fit into."""
    budget = max(config.model.param_budget, _ASI_ARCH_PARAM_BUDGET)
    model = config.model.model_copy(update={"param_budget": budget})
    return config.model_copy(update={"model": model})


def audit_target(target: Target) -> Audit:
    """The whole judgement; raises PreflightError where containment is missing or broke."""
    from ..evaluator import Judge  # loads torch

    check_containment(target.config)
    with Judge(target.config, device=target.device, folder=cache_folder()) as judge:
        return audit_source(
            judge,
            target.source,
            name=target.name,
            device=target.device,
            profile=target.config.profile,
            is_reference=target.is_reference,
        )


def check_releasable(target: Target, profile: str | None) -> None:
    """Raises ConfigError unless `target` waits in quarantine and is judged as its run is."""
    if target.row is None:
        raise ConfigError("--release is for an architecture in the store; name one by its id.")
    if target.row.state != "quarantined":
        raise ConfigError(f"{target.name} is {target.row.state}, not in quarantine.")
    if profile is not None:
        raise ConfigError("--release judges under the run's own settings; leave --profile out.")


def read_source(file: Path, at_most: int = MAX_SOURCE_BYTES) -> str:
    """A source file's text, no more than it takes to see that it is too long.

    Raises StoreError for one that cannot be read or is no text.
    """
    try:
        with file.open("rb") as opened:
            raw = opened.read(at_most + 1)
        return raw.decode(errors="strict" if len(raw) <= at_most else "replace")
    except UnicodeDecodeError:
        raise StoreError(f"{file} is not UTF-8 text; give a Python source file.") from None
    except OSError as error:
        raise StoreError(f"Cannot read {file}: {error.strerror}.") from None


def _found(
    which: str, store: str | None
) -> tuple[str, str, ArchitectureRow | None, RunConfig | None]:
    """Name, source, and for a stored one its row and its run's settings."""
    if which in BASELINES:
        return which, baseline_source(which), None, None
    if _names_file(which):
        return Path(which).name, read_source(Path(which)), None, None
    names: tuple[str, ...] = ()
    try:
        with Store.open(store, create=False) as opened:
            names = _stored_names(opened)
            row = opened.queries.architecture(which).architecture
            return row.name, row.source, row, validate_config(opened.run(row.run_id).config)
    except StoreError as error:
        raise StoreError(_unknown(which, names, str(error))) from None


def _names_file(which: str) -> bool:
    try:
        return Path(which).is_file() or (which.endswith(".py") and "\0" not in which)
    except (OSError, ValueError):  # too long for a file's name, or with a NUL byte in it
        return False


def _stored_names(store: Store) -> tuple[str, ...]:
    return tuple(row.name for run in store.runs() for row in store.queries.leaderboard(run.id))


def _unknown(which: str, stored_names: Iterable[str], in_store: str) -> str:
    known = dict.fromkeys([*BASELINES, *stored_names])
    near = difflib.get_close_matches(which, known, n=_N_NEAR, cutoff=0.5)
    hint = f" (near are {', '.join(near)})" if near else f" (baselines are {', '.join(BASELINES)})"
    return (
        f"No file or baseline is called {which!r}{hint}, and {in_store[:1].lower()}{in_store[1:]}"
    )


def _is_reference(source: str) -> bool:
    """Whether it is, to the letter, a baseline that the library marks as a reference."""
    references = (name for name, baseline in BASELINES.items() if baseline.is_reference)
    return source_hash(source) in {source_hash(baseline_source(name)) for name in references}
