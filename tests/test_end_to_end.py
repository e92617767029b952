"""The commands as a user types them, on a small search: real Ray, real children."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from linearch.db import Store
from linearch.errors import StoreError

TINY = {
    "model.d_model": 16,
    "model.param_budget": 12000,
    "data.seq_len": 32,
    "data.val_windows": 16,
    "training.batch_size": 4,
    "training.warmup_steps": 2,
    "ladder.rung_tokens": [1024, 2048],
    "ladder.noise_seeds": 2,
    "baselines": ["softmax_attention", "gated_deltanet"],
    "recall.sizes.mqar": {"vocab_size": 32, "seq_len": 16, "n_pairs": 2},
    "recall.train_tokens": 512,
    "recall.batch_size": 8,
    "recall.test_sequences": 8,
}


RUNNING_SUM = """
from torch import nn


class Mixer(nn.Module):
    def __init__(self, d_model, n_heads, layer_idx, n_layers):
        super().__init__()
        self.proj = nn.Linear(d_model, d_model)

    def forward(self, x, state=None):
        x = self.proj(x)
        y = SUM + (0 if state is None else state["sum"])
        return y, {"sum": y[:, -1:].clone()}
"""


def command(name: str, *arguments: str) -> list[str]:
    module = {"launch-search": "linearch.launch", "linearch": "linearch.cli"}[name]
    return [sys.executable, "-m", module, *arguments]


def tiny_settings(**changes: Any) -> list[str]:
    return [f"--set={key}={json.dumps(value)}" for key, value in {**TINY, **changes}.items()]


def run(folder: Path, name: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(name, *arguments),
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a small search has run to its end."""
    folder = tmp_path_factory.mktemp("search")
    done = run(folder, "launch-search", *tiny_settings(), "--max-candidates", "3")
    assert done.returncode == 0, done.stderr
    assert "--resume" in done.stdout
    assert "linearch dashboard" in done.stdout
    return folder


@pytest.fixture
def store(finished: Path) -> Iterator[Store]:
    with Store.open(finished / "runs" / "linearch.db", create=False) as opened:
        yield opened


def best_candidate(store: Store) -> str:
    latest = store.latest_run()
    assert latest is not None
    rows = store.queries.leaderboard(latest.id)
    return next(row.id for row in rows if row.origin == "grammar" and row.val_bpb is not None)


def test_a_search_without_arguments_for_key_gpu_or_network_fills_the_leaderboard(
    finished: Path, store: Store
) -> None:
    latest = store.latest_run()
    assert latest is not None
    assert latest.state == "finished"
    assert latest.versions["torch"]
    rows = store.queries.leaderboard(latest.id)
    assert sum(row.origin == "grammar" and row.val_bpb is not None for row in rows) == 3
    for row in rows:
        if row.val_bpb is not None:
            trial = store.trial(row.trial_id or "")
            assert trial.environment
            assert trial.weights_hash
    windows, scores = store.queries.window_nats(latest.id), store.queries.scores(latest.id)
    on_corpus = {score.trial_id: score.val_bpb for score in scores if score.task == "corpus"}
    assert windows.keys() == on_corpus.keys()
    assert {len(nats) for nats in windows.values()} == {latest.config["data"]["val_windows"]}
    nats_to_bpb = {sum(windows[id_]) / (on_corpus[id_] or 0.0) for id_ in windows}
    assert max(nats_to_bpb) == pytest.approx(min(nats_to_bpb), rel=1e-5)
    printed = json.loads(run(finished, "linearch", "leaderboard", "--json").stdout)
    assert [row["id"] for row in printed] == [row.id for row in rows]
    assert "rung" in run(finished, "linearch", "leaderboard", "--all").stdout


def test_show_prints_gates_trials_and_code(finished: Path, store: Store) -> None:
    shown = run(finished, "linearch", "show", best_candidate(store))
    assert shown.returncode == 0
    for text in ("causality", "streaming", "class Mixer", "tokens_per_s"):
        assert text in shown.stdout


def test_a_report_is_the_same_page_from_the_run_and_from_its_file(finished: Path) -> None:
    page = run(finished, "linearch", "report").stdout
    kept = run(finished, "linearch", "report", "--json").stdout
    (finished / "report.json").write_text(kept)
    assert run(finished, "linearch", "report", "--from", "report.json").stdout == page
    facts = json.loads(kept)
    assert facts["machine"]
    assert all(row["trials"] and row["name"] in page for row in facts["architectures"])
    assert f"    {facts['command']}\n" in page
    assert "--set budget.max_candidates='3'" in facts["command"]


def test_a_number_is_had_again_by_replay_verify(finished: Path, store: Store) -> None:
    verified = run(finished, "linearch", "replay", best_candidate(store), "--verify", "--json")
    found = json.loads(verified.stdout)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert found["same_surroundings"]
    (number,) = found["numbers"]
    assert number["metric"] == "val_bpb"
    assert abs(number["repeated"] - number["stored"]) <= 1e-6


def test_any_trials_numbers_are_had_again_a_tasks_too(finished: Path, store: Store) -> None:
    trials = store.queries.architecture(best_candidate(store)).trials
    probe = next(item for item in trials if item.trial.task == "mqar")
    verified = run(finished, "linearch", "replay", probe.trial.id, "--verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert f"recall_mqar: stored {probe.metrics['recall_mqar']:.6f}, repeated" in verified.stdout


def test_an_exported_architecture_decodes_elsewhere_as_it_was_trained(
    finished: Path, store: Store, tmp_path: Path
) -> None:
    exported = run(finished, "linearch", "export", best_candidate(store), "--to", str(tmp_path))
    assert exported.returncode == 0, exported.stderr
    (package,) = tmp_path.iterdir()
    code = f"""
        import sys
        sys.modules["linearch.search_space"] = None  # only the kernels may be needed
        import torch
        from {package.name} import load_model
        torch.manual_seed(0)
        model = load_model()
        tokens = torch.randint(0, 256, (1, 1000))
        with torch.inference_mode():
            whole = model.logits(model(tokens)[0])
            states, steps, held = None, [], {{}}
            for t in range(1000):
                hidden, states = model(tokens[:, t : t + 1], states)
                steps.append(model.logits(hidden))
                held[t] = sum(x.untyped_storage().nbytes() for s in states for x in s.values())
        difference = (torch.cat(steps, 1) - whole).norm() / whole.norm()
        assert difference < 1e-4, difference
        assert held[10] == held[999], held
        print("ok")
    """
    there = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, capture_output=True, text=True
    )
    assert there.stdout.strip() == "ok", there.stderr


def test_ones_own_mixers_are_measured_beside_the_baselines(tmp_path: Path) -> None:
    whole = "x.mean(1, keepdim=True).expand_as(x)"
    for name, read in (("running_sum", "x.cumsum(1)"), ("looks_ahead", whole)):
        (tmp_path / f"{name}.py").write_text(RUNNING_SUM.replace("SUM", read))
    small = {"baselines": ["gated_deltanet"], "recall.enabled": False, "ladder.elite": 0}
    mixers = ("--mixer", "running_sum.py", "--mixer", "looks_ahead.py")
    done = run(tmp_path, "launch-search", *mixers, *tiny_settings(**small), "--json")
    assert done.returncode == 0, done.stderr
    with Store.open(tmp_path / "runs" / "linearch.db", create=False) as store:
        rows = {
            row.name: row for row in store.queries.leaderboard(json.loads(done.stdout)["run_id"])
        }
    assert set(rows) == {"gated_deltanet", "running_sum", "looks_ahead"}
    assert rows["running_sum"].val_bpb is not None
    assert rows["running_sum"].origin == "file"
    assert (rows["looks_ahead"].state, rows["looks_ahead"].val_bpb) == ("rejected", None)
    assert "sees the future" in f"{rows['looks_ahead'].reason}"


def test_a_killed_search_resumes_without_losing_or_doubling_a_trial(tmp_path: Path) -> None:
    driver = subprocess.Popen(
        command("launch-search", *tiny_settings(), "--max-candidates", "3", "--json"),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    file = tmp_path / "runs" / "linearch.db"
    done: dict[str, Any] = {}
    deadline = time.monotonic() + 120
    while len(done) < 3 and time.monotonic() < deadline:
        time.sleep(0.3)
        with contextlib.suppress(StoreError), Store.open(file, create=False) as store:
            latest = store.latest_run()  # the store may be in the making
            trials = store.trials(latest.id) if latest else ()
            done = {t.id: t.finished_at for t in trials if t.state == "done"}
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert len(done) >= 3
    with Store.open(file, create=False) as store:
        latest = store.latest_run()
        assert latest is not None
        assert latest.state == "running"
    resumed = run(tmp_path, "launch-search", "--resume", latest.id, "--json")
    assert resumed.returncode == 0, resumed.stderr
    with Store.open(file, create=False) as store:
        trials = store.trials(latest.id)
        assert {t.id: t.finished_at for t in trials if t.id in done} == done
        keys = [(t.architecture_id, t.task, t.rung, t.seed, t.learning_rate) for t in trials]
        assert len(keys) == len(set(keys))
        assert {t.state for t in trials} == {"done"}
        assert store.queries.funnel(latest.id).measured == 3


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--set", "model.dmodel=3"], 2, "did you mean 'model.d_model'"),
        (["--profile", "laptop"], 2, "choose one of"),
        (["--proposer", "llm"], 4, "OPENAI_API_KEY"),
        (
            ["--proposer", "llm", "--set", "proposer.llm.base_url=http://127.0.0.1:9/v1"],
            4,
            "127.0.0.1:9",
        ),
        (["--set", "data.corpus=/no/such/text"], 4, "/no/such/text"),
        (["--set", "workers.device=cuda"], 4, "--profile cpu"),
        (["--resume", "01NOSUCHRUN"], 2, "launch-search"),
        (["--mixer", "no_such_mixer.py"], 2, "no_such_mixer.py cannot be read"),
        (["--set", 'baselines=["transformer"]'], 2, "transformer"),
    ],
)
def test_bad_input_is_one_sentence_with_what_to_do_and_leaves_nothing(
    tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    failed = run(tmp_path, "launch-search", *arguments, OPENAI_API_KEY="", CUDA_VISIBLE_DEVICES="")
    assert failed.returncode == code, failed.stderr
    assert words in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_dry_run_prints_the_plan_and_starts_nothing(tmp_path: Path) -> None:
    planned = run(tmp_path, "launch-search", "--dry-run", "--json", "--proposer", "llm")
    plan = json.loads(planned.stdout)
    assert planned.returncode == 0
    assert plan["llm_calls"][0] == plan["n_candidates"]
    assert "class Mixer" in plan["first_prompt"]
    assert not list(tmp_path.iterdir())
