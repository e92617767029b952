"""Takes the docstrings from loaded modules whose text is held out: they are a part of that text.

What is left of it is compiled code and the constants that this uses.
"""

from __future__ import annotations

import ctypes
import gc
import opcode
import os
import sys
from collections.abc import Collection
from types import CodeType, FunctionType, ModuleType
from typing import Any

_USES_A_CONSTANT = {
    opcode.opmap[name] for name in ("LOAD_CONST", "RETURN_CONST") if name in opcode.opmap
}
_COPY_AT = object.__basicsize__ + 20 * ctypes.sizeof(ctypes.c_void_p)  # PyTypeObject.tp_doc
# Py_TPFLAGS_HEAPTYPE without Py_TPFLAGS_IMMUTABLETYPE
_KINDS_OF_CLASSES, _MADE_BY_PYTHON = 0b11 << 8, 0b10 << 8


def forget_docstrings(files: Collection[str]) -> None:
    """Of every module, class and function of this process that comes from these source files, by
    their real paths.
    """
    modules = {name: module for name, module in sys.modules.items() if _comes_from(module, files)}
    for module in modules.values():
        module.__doc__ = None
    for thing in gc.get_objects():
        # type() asks nobody: some objects claim another class, and warn when they are asked
        if type(thing) is FunctionType:
            if thing.__globals__.get("__name__") in modules:
                thing.__doc__ = None
                thing.__code__ = _without_docstring(thing.__code__)
        elif type(thing) in (property, classmethod, staticmethod):  # which have their function's
            function = thing.fget if type(thing) is property else thing.__func__
            if type(function) is FunctionType and function.__globals__.get("__name__") in modules:
                thing.__doc__ = None
        elif (
            issubclass(type(thing), type)
            and thing.__dict__.get("__module__") in modules
            and thing.__flags__ & _KINDS_OF_CLASSES == _MADE_BY_PYTHON
        ):
            _overwrite_copy(thing)
            thing.__doc__ = None


def _overwrite_copy(of: type) -> None:
    """The interpreter's own one, which stays as long as the class."""
    docstring = of.__dict__.get("__doc__")
    copy = ctypes.c_void_p.from_address(id(of) + _COPY_AT).value
    if isinstance(docstring, str) and copy is not None:
        text = docstring.encode(errors="surrogatepass")
        if ctypes.string_at(copy, len(text)) == text:
            ctypes.memset(copy, 0, len(text))


def _comes_from(module: Any, files: Collection[str]) -> bool:
    if type(module) is not ModuleType:
        return False
    file = module.__dict__.get("__file__")
    return isinstance(file, str) and os.path.realpath(file) in files


def _without_docstring(code: CodeType) -> CodeType:
    """The same with None for a first constant that nothing uses, in it and in what it defines."""
    constants = [
        _without_docstring(constant) if isinstance(constant, CodeType) else constant
        for constant in code.co_consts
    ]
    if constants and isinstance(constants[0], str) and not _may_use_first_constant(code):
        constants[0] = None
    return code.replace(co_consts=tuple(constants))


def _may_use_first_constant(code: CodeType) -> bool:
    """Whether an instruction names it, or the last part of the number of a later one."""
    steps = code.co_code
    return any(
        steps[at] in _USES_A_CONSTANT and steps[at + 1] == 0 for at in range(0, len(steps), 2)
    )
