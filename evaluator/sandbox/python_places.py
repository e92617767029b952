"""What of Python a candidate's process may read: the standard library without what the default
corpus holds out, and those packages that torch, Triton and our own code consist of.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .apart import said_by_a_fork

# The last is used by torch without being required.
_ROOTS = ("torch", "triton", "numpy", "einops", "safetensors", "packaging")
# Parts of the standard library that no package needs; the wheels in ensurepip hold copies of it.
_NEEDLESS = frozenset(
    {"dist-packages", "ensurepip", "idlelib", "site-packages", "test", "turtledemo"}
)
# Copies of parts of the standard library, under other names.
_BACKPORTS = tuple(
    f"{folder}importlib_{name}"
    for folder in ("", "setuptools/_vendor/")
    for name in ("metadata", "resources")
)
_REQUIREMENT = re.compile(r"([\w.-]+)\s*(?:\[([^\]]*)\])?")
_ONLY_WITH_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")


@dataclass(frozen=True, kw_only=True, slots=True)
class StandardLibrary:
    """`withheld`: source files with text that the default corpus holds out, none of which lies at
    or below a path in `readable`.
    """

    folder: str
    readable: tuple[str, ...]
    withheld: tuple[str, ...]


def standard_library() -> StandardLibrary:
    """Entry by entry, since Landlock grants folders and cannot take a file out of one."""
    folder = Path(os.path.realpath(sysconfig.get_path("stdlib")))
    held_out = _held_out_apart() if (folder / "os.py").exists() else []
    left_out = {name.split("/")[0] for name in held_out} | _NEEDLESS | {"__pycache__"}
    entries = [entry for entry in sorted(folder.glob("*")) if entry.name not in left_out]
    compiled = [importlib.util.cache_from_source(e) for e in entries if e.suffix == ".py"]
    # which some systems keep elsewhere
    extensions = [path for path in sys.path if Path(path).name == "lib-dynload"]
    return StandardLibrary(
        folder=str(folder),
        readable=(*map(str, entries), *compiled, *extensions),
        withheld=tuple(str(folder / name) for name in held_out),
    )


def loaded_of_the_standard_library() -> set[str]:
    """Its files that are loaded here, without the packages that some Pythons keep below it."""
    folder = os.path.realpath(sysconfig.get_path("stdlib"))
    packages = tuple(f"{site}/" for site in package_folders())
    return {path for path in _loaded_files(folder) if not path.startswith(packages)}


def package_places() -> Iterator[str]:
    """Packages that are loaded or that the roots require, without backports."""
    backports = [Path(site, name) for site in package_folders() for name in _BACKPORTS]
    for place in {os.path.realpath(path) for path in _packages()}:
        yield from _around(Path(place), [path for path in backports if path.exists()])


def package_folders() -> list[str]:
    """Where pip installs; other folders on the path are someone's own source."""
    folders = {os.path.realpath(path) for path in sys.path}
    return sorted(path for path in folders if any(Path(path).glob("*.dist-info")))


def _packages() -> Iterator[str]:
    for site in package_folders():
        yield from _loaded_below(site)
    for name in _ROOTS:
        spec = importlib.util.find_spec(name)
        if spec is not None:
            yield from spec.submodule_search_locations or ()
    for distribution in _required():
        yield from _files_of(distribution)


def _around(place: Path, left_out: list[Path]) -> Iterator[str]:
    """`place`, or what it consists of without what is to be left out."""
    if place in left_out:
        return
    if not any(place in path.parents for path in left_out):
        yield str(place)
        return
    for entry in place.iterdir():
        yield from _around(entry, left_out)


def _held_out_apart() -> list[str]:
    """splits.held_out_modules(), by a process of its own: what it has read must not stay in the
    memory of the one that candidates' processes are copied from.
    """

    def find() -> list[str]:
        from ..data.splits import held_out_modules

        return sorted(held_out_modules())

    names: list[str] = said_by_a_fork(find, "which files hold held-out text")
    return names


def _loaded_below(site: str) -> Iterator[str]:
    for path in _loaded_files(site):
        yield f"{site}/{path[len(site) + 1 :].split('/')[0]}"


def _loaded_files(folder: str) -> Iterator[str]:
    for module in list(sys.modules.values()):
        path = os.path.realpath(getattr(module, "__file__", None) or "")
        if path.startswith(f"{folder}/"):
            yield path


def _required() -> list[metadata.Distribution]:
    """The distributions that the roots require, directly or not, of those that are installed."""
    waiting = [(name, frozenset[str]()) for name in _ROOTS]
    found: dict[str, metadata.Distribution] = {}
    seen = set(waiting)
    for name, extras in waiting:  # grows while it is walked
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        for requirement in found[name].requires or ():
            named, _, marker = requirement.partition(";")
            only_with = _ONLY_WITH_EXTRA.search(marker)
            wanted = _parse(named)
            if wanted not in seen and (only_with is None or only_with[1] in extras):
                seen.add(wanted)
                waiting.append(wanted)
    return list(found.values())


def _parse(requirement: str) -> tuple[str, frozenset[str]]:
    """A requirement's name and the extras asked for."""
    match = _REQUIREMENT.match(requirement)
    assert match is not None, requirement
    return match[1], frozenset(extra.strip() for extra in (match[2] or "").split(",")) - {""}


def _files_of(distribution: metadata.Distribution) -> Iterator[str]:
    """Its folders and files beside others'; all of the others' as well where it keeps no list."""
    base = str(distribution.locate_file(""))
    listed = distribution.read_text("RECORD")
    if listed is None:
        yield base
        return
    paths = (line.rpartition(",")[0].rpartition(",")[0].strip('"') for line in listed.splitlines())
    for path in {_top(path) for path in paths if path}:
        if not path.startswith((".", "/")):
            yield f"{base}/{path}"


def _top(path: str) -> str:
    """The entry of the packages' folder that a file belongs to, a module's compiled form whole."""
    return path if path.startswith("__pycache__/") else path.split("/")[0]
