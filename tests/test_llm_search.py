"""`launch-search --proposer llm` against a scripted endpoint that also answers badly."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import scripted_llm as script

from linearch.db import Store

SETTINGS = {
    "model.d_model": 16,
    "model.param_budget": 12000,
    "data.seq_len": 32,
    "data.val_windows": 16,
    "training.batch_size": 4,
    "ladder.rung_tokens": [1024, 2048],
    "ladder.noise_seeds": 2,
    "baselines": ["gated_deltanet"],
    "recall.enabled": False,
    "gates.deadline_s": 20,
    "proposer.llm.requests_in_flight": 2,
    "proposer.llm.max_retries": 1,
}

SOUND = script.mixer_source(0)
HEAD = SOUND.index("        q, k, v = ")


def body(line: str) -> str:
    """The sound mixer with a line put first into its forward."""
    return f"{SOUND[:HEAD]}        {line}\n{SOUND[HEAD:]}"


BAD = {
    "imports os": "import os\n" + SOUND,
    "two mixers": SOUND + SOUND[SOUND.index("class Mixer") :].replace("Mixer", "Other"),
    "wrong signature": SOUND.replace("def forward(self, x, state=None)", "def forward(self, y)"),
    "nan": body("x = x * float('nan')"),
    "leak": body("x = x + x.mean(dim=1, keepdim=True)"),
    "endless": body("while True: pass"),
}


def test_bad_replies_become_stored_rejections_and_the_search_completes(
    tmp_path: Path, scripted_llm: Callable[..., Any]
) -> None:
    answers = [
        script.reply("I would rather talk about the weather."),
        script.status(500),
        *(script.reply(script.candidate_json(0, name=name, code=BAD[name])) for name in BAD),
    ]
    server = scripted_llm(answers)
    pairs = {**SETTINGS, **server.settings}
    arguments = [f"--set={key}={json.dumps(value)}" for key, value in pairs.items()]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "linearch.launch", "--proposer", "llm", "--json"),
            *("--max-candidates", "3", *arguments),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["funnel"]["measured"] == 3, done.stderr
    rejected = outcome["funnel"]["rejected"]
    assert rejected["source"] == 3
    assert rejected["causality"] >= 1
    assert sum(rejected.values()) == len(BAD)
    with Store.open(tmp_path / "runs" / "linearch.db", create=False) as store:
        rows = {row.name: row for row in store.queries.leaderboard(outcome["run_id"])}
        calls = store.queries.llm_calls(outcome["run_id"])
    assert all(rows[name].reason for name in BAD)
    assert all(rows[name].val_bpb is None for name in BAD)
    assert "timeout" in f"{rows['endless'].reason}"
    assert len(calls) == len(server.requests) - 1  # the client repeated one


def test_prompts_hold_the_parents_code_its_numbers_and_the_last_failure(
    tmp_path: Path, scripted_llm: Callable[..., Any]
) -> None:
    server = scripted_llm([script.reply(script.candidate_json(0, name="leak", code=BAD["leak"]))])
    pairs = {**SETTINGS, **server.settings, "proposer.llm.requests_in_flight": 1}
    arguments = [f"--set={key}={json.dumps(value)}" for key, value in pairs.items()]
    subprocess.run(
        [
            *(sys.executable, "-m", "linearch.launch", "--proposer", "llm", "--json"),
            *("--max-candidates", "4", *arguments),
        ],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=300,
    )
    with Store.open(tmp_path / "runs" / "linearch.db", create=False) as store:
        latest = store.latest_run()
        assert latest is not None
        rows = store.queries.leaderboard(latest.id)
        reason = next(row.reason for row in rows if row.name == "leak")
        parents = {p for row in rows for p in row.parents}
        facts = store.queries.architectures_by_id(parents)
        # A parent's number is its newest at the time of the prompt, which a later rung replaces.
        scores = {
            id_: [trial.metrics.get("val_bpb") for trial in store.queries.architecture(id_).trials]
            for id_ in parents
        }
    assert reason is not None
    repairs = [prompt for prompt in server.prompts if "mean(dim=1, keepdim=True)" in prompt]
    assert reason[:60] in repairs[0]
    last = server.prompts[-1]
    assert reason[:60] in last
    quoted = [row for row in facts.values() if row.source.strip().splitlines()[-1].strip() in last]
    said = [score for row in quoted for score in scores[row.id] if score is not None]
    assert any(f"{score:.4f}" in last for score in said)
