"""Brings a gallery into a store as a run of its own, and has every architecture of it audited.

What the publishers report of each is kept as an event of the run: it was not measured here.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..config import RunConfig, load_config
from ..db import DUPLICATE, ArchitectureRow, DuplicateArchitecture, RunState, Store
from ..errors import CandidateRejected, PreflightError
from ..evaluator.audit import Audit, label
from ..search_space.asi_arch import check_asi_arch_source
from ..search_space.contract import DEFAULT_PATTERN
from ..search_space.source_check import CheckedSource
from .audit_workers import Job, audits
from .auditing import with_room
from .gallery_file import GALLERY_RUN, Entry, Gallery, read_gallery, reported_line
from .preflight import check_containment, resolve_device
from .start import versions

ORIGIN = "asi-arch"
IMPORTED = "imported"  # the event that keeps what was reported elsewhere
Step = Callable[[int, int, str], None]  # how many are done, of how many, and which was the last
_IN_ROW = ("program", "motivation")  # of an entry, kept in the architecture's row


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """What became of an entry: stored (`row`) or the same as another, audited or not.

    `rejection` is the source check's, before any audit; `fault` says why the machinery failed.
    """

    entry: Entry
    row: ArchitectureRow | None = None
    duplicate_of: str | None = None
    rejection: str | None = None
    audit: Audit | None = None
    fault: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """How many fail one check, and the one that fails it by the most (or the first)."""

    check: str
    n_failed: int
    worst: str
    reason: str
    relative: float | None  # by how much of the output's RMS, where the check measures that


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportOutcome:
    """A whole import; `problems` says why entries of the file were passed over."""

    run_id: str
    store: str
    state: RunState
    imported: tuple[Imported, ...]
    tallies: tuple[Tally, ...]
    problems: tuple[str, ...]


def run_import(
    file: Path,
    *,
    store: str | None,
    audited: bool = True,
    workers: int = 1,
    device: str | None = None,
    unsafe: bool = False,
    step: Step = lambda done, total, what: None,
) -> ImportOutcome:
    """Stores a gallery as a run and audits it, telling `step` after each.

    What was stored stays when it is interrupted. Raises GalleryError for a file that is no gallery
    and PreflightError where nothing can be contained, with nothing stored, or where no audit ran.
    """
    gallery = read_gallery(file)
    config, resolved = import_config(device, unsafe=unsafe)
    if audited:
        check_containment(config)
    with Store.open(store) as opened:
        run = GalleryImport(opened, config)
        imported: list[Imported] = []
        state: RunState = "failed"
        try:
            imported = run.add(gallery)
            if audited:
                run.audit_all(imported, device=resolved, workers=workers, step=step)
            state = "finished"
        except KeyboardInterrupt:
            state = "interrupted"
        finally:
            run.close(state, f"imported {len(imported)} entries of {file.name}")
        return ImportOutcome(
            run_id=run.run_id,
            store=opened.location,
            state=state,
            imported=tuple(imported),
            tallies=tallies(imported),
            problems=gallery.problems,
        )


class GalleryImport:
    """One run that holds a gallery; `close` gives it up in its last state."""

    def __init__(self, store: Store, config: RunConfig) -> None:
        self._store, self._config = store, config
        self._started = time.monotonic()
        settings = config.model_dump(mode="json")
        self.run_id = store.create_run(settings, versions(), config.seed, name=GALLERY_RUN)
        self._epoch = store.claim_run(self.run_id)

    def add(self, gallery: Gallery) -> list[Imported]:
        """Stores every entry, in order of the publishers' numbers: parents before children."""
        ids: dict[int, str] = {}
        added = []
        for entry in sorted(gallery.entries, key=_number):
            imported = self._add(entry, ids)
            added.append(imported)
            if imported.row is not None and entry.index is not None:
                ids.setdefault(entry.index, imported.row.id)
        return added

    def audit_all(self, imported: list[Imported], *, device: str, workers: int, step: Step) -> None:
        """Puts what passed the source check, judged, in its place in the list.

        Each verdict is stored as it comes. Raises PreflightError if the machinery failed for all.
        """
        waiting = [
            place
            for place, item in enumerate(imported)
            if item.row is not None and item.rejection is None
        ]
        jobs = [
            Job(place=place, name=imported[place].entry.name, source=imported[place].entry.program)
            for place in waiting
        ]
        with closing(audits(jobs, self._config, device=device, workers=workers)) as found:
            for done, (place, audit) in enumerate(found, start=1):
                imported[place] = self._recorded(imported[place], audit)
                step(done, len(waiting), imported[place].entry.name)
        faults = [item.fault for item in imported if item.fault is not None]
        if faults and len(faults) == len(waiting):
            raise PreflightError(faults[0])

    def close(self, state: RunState, reason: str) -> None:
        self._store.end_run(self.run_id, self._epoch, state, reason, self._elapsed_s)

    @property
    def _elapsed_s(self) -> float:
        return time.monotonic() - self._started

    def _add(self, entry: Entry, ids: dict[int, str]) -> Imported:
        rejection: CandidateRejected | None = None
        try:
            checked = check_asi_arch_source(entry.program, self._config.gates.max_source_bytes)
        except CandidateRejected as error:
            checked, rejection = _unchecked(entry.program), error
        try:
            row = self._store_row(entry, checked, ids)
        except DuplicateArchitecture as duplicate:
            data = {"name": entry.name, "existing_id": duplicate.existing_id}
            self._store.add_event(self.run_id, DUPLICATE, data)
            return Imported(entry=entry, duplicate_of=duplicate.existing_id)
        reported = {key: value for key, value in asdict(entry).items() if key not in _IN_ROW}
        self._store.add_event(self.run_id, IMPORTED, {"architecture_id": row.id, **reported})
        if rejection is None:
            return Imported(entry=entry, row=row)
        self._store.reject(row.id, rejection.check, rejection.reason)
        return Imported(entry=entry, row=row, rejection=rejection.reason)

    def _store_row(
        self, entry: Entry, checked: CheckedSource, ids: dict[int, str]
    ) -> ArchitectureRow:
        parent = None if entry.parent is None else ids.get(entry.parent)
        return self._store.add_architecture(
            self.run_id,
            name=entry.name,
            motivation=entry.motivation,
            expectation=reported_line(entry),
            origin=ORIGIN,
            source=checked.source,
            source_hash=checked.source_hash,
            normalised_hash=checked.normalised_hash,
            pattern=checked.pattern,
            parents=() if parent is None else ((parent, "mutation"),),
        )

    def _recorded(self, item: Imported, audit: Audit | PreflightError) -> Imported:
        self._store.heartbeat(self.run_id, self._epoch, self._elapsed_s)
        if isinstance(audit, PreflightError):
            return replace(item, fault=str(audit))
        assert item.row is not None
        row = self._store.record_judgement(item.row.id, audit.judgement)
        for note in audit.notes:
            self._store.add_analysis(self.run_id, row.id, "audit", note)
        return replace(item, row=row, audit=audit)


def tallies(imported: Iterable[Imported]) -> tuple[Tally, ...]:
    """One for each check that something failed, the most frequent first."""
    found: dict[str, list[tuple[float, str, str]]] = {}
    for item in imported:
        if item.rejection is not None:
            found.setdefault("source", []).append((-1.0, item.entry.name, item.rejection))
        for failure in item.audit.failures if item.audit else ():
            relative = failure.evidence.get("relative")
            size = relative if isinstance(relative, float) else -1.0
            seen = found.setdefault(label(failure), [])
            seen.append((size, item.entry.name, failure.reason or ""))
    return tuple(
        _tally(check, failed)
        for check, failed in sorted(found.items(), key=lambda pair: -len(pair[1]))
    )


def _tally(check: str, failed: list[tuple[float, str, str]]) -> Tally:
    relative, worst, reason = max(failed, key=lambda item: item[0])
    return Tally(
        check=check,
        n_failed=len(failed),
        worst=worst,
        reason=reason,
        relative=relative if relative >= 0 else None,
    )


def _unchecked(program: str) -> CheckedSource:
    """A source that cannot be read has no normal form: its text stands for it."""
    text_hash = hashlib.sha256(program.encode("utf-8", "surrogatepass")).hexdigest()
    return CheckedSource(
        source=program,
        source_hash=text_hash,
        normalised_hash=text_hash,
        pattern=DEFAULT_PATTERN,
        docstring=None,
    )


def import_config(device: str | None, *, unsafe: bool) -> tuple[RunConfig, str]:
    """The profile `cpu`, with room for large layers, and the device that is used."""
    resolved = resolve_device(device or "cpu")
    settings = {"sandbox.allow_unsafe": unsafe, "workers.device": resolved}
    return with_room(load_config("cpu", settings=settings)), resolved


def _number(entry: Entry) -> float:
    return math.inf if entry.index is None else entry.index
