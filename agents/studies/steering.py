"""Optuna's sampler over genomes: a study in memory, rebuilt from what a run has measured.

Each gene is a categorical parameter. A gene whose options depend on earlier genes is one parameter
per set of options, because a parameter's choices must never change within a study.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from ...search_space.grammar import GENES, Genome, Space, Value
from ..proposers.proposal import Measured
from .quiet import quiet_optuna

_STARTUP_TRIALS = 6  # below it the sampler draws uniformly
_DRAWS = 8  # of which the best is taken; the default of 24 repeats itself where choices are few


def steered_genome(known: Iterable[tuple[Genome, Measured]], space: Space, seed: int) -> Genome:
    """A genome drawn by the tree-structured Parzen estimator (Bergstra et al. 2011).

    It models rung 0's val_bpb. What was rejected or failed counts as worse than everything
    measured; what is still being measured counts as bad too, so that draws keep apart.
    """
    with quiet_optuna():
        study = _study(known, space, seed)
        trial = study.ask()
        genes: dict[str, Value] = {}
        for gene in GENES:
            allowed = space.options(gene, genes)
            genes[gene] = allowed[0] if len(allowed) == 1 else _suggest(trial, gene, allowed)
    return Genome.from_dict(genes)


def _suggest(trial: optuna.Trial, gene: str, allowed: tuple[Value, ...]) -> Value:
    return cast(Value, trial.suggest_categorical(_parameter(gene, allowed), allowed))


def _study(known: Iterable[tuple[Genome, Measured]], space: Space, seed: int) -> optuna.Study:
    sampler = optuna.samplers.TPESampler(
        seed=seed,
        n_startup_trials=_STARTUP_TRIALS,
        n_ei_candidates=_DRAWS,
        multivariate=True,
        group=True,
        constant_liar=True,
    )
    study = optuna.create_study(sampler=sampler, direction="minimize")
    study.add_trials(_trial(genome, row, space) for genome, row in known)
    return study


def _trial(genome: Genome, row: Measured, space: Space) -> FrozenTrial:
    genes = genome.to_dict()
    open_genes = {gene: space.options(gene, genes) for gene in GENES}
    names = {
        gene: _parameter(gene, allowed) for gene, allowed in open_genes.items() if len(allowed) > 1
    }
    return optuna.trial.create_trial(
        state=_state(row),
        value=row.rung_0_val_bpb,
        params={name: genes[gene] for gene, name in names.items()},
        distributions={
            name: CategoricalDistribution(open_genes[gene]) for gene, name in names.items()
        },
    )


def _state(row: Measured) -> TrialState:
    if row.rung_0_val_bpb is not None:
        return TrialState.COMPLETE
    has_failed = row.state in ("rejected", "failed", "quarantined")
    return TrialState.PRUNED if has_failed else TrialState.RUNNING


def _parameter(gene: str, allowed: tuple[Value, ...]) -> str:
    is_free = allowed == tuple(GENES[gene])
    return gene if is_free else f"{gene} of {', '.join(map(str, allowed))}"
