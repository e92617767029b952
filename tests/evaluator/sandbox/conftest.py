"""The museum's modules, importable by their names, and a zygote for it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from linearch.evaluator.sandbox.supervisor import Sandbox


def _load_siblings(*names: str) -> list[Any]:
    """Modules beside this file, importable by their names from every test (tests is no package)."""
    modules = []
    for name in names:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        modules.append(importlib.util.module_from_spec(spec))
        sys.modules[name] = modules[-1]
        spec.loader.exec_module(modules[-1])
    return modules


_scene, *_cases = _load_siblings(
    "hostile_scene", "hostile_files", "hostile_processes", "hostile_kernel"
)


@pytest.fixture(scope="session")
def bare_zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Without namespaces, whose children are confined as a test chooses."""
    with _scene.Bare(tmp_path_factory.mktemp("bare")) as zygote:
        yield zygote


@pytest.fixture(scope="session")
def compile_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Whose candidates may start processes."""
    with Sandbox(tmp_path_factory.mktemp("compile"), profile="compile") as sandbox:
        yield sandbox
