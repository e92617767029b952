"""The chunk sizes that a source names: where a leak inside chunks would end."""

from __future__ import annotations

import ast

from .parsing import parse

SMALLEST, LARGEST = 8, 4096
_MAX_SIZES = 16
_MAX_POWER = 12


def chunk_sizes_in(source: str) -> tuple[int, ...]:
    """Whole numbers from 8 to 4096 that the code says or multiplies out, smallest first.

    At most 16. Nothing for a source that is not valid Python: the source check rejects that.
    """
    try:
        tree = parse(source)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return ()
    values = {_value(node) for node in ast.walk(tree) if isinstance(node, ast.expr)}
    sizes = sorted(v for v in values if v is not None and SMALLEST <= v <= LARGEST)
    return tuple(sizes[:_MAX_SIZES])


def _value(node: ast.expr) -> int | None:
    """A literal, or a product, shift or small power of literals."""
    if isinstance(node, ast.Constant):
        return node.value if type(node.value) is int else None
    if not isinstance(node, ast.BinOp):
        return None
    if not (isinstance(node.left, ast.Constant) and isinstance(node.right, ast.Constant)):
        return None
    left, right = node.left.value, node.right.value
    if type(left) is not int or type(right) is not int or not 0 <= left <= LARGEST:
        return None
    if isinstance(node.op, ast.Mult) and right <= LARGEST:
        return left * right
    if isinstance(node.op, (ast.Pow, ast.LShift)) and 0 <= right <= _MAX_POWER:
        return left**right if isinstance(node.op, ast.Pow) else left << right
    return None
