"""The client against a scripted server: what goes over the wire and what every failure becomes."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest
from scripted_llm import MODEL, Scripted, good, reply, stalled, status

from linearch.agents.llm.client import LLMClient
from linearch.agents.llm.completion import Answer
from linearch.agents.llm.errors import ProviderFailed, ProviderRefused
from linearch.agents.llm.schema import response_format
from linearch.agents.proposers.proposal import LLMCall
from linearch.config import LLMConfig
from linearch.errors import ConfigError, PreflightError

KEY = "sk-test-0123456789abcdef"
Serve = Callable[..., Any]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_LLM_KEY", KEY)


def client_of(server: Any, **settings: Any) -> LLMClient:
    defaults = {"base_url": server.base_url, "model": MODEL, "api_key_env": "TEST_LLM_KEY"}
    return LLMClient(LLMConfig(**{**defaults, "timeout_s": 10.0, **settings}))


def ask(client: LLMClient, calls: list[LLMCall] | None = None, **options: Any) -> Answer:
    record = [].append if calls is None else calls.append
    return client.ask([{"role": "user", "content": "Propose."}], "propose", record, **options)


def test_an_answer_comes_with_its_usage_and_cost(scripted_llm: Serve) -> None:
    server = scripted_llm([reply("hello", usage=(2000, 500))])
    calls: list[LLMCall] = []
    prices = {"usd_per_million_input": 1.0, "usd_per_million_output": 10.0}
    assert ask(client_of(server, **prices), calls) == Answer("hello")
    (call,) = calls
    assert (call.role, call.model, call.reply) == ("propose", MODEL, "hello")
    assert (call.input_tokens, call.output_tokens) == (2000, 500)
    assert call.cost_usd == pytest.approx(0.007)
    assert "Propose." in call.prompt
    assert call.latency_s > 0
    assert call.error is None


def test_usage_that_the_endpoint_does_not_give_is_none(scripted_llm: Serve) -> None:
    calls: list[LLMCall] = []
    prices = {"usd_per_million_input": 1.0, "usd_per_million_output": 10.0}
    ask(client_of(scripted_llm([reply("hello", usage=None)]), **prices), calls)
    assert (calls[0].input_tokens, calls[0].output_tokens, calls[0].cost_usd) == (None, None, None)


def test_temperature_is_sent_only_when_it_is_set(scripted_llm: Serve) -> None:
    server = scripted_llm()
    ask(client_of(server))
    ask(client_of(server, temperature=0.5))
    assert "temperature" not in server.requests[0].body
    assert server.requests[1].body["temperature"] == 0.5


def test_structured_output_is_asked_for_by_a_strict_schema(scripted_llm: Serve) -> None:
    server = scripted_llm()
    ask(client_of(server), response_format=response_format())
    schema = server.requests[0].body["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"]["required"] == ["name", "motivation", "expectation", "code"]
    assert schema["schema"]["additionalProperties"] is False


def test_an_endpoint_without_structured_output_is_asked_in_plain_text_from_then_on(
    scripted_llm: Serve,
) -> None:
    server = scripted_llm(takes_format=False)
    client = client_of(server)
    calls: list[LLMCall] = []
    for _ in range(2):
        ask(client, calls, response_format=response_format())
    assert ["response_format" in r.body for r in server.requests] == [True, False, False]
    assert [call.error is None for call in calls] == [False, True, True]


@pytest.mark.parametrize("code", [422, 404])
def test_other_refusals_of_the_format_fall_back_too(scripted_llm: Serve, code: int) -> None:
    server = scripted_llm([status(code, "unknown field response_format")])
    assert ask(client_of(server), response_format=response_format()).problem is None
    assert "response_format" not in server.requests[-1].body


def test_a_bad_request_that_is_not_about_the_format_leaves_structured_output_on(
    scripted_llm: Serve,
) -> None:
    server = scripted_llm([status(400, "too long"), status(400, "too long")])
    client = client_of(server)
    with pytest.raises(ProviderFailed, match="too long"):
        ask(client, response_format=response_format())
    ask(client, response_format=response_format())
    assert "response_format" in server.requests[-1].body


@pytest.mark.parametrize("seconds", ["0", "1"])
def test_a_rate_limit_is_waited_out(scripted_llm: Serve, seconds: str) -> None:
    server = scripted_llm([status(429, "slow down", Retry_After=seconds)])
    assert ask(client_of(server)).problem is None
    assert len(server.requests) == 2


def test_a_server_error_is_tried_again(scripted_llm: Serve) -> None:
    server = scripted_llm([status(500)])
    assert ask(client_of(server)).problem is None


def test_a_server_that_stays_broken_fails_with_its_message_and_a_recorded_call(
    scripted_llm: Serve,
) -> None:
    server = scripted_llm(then=lambda received, n: status(503, "overloaded"))
    calls: list[LLMCall] = []
    with pytest.raises(ProviderFailed, match="answered 503: overloaded") as caught:
        ask(client_of(server, max_retries=1), calls)
    assert not isinstance(caught.value, ProviderRefused)
    assert len(server.requests) == 2
    assert calls[0].reply is None
    assert calls[0].error == str(caught.value)


def test_a_stalled_connection_ends_at_the_timeout_and_is_tried_again(scripted_llm: Serve) -> None:
    server = scripted_llm([stalled(5)])
    assert ask(client_of(server, timeout_s=0.3)).problem is None
    assert len(server.requests) == 2


def test_a_connection_that_always_stalls_says_for_how_long_it_was_waited(
    scripted_llm: Serve,
) -> None:
    server = scripted_llm([stalled(5)])
    with pytest.raises(ProviderFailed, match=r"no reply within 0.3 s"):
        ask(client_of(server, timeout_s=0.3, max_retries=0))


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (status(401, "bad key"), "check the key in TEST_LLM_KEY"),
        (status(402, "no credit"), "add credit"),
        (status(403, "not yours"), "check the key"),
        (
            Scripted(
                status=429,
                body={"error": {"message": "no more", "code": "insufficient_quota"}},
            ),
            "add credit",
        ),
    ],
)
def test_a_refused_key_or_an_empty_account_stops_the_asking(
    scripted_llm: Serve, answer: Scripted, hint: str
) -> None:
    server = scripted_llm(then=lambda received, n: answer)
    with pytest.raises(ProviderRefused, match=hint):
        ask(client_of(server, max_retries=0))


def test_the_key_is_blanked_out_of_whatever_the_server_echoes(
    scripted_llm: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = scripted_llm([reply(f"Your key is {KEY}")], key="another")
    calls: list[LLMCall] = []
    with pytest.raises(ProviderRefused) as caught:
        ask(client_of(server), calls)
    assert "Incorrect API key provided: [key]" in str(caught.value)
    assert caught.value.__context__ is None  # the cause would quote the key
    echo = ask(client_of(scripted_llm([reply(f"Your key is {KEY}")])), calls)
    assert echo.text == "Your key is [key]"
    assert KEY not in repr(calls)
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (reply(""), "empty"),
        (reply(None), "empty"),
        (reply(None, refusal="I would rather not."), "declined: I would rather not"),
        (reply("{", finish_reason="length"), "cut off"),
        (reply("", finish_reason="content_filter"), "content filter"),
        (reply("x" * 1_000_000), "1000000 characters"),
    ],
)
def test_an_unusable_answer_says_why(scripted_llm: Serve, answer: Scripted, problem: str) -> None:
    calls: list[LLMCall] = []
    answered = ask(client_of(scripted_llm([answer])), calls)
    assert answered.problem is not None
    assert problem in answered.problem
    assert calls[0].error == answered.problem
    assert calls[0].input_tokens == 1000
    assert len(calls[0].reply or "") <= 262_144


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "upstream is down"}},
        {"choices": []},
        "<html>A login page</html>",
    ],
)
def test_a_body_that_is_no_completion_fails(scripted_llm: Serve, body: Any) -> None:
    server = scripted_llm([Scripted(body=body)])
    with pytest.raises(ProviderFailed, match="sent no completion"):
        ask(client_of(server))


def test_broken_json_with_the_right_content_type_fails(scripted_llm: Serve) -> None:
    answer = Scripted(body='{"choices": [', headers={"Content-Type": "application/json"})
    with pytest.raises(ProviderFailed):
        ask(client_of(scripted_llm([answer])))


def test_the_check_passes_where_the_model_is_listed(scripted_llm: Serve) -> None:
    server = scripted_llm()
    assert client_of(server).check() == ()
    assert server.requests == []


def test_the_check_asks_for_a_word_where_no_models_are_listed(scripted_llm: Serve) -> None:
    server = scripted_llm([reply("ready")], models=None)
    (call,) = client_of(server).check()
    assert (call.role, call.reply) == ("check", "ready")


def test_the_check_names_the_nearest_model(scripted_llm: Serve) -> None:
    client = client_of(scripted_llm(), model="scripted-modal")
    with pytest.raises(PreflightError, match=r"404.*'scripted-modal'.* scripted-model\."):
        client.check()


def test_the_check_refuses_a_wrong_key(scripted_llm: Serve) -> None:
    with pytest.raises(PreflightError, match="check the key in TEST_LLM_KEY") as caught:
        client_of(scripted_llm(key="another")).check()
    assert KEY not in str(caught.value)


def test_the_check_says_that_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = LLMConfig(base_url=f"http://127.0.0.1:{port}/v1", max_retries=0)
    with pytest.raises(PreflightError, match=rf"127.0.0.1:{port} cannot be reached"):
        LLMClient(config).check()


def test_a_missing_key_is_named_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_LLM_KEY")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)  # not the one that was configured
    config = LLMConfig(base_url="https://llm.example.com/v1", api_key_env="TEST_LLM_KEY")
    with pytest.raises(PreflightError, match="set the environment variable TEST_LLM_KEY"):
        LLMClient(config).check()


def test_a_local_server_needs_no_key_and_gets_no_other(
    scripted_llm: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_LLM_KEY")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ADMIN_KEY", KEY)
    server = scripted_llm()
    ask(client_of(server))
    assert KEY not in str(server.requests[0].headers)


def test_a_local_server_is_reached_past_a_proxy(
    scripted_llm: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert ask(client_of(scripted_llm([good()]))).problem is None


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1", "http://[::1", "http://h:x"])
def test_an_address_that_is_none_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError, match="base_url"):
        LLMClient(LLMConfig(base_url=url)).check()
