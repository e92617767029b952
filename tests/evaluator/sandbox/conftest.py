"""The museum's modules, importable by their names, and a zygote for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from siblings import load_siblings

from linearch.evaluator.sandbox.supervisor import Sandbox

_scene, *_ = load_siblings(
    __file__, "hostile_scene", "hostile_files", "hostile_processes", "hostile_kernel"
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
