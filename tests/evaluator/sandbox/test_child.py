"""How a child's GPU comes up, with torch's first tensor in its place."""

from __future__ import annotations

from typing import Any

import pytest

from linearch.evaluator.sandbox import child

_BUSY = "CUDA error: CUDA-capable device(s) is/are busy or unavailable"


def _answering(monkeypatch: pytest.MonkeyPatch, *answers: str | None) -> list[Any]:
    """What torch.zeros raises, one call after the other; the calls are what is returned."""
    left, calls = list(answers), []

    def zeros(*args: Any, **options: Any) -> None:
        calls.append((args, options))
        if (message := left.pop(0)) is not None:
            raise RuntimeError(message)

    monkeypatch.setattr(child.torch, "zeros", zeros)
    monkeypatch.setattr(child.time, "sleep", lambda seconds: None)
    return calls


def test_a_gpu_that_is_still_busy_with_a_killed_process_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = _answering(monkeypatch, _BUSY, _BUSY, None)
    child._bring_up("cuda")
    assert calls == [(((),), {"device": "cuda"})] * 3


def test_a_gpu_that_stays_busy_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "_GPU_PATIENCE_S", -1.0)
    calls = _answering(monkeypatch, _BUSY, None)
    with pytest.raises(RuntimeError, match="busy or unavailable"):
        child._bring_up("cuda")
    assert len(calls) == 1


def test_another_error_of_the_gpu_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _answering(monkeypatch, "CUDA error: out of memory", None)
    with pytest.raises(RuntimeError, match="out of memory"):
        child._bring_up("cuda")
    assert len(calls) == 1
