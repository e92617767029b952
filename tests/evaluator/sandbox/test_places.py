"""What a candidate's process may read: what torch needs, and nothing that is held out."""

from __future__ import annotations

import ast
import importlib.util
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hostile_scene import Bare

from linearch.evaluator.data.documents import STDLIB, read_documents
from linearch.evaluator.data.splits import split_documents
from linearch.evaluator.sandbox import places, python_places
from linearch.evaluator.sandbox.failures import ChildFailed
from linearch.evaluator.sandbox.limits import MIB, Limits
from linearch.evaluator.sandbox.places import allowed_files, readable_places
from linearch.evaluator.sandbox.processes import tree_below
from linearch.evaluator.sandbox.python_places import StandardLibrary, standard_library
from linearch.evaluator.sandbox.supervisor import Sandbox

MakeSource = Callable[..., str]

_WITHHELD = standard_library().withheld
_FOLDER = standard_library().folder + "/"


def _files_below(paths: Iterable[str]) -> Iterator[Path]:
    for path in paths:
        if os.path.isdir(path):
            for parent, _, names in os.walk(path):
                yield from (Path(parent, name) for name in names)
        else:
            yield Path(path)


def _copies(paths: Iterable[str], texts: set[bytes]) -> set[Path]:
    """Files below some paths that hold one of some texts."""
    sizes = {len(text) for text in texts}
    files = (file for file in _files_below(paths) if file.is_file() and not file.is_symlink())
    return {file for file in files if file.stat().st_size in sizes and file.read_bytes() in texts}


def test_what_is_withheld_is_what_the_default_corpus_holds_out() -> None:
    split = split_documents(list(read_documents(STDLIB, "text")))
    withheld = Counter(Path(path).read_bytes() for path in _WITHHELD)
    assert withheld == Counter([*split.val, *split.test])
    assert not withheld.keys() & set(split.train)


def test_no_copy_of_a_withheld_file_can_be_read_in_any_profile() -> None:
    granted = readable_places()
    texts = {text for path in _WITHHELD if len(text := Path(path).read_bytes()) > 500}
    assert _copies((*granted.binaries, *granted.sources, *granted.tools), texts) == set()
    whole = _copies([standard_library().folder], texts)
    assert len(whole) >= len(texts)


def test_a_process_without_compilers_is_granted_no_text_of_python() -> None:
    strict = allowed_files(readable_places(), "/scratch", "strict", "cpu")
    suffixes = {".py", ".pyc", ".pyi"}
    folders = [path for path in strict.readable if not path.startswith(("/usr", "/sys", "/proc"))]
    assert folders
    assert [path for path in _files_below(folders) if path.suffix in suffixes] == []
    assert strict.listable == ()


def test_no_compiled_form_of_a_withheld_file_can_be_read() -> None:
    readable = set(readable_places().sources)
    for path in map(Path, _WITHHELD):
        compiled = Path(importlib.util.cache_from_source(path))
        assert not readable & {str(compiled), *map(str, compiled.parents)}


def test_tools_are_for_compilers_alone_and_devices_of_a_gpu_for_those_who_use_it() -> None:
    granted = readable_places()
    strict = allowed_files(granted, "/scratch", "strict", "cpu")
    compiles = allowed_files(granted, "/scratch", "compile", "cuda")
    assert "/usr/bin" not in strict.readable
    assert "/usr/bin" in compiles.readable
    assert not strict.may_execute
    assert strict.devices == ("/dev/null",)
    assert strict.writable == ("/scratch",)
    assert {"/dev/zero", "/dev/nvidiactl"} <= set(compiles.devices)


@pytest.mark.parametrize(
    "folder", ["/", "/etc", "/usr", "/usr/lib", "/usr/local", "/usr/local/etc", "/usr/share"]
)
def test_shared_folders_are_not_granted_whole(folder: str) -> None:
    granted = readable_places()
    assert folder not in {*granted.binaries, *granted.sources, *granted.tools, *granted.listable}


def test_neither_a_home_nor_a_clone_is_granted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = tmp_path / "lib" / "libexample.so"
    library.parent.mkdir()
    library.touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library.parent))
    assert str(library) in readable_places().binaries
    monkeypatch.setattr(places, "_private_folders", lambda: (str(library),))
    assert str(library) not in readable_places().binaries
    monkeypatch.setattr(places, "_private_folders", lambda: (str(library / "home"),))
    assert str(library) not in readable_places().binaries


def test_a_backport_is_left_out_of_the_package_that_brings_it(tmp_path: Path) -> None:
    for name in ("vendor/copy", "vendor/other", "code"):
        (tmp_path / "package" / name).mkdir(parents=True)
    package, copy = tmp_path / "package", tmp_path / "package" / "vendor" / "copy"
    granted = set(python_places._around(package, [copy]))
    assert granted == {str(package / "code"), str(package / "vendor" / "other")}
    assert list(python_places._around(package, [tmp_path / "elsewhere"])) == [str(package)]


@pytest.mark.parametrize(
    ("requirement", "name", "extras"),
    [
        ("numpy>=1.26", "numpy", set()),
        ("cuda-toolkit[cublas, cudart]==13.0.2", "cuda-toolkit", {"cublas", "cudart"}),
        ("typing_extensions", "typing_extensions", set()),
    ],
)
def test_a_requirement_is_read(requirement: str, name: str, extras: set[str]) -> None:
    assert python_places._parse(requirement) == (name, frozenset(extras))


def test_what_is_required_with_an_extra_is_granted_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    requirements = {
        "alpha": ['beta[fast]>=1; platform_system == "Linux"', "gamma; extra == 'never'"],
        "beta": ['delta; extra == "fast"', "absent"],
        "gamma": [],
        "delta": [],
        "unasked": [],
    }
    for name, required in requirements.items():
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        lines = [f"Requires-Dist: {requirement}" for requirement in required]
        folder.joinpath("METADATA").write_text("\n".join([f"Name: {name}", *lines, ""]))
        folder.joinpath("RECORD").write_text(f"../../bin/x,,\n{name}/code.py,sha256=0,9\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(python_places, "_ROOTS", ("alpha",))
    granted = {Path(path) for d in python_places._required() for path in python_places._files_of(d)}
    assert granted == {tmp_path / name for name in ("alpha", "beta", "delta")}


def test_a_library_without_source_withholds_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(python_places.sysconfig, "get_path", lambda name: str(tmp_path))
    assert standard_library() == StandardLibrary(
        folder=str(tmp_path), readable=standard_library().readable, withheld=()
    )


def test_what_cannot_be_found_out_is_no_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linearch.evaluator.data.splits.read_documents", lambda *_, **__: 1 / 0)
    with pytest.raises(RuntimeError, match="held-out text could not be found out"):
        standard_library()


# What candidates may import, and libraries for them: all of it is loaded before.
_IMPORTS = """
import collections.abc, dataclasses, einops, einops.layers.torch, linearch.kernels, math, typing
import torch.autograd.gradcheck, torch.distributions, torch.fft, torch.func, torch.linalg
import torch.nn.attention.flex_attention, torch.nn.utils.parametrizations, torch.utils.checkpoint
einops.rearrange(torch.zeros(2, 3), "a b -> b a")
str((torch.zeros(2), nn.Linear(2, 2)))
torch.func.jvp(torch.sin, (torch.ones(2),), (torch.ones(2),))
print("imported")
"""
# Nothing of it is: what compilers and their libraries take, where they run.
_LATE_IMPORTS = """
import ast, decimal, difflib, fractions, html, random, statistics, unittest.mock, xml.dom
import importlib.resources, networkx, sympy.solvers
import torch.utils.cpp_extension, torch._inductor.codecache
import json
assert json.JSONDecoder.__module__ == "json.decoder"
importlib.resources.files("torch").joinpath("version.py").read_text()
print("imported")
"""
# Held out and not loaded before a candidate is.
_UNLOADED = next(
    stem
    for stem in ("modulefinder", "imaplib", "nturl2path")
    if stem in {Path(path).stem for path in _WITHHELD}
)
_IMPORT_IT = f"""
try:
    import {_UNLOADED}
    print("imported")
except Exception as error:
    print(type(error).__name__)
"""
_BY_THE_ORDINARY_SEARCH = """
from importlib.machinery import PathFinder
at = [getattr(finder, "__name__", "") for finder in sys.meta_path].index("ReadableFinder")
sys.meta_path[at] = PathFinder
"""


def _printed(sandbox: Sandbox, limits: Limits, source: str) -> str:
    with sandbox.spawn(limits) as child:
        child.call("load", {"source": source, "convention": "linearch"})
        child.close()
    return child.printed.strip()


def test_what_candidates_may_import_is_there_though_no_source_can_be_read(
    sandbox: Sandbox, limits: Limits, hostile_source: MakeSource
) -> None:
    assert _printed(sandbox, limits, hostile_source(top=_IMPORTS)).endswith("imported")


def test_what_is_loaded_late_is_found_where_compilers_run(
    bare_zygote: Bare, limits: Limits, hostile_source: MakeSource
) -> None:
    bare_zygote.choose("compile", frozenset())
    wide = replace(limits, memory_bytes=2048 * MIB)
    assert _printed(bare_zygote, wide, hostile_source(top=_LATE_IMPORTS)).endswith("imported")


def test_what_may_not_be_read_is_imported_as_if_it_were_not_installed(
    bare_zygote: Bare, limits: Limits, hostile_source: MakeSource
) -> None:
    bare_zygote.choose("compile", frozenset())
    said = _printed(bare_zygote, limits, hostile_source(top=_IMPORT_IT))
    assert said == "ModuleNotFoundError"
    unprepared = hostile_source(top=_BY_THE_ORDINARY_SEARCH + _IMPORT_IT)
    assert _printed(bare_zygote, limits, unprepared) == "PermissionError"
    bare_zygote.choose("compile", frozenset({"landlock"}))
    assert _printed(bare_zygote, limits, hostile_source(top=_IMPORT_IT)) == "imported"


def test_an_error_from_a_withheld_file_is_told_like_any_other(
    sandbox: Sandbox, limits: Limits, hostile_source: MakeSource
) -> None:
    def source(top: str) -> dict[str, str]:
        return {"source": hostile_source(top=top), "convention": "linearch"}

    with sandbox.spawn(limits) as child:
        with pytest.raises(ChildFailed, match="JSONDecodeError") as failure:
            child.call("load", source("import json; json.loads('{')"))
        assert failure.value.kind == "raised"
        look = "import inspect, json, linecache; print(linecache.getlines(json.__file__))"
        child.call("load", source(look))
        child.close()
    assert child.printed.strip() == "[]"


def _docstring_lines(paths: Iterable[str]) -> set[bytes]:
    """Those long enough to be told from other text."""
    nodes = (node for path in paths for node in ast.walk(ast.parse(Path(path).read_bytes())))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = (ast.get_docstring(node) or "" for node in nodes if isinstance(node, documented))
    lines = (line.strip().encode() for text in texts for line in text.splitlines())
    return {line for line in lines if len(line) >= 30}


def _own_memory(pid: int) -> bytes:
    """What a process has in memory that is of no file, freed or not."""
    found = bytearray()
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights, *_, inode, name = [*line.split(), ""][:6]
            if rights.startswith("r") and inode == "0" and name in ("", "[heap]"):
                start, end = (int(address, 16) for address in place.split("-"))
                memory.seek(start)
                found += memory.read(end - start)
    return bytes(found)


def test_what_has_been_freed_holds_no_docstring_of_a_withheld_file_either(
    sandbox: Sandbox, limits: Limits, mixer_source: MakeSource
) -> None:
    """Without the overwriting, 44 % of the lines were found in Python 3.11; some are elsewhere too,
    in what C modules say of themselves, or in use as data.
    """
    loaded = {os.path.realpath(getattr(m, "__file__", None) or "") for m in [*sys.modules.values()]}
    lines = sorted(_docstring_lines(loaded.intersection(_WITHHELD)))
    sample = random.Random(0).sample(lines, min(len(lines), 150))
    with sandbox.spawn(limits) as child:
        child.call("load", {"source": mixer_source(), "convention": "linearch"})
        assert sandbox.zygote_pid is not None
        memory = _own_memory(tree_below(sandbox.zygote_pid, 9)[0])
    left = [line for line in sample if line in memory]
    assert len(memory) > 64 * MIB
    assert len(left) < 0.15 * len(sample), left


def test_no_docstring_of_a_withheld_file_is_left_in_a_childs_memory(
    sandbox: Sandbox, limits: Limits, hostile_source: MakeSource
) -> None:
    names = sorted(Path(path).stem for path in _WITHHELD if "/" not in path[len(_FOLDER) :])
    look = f"""
    for name in {names!r}:
        module = sys.modules.get(name)
        if module is not None and module.__doc__:
            print(name)
    """
    assert _printed(sandbox, limits, hostile_source(top=look)) == ""
    assert any(getattr(sys.modules.get(name), "__doc__", None) for name in names)
