"""Reads a candidate's source without running it and rejects what breaks the contract's form.

This is early feedback with a line number, not security: the sandbox is what contains the code.
Whether the mixer is causal, streamable and trainable is for the evaluator's gates.
"""

from __future__ import annotations

import ast
import hashlib
import re
from dataclasses import dataclass

from ..errors import CandidateRejected
from .contract import (
    CONSTRUCTOR_ARGUMENTS,
    DEFAULT_PATTERN,
    FORWARD_ARGUMENTS,
    MAX_PATTERN_LENGTH,
    MAX_SOURCE_BYTES,
    MIXER_CLASS,
)
from .imports import ImportTable, import_problem, torch_problem
from .normalise import normalised_hash
from .parsing import parse

# Dunder names are refused as such.
_FORBIDDEN_NAMES = frozenset(
    {"breakpoint", "compile", "delattr", "eval", "exec", "exit", "globals", "input", "locals"}
    | {"open", "quit", "vars"}
)
_FORBIDDEN_METHODS = {
    "item": "it stops CUDA graphs and compilation; keep the value a tensor",
    "tolist": "it stops CUDA graphs and compilation; keep the value a tensor",
    "numpy": "it leaves torch; keep the value a tensor",
}
ALLOWED_DUNDERS = frozenset({"__all__", "__call__", "__init__", "__name__", "__post_init__"})
DUNDER = re.compile(r"__\w+__")
_TOP_LEVEL = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef, ast.Assign, ast.AnnAssign)


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedSource:
    """A source in the contract's form, and what reading it told."""

    source: str
    source_hash: str  # sha256 of the text
    normalised_hash: str  # equal for sources that differ in names, comments and layout alone
    pattern: str
    docstring: str | None


def check_source(source: str | bytes, max_bytes: int = MAX_SOURCE_BYTES) -> CheckedSource:
    """The checked source; raises CandidateRejected("source", one sentence with the line)."""
    text = _text(source, max_bytes)
    try:
        return _check(text)
    except RecursionError:
        raise rejection("the code is nested too deeply to be read") from None


def source_hash(source: str) -> str:
    """sha256 of the text, the key under which audits and trust are remembered."""
    return hashlib.sha256(source.encode()).hexdigest()


def _check(text: str) -> CheckedSource:
    tree = _parse(text)
    _check_top_level(tree)
    imports = ImportTable(tree)
    _check_names(tree, imports)
    mixer = _find_mixer(tree)
    _check_base(mixer, tree, imports)
    _check_method(mixer, "__init__", CONSTRUCTOR_ARGUMENTS, optional=0)
    _check_method(mixer, "forward", FORWARD_ARGUMENTS, optional=1)
    return CheckedSource(
        source=text,
        source_hash=source_hash(text),
        normalised_hash=normalised_hash(tree),
        pattern=_pattern(mixer),
        docstring=ast.get_docstring(tree) or ast.get_docstring(mixer),
    )


def rejection(reason: str, node: ast.AST | None = None) -> CandidateRejected:
    """The source's rejection as one sentence, with the node's line."""
    line = getattr(node, "lineno", None)
    where = f"line {line}: " if line is not None else ""
    sentence = f"{where}{reason}."
    return CandidateRejected("source", sentence[0].upper() + sentence[1:])


def _clip(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _text(source: str | bytes, max_bytes: int) -> str:
    try:
        raw = source if isinstance(source, bytes) else source.encode()
        text = raw.decode()
    except UnicodeError:
        raise rejection("the source is not valid UTF-8 text") from None
    if len(raw) > max_bytes:
        raise rejection(f"the source has {len(raw):,} bytes; at most {max_bytes:,} are allowed")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise rejection(f"line {line}: the source holds a NUL byte")
    return text


def _parse(text: str) -> ast.Module:
    try:
        return parse(text)
    except SyntaxError as error:
        where = f"line {error.lineno}: " if error.lineno else ""
        raise rejection(f"{where}the source is not valid Python: {_clip(error.msg, 200)}") from None
    except MemoryError:  # how the parser reports that its own stack is full
        raise rejection("the code is nested too deeply to be read") from None


def _check_top_level(tree: ast.Module) -> None:
    for statement in tree.body:
        is_docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if not is_docstring and not isinstance(statement, _TOP_LEVEL):
            raise rejection(
                "the top level may hold imports, constants, functions and classes only, "
                f"not a statement of the kind `{type(statement).__name__}`",
                statement,
            )


def _check_names(tree: ast.Module, imports: ImportTable) -> None:
    """Imports, builtins and attributes that a mixer has no use for."""
    in_constructors = _constructor_nodes(tree)
    for node in ast.walk(tree):
        problem = None
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            problem = import_problem(node)
        elif isinstance(node, ast.Name):
            problem = _name_problem(node.id)
        elif isinstance(node, ast.Attribute):
            problem = _attribute_problem(node, imports)
            if node.attr in _FORBIDDEN_METHODS and node not in in_constructors:
                problem = f"`.{node.attr}` is not allowed: {_FORBIDDEN_METHODS[node.attr]}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            problem = _string_problem(node.value)
        if problem is not None:
            raise rejection(problem, node)


def _constructor_nodes(tree: ast.Module) -> set[ast.AST]:
    """Every node inside an `__init__`, where Python numbers are as good as tensors."""
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return {inner for f in functions if f.name == "__init__" for inner in ast.walk(f)}


def _name_problem(name: str) -> str | None:
    if name in _FORBIDDEN_NAMES or (DUNDER.fullmatch(name) and name not in ALLOWED_DUNDERS):
        return f"`{_clip(name)}` is not allowed in a mixer"
    return None


def _attribute_problem(node: ast.Attribute, imports: ImportTable) -> str | None:
    if DUNDER.fullmatch(node.attr) and node.attr not in ALLOWED_DUNDERS:
        return f"the attribute `{_clip(node.attr)}` is not allowed in a mixer"
    return torch_problem(imports.dotted_name(node))


def _string_problem(text: str) -> str | None:
    if DUNDER.fullmatch(text):
        return f"the string {_clip(text)!r} is not allowed in a mixer"
    return None


def _find_mixer(tree: ast.Module) -> ast.ClassDef:
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    public = [node for node in classes if not node.name.startswith("_")]
    mixers = [node for node in public if node.name == MIXER_CLASS]
    if not mixers:
        raise rejection(f"there is no class `{MIXER_CLASS}` at the top level")
    others = [node for node in public if node is not mixers[0]]
    if others:
        raise rejection(
            f"`{_clip(others[0].name)}` is a second public class; only `{MIXER_CLASS}` may be "
            "public, other names start with an underscore",
            others[0],
        )
    return mixers[0]


def _check_base(mixer: ast.ClassDef, tree: ast.Module, imports: ImportTable) -> None:
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    waiting, seen = [mixer], set()
    while waiting:
        current = waiting.pop()
        for base in current.bases:
            if imports.dotted_name(base) in ("torch.nn.Module", "torch.nn.modules.module.Module"):
                return
            if isinstance(base, ast.Name) and base.id in classes and base.id not in seen:
                seen.add(base.id)
                waiting.append(classes[base.id])
    raise rejection(f"`{MIXER_CLASS}` must be a subclass of torch.nn.Module", mixer)


def _check_method(
    mixer: ast.ClassDef, name: str, arguments: tuple[str, ...], optional: int
) -> None:
    """The method stands in the class itself and takes exactly self and these arguments."""
    wanted = ", ".join(("self", *arguments)) + ("=None" if optional else "")
    methods = [n for n in mixer.body if isinstance(n, ast.FunctionDef) and n.name == name]
    if not methods:
        raise rejection(f"`{MIXER_CLASS}` must define `{name}({wanted})`", mixer)
    method = methods[-1]
    given = method.args
    names = tuple(a.arg for a in (*given.posonlyargs, *given.args))
    is_exact = names == ("self", *arguments) and not (given.vararg or given.kwarg)
    is_exact &= not given.kwonlyargs and not given.posonlyargs and not method.decorator_list
    defaults = [d.value if isinstance(d, ast.Constant) else d for d in given.defaults]
    if not is_exact or (optional and defaults != [None]):
        raise rejection(
            f"the signature must be `{name}({wanted})`, got `{name}({_shown(given)})`"
            + (" under a decorator" if method.decorator_list else ""),
            method,
        )


def _shown(given: ast.arguments) -> str:
    """The arguments' names; defaults other than None are left out, whatever they hold."""
    plain = [a.arg for a in (*given.posonlyargs, *given.args)]
    for i, default in enumerate(reversed(given.defaults), start=1):
        is_none = isinstance(default, ast.Constant) and default.value is None
        plain[-i] += "=None" if is_none else "=…"
    starred = [f"*{given.vararg.arg}"] if given.vararg else ["*"] if given.kwonlyargs else []
    keywords = [a.arg for a in given.kwonlyargs]
    doubly = [f"**{given.kwarg.arg}"] if given.kwarg else []
    return _clip(", ".join([*plain, *starred, *keywords, *doubly]), 120)


def _pattern(mixer: ast.ClassDef) -> str:
    for statement in mixer.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        if any(isinstance(t, ast.Name) and t.id == "pattern" for t in targets):
            assert isinstance(statement, (ast.Assign, ast.AnnAssign))
            return _pattern_letters(statement.value, statement)
    return DEFAULT_PATTERN


def _pattern_letters(value: ast.expr | None, statement: ast.stmt) -> str:
    if not isinstance(value, ast.Constant) or not isinstance(value.value, str):
        raise rejection('`pattern` must be a literal string such as "LLLA"', statement)
    letters = value.value
    if not 1 <= len(letters) <= MAX_PATTERN_LENGTH or set(letters) - {"L", "A"}:
        raise rejection(
            f"the pattern {_clip(letters)!r} must be 1 to {MAX_PATTERN_LENGTH} of the letters "
            "L (this mixer) and A (sliding-window attention)",
            statement,
        )
    if "L" not in letters:
        raise rejection(
            f"the pattern {_clip(letters)!r} never uses this mixer: it has no L", statement
        )
    return letters
