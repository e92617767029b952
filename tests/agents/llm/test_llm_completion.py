"""Bodies of endpoints that follow the format loosely, or not at all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from linearch.agents.llm.completion import Answer, read_answer, token_counts


def completion(content: Any) -> SimpleNamespace:
    return SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content=content))])


def test_text_in_parts_is_joined_and_thinking_parts_are_left_out() -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}, {"text": "b"}]
    assert read_answer(completion(parts)) == Answer("ab")


@pytest.mark.parametrize("body", [None, "text", 3, SimpleNamespace(choices={"message": 1})])
def test_a_body_without_choices_is_no_answer(body: Any) -> None:
    assert read_answer(body) is None


@pytest.mark.parametrize("content", [None, 3, [], ["a", 1], {"text": "a"}])
def test_content_without_text_is_an_empty_reply(content: Any) -> None:
    answer = read_answer(completion(content))
    assert answer is not None
    assert answer.problem == "The reply was empty."


@pytest.mark.parametrize("count", [None, "12", -1, 1.5, [3]])
def test_a_token_count_that_is_none_is_unknown(count: Any) -> None:
    usage = SimpleNamespace(prompt_tokens=count, completion_tokens=7)
    assert token_counts(SimpleNamespace(usage=usage)) == (None, 7)
