"""The identity of a source beyond its wording: equal for equal code under other names.

Docstrings, comments, annotations and layout go; imported names become what they stand for; locals,
top-level names, methods and attributes of self are numbered in order of appearance.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator

from .contract import MIXER_CLASS
from .imports import ImportTable

_KEPT = frozenset({MIXER_CLASS, "__init__", "forward", "pattern"})
_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def normalised_hash(tree: ast.Module) -> str:
    """sha256 of the canonical form; raises RecursionError for absurdly nested code."""
    return hashlib.sha256(_Canonical(tree).text().encode()).hexdigest()


class _Canonical:
    """Writes a tree as text that no choice of names and no version of Python's `ast` changes."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.imports = ImportTable(tree)
        self.members = _numbered(_member_names(tree), "m")
        self.scopes = [_numbered(_top_level_names(tree), "g")]

    def text(self) -> str:
        return self._node(self.tree)

    def _node(self, node: ast.AST) -> str:
        if isinstance(node, ast.Name):
            return self._name(node.id)
        if isinstance(node, ast.Attribute):
            return self._attribute(node)
        if isinstance(node, ast.Constant):
            # repr refuses integers of more than 4,300 digits
            return hex(node.value) if type(node.value) is int else repr(node.value)
        if isinstance(node, _Function):
            return self._function(node)
        if isinstance(node, ast.keyword):  # named by the function called, not by this source
            return f"{node.arg}={self._node(node.value)}"
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            node = ast.Assign(targets=[node.target], value=node.value)
        return self._fields(node)

    def _fields(self, node: ast.AST, skip: tuple[str, ...] = ()) -> str:
        skip += ("ctx", "kind", "type_comment", "annotation", "returns", "type_params")
        parts = [type(node).__name__]
        for name, value in ast.iter_fields(node):
            if name == "body" and isinstance(value, list):
                value = [s for s in value if not _is_silent(s)]
            if name not in skip and value is not None and value != []:
                parts.append(f"{name}={self._value(name, value)}")
        return f"({' '.join(parts)})"

    def _value(self, field: str, value: object) -> str:
        if isinstance(value, list):
            return f"[{' '.join(self._value(field, item) for item in value)}]"
        if isinstance(value, ast.AST):
            return self._node(value)
        if isinstance(value, str) and field in ("name", "arg"):
            return self._name(value)
        return repr(value)

    def _function(self, node: _Function) -> str:
        name = "lambda"
        if not isinstance(node, ast.Lambda):
            name = self.members.get(node.name) or self._name(node.name)
        self.scopes.append(_numbered(_local_names(node), f"v{len(self.scopes)}_"))
        text = f"{name}{self._fields(node, skip=('name',))}"
        self.scopes.pop()
        return text

    def _attribute(self, node: ast.Attribute) -> str:
        dotted = self.imports.dotted_name(node)
        if dotted is not None:
            return dotted
        is_own = isinstance(node.value, ast.Name) and node.value.id == "self"
        attribute = self.members.get(node.attr, node.attr) if is_own else node.attr
        return f"{self._node(node.value)}.{attribute}"

    def _name(self, name: str) -> str:
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return self.imports.names.get(name, name)


def _is_silent(statement: ast.AST) -> bool:
    """Docstrings, `pass`, and imports (their names are resolved where they are used)."""
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    return isinstance(statement, (ast.Import, ast.ImportFrom, ast.Pass))


def _numbered(names: Iterator[str], prefix: str) -> dict[str, str]:
    distinct = dict.fromkeys(name for name in names if name not in _KEPT)
    return {name: f"{prefix}{i}" for i, name in enumerate(distinct)}


def _top_level_names(tree: ast.Module) -> Iterator[str]:
    for statement in tree.body:
        if isinstance(statement, (ast.ClassDef, ast.FunctionDef)):
            yield statement.name
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
            yield from _stored_names(statement)


def _member_names(tree: ast.Module) -> Iterator[str]:
    """Methods, and attributes assigned through `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from (f.name for f in node.body if isinstance(f, ast.FunctionDef))
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
        ):
            yield node.attr


def _local_names(function: _Function) -> Iterator[str]:
    arguments = function.args
    listed = [*arguments.posonlyargs, *arguments.args, arguments.vararg]
    yield from (a.arg for a in [*listed, *arguments.kwonlyargs, arguments.kwarg] if a is not None)
    body = function.body if isinstance(function.body, list) else [function.body]
    for statement in body:
        yield from _stored_names(statement)


def _stored_names(node: ast.AST) -> Iterator[str]:
    """Names bound below a node in reading order, nested functions' own locals left out."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    if isinstance(node, _Function):
        if not isinstance(node, ast.Lambda):
            yield node.name
        return
    for child in ast.iter_child_nodes(node):
        yield from _stored_names(child)
