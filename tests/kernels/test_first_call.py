"""An operator's first call compiles its kernels side by side, on a driver that launches nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def found(compiled: Callable[[str], Any]) -> Any:
    return compiled("first_calls")


def test_kernels_of_a_first_call_are_compiled_at_once_and_launched_once_each(found: Any) -> None:
    # Called, ended by a launch that has no kernel; tried, as launches only compile; called.
    first = ["called", "called", "called", "doubling", "squaring"]
    assert found == {
        "first": first,
        "threads": 2,  # each waits for the other's kernel
        "second": ["called", "doubling", "squaring"],
        "changes its argument": ["called", "squaring"],
        "errors": ["NameError('nothing is not defined')"] * 2,
        "after an error": first,
        "in a capture": ["called", "doubling", "squaring"],
        "in the caller's mode": first,
        "without threads": first,
        "outside an operator": ["filling"],
        "launches again": True,
        "another thread's": ["squaring"],
        "imported the compiler": False,
    }
