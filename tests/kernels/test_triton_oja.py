"""What chunk_oja's Triton form does not take; who gets it where no form is named."""

from __future__ import annotations

import pytest
import torch

from linearch.kernels import chunk_oja, forms, oja


def test_values_too_wide_for_the_triton_form_are_named() -> None:
    q, v = torch.randn(1, 3, 2, 4), torch.randn(1, 3, 2, 300)
    with pytest.raises(ValueError, match=r"chunk_oja: .* takes V up to 256, and V is 300"):
        chunk_oja(q, q, v, torch.rand(1, 3, 2), form="triton")


@pytest.mark.parametrize(("unchecked", "taken"), [({"chunk_oja"}, "chunked"), (set(), "triton")])
def test_a_gpu_takes_it_unasked_once_it_was_checked(
    unchecked: set[str], taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oja, "UNCHECKED", unchecked)
    monkeypatch.setattr(forms, "runs_triton", lambda device: True)
    monkeypatch.setattr(forms, "_can_compile", True)
    found: list[str] = []

    def choose(*args: object, **kwargs: object) -> str:
        kwargs["fused_on"] = torch.device("cuda")
        found.append(forms.choose_form(*args, **kwargs))  # type: ignore[arg-type]
        return "chunked"

    monkeypatch.setattr(oja, "choose_form", choose)
    q, k, v = torch.randn(3, 1, 3, 2, 4, dtype=torch.bfloat16).unbind()
    chunk_oja(q, k, v, torch.rand(1, 3, 2))
    assert found == [taken]
