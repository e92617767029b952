"""The parameter budget as a gate result: matched by trusted code through the MLP's width."""

from __future__ import annotations

from ...config import ModelConfig
from ...errors import CandidateRejected
from ..results import GateResult


def parameter_budget(n_params: int, mlp_width: int, model: ModelConfig) -> GateResult:
    """Whether a model of n_params (counted, not claimed) lies within the budget's tolerance."""
    share_off = n_params / model.param_budget - 1
    passed = abs(share_off) <= model.param_tolerance
    reason = None
    if not passed:
        reason = (
            f"{n_params} parameters are {share_off:+.1%} off the budget of {model.param_budget}; "
            f"{model.param_tolerance:.0%} are allowed."
        )
    evidence = {"n_params": n_params, "budget": model.param_budget, "mlp_width": mlp_width}
    return GateResult(gate="parameters", passed=passed, reason=reason, evidence=evidence)


def rejection(error: CandidateRejected) -> GateResult:
    """The failing result of a check that raised: the source check, or no width in the budget."""
    return GateResult(gate=error.check, passed=False, reason=error.reason)
