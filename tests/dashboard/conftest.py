"""A small, realistic run in a store, written the way a driver writes it."""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

import linearch.dashboard
from linearch.agents.board import Board
from linearch.agents.findings import refresh_findings
from linearch.agents.restore import restore_board
from linearch.agents.standings import refresh_statistics
from linearch.config import RunConfig
from linearch.db import DUPLICATE, INVALID, ArchitectureRow, LeaderboardRow, Store
from linearch.evaluator.results import GateResult, Judgement, TrialResult
from linearch.search_space.grammar import Genome, Space, changes, describe, family, render
from linearch.search_space.library import BASELINES, baseline_source
from linearch.search_space.source_check import check_source, source_hash

SCRIPT = Path(linearch.dashboard.__file__).with_name("app.py")
CONFIG = RunConfig()
GATES = ("signature", "parameters", "causality", "batch", "streaming", "gradients")
RATE = CONFIG.training.learning_rates[0]
BASELINE_BPB = {
    "softmax_attention": 2.73,
    "linear_attention": 3.13,
    "retnet": 2.66,
    "gla": 2.64,
    "mamba2": 2.62,
    "deltanet": 2.74,
    "gated_deltanet": 2.54,
    "hgrn2": 2.68,
}
CANDIDATE_BPB = (2.61, 2.50, 2.83, 2.41, 2.56, 2.71, 2.47, 2.95, 2.53, 2.38)
PRUNED_BPB = (3.42, 3.51)  # on the lowest rung, which they did not leave
N_SCORED = len(BASELINE_BPB) + len(CANDIDATE_BPB) + len(PRUNED_BPB)
SUSPICION = "0.710 bits per byte are fewer than the 1.632 that xz needs for the same text"
ABSENT = GateResult(gate="cost", passed=None, reason="Not asked of a reference mixer.")
PARENTS = (None, None, None, 0, 1, 3, 3, None, 4, 6)  # positions among the candidates
OPENS_FILES = """\
import os


class Mixer:
    pass
"""
REPLY = '{"name": "EchoDelta", "code": "class Mixer: ..."}'


class Call:
    role, model = "proposer", "gpt-5.1"
    prompt, reply = "Write a token mixer that beats gated_deltanet.", REPLY
    input_tokens, output_tokens, cost_usd, latency_s = 5120, 1480, 0.0212, 14.2
    error = None


class SmallRun:
    """Fills one run; every step is one a driver takes. With a `run_id` it goes on filling that."""

    def __init__(self, store: Store, run_id: str | None = None) -> None:
        self.store = store
        config = CONFIG.model_dump(mode="json")
        self.run_id = run_id or store.create_run(config, {"linearch": "0.1.0"}, CONFIG.seed)
        self.epoch = store.claim_run(self.run_id)
        self._space = Space(n_layers=CONFIG.model.n_layers)
        self._rng = random.Random(0 if run_id is None else 1)  # other genomes than before

    def add_baseline(self, name: str) -> ArchitectureRow:
        """A known mixer, judged and measured on both rungs."""
        known = BASELINES[name]
        checked = check_source(baseline_source(name))
        row = self.store.add_architecture(
            self.run_id,
            name=name,
            motivation=f"{known.title} (arXiv {known.paper}): {known.recurrence}",
            expectation="a published architecture, measured on the candidates' path",
            origin="baseline",
            source=checked.source,
            source_hash=checked.source_hash,
            normalised_hash=checked.normalised_hash,
            pattern=checked.pattern,
            is_reference=known.is_reference,
        )
        self.judge(row)
        repeats = CONFIG.ladder.noise_seeds if name == CONFIG.ladder.noise_baseline else 1
        for seed in range(repeats):
            wobble = (0.0, 0.021, -0.018)[seed]
            self.measure(row, BASELINE_BPB[name] + wobble, seed=seed)
        return row

    def add_candidate(
        self, parent: ArchitectureRow | None = None, *, origin: str = "grammar"
    ) -> ArchitectureRow:
        """A genome drawn afresh or mutated from the parent's, as the source rendered from it."""
        if parent is not None and parent.genome is not None:
            genome = self._space.mutate(Genome.from_dict(parent.genome), self._rng, 2)
            assert changes(Genome.from_dict(parent.genome), genome)
        else:
            genome = self._space.sample(self._rng)
        described = describe(genome)
        checked = check_source(render(genome))
        return self.store.add_architecture(
            self.run_id,
            name=described.name,
            motivation=described.motivation,
            expectation=described.expectation,
            origin=origin,
            source=checked.source,
            source_hash=checked.source_hash,
            normalised_hash=checked.normalised_hash,
            pattern=checked.pattern,
            genome=genome.to_dict(),
            parents=[(parent.id, "mutation")] if parent else [],
            family=family(genome),
        )

    def judge(self, row: ArchitectureRow, failing: str | None = None) -> None:
        ran = GATES[: GATES.index(failing) + 1] if failing else GATES
        results = tuple(
            GateResult(
                gate=gate,
                passed=gate != failing,
                reason=f"outputs before a changed token moved by 0.31 at {gate}"
                if gate == failing
                else None,
                evidence={"largest_change": 0.31 if gate == failing else 1.2e-7, "positions": 96},
                duration_s=0.08,
            )
            for gate in ran
        )
        if failing is None:
            results += (ABSENT, replace(results[2], stage="device"))
        state = 16_640 + 512 * (row.number % 5)
        judgement = Judgement(
            results=results,
            mlp_width=None if failing else 168,
            n_params=None if failing else 119_100 + 64 * row.number,
            state_bytes=None if failing else state,
            state_bytes_at={} if failing else {128: state, 1024: state},
            sandbox="isolated",
        )
        self.store.record_judgement(row.id, judgement)

    def measure(self, row: ArchitectureRow, val_bpb: float, *, seed: int = 0) -> None:
        """Trained and scored on both rungs; the lower one scores worse, as it does."""
        for rung, tokens in enumerate(CONFIG.ladder.rung_tokens):
            self.train(row, val_bpb + 0.45 * (1 - rung), rung=rung, tokens=tokens, seed=seed)

    def train(
        self, row: ArchitectureRow, val_bpb: float, *, rung: int, tokens: int, seed: int = 0
    ) -> None:
        trial = self.enqueue(row, rung=rung, tokens=tokens, seed=seed)
        self.finish(trial, self.done(val_bpb, tokens, row.number))

    @staticmethod
    def done(val_bpb: float, tokens: int = 131_072, number: int = 0) -> TrialResult:
        """A training that went well, with its curve."""
        final_nats = val_bpb * math.log(2)
        points = [tokens * (i + 1) // 32 for i in range(32)]
        curve = tuple((n, final_nats + 3.2 * math.exp(-9 * n / tokens)) for n in points)
        return TrialResult(
            status="done",
            metrics={
                "val_bpb": val_bpb,
                "tokens_per_s": 24_000.0 + 900 * (number % 7),
                "step_time_s": 0.041,
                "peak_memory_bytes": None,
                "train_wall_s": tokens / 24_000,
            },
            curve=curve,
            wall_s=tokens / 24_000,
            gates=(GateResult(gate="replay", passed=True, stage="trained"),),
            device="cpu",
            sandbox="isolated",
            environment={"torch": "2.9.0", "threads": 1},
        )

    def enqueue(
        self, row: ArchitectureRow, *, rung: int, tokens: int, seed: int = 0, task: str = "corpus"
    ) -> str:
        trial = self.store.enqueue_trial(
            self.run_id,
            row.id,
            task=task,
            rung=rung,
            tokens=tokens,
            seed=seed,
            learning_rate=RATE,
        )
        return trial.id

    def finish(self, trial_id: str, result: TrialResult) -> None:
        epoch = self.store.start_trial(trial_id)
        assert epoch is not None
        assert self.store.finish_trial(trial_id, epoch, result)

    def add_measured(
        self, val_bpb: float, parent: ArchitectureRow | None = None
    ) -> ArchitectureRow:
        """A candidate that went all the way, with the statistics computed anew."""
        row = self.add_candidate(parent)
        self.judge(row)
        self.measure(row, val_bpb)
        self.refresh()
        return row

    def refresh(self) -> None:
        refresh_statistics(self.store, self.run_id, CONFIG)
        board = Board(seed=CONFIG.seed, n_rungs=2, objectives=CONFIG.objectives)
        restore_board(self.store, self.run_id, board)
        refresh_findings(self.store, self.run_id, CONFIG, board)

    def end(self) -> None:
        self.store.end_run(self.run_id, self.epoch, "finished", "20 candidates were trained", 287.0)


def fill(store: Store) -> SmallRun:
    """Eight baselines and nineteen candidates: twelve measured, four rejected, one failed, one in
    quarantine and one whose training is queued."""
    run = SmallRun(store)
    for name in BASELINE_BPB:
        run.add_baseline(name)
    measured: list[ArchitectureRow] = []
    for n, val_bpb in enumerate(CANDIDATE_BPB):
        parent = None if PARENTS[n] is None else measured[PARENTS[n]]
        row = run.add_candidate(parent, origin="llm" if n == 3 else "grammar")
        run.judge(row)
        run.measure(row, val_bpb)
        measured.append(row)
    for val_bpb in PRUNED_BPB:
        row = run.add_candidate()
        run.judge(row)
        run.train(row, val_bpb, rung=0, tokens=CONFIG.ladder.rung_tokens[0])
    best = measured[-1]
    recall = run.enqueue(best, rung=1, tokens=524_288, task="mqar")
    run.finish(recall, TrialResult(status="done", metrics={"recall_mqar": 0.83}, wall_s=9.0))
    store.add_llm_calls(run.run_id, [Call()], measured[3].id)
    store.add_analysis(run.run_id, best.id, "rule", "Two rungs agree that decay helps.")
    _add_unscored(run, best)
    run.store.add_event(run.run_id, DUPLICATE, {"name": "Twin", "existing_id": best.id})
    run.store.add_event(run.run_id, INVALID, {"reason": "the reply held no code"})
    run.refresh()
    return run


def _add_unscored(run: SmallRun, parent: ArchitectureRow) -> None:
    for failing in ("causality", "causality", "streaming"):
        run.judge(run.add_candidate(parent), failing)
    text_hash = source_hash(OPENS_FILES)
    row = run.store.add_architecture(
        run.run_id,
        name="FileReader",
        motivation="Reads what it should not.",
        expectation="lower val_bpb",
        origin="llm",
        source=OPENS_FILES,
        source_hash=text_hash,
        normalised_hash=text_hash,
        pattern="L",
    )
    run.store.reject(row.id, "source", "line 1: os may not be imported")
    diverged = run.add_candidate(parent)
    run.judge(diverged)
    trial = run.enqueue(diverged, rung=0, tokens=131_072)
    run.finish(trial, TrialResult(status="diverged", reason="the loss was not finite at step 40"))
    suspect = run.add_candidate(parent)
    run.judge(suspect)
    run.train(suspect, 0.71, rung=0, tokens=131_072)
    run.store.quarantine(suspect.id, SUSPICION)
    waiting = run.add_candidate(parent)
    run.judge(waiting)
    run.enqueue(waiting, rung=0, tokens=131_072)


@pytest.fixture(scope="session")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("dashboard") / "linearch.db"
    with Store.open(file) as store:
        fill(store)
    return file


@pytest.fixture
def store_file(_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with one run that is still going, named to the dashboard by the environment."""
    file = tmp_path / "linearch.db"
    shutil.copyfile(_template, file)
    monkeypatch.setenv("LINEARCH_STORE", str(file))
    return file


@pytest.fixture
def store(store_file: Path) -> Iterator[Store]:
    with Store.open(store_file) as opened:
        yield opened


@pytest.fixture
def run(store: Store) -> SmallRun:
    """The run in the store, to go on with."""
    latest = store.latest_run()
    assert latest is not None
    return SmallRun(store, latest.id)


@pytest.fixture
def small_run() -> type[SmallRun]:
    """Starts a run in a store of the test's own."""
    return SmallRun


@pytest.fixture
def rows(store: Store, run: SmallRun) -> tuple[LeaderboardRow, ...]:
    return store.queries.leaderboard(run.run_id)


class App:
    """The dashboard without a browser: opens pages and says what they show."""

    def __init__(self) -> None:
        self.test = AppTest.from_file(str(SCRIPT), default_timeout=60).run()

    def open(self, script: str, **address: str) -> AppTest:
        self.test.switch_page(script)
        for name, value in address.items():
            self.test.query_params[name] = value
        return self.test.run()

    def words(self) -> str:
        """All prose of the page and the sidebar."""
        test = self.test
        kinds = (test.title, test.subheader, test.markdown, test.caption, test.info)
        kinds += (test.warning, test.error, test.code)
        return "\n".join(element.value for kind in kinds for element in kind)


@pytest.fixture
def app(store_file: Path) -> Iterator[App]:
    yield App()
    st.cache_resource.clear()


@pytest.fixture
def empty_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], App]]:
    """Opens the dashboard on tmp_path/linearch.db, which is for the test to make or not."""
    monkeypatch.setenv("LINEARCH_STORE", str(tmp_path / "linearch.db"))
    yield App
    st.cache_resource.clear()
