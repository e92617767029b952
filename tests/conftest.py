"""Fixtures that several parts' tests share."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest


def load_siblings(beside: str, *names: str) -> list[Any]:
    """Modules beside a conftest, importable by name from every test (tests is no package)."""
    modules = []
    for name in names:
        spec = importlib.util.spec_from_file_location(name, Path(beside).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        modules.append(importlib.util.module_from_spec(spec))
        sys.modules[name] = modules[-1]
        spec.loader.exec_module(modules[-1])
    return modules


@pytest.fixture(autouse=True)
def a_gpu_is_left_as_it_was(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests run side by side share its memory, and torch would keep what one has freed."""
    yield
    if request.node.get_closest_marker("gpu") and "torch" in sys.modules:
        sys.modules["torch"].cuda.empty_cache()


sys.modules["siblings"] = sys.modules[__name__]  # for the conftests of the folders below
(_scripted,) = load_siblings(__file__, "scripted_llm")


@pytest.fixture
def scripted_llm() -> Iterator[Callable[..., Any]]:
    """Starts a server as ScriptedLLM(script, ...) would; it stops after the test."""
    with ExitStack() as servers:
        yield lambda *script, **options: servers.enter_context(
            _scripted.ScriptedLLM(*script, **options)
        )
