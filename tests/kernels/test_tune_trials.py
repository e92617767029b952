"""A trial's process, under Triton's interpreter: it answers with times, and is replaced if it dies.

Of bfloat16's products the interpreter knows none, so heads are narrow: theirs take float32.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)

from linearch.kernels.triton.alternatives import current, launches
from linearch.kernels.tune import Times
from linearch.kernels.tune_trials import Problem, Trials

NARROW = Problem(operation="delta", gate="none", shape=(1, 64, 1, 16), device="cpu")


@pytest.mark.slow
def test_a_trial_gives_times_or_a_reason_and_the_next_one_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    pull = launches("delta", "none", 16)[0]
    today = current(pull)
    with Trials(NARROW) as trial:
        assert isinstance(trial({pull: today}), Times)
        failed = trial({pull: replace(today, block_n=12)})
        assert isinstance(failed, str)
        assert isinstance(trial({pull: today}), Times)
