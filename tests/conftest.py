"""Fixtures that several parts' tests share."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest


def _load_sibling(name: str) -> Any:
    """A module beside this file, importable by its name from every test (tests is no package)."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_scripted = _load_sibling("scripted_llm")


@pytest.fixture
def scripted_llm() -> Iterator[Callable[..., Any]]:
    """Starts a server as ScriptedLLM(script, ...) would; it stops after the test."""
    with ExitStack() as servers:
        yield lambda *script, **options: servers.enter_context(
            _scripted.ScriptedLLM(*script, **options)
        )
