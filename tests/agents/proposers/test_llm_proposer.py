"""The LLM proposer over real HTTP: good and bad replies, what each prompt holds, what is kept."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from scripted_llm import (
    MODEL,
    Scripted,
    candidate_json,
    good,
    mixer_source,
    reply,
    stalled,
    status,
)

from linearch.agents.llm.errors import (
    MalformedReply,
    ProposalFailed,
    ProviderFailed,
    ProviderRefused,
)
from linearch.agents.proposers.llm_proposer import LLMProposer
from linearch.agents.proposers.proposal import Evidence, Measured
from linearch.config import RunConfig, validate_config
from linearch.errors import PreflightError
from linearch.search_space.source_check import check_source

Serve = Callable[..., Any]
OBJECTIVES = ("val_bpb", "state_bytes")
NOTHING = Evidence(candidates=(), baselines=(), objectives=OBJECTIVES)


def config_for(server: Any, **llm: Any) -> RunConfig:
    settings = {"base_url": server.base_url, "model": MODEL, "timeout_s": 10.0, **llm}
    return validate_config({"proposer": {"kind": "llm", "llm": settings}})


def measured(name: str, **changes: Any) -> Measured:
    fields: dict[str, Any] = {
        "id": f"id-{name}",
        "name": name,
        "motivation": f"why {name}",
        "source": f"# code of {name}\n",
        "origin": "llm",
        "state": "measured",
        "reason": None,
        "genome": None,
        "rung": 1,
        "metrics": {"val_bpb": 2.5, "state_bytes": 8192.0},
        "rung_0_val_bpb": 3.0,
    }
    return Measured(**{**fields, **changes})


def a_history() -> Evidence:
    """Two measured candidates, two failures, a reference and a baseline: most run alike."""
    failure = {"state": "rejected", "rung": None, "metrics": {}, "rung_0_val_bpb": None}
    return Evidence(
        candidates=(
            measured("best", metrics={"val_bpb": 2.4321, "state_bytes": 4096.0}),
            measured("second", metrics={"val_bpb": 2.5432, "state_bytes": 8192.0}),
            measured("first failure", reason="source: line 2: `os` is not allowed.", **failure),
            measured("last failure", reason="causality: token 63 changes the past", **failure),
        ),
        baselines=(
            measured("softmax_attention", origin="baseline", metrics={"val_bpb": 2.0}),
            measured("gla", origin="baseline", metrics={"val_bpb": 2.6, "state_bytes": 8192.0}),
        ),
        objectives=OBJECTIVES,
    )


def test_a_good_reply_becomes_a_proposal_with_its_call(scripted_llm: Serve) -> None:
    server = scripted_llm([good(3)])
    prices = {"usd_per_million_input": 1.0, "usd_per_million_output": 10.0}
    proposal = LLMProposer(config_for(server, **prices)).propose(NOTHING, 0)
    assert (proposal.name, proposal.origin) == ("Scripted decay 3", "llm")
    assert proposal.source == mixer_source(3)
    assert proposal.expectation.startswith("val_bpb falls by 0.05")
    (call,) = proposal.llm_calls
    assert (call.role, call.input_tokens, call.output_tokens) == ("propose", 1000, 200)
    assert call.cost_usd == pytest.approx(0.003)
    assert call.reply == candidate_json(3)
    assert server.requests[0].system in call.prompt
    assert server.requests[0].prompt in call.prompt


@pytest.mark.parametrize("index", range(4))
def test_each_prompt_holds_the_parents_code_its_numbers_and_the_last_failures_reason(
    scripted_llm: Serve, index: int
) -> None:
    server, evidence = scripted_llm(), a_history()
    proposal = LLMProposer(config_for(server)).propose(evidence, index)
    known = {row.id: row for row in (*evidence.candidates, *evidence.baselines)}
    parent = next(known[name] for name, kind in proposal.parents if kind == "mutation")
    shown = server.prompts[0].partition(f"## The parent: {parent.name}\n")[2].partition("\n## ")[0]
    assert parent.source in shown
    assert f"| {parent.metrics['val_bpb']:.4f} |" in shown
    assert f"| {parent.metrics['state_bytes']:.0f} |" in shown
    assert "causality: token 63 changes the past" in server.prompts[0]


def test_parents_are_measured_seeded_by_the_index_and_never_references(
    scripted_llm: Serve,
) -> None:
    proposer, evidence = LLMProposer(config_for(scripted_llm())), a_history()
    chosen = [proposer.propose(evidence, index).parents[0] for index in range(12)]
    again = [proposer.propose(evidence, index).parents[0] for index in range(12)]
    assert chosen == again
    assert {kind for _, kind in chosen} == {"mutation"}
    assert len({name for name, _ in chosen}) > 1
    assert {name for name, _ in chosen} <= {"id-best", "id-second", "id-gla"}


def test_other_code_in_the_prompt_is_recorded_as_inspiration(scripted_llm: Serve) -> None:
    server, evidence = scripted_llm(), a_history()
    proposal = LLMProposer(config_for(server)).propose(evidence, 0)
    inspired = [name for name, kind in proposal.parents if kind == "inspiration"]
    known = {row.id: row for row in (*evidence.candidates, *evidence.baselines)}
    assert len(inspired) == 2
    assert all(known[name].source in server.prompts[0] for name in inspired)


def test_before_anything_is_measured_a_stored_baseline_is_the_parent(scripted_llm: Serve) -> None:
    waiting = {"rung": None, "metrics": {}, "rung_0_val_bpb": None, "origin": "baseline"}
    baselines = (measured("softmax_attention", **waiting), measured("gla", **waiting))
    evidence = Evidence(candidates=(), baselines=baselines, objectives=OBJECTIVES)
    server = scripted_llm()
    assert LLMProposer(config_for(server)).propose(evidence, 0).parents == (("id-gla", "mutation"),)
    assert "# code of gla" in server.prompts[0]


def test_without_any_evidence_a_library_baseline_is_shown_and_no_parent_claimed(
    scripted_llm: Serve,
) -> None:
    server = scripted_llm()
    assert LLMProposer(config_for(server)).propose(NOTHING, 0).parents == ()
    assert "## The parent: gated_deltanet" in server.prompts[0]
    assert "has not been measured yet" in server.prompts[0]


BAD_REPLIES = {
    "broken JSON": reply(candidate_json(0)[:-30]),
    "prose": reply("I would rather talk about it."),
    "missing field": good(0, expectation=None),
    "oversize code": good(0, code="x = 1\n" * 20_000),
    "oversize reply": reply("x" * 1_000_000),
    "empty": reply(""),
    "refusal": reply(None, refusal="I cannot help with that."),
    "cut off": reply(candidate_json(0)[:100], finish_reason="length"),
}


@pytest.mark.parametrize("bad", BAD_REPLIES.values(), ids=BAD_REPLIES.keys())
def test_a_malformed_reply_gets_one_round_of_repair(scripted_llm: Serve, bad: Scripted) -> None:
    server = scripted_llm([bad, good(1)])
    proposal = LLMProposer(config_for(server)).propose(NOTHING, 0)
    assert proposal.source == mixer_source(1)
    assert [call.role for call in proposal.llm_calls] == ["propose", "reformat"]
    problem = proposal.llm_calls[0].error
    assert problem is not None
    assert f"Your reply cannot be used. {problem}" in server.prompts[1]
    assert server.prompts[1].startswith(server.prompts[0])


def test_a_second_malformed_reply_ends_the_proposal_and_keeps_both_calls(
    scripted_llm: Serve,
) -> None:
    server = scripted_llm([reply("no"), reply("still no")])
    with pytest.raises(MalformedReply, match="no JSON object") as caught:
        LLMProposer(config_for(server)).propose(NOTHING, 0)
    assert [call.reply for call in caught.value.calls] == ["no", "still no"]
    assert all(call.input_tokens == 1000 for call in caught.value.calls)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "content",
    [f"```json\n{candidate_json(2)}\n```", f"<think>Hm.</think>Here it is:\n{candidate_json(2)}"],
)
def test_an_endpoint_without_structured_output_is_read_as_text(
    scripted_llm: Serve, content: str
) -> None:
    server = scripted_llm([reply(content)], takes_format=False)
    proposal = LLMProposer(config_for(server)).propose(NOTHING, 0)
    assert proposal.source == mixer_source(2)
    assert [call.error is None for call in proposal.llm_calls] == [False, True]


def test_rate_limits_and_server_errors_cost_no_proposal(scripted_llm: Serve) -> None:
    server = scripted_llm([status(429, Retry_After="0"), status(500), good(1)])
    assert LLMProposer(config_for(server)).propose(NOTHING, 0).source == mixer_source(1)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (status(503), ProviderFailed),
        (status(401), ProviderRefused),
        (status(402), ProviderRefused),
        (stalled(5), ProviderFailed),
    ],
)
def test_a_failed_request_keeps_its_call(
    scripted_llm: Serve, answer: Scripted, error: type[ProposalFailed]
) -> None:
    config = config_for(scripted_llm([answer]), max_retries=0, timeout_s=0.3)
    with pytest.raises(error) as caught:
        LLMProposer(config).propose(NOTHING, 0)
    (call,) = caught.value.calls
    assert call.error == str(caught.value)


def test_a_repair_shows_the_code_and_the_verdict_and_keeps_the_parents(
    scripted_llm: Serve,
) -> None:
    server = scripted_llm([good(1), good(2)])
    proposer = LLMProposer(config_for(server))
    failed = proposer.propose(a_history(), 0)
    mended = proposer.repair(failed, "streaming", "pieces of 3 tokens differ by 0.25")
    assert mended is not None
    assert mended.source == mixer_source(2)
    assert mended.parents == failed.parents
    assert [call.role for call in mended.llm_calls] == ["repair"]
    assert mixer_source(1).rstrip() in server.prompts[1]
    assert "The check streaming said: <data>pieces of 3 tokens differ by 0.25" in server.prompts[1]


def test_a_mended_proposal_is_not_mended_again(scripted_llm: Serve) -> None:
    server = scripted_llm([good(1), good(2)])
    proposer = LLMProposer(config_for(server))
    mended = proposer.repair(proposer.propose(NOTHING, 0), "batch", "rows mix")
    assert mended is not None
    assert proposer.repair(mended, "batch", "rows still mix") is None
    assert len(server.requests) == 2


def test_a_malformed_repair_ends_it_and_keeps_the_call(scripted_llm: Serve) -> None:
    server = scripted_llm([good(1), reply("no")])
    proposer = LLMProposer(config_for(server))
    failed = proposer.propose(NOTHING, 0)
    with pytest.raises(MalformedReply) as caught:
        proposer.repair(failed, "batch", "rows mix")
    assert [call.role for call in caught.value.calls] == ["repair"]


def test_several_requests_are_in_flight_at_once(scripted_llm: Serve) -> None:
    server = scripted_llm(gather=3)
    proposer = LLMProposer(config_for(server, requests_in_flight=3))
    with ThreadPoolExecutor(proposer.concurrency) as threads:
        proposals = list(threads.map(lambda index: proposer.propose(NOTHING, index), range(3)))
    assert server.most_in_flight == 3
    assert len({proposal.source for proposal in proposals}) == 3


def test_the_first_prompt_and_forecast_send_nothing_and_need_no_key(
    scripted_llm: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    settings = {"base_url": "https://llm.example.com/v1", "usd_per_million_input": 1.0}
    config = validate_config(
        {"proposer": {"llm": {**settings, "usd_per_million_output": 8.0}}},
    )
    proposer = LLMProposer(config)
    prompt = proposer.first_prompt(NOTHING)
    assert prompt.startswith("### system\n")
    assert "## The parent: gated_deltanet" in prompt
    expected = proposer.forecast(NOTHING, candidates=10)
    assert expected.calls == (10, 30)
    assert expected.usd is not None
    assert 0 < expected.usd[0] < expected.usd[1]
    with pytest.raises(PreflightError, match="OPENAI_API_KEY"):
        proposer.check()


def test_the_first_prompt_is_the_one_that_is_sent(scripted_llm: Serve) -> None:
    server = scripted_llm()
    proposer = LLMProposer(config_for(server))
    foretold = proposer.first_prompt(a_history())
    proposer.propose(a_history(), 0)
    assert server.requests[0].prompt in foretold
    assert server.requests[0].system in foretold


@pytest.mark.parametrize("variant", range(4))
def test_the_scripted_candidates_are_under_the_contract_and_distinct(variant: int) -> None:
    checked = check_source(mixer_source(variant))
    others = [check_source(mixer_source(other)) for other in range(12) if other != variant]
    assert checked.normalised_hash not in {other.normalised_hash for other in others}
