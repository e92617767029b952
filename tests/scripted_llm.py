"""An OpenAI-compatible server on 127.0.0.1 that answers from a script, for tests over real HTTP.

    with ScriptedLLM([status(500), good(1)], then=lambda received, n: good(n)) as server: ...

Each chat request takes the next answer of the script, later ones whatever `then` gives.
`server.requests` holds what was asked and `server.most_in_flight` how many were open at once.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

MODEL = "scripted-model"


@dataclass(frozen=True, kw_only=True)
class Scripted:
    """One answer. `stall_s` keeps the client waiting before anything is sent."""

    status: int = 200
    body: dict[str, Any] | str = ""
    headers: dict[str, str] = field(default_factory=dict)
    stall_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Received:
    """One chat request as the server saw it."""

    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def system(self) -> str:
        return "\n".join(m["content"] for m in self.body["messages"] if m["role"] == "system")

    @property
    def prompt(self) -> str:
        """Everything but the system prompt."""
        return "\n".join(m["content"] for m in self.body["messages"] if m["role"] != "system")


def reply(
    content: str | None,
    *,
    usage: tuple[int, int] | None = (1000, 200),
    finish_reason: str = "stop",
    refusal: str | None = None,
) -> Scripted:
    """A completion with this text and (prompt, completion) token counts."""
    message = {"role": "assistant", "content": content, "refusal": refusal}
    body: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
    }
    if usage is not None:
        total = sum(usage)
        body["usage"] = dict(prompt_tokens=usage[0], completion_tokens=usage[1], total_tokens=total)
    return Scripted(body=body)


def good(variant: int = 0, **changes: str | None) -> Scripted:
    """A candidate that passes every gate; `changes` replace or, if None, drop fields."""
    return reply(candidate_json(variant, **changes))


def candidate_json(variant: int = 0, **changes: str | None) -> str:
    """The JSON text of a good reply."""
    fields: dict[str, str | None] = {
        "name": f"Scripted decay {variant}",
        "motivation": f"Heads forget with half-lives that start {variant + 1} times apart.",
        "expectation": "val_bpb falls by 0.05 against the parent; no change refutes it.",
        "code": mixer_source(variant),
        **changes,
    }
    return json.dumps({name: text for name, text in fields.items() if text is not None})


def status(code: int, message: str = "scripted", **headers: str) -> Scripted:
    """An error answer; header names are given with underscores, `Retry_After="0"`."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Scripted(status=code, body={"error": {"message": message}}, headers=names)


def stalled(seconds: float) -> Scripted:
    """A good answer that comes too late."""
    return Scripted(body=good().body, stall_s=seconds)


def mixer_source(variant: int = 0) -> str:
    """A sound mixer under the contract; other variants have other normalised sources."""
    feature = ("elu_plus_one", "softmax_feature", "squared_relu", "relu")[variant % 4]
    return f'''\
"""Linear attention whose heads forget at rates that start far apart and are learned."""

import torch
import torch.nn.functional as F
from torch import nn

from linearch.kernels import chunk_decay
from linearch.search_space.layers import RMSNorm, {feature}, merge_heads, split_heads


class Mixer(nn.Module):
    def __init__(self, d_model, n_heads, layer_idx, n_layers):
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.rate = nn.Parameter(torch.linspace(-4.0, {-3.0 + 0.05 * variant:.2f}, n_heads))
        self.norm = RMSNorm(d_model // n_heads)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x, state=None):
        q, k, v = (split_heads(part, self.n_heads) for part in self.qkv(x).chunk(3, dim=-1))
        memory = None if state is None else state["memory"]
        o, memory = chunk_decay(
            {feature}(q), {feature}(k), v, -F.softplus(self.rate), initial_state=memory
        )
        return self.out(merge_heads(self.norm(o))), {{"memory": memory}}
'''


class ScriptedLLM:
    """The server. `gather` holds chat answers back until so many requests are open together.

    `takes_format=False` refuses `response_format` with a 400, `key` refuses every other key with a
    401, `models=None` answers the list of models with a 404. A model not listed is always a 404.
    """

    def __init__(
        self,
        script: Iterable[Scripted] = (),
        *,
        then: Callable[[Received, int], Scripted] = lambda received, n: good(n),
        takes_format: bool = True,
        key: str | None = None,
        models: tuple[str, ...] | None = (MODEL,),
        gather: int = 1,
    ) -> None:
        self.requests: list[Received] = []
        self.most_in_flight = 0
        self._script = list(script)
        self._then, self._takes_format, self._key, self._models = then, takes_format, key, models
        self._gather, self._gathered = gather, threading.Event()
        self._lock = threading.Lock()
        self._in_flight = 0
        self._closing = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    @property
    def settings(self) -> dict[str, Any]:
        """The dotted settings that point a search at this server."""
        return {"proposer.llm.base_url": self.base_url, "proposer.llm.model": MODEL}

    @property
    def prompts(self) -> list[str]:
        return [received.prompt for received in self.requests]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._gathered.set()
        self._http.shutdown()
        self._http.server_close()

    def _chat(self, received: Received) -> Scripted:
        with self._lock:
            index = len(self.requests)
            self.requests.append(received)
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
            if self._in_flight >= self._gather:
                self._gathered.set()
        try:
            if not self._gathered.wait(timeout=10):
                return status(400, "fewer requests came together than this test wants")
            answer = self._refusal(received) or self._next(received, index)
            self._closing.wait(answer.stall_s)
            return answer
        finally:
            with self._lock:
                self._in_flight -= 1

    def _refusal(self, received: Received) -> Scripted | None:
        if received.body["model"] not in (self._models or (MODEL,)):
            return status(404, f"The model {received.body['model']} does not exist.")
        if "response_format" in received.body and not self._takes_format:
            return status(400, "response_format is not supported")
        return None

    def _next(self, received: Received, index: int) -> Scripted:
        with self._lock:
            if self._script:
                return self._script.pop(0)
        return self._then(received, index)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                listed = [{"id": m, "object": "model"} for m in server._models or ()]
                known = server._models is not None and self.path == "/v1/models"
                body = {"object": "list", "data": listed}
                self.answer(Scripted(body=body) if known else status(404, "no such path"))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                received = Received(body=body, headers=dict(self.headers))
                is_chat = self.path == "/v1/chat/completions"
                self.answer(server._chat(received) if is_chat else status(404, "no such path"))

            def answer(self, answer: Scripted) -> None:
                sent_key = (self.headers["Authorization"] or "").removeprefix("Bearer ")
                if server._key not in (None, sent_key):
                    answer = status(401, f"Incorrect API key provided: {sent_key}.")
                is_json = isinstance(answer.body, dict)
                raw = (json.dumps(answer.body) if is_json else str(answer.body)).encode()
                with contextlib.suppress(ConnectionError):  # the client no longer waits
                    self.send(answer, raw, "application/json" if is_json else "text/html")

            def send(self, answer: Scripted, raw: bytes, content_type: str) -> None:
                self.send_response(answer.status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(raw)))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, format: str, *args: object) -> None:
                """Keeps the tests' output clean."""

        return Handler
