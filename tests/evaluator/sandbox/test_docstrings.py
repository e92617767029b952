"""Docstrings go and what code does stays."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest

from linearch.evaluator.sandbox.docstrings import forget_docstrings

_SOURCE = '''"""Of the module."""

def uses_it():
    """Both."""
    return "Both."

def outer(a):
    """Of the outer one."""

    def inner():
        """Of the inner one."""
        return a, "used"

    return inner

class Thing:
    """Of the class."""

    def method(self):
        """Of the method."""
        return [x for x in "abc"]

    @property
    def fact(self):
        """Of the property."""
        return 1

    @classmethod
    def make(cls):
        """Of the class method."""
        return cls()

    @staticmethod
    def alone():
        """Of the static method."""

nameless = lambda: "a constant"
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = tmp_path / "documented.py"
    path.write_text(_SOURCE)
    spec = importlib.util.spec_from_file_location("documented", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "documented", module)
    spec.loader.exec_module(module)
    return module


def _constants(code: CodeType) -> Iterator[Any]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _constants(constant)
        else:
            yield constant


def test_docstrings_go_and_what_the_code_does_stays(module: ModuleType) -> None:
    forget_docstrings({str(module.__file__)})
    documented = (module, module.uses_it, module.outer, module.Thing, module.Thing.method)
    assert [thing.__doc__ for thing in documented] == [None] * 5
    wrapped = [vars(module.Thing)[name] for name in ("fact", "make", "alone")]
    assert [thing.__doc__ for thing in wrapped] == [None] * 3
    assert (module.Thing().fact, type(module.Thing.make())) == (1, module.Thing)
    left = [*_constants(module.outer.__code__), *_constants(module.Thing.method.__code__)]
    assert not [text for text in left if isinstance(text, str) and text.startswith("Of the")]
    assert module.uses_it() == "Both."
    assert module.outer(7)() == (7, "used")
    assert module.outer(7).__doc__ is None
    assert module.Thing().method() == ["a", "b", "c"]
    assert module.nameless() == "a constant"


def test_other_modules_keep_theirs(module: ModuleType) -> None:
    forget_docstrings({"/elsewhere.py"})
    assert module.__doc__ == "Of the module."
    assert module.outer.__doc__ == "Of the outer one."
    assert module.Thing.__doc__ == "Of the class."
