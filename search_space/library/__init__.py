"""Known mixers as ordinary candidate sources: they pass the candidates' checks and gates.

Importing this loads no mixer; `baseline_source` reads the text, which travels like any candidate's.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

from ...errors import ConfigError

__all__ = ["BASELINES", "Baseline", "baseline_source"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """A published mixer. References skip the state-size and cost gates; no candidate can be one."""

    name: str
    title: str
    paper: str  # arXiv id
    recurrence: str
    is_reference: bool = False


BASELINES: dict[str, Baseline] = {
    baseline.name: baseline
    for baseline in (
        Baseline(
            name="softmax_attention",
            title="Softmax attention",
            paper="1706.03762",
            recurrence="o_t = sum_i softmax_i(q_t.k_i / sqrt(K)) v_i over all i <= t",
            is_reference=True,
        ),
        Baseline(
            name="linear_attention",
            title="Linear attention",
            paper="2006.16236",
            recurrence="S_t = S_{t-1} + phi(k_t) v_t^T; o_t = S_t^T phi(q_t) / (z_t.phi(q_t))",
        ),
        Baseline(
            name="retnet",
            title="RetNet",
            paper="2307.08621",
            recurrence="S_t = gamma_h S_{t-1} + k_t v_t^T",
        ),
        Baseline(
            name="gla",
            title="Gated linear attention",
            paper="2312.06635",
            recurrence="S_t = diag(a_t) S_{t-1} + k_t v_t^T",
        ),
        Baseline(
            name="mamba2",
            title="Mamba-2",
            paper="2405.21060",
            recurrence="S_t = exp(-A dt_t) S_{t-1} + B_t (dt_t x_t)^T; y_t = S_t^T C_t + D x_t",
        ),
        Baseline(
            name="deltanet",
            title="DeltaNet",
            paper="2406.06484",
            recurrence="S_t = (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T",
        ),
        Baseline(
            name="gated_deltanet",
            title="Gated DeltaNet",
            paper="2412.06464",
            recurrence="S_t = a_t (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T",
        ),
        Baseline(
            name="kda",
            title="Kimi Delta Attention",
            paper="2510.26692",
            recurrence="S_t = (I - b_t k_t k_t^T) diag(a_t) S_{t-1} + b_t k_t v_t^T",
        ),
        Baseline(
            name="hgrn2",
            title="HGRN-2",
            paper="2404.07904",
            recurrence="S_t = diag(f_t) S_{t-1} + (1 - f_t) v_t^T",
        ),
        Baseline(
            name="rwkv6",
            title="RWKV-6",
            paper="2404.05892",
            recurrence="S_t = diag(w_t) S_{t-1} + k_t v_t^T; o_t = S_{t-1}^T r_t + (r_t.u k_t) v_t",
        ),
        Baseline(
            name="rwkv7",
            title="RWKV-7",
            paper="2503.14456",
            recurrence="S_t = (diag(w_t) - (a_t * c_t) c_t^T) S_{t-1} + k_t v_t^T, |c_t| = 1",
        ),
    )
}


def baseline_source(name: str) -> str:
    """The source of a baseline; raises ConfigError naming the known ones."""
    if name not in BASELINES:
        raise ConfigError(f"There is no baseline {name!r}; known are {', '.join(BASELINES)}.")
    return resources.files(__package__).joinpath(f"{name}.py").read_text(encoding="utf-8")
