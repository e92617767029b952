from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from linearch.agents.proposers.proposal import LLMCall
from linearch.db import StatisticRow
from linearch.errors import StoreError


def call(prompt: str = "Propose.", **changes) -> LLMCall:
    facts = {
        "role": "proposer",
        "model": "gpt",
        "prompt": prompt,
        "reply": "class Mixer: ...",
        "input_tokens": 100,
        "output_tokens": 20,
        "cost_usd": 0.25,
        "latency_s": 1.5,
    }
    return LLMCall(**{**facts, **changes})


def test_calls_keep_their_texts_by_hash(lab: Any) -> None:
    row = lab.propose()
    lab.store.add_llm_calls(lab.run_id, [call()], row.id)
    (stored,) = lab.store.queries.llm_calls(lab.run_id)
    assert stored.prompt_hash == hashlib.sha256(b"Propose.").hexdigest()
    assert lab.store.queries.text(stored.prompt_hash) == "Propose."
    assert lab.store.queries.text(stored.reply_hash) == "class Mixer: ..."
    assert (stored.input_tokens, stored.cost_usd, stored.latency_s) == (100, 0.25, 1.5)
    assert lab.store.queries.architecture(row.id).llm_calls == (stored,)


def test_a_call_that_failed_has_no_reply_and_no_cost(lab: Any) -> None:
    failed = call(reply=None, output_tokens=None, cost_usd=None, error="HTTP 503")
    lab.store.add_llm_calls(lab.run_id, [failed])
    (stored,) = lab.store.queries.llm_calls(lab.run_id)
    assert (stored.reply_hash, stored.cost_usd, stored.error) == (None, None, "HTTP 503")
    assert lab.store.queries.budget_spent(lab.run_id).usd is None


def test_one_prompt_sent_by_many_threads_is_stored_once(lab: Any) -> None:
    runs = [lab.store.create_run({}, {}, seed=seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda run: lab.store.add_llm_calls(run, [call("same")] * 5), runs))
    calls = [stored for run in runs for stored in lab.store.queries.llm_calls(run)]
    assert len(calls) == 20
    assert len({stored.prompt_hash for stored in calls}) == 1


def test_an_unknown_text_is_refused(lab: Any) -> None:
    with pytest.raises(StoreError, match="no text with the hash"):
        lab.store.queries.text("abc")


def test_the_newest_events_come_oldest_first(lab: Any) -> None:
    for n in range(5):
        lab.store.add_event(lab.run_id, "even" if n % 2 == 0 else "odd", {"n": n})
    tail = lab.store.queries.events(lab.run_id, limit=3)
    assert [event.data["n"] for event in tail] == [2, 3, 4]
    odd = lab.store.queries.events(lab.run_id, kinds=["odd"])
    assert [event.data["n"] for event in odd] == [1, 3]


def test_statistics_of_one_name_are_replaced_together(lab: Any) -> None:
    row = lab.sound()
    floor = StatisticRow(rung=0, metric="val_bpb", value=0.05, low=0.03, high=0.1, n=3)
    delta = StatisticRow(architecture_id=row.id, rung=0, value=-0.2, detail={"against": "gla"})
    lab.store.replace_statistics(lab.run_id, "noise_floor", [floor])
    lab.store.replace_statistics(lab.run_id, "delta", [delta, delta])
    lab.store.replace_statistics(lab.run_id, "delta", [delta])
    assert lab.store.queries.statistics(lab.run_id, "noise_floor") == (floor,)
    assert lab.store.queries.statistics(lab.run_id, "delta") == (delta,)
    assert lab.store.queries.architecture(row.id).statistics == {"delta": (delta,)}
    lab.store.replace_statistics(lab.run_id, "delta", [])
    assert lab.store.queries.statistics(lab.run_id, "delta") == ()


def test_analyses_and_insights_are_kept_with_their_author(lab: Any) -> None:
    row = lab.sound()
    lab.store.add_analysis(lab.run_id, row.id, "gpt", "The gate forgets too fast.")
    lab.store.add_insight(lab.run_id, "gpt", "Slow decay helps recall.", {"rows": [row.id]})
    (analysis,) = lab.store.queries.architecture(row.id).analyses
    assert (analysis.author, analysis.body) == ("gpt", "The gate forgets too fast.")
    assert [note.body for note in lab.store.queries.insights(lab.run_id)] == [
        "Slow decay helps recall."
    ]
