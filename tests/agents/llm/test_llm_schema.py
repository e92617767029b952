"""Replies as models write them, good and bad."""

from __future__ import annotations

import json

import pytest
from scripted_llm import candidate_json, mixer_source

from linearch.agents.llm.errors import MalformedReply
from linearch.agents.llm.schema import MAX_OBJECTS_TRIED, parse_reply

LIMIT = 65_536
CODE = mixer_source(0)


def test_bare_json_is_read() -> None:
    reply = parse_reply(candidate_json(0), LIMIT)
    assert reply.name == "Scripted decay 0"
    assert reply.code == CODE


@pytest.mark.parametrize(
    "text",
    [
        f"```json\n{candidate_json(0)}\n```",
        f"A design with S_t = {{a}} S_{{t-1}}:\n\n```\n{candidate_json(0)}\n```\nGood luck!",
        f'<think>Perhaps {{"code": "x"}}? No.</think>\n{candidate_json(0)}',
        f"a thought without its opening mark</think>{candidate_json(0)}",
        f"<think>never closed\n{candidate_json(0)}",
        f'An object first: {{"note": 1}} and then {candidate_json(0)}',
        candidate_json(0).replace("\\n", "\n"),  # raw line ends inside the string
        candidate_json(0, code=f"```python\n{CODE}```"),
        json.dumps({**json.loads(candidate_json(0)), "confidence": 0.9}),
    ],
    ids=[
        "fenced",
        "after prose",
        "after thinking",
        "thinking closed only",
        "thinking never closed",
        "after another object",
        "raw line ends",
        "fenced code",
        "more fields",
    ],
)
def test_json_in_other_text_is_found(text: str) -> None:
    assert parse_reply(text, LIMIT).code == CODE


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no JSON object"),
        ("I would use a delta rule.", "no JSON object"),
        ("[1, 2]", "no JSON object"),
        (candidate_json(0)[:-40], "cannot be read: Unterminated string"),
        (candidate_json(0).replace("\\n", "\\q"), "cannot be read: Invalid \\escape"),
        (candidate_json(0, code=None), "field 'code': field required"),
        (candidate_json(0, name=None, motivation=None), "field 'motivation': field required"),
        ('{"name": 3, "motivation": "m", "expectation": "e", "code": "c"}', "field 'name'"),
        (candidate_json(0, name=" \n\t"), "field 'name': must not be empty"),
        (candidate_json(0, name="n" * 81), "'name': has 81 characters, at most 80"),
        (candidate_json(0, motivation="m" * 2001), "'motivation': has 2001 characters"),
        (candidate_json(0, code="  \n"), "field 'code': must not be empty"),
        (candidate_json(0, code="x = 1\n" * 20_000), "'code' has 120000 bytes, at most 65536"),
        (candidate_json(0, code="x = '\ud800'"), "half a surrogate pair"),
        ('{"code": ' + "9" * 5_000 + "}", "too long a number"),
        ('{"a":' * 100_000, "cannot be read"),
    ],
)
def test_a_malformed_reply_says_what_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(MalformedReply) as caught:
        parse_reply(text, LIMIT)
    assert reason in str(caught.value)


def test_a_reply_of_endless_openings_is_given_up() -> None:
    with pytest.raises(MalformedReply):
        parse_reply('{"a' * MAX_OBJECTS_TRIED + candidate_json(0), LIMIT)


def test_text_fields_come_out_as_one_printable_line() -> None:
    reply = parse_reply(candidate_json(0, name="Two\nlines \x1b[31mred\u202e"), LIMIT)
    assert reply.name == "Two lines [31mred"
