"""One OpenAI-compatible endpoint: requests with retries, structured where the endpoint can.

The only module that imports openai. The key comes from the environment and stays in here: it is
blanked out of every text that leaves.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypedDict
from urllib.parse import SplitResult, urlsplit

from ...config import LLMConfig
from ...errors import ConfigError, PreflightError
from ..proposers.proposal import LLMCall
from .completion import Answer, read_answer, token_counts
from .cost import cost_usd
from .errors import ProviderFailed, ProviderRefused
from .quoting import one_line

if TYPE_CHECKING:
    import openai

CONNECT_TIMEOUT_S = 10.0
CHECK_TIMEOUT_S = 30.0
_QUOTA_CODES = {"insufficient_quota", "billing_hard_limit_reached", "quota_exceeded"}
_FORMAT_STATUSES = {400, 404, 422}  # how endpoints answer to a response_format they do not know


Record = Callable[[LLMCall], None]


class Message(TypedDict):
    """One turn of a conversation, as chat completions take it."""

    role: str  # "system", "user" or "assistant"
    content: str


class LLMClient:
    """Asks one model. Safe to use from several threads; connects on first use."""

    def __init__(self, config: LLMConfig) -> None:
        self.config = config
        self._lock = threading.Lock()
        self._opened: openai.OpenAI | None = None
        self._takes_format = True
        self._secrets: list[str] = []

    def check(self) -> tuple[LLMCall, ...]:
        """Raises PreflightError unless the endpoint answers, takes the key and has the model.

        Only where the model is not listed is it asked for one word, which is returned as a call.
        """
        listed = self._listed_models()
        if self.config.model in listed:
            return ()
        calls: list[LLMCall] = []
        try:
            self.ask(
                [{"role": "user", "content": "Reply with the word: ready"}], "check", calls.append
            )
        except ProviderFailed as error:
            near = difflib.get_close_matches(self.config.model, listed, n=3)
            hint = f" Models it lists are {', '.join(near or listed[:3])}." if listed else ""
            raise PreflightError(one_line(f"{error}{hint}", 800)) from None
        return tuple(calls)

    def ask(
        self,
        messages: list[Message],
        role: str,
        record: Record,
        response_format: dict[str, Any] | None = None,
    ) -> Answer:
        """The model's answer; every request made goes to `record`, failed ones too.

        An endpoint that refuses `response_format` is asked again without, and from then on always.
        Raises ProviderFailed after the last retry, ProviderRefused if asking again is pointless.
        """
        if response_format is None or not self._takes_format:
            return self._request(messages, role, record, {})
        try:
            return self._request(messages, role, record, {"response_format": response_format})
        except ProviderFailed as error:
            if error.status not in _FORMAT_STATUSES:
                raise
        answer = self._request(messages, role, record, {})
        self._takes_format = False
        return answer

    def _request(
        self, messages: list[Message], role: str, record: Record, options: dict[str, Any]
    ) -> Answer:
        import openai

        client: Any = self._connection()
        if self.config.temperature is not None:
            options = {**options, "temperature": self.config.temperature}
        started = time.monotonic()
        outcome: Answer | ProviderFailed
        try:
            completion = client.chat.completions.create(
                model=self.config.model, messages=messages, **options
            )
        except (openai.OpenAIError, ValueError, RecursionError) as error:  # or: it is no JSON
            completion, outcome = None, self._failure(error, self.config.timeout_s)
        else:
            outcome = self._outcome(completion)
        record(self._call(role, messages, started, completion, outcome))
        if isinstance(outcome, ProviderFailed):
            raise outcome  # outside the handler: its cause may quote the key
        return outcome

    def _outcome(self, completion: Any) -> Answer | ProviderFailed:
        answer = read_answer(completion)
        if answer is None:
            body = getattr(completion, "error", None) or completion
            return ProviderFailed(f"{self._where} sent no completion: {self._clean(str(body))}.")
        problem = None if answer.problem is None else self._redact(answer.problem)
        return Answer(self._redact(answer.text), problem)

    def _call(
        self,
        role: str,
        messages: list[Message],
        started: float,
        completion: Any,
        outcome: Answer | ProviderFailed,
    ) -> LLMCall:
        answer = outcome if isinstance(outcome, Answer) else None
        tokens_in, tokens_out = token_counts(completion)
        return LLMCall(
            role=role,
            model=self.config.model,
            prompt=as_text(messages),
            reply=answer.text if answer else None,
            input_tokens=tokens_in,
            output_tokens=tokens_out,
            cost_usd=cost_usd(self.config, tokens_in, tokens_out),
            latency_s=time.monotonic() - started,
            error=answer.problem if answer else str(outcome),
        )

    def _failure(self, error: Exception, timeout_s: float) -> ProviderFailed:
        """One sentence for what openai or the JSON decoder raised."""
        import openai

        if isinstance(error, openai.APITimeoutError):
            return ProviderFailed(
                f"{self._where} gave no reply within {timeout_s:g} s"
                " (proposer.llm.timeout_s and max_retries say how long and how often)."
            )
        if isinstance(error, openai.APIConnectionError):
            cause = self._clean(str(error.__cause__ or error))
            return ProviderFailed(f"{self._where} cannot be reached: {cause}.")
        if isinstance(error, openai.APIStatusError):
            return self._status_failure(error)
        return ProviderFailed(f"{self._where} sent an unreadable body: {self._clean(str(error))}.")

    def _status_failure(self, error: openai.APIStatusError) -> ProviderFailed:
        body, status = error.body, error.status_code
        said = body.get("message", body) if isinstance(body, dict) else body
        answer = f"{self._where} answered {status}: {self._clean(str(said or error.message))}"
        if status in {401, 403}:
            hint = f"check the key in {self.config.api_key_env}"
        elif status == 402 or _QUOTA_CODES & {error.code, error.type}:
            hint = "add credit or name another endpoint"
        elif status == 404:
            hint = f"check proposer.llm.base_url and the model {self.config.model!r}"
        else:
            return ProviderFailed(f"{answer}.", status)
        return ProviderRefused(f"{answer} ({hint}).", status)

    def _listed_models(self) -> list[str]:
        """Ids of the endpoint's models, or none if it keeps no list."""
        import openai

        client = self._connection()
        patience = min(CHECK_TIMEOUT_S, self.config.timeout_s)
        try:
            page = client.with_options(timeout=patience, max_retries=1).models.list()
        except (openai.OpenAIError, ValueError, RecursionError) as error:
            failure = self._failure(error, patience)
            if failure.status in {404, 405, 501}:  # such a list is optional
                return []
            raise PreflightError(str(failure)) from None
        listed = getattr(page, "data", None)
        names = [getattr(m, "id", None) for m in listed] if isinstance(listed, list) else []
        return [name for name in names if isinstance(name, str)]

    def _connection(self) -> openai.OpenAI:
        with self._lock:
            if self._opened is None:
                self._opened = self._connect()
            return self._opened

    def _connect(self) -> openai.OpenAI:
        """The openai client; PreflightError without a key, ConfigError for a wrong address."""
        import openai

        address = _parse_address(self.config.base_url)
        is_local = _is_loopback(address.hostname)
        key = os.environ.get(self.config.api_key_env, "").strip()
        if not key and not is_local:
            raise PreflightError(
                f"The llm proposer needs a key: set the environment variable"
                f" {self.config.api_key_env}, or proposer.llm.api_key_env to the name of another."
            )
        self._secrets = [secret for secret in (key, address.password) if secret]
        return openai.OpenAI(
            base_url=self.config.base_url,
            api_key=key or "none",  # never the library's own fallback to OPENAI_API_KEY
            timeout=openai.Timeout(
                self.config.timeout_s, connect=min(CONNECT_TIMEOUT_S, self.config.timeout_s)
            ),
            max_retries=self.config.max_retries,
            # A proxy from the environment cannot reach this machine's own servers.
            http_client=openai.DefaultHttpxClient(trust_env=False) if is_local else None,
        )

    @property
    def _where(self) -> str:
        address = urlsplit(str(self._connection().base_url))
        return f"The endpoint {address.hostname}{f':{address.port}' if address.port else ''}"

    def _clean(self, text: str) -> str:
        return one_line(self._redact(text)).rstrip(". ")

    def _redact(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "[key]")
        return text


def as_text(messages: list[Message]) -> str:
    """A conversation as one readable text, as it is stored and shown."""
    return "\n\n".join(f"### {message['role']}\n{message['content']}" for message in messages)


def _parse_address(base_url: str | None) -> SplitResult:
    """The configured address (empty without one); raises ConfigError unless it is http or https."""
    try:
        address = urlsplit(base_url or "")
        is_sound = base_url is None or (address.scheme in {"http", "https"} and address.port != 0)
    except ValueError:
        is_sound = False
    if not is_sound:
        raise ConfigError(
            "proposer.llm.base_url must be an address such as http://localhost:8000/v1."
        )
    return address


def _is_loopback(host: str | None) -> bool:
    if host is None:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # another name
        return False
