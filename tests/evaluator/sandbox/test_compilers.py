"""Compilers run in the profile that is made for them, and say why they do not in the other."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from linearch.evaluator.sandbox.failures import ChildFailed
from linearch.evaluator.sandbox.limits import MIB, Limits
from linearch.evaluator.sandbox.supervisor import Sandbox

MakeSource = Callable[..., str]

_LIMITS = Limits(wall_s=300, memory_bytes=4096 * MIB)
_COMPILED = """
def plain(x):
    return torch.tanh(x.cumsum(1)) * 2 + 1

x = torch.randn(2, 8, 8)
torch.testing.assert_close(torch.compile(plain)(x), plain(x))
print("compiled", os.listdir("inductor") != [])
"""


@pytest.mark.slow
def test_torch_compile_works_where_processes_are_allowed(
    compile_sandbox: Sandbox, hostile_source: MakeSource
) -> None:
    with compile_sandbox.spawn(_LIMITS) as child:
        child.call("load", {"source": hostile_source(top=_COMPILED), "convention": "linearch"})
        child.close()
    assert child.printed.split() == ["compiled", "True"]


@pytest.mark.slow
def test_torch_compile_says_why_it_does_not_work_without_processes(
    sandbox: Sandbox, hostile_source: MakeSource
) -> None:
    with sandbox.spawn(_LIMITS) as child, pytest.raises(ChildFailed, match="which compilers need"):
        child.call("load", {"source": hostile_source(top=_COMPILED), "convention": "linearch"})
