"""Turns a source into its `Mixer` class. This executes the code.

Only the evaluator's sandboxed child and trusted replay may call it.
"""

from __future__ import annotations

import ast
import linecache
import sys
from collections.abc import Callable
from types import ModuleType

from torch import nn

from ..errors import CandidateRejected
from .contract import MIXER_CLASS


def load_mixer_class(source: str, name: str) -> type[nn.Module]:
    """Runs `source` as a module called `name` and returns its Mixer class.

    Raises CandidateRejected if no Mixer module class comes out, and whatever the code itself
    raises.
    """
    return run_as_module(source, name, source, _mixer_of)


def run_as_module(
    source: str,
    name: str,
    code: str | ast.Module,
    pick: Callable[[ModuleType], type[nn.Module]],
) -> type[nn.Module]:
    """What `pick` finds in a module called `name` that runs `code`, which is `source` as rewritten.

    The module stays in sys.modules (dataclasses and annotations look it up there) and its lines in
    linecache, so tracebacks show the source. Raises what the code and `pick` raise.
    """
    module = ModuleType(name)
    module.__file__ = f"<mixer {name}>"
    linecache.cache[module.__file__] = (len(source), None, source.splitlines(True), module.__file__)
    replaced = sys.modules.get(name)
    sys.modules[name] = module
    try:
        exec(compile(code, module.__file__, "exec", dont_inherit=True), module.__dict__)
        return pick(module)
    except BaseException:
        _restore(name, replaced)
        raise


def _mixer_of(module: ModuleType) -> type[nn.Module]:
    mixer = getattr(module, MIXER_CLASS, None)
    if not (isinstance(mixer, type) and issubclass(mixer, nn.Module)):
        raise CandidateRejected(
            "source", f"Running the source gives no class `{MIXER_CLASS}` of torch.nn.Module."
        )
    return mixer


def _restore(name: str, replaced: ModuleType | None) -> None:
    if replaced is None:
        del sys.modules[name]
    else:
        sys.modules[name] = replaced
