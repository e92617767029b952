"""The reply a model is asked for, and how it is found in what the model wrote."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from .errors import MalformedReply
from .quoting import one_line

MAX_OBJECTS_TRIED = 200  # nested braces would cost quadratic time otherwise
_OBJECT_START = re.compile(r'\{\s*"')
_CODE_FENCE = re.compile(r"\A\s*```[\w-]*\n(.*?)\n?```\s*\Z", re.DOTALL)


def _line(limit: int) -> AfterValidator:
    def check(text: str) -> str:
        line = one_line(text, limit=len(text) + 1)
        if not line:
            raise ValueError("must not be empty")
        if len(line) > limit:
            raise ValueError(f"has {len(line)} characters, at most {limit} are allowed")
        return line

    return AfterValidator(check)


def _unfenced(code: str) -> str:
    match = _CODE_FENCE.match(code)
    code = (match[1] if match else code).strip("\n")
    if not code.strip():
        raise ValueError("must not be empty")
    if any("\ud800" <= character <= "\udfff" for character in code):
        raise ValueError("holds half a surrogate pair, which no encoding can store")
    return code + "\n"


class CandidateReply(BaseModel):
    """One architecture as a model hands it in. Reasons come first: they are written first."""

    # Limits are validators, not schema keywords: strict structured output knows few keywords.
    model_config = ConfigDict(extra="ignore", json_schema_extra={"additionalProperties": False})

    name: Annotated[str, _line(80)] = Field(description="two to four words, CamelCase or plain")
    motivation: Annotated[str, _line(2_000)] = Field(
        description="the mechanism, and why it should help, from the evidence given"
    )
    expectation: Annotated[str, _line(1_000)] = Field(
        description="which measurement moves, which way, by about how much, and what refutes it"
    )
    code: Annotated[str, AfterValidator(_unfenced)] = Field(
        description="the complete Python file with one class Mixer"
    )


def response_format() -> dict[str, Any]:
    """The reply's shape as chat completions take it for structured output."""
    schema = CandidateReply.model_json_schema()
    del schema["description"]
    return {
        "type": "json_schema",
        "json_schema": {"name": "candidate", "strict": True, "schema": schema},
    }


def parse_reply(text: str, max_code_bytes: int) -> CandidateReply:
    """The candidate in a reply: bare JSON, or JSON in a fence, after prose or after thinking.

    Raises MalformedReply with one sentence that a repair prompt can quote.
    """
    try:
        reply = CandidateReply.model_validate(_find_object(text))
    except ValidationError as error:
        raise MalformedReply(_explain(error)) from None
    size = len(reply.code.encode())
    if size > max_code_bytes:
        raise MalformedReply(
            f"The field 'code' has {size} bytes, at most {max_code_bytes} are allowed."
        )
    return reply


def _find_object(text: str) -> dict[str, Any]:
    """The first JSON object that has a `code` field; text before `</think>` is searched last."""
    _, _, answer = text.rpartition("</think>")
    found, trouble = _objects(answer)
    if not found and answer != text:
        found, trouble = _objects(text)
    with_code = next((table for table in found if "code" in table), None)
    if with_code is not None:
        return with_code
    if trouble:  # before the objects without code: they may be pieces of the broken one
        raise MalformedReply(f"The JSON object in the reply cannot be read: {trouble[0]}.")
    if not found:
        raise MalformedReply("The reply holds no JSON object.")
    return found[0]


def _objects(text: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Every JSON object that can be read from the text, and why the others cannot."""
    decoder = json.JSONDecoder(strict=False)  # models put raw newlines into strings
    found, trouble, end = [], [], 0
    for start in list(_OBJECT_START.finditer(text))[:MAX_OBJECTS_TRIED]:
        if start.start() < end:  # inside the object just read
            continue
        try:
            table, end = decoder.raw_decode(text, start.start())
        except json.JSONDecodeError as error:
            trouble.append(f"{error.msg} at character {error.pos - start.start()} of the object")
        except (RecursionError, ValueError):  # too deep, or a number of thousands of digits
            trouble.append("it is nested too deeply or holds too long a number")
        else:
            found.append(table)
    return found, trouble


def _explain(error: ValidationError) -> str:
    problems = []
    for item in error.errors():
        field = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        problems.append(f"field {field!r}: {message[:1].lower()}{message[1:]}")
    return f"The JSON object is not as asked for: {'; '.join(problems)}."
