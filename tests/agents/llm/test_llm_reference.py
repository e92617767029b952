"""The interface shown in prompts is the code's own."""

from __future__ import annotations

import types

from linearch.agents.llm import reference


def scale(x: float, *, by: float = 2.0) -> float:
    """x times `by`."""
    return x * by


class Norm:
    """Divides by the length."""

    eps = 1e-6

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def forward(self, x: float) -> float:
        """The normalised x."""
        return self._private(x)

    def _private(self, x: float) -> float:
        return x


def a_module() -> types.ModuleType:
    module = types.ModuleType("sample")
    vars(module).update(scale=scale, Norm=Norm, LIMIT=3, hidden=len)
    vars(module)["__all__"] = ["LIMIT", "Norm", "scale"]
    return module


def test_functions_are_shown_by_signature_and_docstring_alone() -> None:
    shown = reference.public_interface(a_module())
    assert 'def scale(x: float, *, by: float=2.0) -> float:\n    """x times `by`."""' in shown
    assert "return" not in shown


def test_classes_are_shown_with_their_public_methods_alone() -> None:
    shown = reference.public_interface(a_module())
    assert 'class Norm:\n    """Divides by the length."""' in shown
    assert "def __init__(self, dim: int) -> None:\n        ..." in shown
    assert '"""The normalised x."""' in shown
    assert "_private" not in shown
    assert "eps" not in shown


def test_every_public_kernel_and_layer_is_shown() -> None:
    from linearch import kernels
    from linearch.search_space import layers

    shown = reference.kernels_and_layers()
    for name in [*kernels.__all__, *layers.__all__]:
        assert f"def {name}(" in shown or f"class {name}" in shown
