"""How much one operator works, from its arguments' shapes: elements touched and multiply-adds done.

Elements are those read and written, so an operator without a formula here (an FFT, a sort, a custom
kernel) counts as what goes in and out. Formulas stand only where an operator multiplies more often
than that, or touches less than it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

Arguments = Sequence[Any]

_OWN_RECURRENCES = ("linearch::decay_", "linearch::delta_")
_OWN_TWO_STREAMS = "linearch::dplr_"
# These allocate nothing although their schemas do not say that they return views.
_UNSAFE_VIEWS = frozenset(
    {"aten::_unsafe_view", "aten::unsafe_chunk", "aten::unsafe_split"}
    | {"aten::unsafe_split_with_sizes"}
)
# They read as many elements as they return, from a source of any size.
_GATHERS = frozenset(
    {"aten::embedding", "aten::gather", "aten::index", "aten::index_select", "aten::take"}
)
# They write as many elements as they are given, into a target of any size.
_SCATTERS = frozenset(
    {"aten::_index_put_impl_", "aten::index_add_", "aten::index_copy_", "aten::index_fill_"}
    | {"aten::index_put_", "aten::scatter_", "aten::scatter_add_", "aten::scatter_reduce_"}
)


def is_view(operator: Any) -> bool:
    """Whether an operator only looks at its input in another way."""
    schema = operator._schema
    if schema.name in _UNSAFE_VIEWS:
        return True
    aliases = [returned.alias_info for returned in schema.returns]
    return bool(aliases) and all(a is not None and not a.is_write for a in aliases)


def elements(name: str, given: Sequence[Tensor], returned: Sequence[Tensor]) -> int:
    """Numbers read and written by the operator `name` (as "aten::mul")."""
    if name in _GATHERS:
        return 2 * _count(returned) + _count(given[1:])
    if name in _SCATTERS:
        return 2 * _count(given[1:])
    return _count(given) + _count(returned)


def multiply_adds(name: str, arguments: Arguments, returned: Sequence[Tensor]) -> int:
    """Multiplications that are added up inside one operator; 0 for elementwise work."""
    formula = _FORMULAS.get(name)
    if formula is None and "scaled_dot_product" in name:
        formula = _attention_backward if name.endswith("backward") else _attention
    if formula is None and name.startswith(_OWN_RECURRENCES):
        formula = _recurrence
    if formula is None and name.startswith(_OWN_TWO_STREAMS):
        formula = _two_streams
    return 0 if formula is None else formula(arguments, returned)


def _count(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def _product(first: int) -> Callable[[Arguments, Sequence[Tensor]], int]:
    """Of the two matrices, or batches of them, that stand at `first`."""

    def formula(arguments: Arguments, returned: Sequence[Tensor]) -> int:
        left, right = arguments[first], arguments[first + 1]
        columns: int = right.shape[-1] if right.dim() > 1 else 1
        return int(left.numel()) * columns

    return formula


def _convolution(arguments: Arguments, returned: Sequence[Tensor]) -> int:
    weight, is_transposed = arguments[1], arguments[6]
    positions = arguments[0] if is_transposed else returned[0]
    return int(positions.numel()) * int(weight[0].numel())


def _convolution_backward(arguments: Arguments, returned: Sequence[Tensor]) -> int:
    grad, given, weight, is_transposed = arguments[0], arguments[1], arguments[2], arguments[7]
    positions = given if is_transposed else grad
    return 2 * int(positions.numel()) * int(weight[0].numel())


def _attention(arguments: Arguments, returned: Sequence[Tensor]) -> int:
    query, key, value = arguments[:3]  # [B, H, T, K], [B, H, S, K], [B, H, S, V]
    rows = query.numel() // query.shape[-1]
    return int(rows * key.shape[-2] * (key.shape[-1] + value.shape[-1]))


def _attention_backward(arguments: Arguments, returned: Sequence[Tensor]) -> int:
    return 2 * _attention(arguments[1:], returned)


def _whole_attention(arguments: Arguments, returned: Sequence[Tensor]) -> int:
    query = arguments[0]  # [B, T, D]: the fused forms of nn.MultiheadAttention and its layer
    return 2 * int(query.numel()) * int(query.shape[-2])


def _substitution(arguments: Arguments, returned: Sequence[Tensor]) -> int:
    return int(returned[0].numel()) * int(arguments[0].shape[-1])


def _factorisation(arguments: Arguments, returned: Sequence[Tensor]) -> int:
    return int(arguments[0].numel()) * int(arguments[0].shape[-1])


def _distances(arguments: Arguments, returned: Sequence[Tensor]) -> int:
    return int(returned[0].numel()) * int(arguments[0].shape[-1])


def _recurrence(arguments: Arguments, returned: Sequence[Tensor]) -> int:
    """Of our kernels: chunks of a fixed size, a state of K x V written and read once a token."""
    q, v = arguments[0], arguments[2]  # [B, T, H, K], [B, T, H, V]
    return 2 * int(q.numel()) * int(v.shape[-1])


def _two_streams(arguments: Arguments, returned: Sequence[Tensor]) -> int:
    return 2 * _recurrence(arguments, returned)


_FORMULAS: Mapping[str, Callable[[Arguments, Sequence[Tensor]], int]] = {
    "aten::mm": _product(0),
    "aten::bmm": _product(0),
    "aten::mv": _product(0),
    "aten::addmm": _product(1),
    "aten::addmv": _product(1),
    "aten::baddbmm": _product(1),
    "aten::baddbmm_": _product(1),
    "aten::addmm_": _product(1),
    "aten::addbmm": _product(1),
    "aten::convolution": _convolution,
    "aten::convolution_backward": _convolution_backward,
    "aten::_native_multi_head_attention": _whole_attention,
    "aten::_transformer_encoder_layer_fwd": _whole_attention,
    "aten::linalg_solve_triangular": _substitution,
    "aten::triangular_solve": _substitution,
    "aten::linalg_inv_ex": _factorisation,
    "aten::linalg_lu_factor_ex": _factorisation,
    "aten::linalg_cholesky_ex": _factorisation,
    "aten::linalg_matrix_exp": _factorisation,
    "aten::_linalg_eigh": _factorisation,
    "aten::_linalg_svd": _factorisation,
    "aten::_linalg_solve_ex": _factorisation,
    "aten::linalg_qr": _factorisation,
    "aten::_cdist_forward": _distances,
}
