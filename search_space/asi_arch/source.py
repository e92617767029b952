"""Reads a file in ASI-Arch's convention without running it: one class `DeltaNet`, known imports.

Early feedback with a line number, not security: the sandbox is what contains the code.
"""

from __future__ import annotations

import ast

from ..contract import DEFAULT_PATTERN, MAX_SOURCE_BYTES, MIXER_CLASS
from ..imports import ImportTable, torch_problem
from ..normalise import normalised_hash
from ..parsing import parse
from ..source_check import ALLOWED_DUNDERS, DUNDER, CheckedSource, rejection, source_hash

LAYER_CLASS = "DeltaNet"
# What `stand_ins` offers, by the module that such files import it from.
STAND_INS = {
    "fla.layers.utils": ("get_unpad_data", "index_first_axis", "pad_input"),
    "fla.models.utils": ("Cache",),
    "fla.modules": ("FusedRMSNormGated", "RMSNorm", "ShortConvolution"),
    "fla.modules.l2norm": ("l2norm",),
    "transformers.processing_utils": ("Unpack",),
}
_PLAIN_IMPORTS = frozenset(
    {"__future__", "collections.abc", "dataclasses", "einops", "functools", "math", "typing"}
)
COMPILERS = ("torch.compile",)  # as a decorator or a call it is left out
_FORBIDDEN_NAMES = frozenset(
    {"__import__", "breakpoint", "compile", "delattr", "eval", "exec", "globals", "open", "vars"}
)


def is_asi_arch_source(source: str) -> bool:
    """Whether it defines a class `DeltaNet` and no `Mixer`; False for what does not parse."""
    try:
        names = {node.name for node in parse(source).body if isinstance(node, ast.ClassDef)}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return LAYER_CLASS in names and MIXER_CLASS not in names


def check_asi_arch_source(source: str, max_bytes: int = MAX_SOURCE_BYTES) -> CheckedSource:
    """The checked source; raises CandidateRejected("source", one sentence with the line)."""
    try:
        return _check(source, max_bytes)
    except RecursionError:
        raise rejection("the code is nested too deeply to be read") from None


def auxiliary_outputs(source: str) -> tuple[str, ...]:
    """What the layer's forward returns beside its output and a cache, as written; for notes.

    Such files return auxiliary losses there, which the adapter drops.
    """
    layer = _layer_class(_parse(source))
    found = dict.fromkeys(
        ast.unparse(value)
        for method in layer.body
        if isinstance(method, ast.FunctionDef) and method.name == "forward"
        for node in ast.walk(method)
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple)
        for value in node.value.elts[1:]
    )
    return tuple(text for text in found if text not in ("None", "past_key_values"))


def call_counters(source: str) -> tuple[str, ...]:
    """Attributes that are counted up by one in the file's methods; for notes.

    They schedule gates over training steps; the adapter holds them in all other calls.
    """
    found = dict.fromkeys(
        node.target.attr
        for node in ast.walk(_parse(source))
        if isinstance(node, ast.AugAssign)
        and isinstance(node.op, ast.Add)
        and isinstance(node.value, ast.Constant)
        and node.value.value == 1
        and isinstance(node.target, ast.Attribute)
        and isinstance(node.target.value, ast.Name)
        and node.target.value.id == "self"
    )
    return tuple(found)


def _check(source: str, max_bytes: int) -> CheckedSource:
    try:
        size = len(source.encode())
    except UnicodeError:
        raise rejection("the source is not valid UTF-8 text") from None
    if size > max_bytes:
        raise rejection(f"the source has {size:,} bytes; at most {max_bytes:,} are allowed")
    tree = _parse(source)
    layer = _layer_class(tree)
    imports = ImportTable(tree)
    for node in ast.walk(tree):
        if (problem := _problem(node, imports)) is not None:
            raise rejection(problem, node)
    methods = {node.name for node in layer.body if isinstance(node, ast.FunctionDef)}
    for name in ("__init__", "forward"):
        if name not in methods:
            raise rejection(f"`{LAYER_CLASS}` must define `{name}`", layer)
    return CheckedSource(
        source=source,
        source_hash=source_hash(source),
        normalised_hash=normalised_hash(tree),
        pattern=DEFAULT_PATTERN,
        docstring=ast.get_docstring(tree) or ast.get_docstring(layer),
    )


def _parse(source: str) -> ast.Module:
    if "\0" in source:
        line = source.count("\n", 0, source.index("\0")) + 1
        raise rejection(f"line {line}: the source holds a NUL byte")
    try:
        return parse(source)
    except SyntaxError as error:
        where = f"line {error.lineno}: " if error.lineno else ""
        raise rejection(f"{where}the source is not valid Python: {error.msg[:200]}") from None
    except MemoryError:  # how the parser reports that its own stack is full
        raise rejection("the code is nested too deeply to be read") from None


def _layer_class(tree: ast.Module) -> ast.ClassDef:
    layers = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == LAYER_CLASS]
    if not layers:
        raise rejection(f"there is no class `{LAYER_CLASS}` at the top level")
    return layers[-1]


def _problem(node: ast.AST, imports: ImportTable) -> str | None:
    if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
        return next((p for p in map(_module_problem, modules) if p is not None), None)
    if isinstance(node, ast.ImportFrom):
        return _from_problem(node)
    if isinstance(node, ast.Name):
        is_dunder = DUNDER.fullmatch(node.id) and node.id not in ALLOWED_DUNDERS
        if is_dunder or node.id in _FORBIDDEN_NAMES:
            return f"`{node.id[:60]}` is not allowed in a layer"
    if isinstance(node, ast.Attribute):
        if DUNDER.fullmatch(node.attr) and node.attr not in ALLOWED_DUNDERS:
            return f"the attribute `{node.attr[:60]}` is not allowed in a layer"
        dotted = imports.dotted_name(node)
        return None if dotted in COMPILERS else torch_problem(dotted)
    return None


def _from_problem(node: ast.ImportFrom) -> str | None:
    if node.level or node.module is None:
        return "relative imports are not allowed; a layer is one file"
    for alias in node.names:
        if alias.name == "*":
            return f"`from {node.module[:60]} import *` is not allowed; name what is used"
        if node.module in STAND_INS and alias.name in STAND_INS[node.module]:
            continue
        if (problem := _module_problem(node.module, alias.name)) is not None:
            return problem
    return None


def _module_problem(module: str, name: str | None = None) -> str | None:
    full = module if name is None else f"{module}.{name}"
    if module.partition(".")[0] == "torch":
        return None if full in COMPILERS else torch_problem(full)
    if module in _PLAIN_IMPORTS or full in _PLAIN_IMPORTS:
        return None
    known = sorted({*_PLAIN_IMPORTS, "torch"})
    offered = [f"{home}.{symbol}" for home, symbols in STAND_INS.items() for symbol in symbols]
    return (
        f"importing `{full[:60]}` is not possible here; known are {', '.join(known)}, and in the "
        f"form `from ... import ...` {', '.join(offered)}"
    )
