"""A gallery of published architectures in ASI-Arch's JSON, read as data from strangers.

Nothing of it is run and names are text; an entry that cannot be used is passed over with a reason.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import LinearchError

GALLERY_RUN = "asi-arch gallery"  # the name of a run that holds one
_MAX_BYTES = 256 * 1024 * 1024
_SHOWN_CHARS = 60
# What is kept of an entry as its publishers wrote it, beside its own fields.
_REPORTED = ("name_new", "summary", "parameters", "result")


class GalleryError(LinearchError):
    """The file is no gallery: not JSON, not a list, or nothing in it can be used."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One published architecture; `index` and `parent` are the publishers' own numbers."""

    name: str
    program: str
    motivation: str = ""
    index: int | None = None
    parent: int | None = None
    score: float | None = None
    reported: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gallery:
    """What could be read of a file, and a sentence for each entry that could not."""

    entries: tuple[Entry, ...]
    problems: tuple[str, ...]


def read_gallery(file: Path) -> Gallery:
    """The entries of a file; one that is unusable is passed over with its reason.

    Raises GalleryError if the file as a whole cannot be used.
    """
    items = _items(file)
    entries: list[Entry] = []
    problems: list[str] = []
    for number, item in enumerate(items, start=1):
        found = _entry(item, number)
        entries.append(found) if isinstance(found, Entry) else problems.append(found)
    if not entries:
        why = problems[0] if problems else "it is an empty list."
        raise GalleryError(f"{file} holds no usable entry: {why}")
    return Gallery(entries=tuple(entries), problems=tuple(problems))


def reported_line(entry: Entry) -> str:
    """What the publishers say of it, in words; nothing of it was measured here."""
    facts = []
    if entry.index is not None:
        facts.append(f"index {entry.index}")
    if entry.parent is not None:
        facts.append(f"parent {entry.parent}")
    if entry.score is not None:
        facts.append(f"score {entry.score:.3f}")
    if isinstance(size := entry.reported.get("parameters"), str):
        facts.append(f"{_clip(size)} parameters")
    return f"Reported by its publishers: {', '.join(facts)}." if facts else ""


def _items(file: Path) -> list[Any]:
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise GalleryError(f"{file} is larger than {_MAX_BYTES >> 20} MiB; give a gallery.")
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise GalleryError(f"Cannot read {file}: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:  # ValueError: not JSON, or not UTF-8
        raise GalleryError(f"{file} is not JSON: {_clip(str(error))}.") from None
    if not isinstance(content, list):
        raise GalleryError(
            f"{file} holds a JSON {type(content).__name__}; a gallery is a list of entries with "
            "`name` and `program`."
        )
    return content


def _entry(item: Any, number: int) -> Entry | str:
    """An entry, or why it is none."""
    if not isinstance(item, dict):
        return f"entry {number} is {_clip(repr(item))}, not an object."
    name = item.get("name")
    name = name if isinstance(name, str) and name.strip() else f"entry {number}"
    program = item.get("program")
    if not isinstance(program, str) or not program.strip():
        return f"entry {number} ({_clip(name)}) has no program."
    kept = {key: item[key] for key in _REPORTED if key in item}
    return Entry(
        name=name,
        program=program,
        motivation=_text(item.get("motivation")),
        index=_whole(item.get("index")),
        parent=_whole(item.get("parent")),
        score=_finite(item.get("score")),
        reported=kept,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _whole(value: Any) -> int | None:
    return value if type(value) is int and abs(value) < 1 << 53 else None


def _finite(value: Any) -> float | None:
    is_number = type(value) in (int, float)
    return float(value) if is_number and abs(value) < 1e300 else None  # NaN compares as False


def _clip(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"
