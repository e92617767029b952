"""Operators of kernels: what a first call costs, and what torch.compile may not look into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def found(interpreted: Callable[[str], Any]) -> Any:
    return interpreted("interpreted_compiler")


def test_a_step_imports_no_compiler_a_compiler_traces_no_launch_and_none_is_pulled_twice(
    found: Any,
) -> None:
    assert found == {
        "imported the compiler": False,
        "the same outside a graph": True,
        "refusal": "linearch::product_backward has no gradient: "
        "it cannot be differentiated (again)",
    }
