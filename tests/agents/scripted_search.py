"""What a search over a real store is made of, with workers and a proposer that answer at once."""

from __future__ import annotations

from collections.abc import Callable

from linearch.agents.board import Board
from linearch.agents.intake import Intake
from linearch.agents.progress import Silent
from linearch.agents.proposers.baselines import baseline_proposals
from linearch.agents.proposers.proposal import Evidence, Proposal
from linearch.agents.restore import restore_board
from linearch.agents.search import Ending, Search
from linearch.config import RunConfig
from linearch.db import Store
from linearch.errors import ProposalError
from linearch.evaluator.ray_pool import Finished, JudgeJob, TrialJob
from linearch.evaluator.results import GateResult, Judgement, TrialResult

SOURCE = """
import torch
from torch import Tensor, nn


class Mixer(nn.Module):
    def __init__(self, d_model: int, n_heads: int, layer_idx: int, n_layers: int) -> None:
        super().__init__()
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, state: dict[str, Tensor] | None = None):
        return self.out(x) * {scale}, {{}}
"""


class Workers:
    """Two workers that answer at once, as `answer` says; None stands for a worker that died."""

    slots = 2

    def __init__(self, answer: Callable[[JudgeJob | TrialJob], Judgement | TrialResult | None]):
        self._answer = answer
        self._jobs: list[JudgeJob | TrialJob] = []
        self.ran: list[JudgeJob | TrialJob] = []

    @property
    def idle(self) -> int:
        return self.slots - len(self._jobs)

    def submit(self, job: JudgeJob | TrialJob) -> None:
        assert self.idle > 0
        self._jobs.append(job)

    def wait(self, timeout_s: float) -> list[Finished]:
        del timeout_s
        job = self._jobs.pop(0)
        self.ran.append(job)
        value = self._answer(job)
        return [Finished(job=job, value=value, infra_error=None if value else "the worker died")]


class Clock:
    """Stands still but where a test moves it."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class TimedWorkers(Workers):
    """Two workers whose jobs take as long as their results say, on a clock of their own."""

    def __init__(
        self, clock: Clock, answer: Callable[[JudgeJob | TrialJob], Judgement | TrialResult | None]
    ) -> None:
        super().__init__(answer)
        self._clock = clock
        self._ends_s: dict[str, float] = {}

    def submit(self, job: JudgeJob | TrialJob) -> None:
        super().submit(job)
        value = self._answer(job)
        assert value is not None
        self._ends_s[job.key] = self._clock.now_s + (value.wall_s or 0.0)

    def wait(self, timeout_s: float) -> list[Finished]:
        """The job that ends first, when it does, however long that takes."""
        self._jobs.sort(key=lambda job: self._ends_s[job.key])
        self._clock.now_s = self._ends_s[self._jobs[0].key]
        return super().wait(timeout_s)


class Script:
    """Proposes a new source each time, or what `at` says for an index."""

    concurrency = 1

    def __init__(
        self, at: dict[int, str | ProposalError] | None = None, repaired: str = ""
    ) -> None:
        self.at, self.repaired = at or {}, repaired
        self.asked: list[Evidence] = []
        self.repairs: list[tuple[str, str]] = []

    def propose(self, evidence: Evidence, index: int) -> Proposal:
        self.asked.append(evidence)
        source = self.at.get(index, SOURCE.format(scale=f"{index}.5"))
        if isinstance(source, ProposalError):
            raise source
        return proposal(f"mixer {index}", source)

    def repair(self, failed: Proposal, check: str, reason: str) -> Proposal | None:
        self.repairs.append((check, reason))
        return proposal(f"{failed.name} mended", self.repaired) if self.repaired else None


def proposal(name: str, source: str) -> Proposal:
    return Proposal(name=name, motivation="", expectation="", source=source, origin="grammar")


def sound() -> Judgement:
    passed = GateResult(gate="causality", passed=True)
    return Judgement(results=(passed,), mlp_width=16, n_params=1000, state_bytes=64)


def unsound() -> Judgement:
    return Judgement(results=(GateResult(gate="causality", passed=False, reason="it leaks"),))


def score(job: TrialJob) -> TrialResult:
    """Better with more tokens and worse with the seed; the checkpoint tells what it came from."""
    value = 4.0 - job.spec.rung + 0.01 * job.spec.seed
    name = "val_bpb" if job.spec.task == "corpus" else "recall_mqar"
    return TrialResult(
        status="done",
        metrics={name: value, "tokens_per_s": 1000.0},
        checkpoint=f"{job.key}".encode(),
        wall_s=0.01,
        device="cpu",
    )


def all_is_well(job: JudgeJob | TrialJob) -> Judgement | TrialResult | None:
    return sound() if isinstance(job, JudgeJob) else score(job)


def search(
    store: Store,
    config: RunConfig,
    workers: Workers,
    proposer: Script,
    run_id: str | None = None,
) -> tuple[Search, str, Board]:
    run_id = run_id or store.create_run(config.model_dump(mode="json"), {}, config.seed)
    epoch = store.claim_run(run_id)
    store.requeue_orphans(run_id)
    n_rungs = len(config.ladder.rung_tokens)
    board = Board(seed=config.seed, n_rungs=n_rungs, objectives=config.objectives)
    restore_board(store, run_id, board)
    if not board.baselines:
        intake = Intake(store, run_id, board, config.gates.max_source_bytes)
        for known, is_reference in baseline_proposals(config.baselines):
            intake.admit_proposal(known, is_reference=is_reference)
    made = Search(
        config=config,
        store=store,
        run_id=run_id,
        epoch=epoch,
        board=board,
        pool=workers,  # type: ignore[arg-type]
        proposer=proposer,
        observer=Silent(),
    )
    return made, run_id, board


def run(
    store: Store, config: RunConfig, workers: Workers, proposer: Script, run_id: str | None = None
) -> tuple[Ending, str]:
    made, run_id, _ = search(store, config, workers, proposer, run_id)
    return made.run(), run_id
