"""What must hold before a run is written down: device, corpus, names, endpoint."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..config import RunConfig
from ..db import Store
from ..errors import ConfigError, PreflightError
from ..evaluator.corpus import load_corpus, shard_windows, validation_windows
from ..evaluator.sandbox.containment import probe_containment
from ..evaluator.tasks import check_tasks
from .fitness import check_fitness
from .objectives import check_objectives
from .proposers.baselines import baseline_proposals
from .proposers.files import FilesProposer
from .proposers.proposal import Proposer
from .shard import check_shard

_MOST_PASSES = 4


def default_profile() -> str:
    """`gpu` where a CUDA device is usable, else `cpu`."""
    return "gpu" if _has_cuda() else "cpu"


def resolve_device(wanted: str) -> str:
    """`cpu` or `cuda`; raises PreflightError if a GPU is asked for where there is none."""
    if wanted == "cpu":
        return "cpu"
    if _has_cuda():
        return "cuda"
    if wanted == "cuda":
        raise PreflightError(
            "This machine has no usable CUDA device; use --profile cpu, or give --ray-address of a "
            "cluster that has one."
        )
    return "cpu"


def cache_folder() -> Path:
    """Where corpora are kept between runs: $LINEARCH_CACHE, or linearch in the user's cache."""
    named = os.environ.get("LINEARCH_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "linearch"


def check_before_start(config: RunConfig, *, ray_address: str | None) -> str:
    """Returns the device that trials will use; raises ConfigError or PreflightError.

    On a cluster the device is taken as asked for, since the driver's machine need not have it.
    """
    if sys.platform != "linux":
        raise PreflightError(
            f"Searches run on Linux alone, which can contain candidates; this is {sys.platform}."
        )
    if ray_address is None:  # on a cluster, each worker looks for itself
        check_containment(config)
    on_cluster = ray_address is not None and config.workers.device == "cuda"
    device = "cuda" if on_cluster else resolve_device(config.workers.device)
    check_measurable(config)
    if config.proposer.kind == "llm":
        from .proposers.llm_proposer import LLMProposer

        LLMProposer(config).check()
    return device


def check_measurable(config: RunConfig) -> None:
    """Raises ConfigError for names, sizes, a corpus or files that nothing can be measured with.

    Needs no device and no key; a corpus that is not in the cache yet is put there.
    """
    list(baseline_proposals(config.baselines))  # raises for an unknown name
    _check_names(config)
    _check_sizes(config)
    _check_corpus(config)
    if config.proposer.kind == "files":
        FilesProposer(config.proposer.files)  # raises for one that cannot be read


def check_containment(config: RunConfig) -> None:
    """Raises PreflightError where candidates cannot be contained, unless that is allowed."""
    containment = probe_containment(config.sandbox.profile)
    containment.require(allow_unsafe=config.sandbox.allow_unsafe)


def make_proposer(config: RunConfig, store: Store) -> Proposer:
    """The proposer that the configuration names; it reads finalists from the store, and files."""
    if config.proposer.kind == "finalists":
        from .proposers.finalists import FinalistsProposer

        return FinalistsProposer(store, config.proposer.finalists)
    if config.proposer.kind == "files":
        return FilesProposer(config.proposer.files)
    if config.proposer.kind == "llm":
        from .proposers.llm_proposer import LLMProposer

        return LLMProposer(config)
    if config.proposer.kind == "random":
        from .proposers.random_control import RandomProposer

        return RandomProposer(seed=config.seed, n_layers=config.model.n_layers)
    from .proposers.grammar import GrammarProposer

    return GrammarProposer(seed=config.seed, n_layers=config.model.n_layers)


def _check_names(config: RunConfig) -> None:
    check_objectives(config.objectives, config.recall.tasks if config.recall.enabled else ())
    check_fitness(config.fitness, config.objectives)
    check_shard(config)
    if config.ladder.noise_baseline not in config.baselines:
        raise ConfigError(
            f"ladder.noise_baseline is {config.ladder.noise_baseline!r}, which is not among the "
            f"baselines {', '.join(config.baselines)}; add it, or name one of them."
        )
    rates = config.training.learning_rates
    if len(set(rates)) < len(rates):
        raise ConfigError(
            f"training.learning_rates={list(rates)} names a rate twice, so it is no grid of "
            f"{len(rates)} points: give different rates, or one alone for no grid."
        )
    if config.recall.enabled:
        check_tasks(config.recall)


def _check_sizes(config: RunConfig) -> None:
    model = config.model
    embedding = model.vocab_size * model.d_model
    if embedding >= model.param_budget:
        raise ConfigError(
            f"The embedding alone has {embedding:,} parameters (model.vocab_size x model.d_model), "
            f"and model.param_budget is {model.param_budget:,}: raise it, or lower one of them."
        )
    least, batch_tokens = config.ladder.rung_tokens[0], config.training.batch_size
    batch_tokens *= config.data.seq_len
    if least < batch_tokens:
        raise ConfigError(
            f"The first rung of {least:,} tokens is less than one batch of {batch_tokens:,}: raise "
            "ladder.rung_tokens, or lower training.batch_size or data.seq_len."
        )


def _check_corpus(config: RunConfig) -> None:
    corpus = load_corpus(config.data, cache_folder(), config.model.vocab_size)
    most = config.ladder.rung_tokens[-1]
    if most > _MOST_PASSES * corpus.train.n_tokens:
        passes = most / corpus.train.n_tokens
        raise ConfigError(
            f"The last rung of {most:,} tokens passes {passes:.1f} times over the "
            f"{corpus.train.n_tokens:,} training tokens of the corpus {corpus.name!r}, and more "
            f"than {_MOST_PASSES} measure memory: use more text, or lower ladder.rung_tokens."
        )
    validation_windows(corpus, config.data.seq_len, config.data.val_windows)
    if config.data.test_windows:
        shard_windows(corpus, config.data.seq_len, config.data.test_windows)


def _has_cuda() -> bool:
    """Without a device file there is no GPU, and torch (two seconds) need not be asked."""
    if not any(Path("/dev").glob("nvidia[0-9]*")) and not os.environ.get("CUDA_VISIBLE_DEVICES"):
        return False
    import torch

    return torch.cuda.is_available()
