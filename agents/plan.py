"""What a search would do, before it does anything: for --dry-run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..config import RecallConfig, RunConfig
from ..evaluator.recipe import trained_tokens
from .preflight import check_measurable, resolve_device
from .proposers.baselines import baseline_proposals
from .proposers.proposal import Evidence, Measured


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The resolved configuration and the work it stands for. Unknown numbers are None."""

    config: dict[str, Any]
    device: str
    n_baselines: int
    n_candidates: int | None
    n_trials_at_most: int | None
    tokens_at_most: int | None
    llm_calls: tuple[int, int] | None = None  # at least, at most
    llm_usd: tuple[float, float] | None = None
    first_prompt: str | None = None


def plan_search(config: RunConfig) -> Plan:
    """Counts trials and calls; asks no model, needs no key, writes nothing but a cached corpus.

    Raises ConfigError for what could not be measured.
    """
    check_measurable(config)
    plan: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "device": resolve_device(config.workers.device),
        "n_baselines": len(config.baselines),
        "n_candidates": config.budget.max_candidates,
        **_work(config),
    }
    if config.proposer.kind == "llm":
        plan |= _calls(config)
    return Plan(**plan)


def _work(config: RunConfig) -> dict[str, int | None]:
    """Trials and tokens if every architecture climbs every rung and is probed on every task."""
    if config.budget.max_candidates is None:
        return {"n_trials_at_most": None, "tokens_at_most": None}
    ladder, n_rates = config.ladder, len(config.training.learning_rates)
    if n_rates > 1:
        n_rates += config.training.widen_rates
    climbers = config.budget.max_candidates + len(config.baselines)
    repeats = ladder.noise_seeds - 1 + (len(config.baselines) - 1) * (ladder.baseline_seeds - 1)
    if ladder.elite:
        repeats += (ladder.elite + 1) * ladder.elite_seeds  # one is the best baseline
    n_first = climbers * n_rates + repeats
    n_higher = (climbers + repeats) * (len(ladder.rung_tokens) - 1)
    n_recall = climbers * _probes(config.recall) if config.recall.enabled else 0
    first, *higher = trained_tokens(config.training, ladder.rung_tokens)
    tokens = n_first * first + (climbers + repeats) * sum(higher)
    return {
        "n_trials_at_most": n_first + n_higher + n_recall,
        "tokens_at_most": tokens + n_recall * config.recall.train_tokens,
    }


def _probes(recall: RecallConfig) -> int:
    return len(recall.tasks) * recall.seeds * max(1, len(recall.learning_rates))


def _calls(config: RunConfig) -> dict[str, Any]:
    from .proposers.llm_proposer import LLMProposer

    proposer = LLMProposer(config)
    evidence = _evidence_of_baselines(config)
    forecast = proposer.forecast(evidence, config.budget.max_candidates or 1)
    return {
        "first_prompt": proposer.first_prompt(evidence),
        "llm_calls": forecast.calls,
        "llm_usd": forecast.usd,
    }


def _evidence_of_baselines(config: RunConfig) -> Evidence:
    """What the first proposal would know if it came before any measurement."""
    baselines = tuple(
        Measured(
            id=proposal.name,
            name=proposal.name,
            motivation=proposal.motivation,
            source=proposal.source,
            origin="baseline",
            state="proposed",
            reason=None,
            genome=None,
            rung=None,
        )
        for proposal, _ in baseline_proposals(config.baselines)
    )
    return Evidence(candidates=(), baselines=baselines, objectives=config.objectives)
