"""The public functions and classes of a module as signatures with docstrings, for prompts.

Read from the code itself, so a prompt never describes a kernel or layer that is not there.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from types import ModuleType
from typing import Any

from ...search_space.parsing import parse


@functools.cache
def kernels_and_layers() -> str:
    """What a candidate may call of ours; importing both loads torch."""
    from ... import kernels
    from ...search_space import layers

    return "\n\n".join(
        f"# from {name} import ...\n{public_interface(module)}"
        for name, module in [
            ("linearch.kernels", kernels),
            ("linearch.search_space.layers", layers),
        ]
    )


def public_interface(module: ModuleType) -> str:
    """Headers and docstrings of the functions and classes in the module's `__all__`."""
    members = [getattr(module, name) for name in module.__all__]
    return "\n\n".join(
        _outline(member)
        for member in members
        if inspect.isfunction(member) or inspect.isclass(member)
    )


def _outline(member: Any) -> str:
    tree = parse(textwrap.dedent(inspect.getsource(member)))
    definition = tree.body[0]
    assert isinstance(definition, ast.FunctionDef | ast.ClassDef)
    if isinstance(definition, ast.ClassDef):
        methods = [node for node in definition.body if isinstance(node, ast.FunctionDef)]
        public = [m for m in methods if m.name == "__init__" or not m.name.startswith("_")]
        for method in public:
            _strip(method)
        definition.body = [*_docstring(definition), *public] or [_ELLIPSIS]
    else:
        _strip(definition)
    return ast.unparse(ast.fix_missing_locations(definition))


_ELLIPSIS = ast.Expr(ast.Constant(...))


def _strip(function: ast.FunctionDef) -> None:
    function.decorator_list = []
    function.body = _docstring(function) or [_ELLIPSIS]


def _docstring(node: ast.FunctionDef | ast.ClassDef) -> list[ast.stmt]:
    return node.body[:1] if ast.get_docstring(node) is not None else []
