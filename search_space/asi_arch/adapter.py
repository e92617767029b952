"""Turns a file in ASI-Arch's convention into a mixer class. This executes the code.

Its syntax tree is changed first: imports of `fla` and `transformers` lead to our stand-ins,
torch.compile is left out, and casts to bfloat16 become casts to float32. So nothing global is
touched, neither library need be installed, and what was written for weights in bfloat16 runs in
float32, where rounding does not hide what the gates look for.
"""

from __future__ import annotations

import ast
from types import ModuleType

import torch
from torch import Tensor, nn

from ...errors import CandidateRejected
from ..imports import ImportTable
from ..loading import run_as_module
from ..parsing import parse
from .source import COMPILERS, LAYER_CLASS, STAND_INS

_STAND_INS_MODULE = f"{__package__}.stand_ins"


class AsiArchMixer(nn.Module):
    """A `DeltaNet` layer behind the Mixer's constructor and forward.

    It sees whole sequences alone: the published layers cannot go on from a state. What they return
    beside the output (auxiliary losses) is dropped; `n_dropped` counts the last call's. Many count
    their calls to schedule a gate; a count stands for training steps, so it moves in those alone:
    in train mode with gradients. Else the same input would get another answer the next time.
    """

    can_stream = False
    layer_class: type[nn.Module]

    def __init__(self, d_model: int, n_heads: int, layer_idx: int, n_layers: int) -> None:
        super().__init__()
        self.layer = self.layer_class(hidden_size=d_model, num_heads=n_heads, layer_idx=layer_idx)
        self.n_dropped = 0

    def forward(
        self, x: Tensor, state: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """x [B, T, D] to y [B, T, D] in x's dtype, and no state.

        Raises ValueError for a state and TypeError if the layer returns no tensor first.
        """
        if state is not None:
            raise ValueError(
                "a layer in ASI-Arch's convention cannot go on from a state; give the sequence "
                "whole, with state=None"
            )
        is_training_step = self.training and torch.is_grad_enabled()
        counts = [] if is_training_step else _single_numbers(self.layer)
        returned = self.layer(x)
        _hold_counts(counts)
        y, *others = returned if isinstance(returned, tuple) else (returned,)
        if not isinstance(y, Tensor):
            raise TypeError(
                f"{LAYER_CLASS}.forward returned {type(y).__name__} where its output belongs"
            )
        self.n_dropped = sum(isinstance(other, Tensor) for other in others)
        return y.to(x.dtype), {}


_Number = tuple[nn.Module, str, Tensor]  # the buffer's owner and name, and what it held


def _single_numbers(layer: nn.Module) -> list[_Number]:
    return [
        (module, name, buffer.clone())
        for module in layer.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if buffer.numel() == 1
    ]


def _hold_counts(before: list[_Number]) -> None:
    """Puts back each number that went up by exactly one; any other change is the layer's own."""
    for module, name, old in before:
        new = getattr(module, name)
        # A new tensor, for the graph of this call may hold on to the one that is there.
        setattr(module, name, torch.where(new == old + 1, old, new))


def load_asi_arch_class(source: str, name: str) -> type[nn.Module]:
    """Runs `source` as a module called `name`; a class with the Mixer's constructor and forward.

    Raises CandidateRejected if no DeltaNet module class comes out, and whatever the code raises.
    """
    return run_as_module(source, name, _portable(parse(source)), _adapted)


def _adapted(module: ModuleType) -> type[nn.Module]:
    layer = getattr(module, LAYER_CLASS, None)
    if not (isinstance(layer, type) and issubclass(layer, nn.Module)):
        raise CandidateRejected(
            "source", f"Running the source gives no class `{LAYER_CLASS}` of torch.nn.Module."
        )
    members = {"layer_class": layer, "__module__": module.__name__}
    return type("Mixer", (AsiArchMixer,), members)


def _portable(tree: ast.Module) -> ast.Module:
    rewritten: ast.Module = ast.fix_missing_locations(_Portable(ImportTable(tree)).visit(tree))
    return rewritten


class _Portable(ast.NodeTransformer):
    """Makes the changes that this module's docstring names; lines stay where they were."""

    def __init__(self, imports: ImportTable) -> None:
        self._imports = imports

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        if node.module in STAND_INS:
            node.module = _STAND_INS_MODULE
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.decorator_list = [d for d in node.decorator_list if not self._compiles(d)]
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.decorator_list = [d for d in node.decorator_list if not self._compiles(d)]
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        return node.args[0] if self._compiles(node.func) and node.args else node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if self._imports.dotted_name(node) == "torch.bfloat16":
            node.attr = "float32"
        return self.generic_visit(node)

    def _compiles(self, node: ast.expr) -> bool:
        """`torch.compile`, or a call of it that makes a decorator."""
        if isinstance(node, ast.Call) and not node.args:
            node = node.func
        return self._imports.dotted_name(node) in COMPILERS
