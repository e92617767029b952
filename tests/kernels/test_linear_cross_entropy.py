"""linear_cross_entropy: the loop against torch's loss, the chunks against the loop, memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from linearch.kernels import linear_cross_entropy

FLOAT64 = torch.float64


def random_inputs(rows: int = 23) -> tuple[dict[str, Tensor], Tensor]:
    inputs = {
        "hidden": torch.randn(rows, 6, dtype=FLOAT64),
        "head": torch.randn(11, 6, dtype=FLOAT64),
    }
    targets = torch.randint(0, 11, (rows,))
    targets[::5] = -100
    return inputs, targets


def test_the_loop_is_torch_s_cross_entropy_of_the_logits() -> None:
    inputs, targets = random_inputs()
    loss = linear_cross_entropy(**inputs, targets=targets, form="naive")
    wanted = F.cross_entropy(inputs["hidden"] @ inputs["head"].T, targets)
    torch.testing.assert_close(loss, wanted)


@pytest.mark.parametrize("chunk", [None, 1, 7, 23, 100])
@pytest.mark.parametrize(("dtype", "bar"), [(torch.float32, 1e-4), (FLOAT64, 1e-9)])
def test_the_chunked_form_equals_the_loop(
    chunk: int | None,
    dtype: torch.dtype,
    bar: float,
    errors_against_naive: Callable[..., dict[str, float]],
) -> None:
    inputs, targets = random_inputs()
    options: dict[str, Any] = {"targets": targets, "chunk": chunk}
    errors = errors_against_naive(linear_cross_entropy, inputs, dtype=dtype, **options)
    assert max(errors.values()) < bar, errors


def test_bfloat16_gradients_stay_within_a_few_hundredths(
    errors_against_naive: Callable[..., dict[str, float]],
) -> None:
    inputs, targets = random_inputs(200)
    errors = errors_against_naive(
        linear_cross_entropy, inputs, dtype=torch.bfloat16, targets=targets, chunk=50
    )
    assert errors["output0"] < 1e-2, errors
    assert max(errors.values()) < 3e-2, errors


def test_another_ignored_index_counts_for_nothing() -> None:
    inputs, targets = random_inputs()
    targets[targets == -100] = 3
    loss = linear_cross_entropy(**inputs, targets=targets, ignore_index=3)
    logits = inputs["hidden"] @ inputs["head"].T
    torch.testing.assert_close(loss, F.cross_entropy(logits, targets, ignore_index=3))


@pytest.mark.parametrize("form", ["naive", "chunked"])
def test_nothing_but_ignored_targets_is_nan_not_zero(form: str) -> None:
    inputs, targets = random_inputs()
    loss = linear_cross_entropy(**inputs, targets=torch.full_like(targets, -100), form=form)
    assert loss.isnan()


def test_no_tensor_holds_all_logits() -> None:
    """Every tensor made on the way is watched through the dispatcher."""
    inputs, targets = random_inputs(64)
    leaves = {name: x.requires_grad_() for name, x in inputs.items()}
    with _LargestTensor() as made:
        linear_cross_entropy(**leaves, targets=targets, chunk=8).backward()
    assert 8 * 11 <= made.largest < 64 * 11


class _LargestTensor(torch.utils._python_dispatch.TorchDispatchMode):
    largest = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for x in torch.utils._pytree.tree_leaves(result):
            if isinstance(x, Tensor):
                self.largest = max(self.largest, x.numel())
        return result
