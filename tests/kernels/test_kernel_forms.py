"""Which form runs: one token alone is a naive step, else Triton's on a GPU and chunked elsewhere,
unless asked or forced.
"""

from __future__ import annotations

import pytest
import torch

from linearch.kernels import chunk_decay, forms
from linearch.kernels.decay import fused_is_best
from linearch.kernels.forms import choose_form, force_form


def test_one_token_runs_as_one_naive_step() -> None:
    assert choose_form(None, steps=1) == "naive"
    assert choose_form(None, steps=2) == "chunked"
    assert choose_form("chunked", steps=1) == "chunked"


def test_triton_is_taken_unasked_on_a_gpu_alone_and_where_it_is_the_fastest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forms, "runs_triton", lambda device: True)
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert choose_form(None, steps=2, fused_on=gpu) == "triton"
    assert choose_form(None, steps=1, fused_on=gpu) == "naive"
    assert choose_form(None, steps=2, fused_on=cpu) == "chunked"
    assert choose_form(None, steps=2, fused_on=gpu, fused_is_best=False) == "chunked"
    assert choose_form("triton", steps=2, fused_on=gpu, fused_is_best=False) == "triton"


def test_float32_stays_chunked_unless_asked() -> None:
    v = torch.randn(1, 2, 1, 4)
    assert fused_is_best(v.bfloat16())
    assert not fused_is_best(v)


def test_a_process_without_compilers_takes_triton_only_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forms, "runs_triton", lambda device: True)
    monkeypatch.setattr(forms, "_can_compile", True)  # put back at the end
    gpu = torch.device("cuda")
    forms.without_compilers()
    assert choose_form(None, steps=2, fused_on=gpu) == "chunked"
    assert choose_form("triton", steps=2, fused_on=gpu) == "triton"


def test_a_forced_form_overrides_every_request_inside() -> None:
    with force_form("naive"):
        assert choose_form("chunked", steps=100) == "naive"
        with force_form("chunked"):
            assert choose_form(None, steps=1) == "chunked"
        assert choose_form(None, steps=100) == "naive"
    assert choose_form(None, steps=100) == "chunked"


def test_a_forced_form_ends_with_its_block_even_on_an_error() -> None:
    with pytest.raises(RuntimeError, match="inside"), force_form("naive"):
        raise RuntimeError("inside")
    assert choose_form(None, steps=2) == "chunked"


def test_forms_differ_in_rounding_alone() -> None:
    q, k, v = torch.randn(3, 1, 40, 2, 4).unbind()
    with force_form("naive"):
        naive, _ = chunk_decay(q, k, v)
    chunked, _ = chunk_decay(q, k, v)
    assert not torch.equal(naive, chunked)
    torch.testing.assert_close(naive, chunked)


def test_an_unknown_form_is_refused_when_forced() -> None:
    with pytest.raises(ValueError, match="form is 'fast'"), force_form("fast"):  # type: ignore[arg-type]
        pass
