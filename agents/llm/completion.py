"""What came back from an endpoint, read without trust: any field may be missing or of any type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .quoting import one_line

MAX_REPLY_CHARS = 262_144  # a source file of 64 KiB, escaped, after long thinking


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model wrote; `problem` says why it cannot be used (empty, cut off, declined)."""

    text: str
    problem: str | None = None


def read_answer(completion: Any) -> Answer | None:
    """The first choice of a chat completion, or None if the body is no completion."""
    choices = getattr(completion, "choices", None)
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(choice, "message", None)
    if message is None:
        return None
    text = _text(getattr(message, "content", None))
    finish_reason = getattr(choice, "finish_reason", None)
    if refusal := getattr(message, "refusal", None):
        return Answer(text, f"The model declined: {one_line(str(refusal)).rstrip('.')}.")
    if finish_reason == "content_filter":
        return Answer(text, "The endpoint's content filter withheld the reply.")
    if not text.strip():
        return Answer(text, "The reply was empty.")
    if len(text) > MAX_REPLY_CHARS:
        excess = f"The reply had {len(text)} characters, at most {MAX_REPLY_CHARS} are read."
        return Answer(text[:MAX_REPLY_CHARS], excess)
    if finish_reason == "length":
        return Answer(text, "The reply was cut off at the endpoint's limit: write a shorter one.")
    return Answer(text)


def token_counts(completion: Any) -> tuple[int | None, int | None]:
    """(prompt, completion) tokens, None where the endpoint does not give a count."""
    usage = getattr(completion, "usage", None)
    counts = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
    prompt, written = (n if isinstance(n, int) and n >= 0 else None for n in counts)
    return prompt, written


def _text(content: object) -> str:
    """A message's text, which some endpoints send in parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
