"""Source text to a syntax tree, one at a time: in Python 3.11 two threads that parse at once can
both fail, since its parser counts the depth of all trees together (SystemError).
"""

from __future__ import annotations

import ast
import threading

_one_at_a_time = threading.Lock()


def parse(source: str) -> ast.Module:
    """ast.parse for any thread; raises what that raises."""
    with _one_at_a_time:
        return ast.parse(source)
