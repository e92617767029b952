"""The supervisor's hold on one child: requests, replies, deadlines and the end of it."""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from .artifacts import read_artifact, write_artifact
from .cpu_time import process_cpu_s
from .failures import ChildFailed, FailureKind, SandboxFault, printable
from .protocol import MAX_TENSOR_BYTES, Message, MessageReader, ProtocolError, encode
from .watchdog import POLL_S, Watchdog

_POLL_MS = round(1000 * POLL_S)
_EXIT_MS = 2000
_READ_BYTES = 1 << 18
_KEPT_OUTPUT_BYTES = 1 << 16
_SHOWN_OUTPUT_CHARS = 600  # what CUDA says of an error takes 500
_MESSAGE_CHARS = 600
_MAX_EVENTS = 10_000
_COUNTED_SILENCE_S = 1.0  # at a time: while this machine stands still, nobody can speak
_KINDS: tuple[FailureKind, ...] = ("raised", "oom", "protocol")

OnEvent = Callable[[dict[str, Any]], None]


class Child:
    """A process that holds one candidate. Made by Sandbox.spawn; use it as a context manager.

    A ChildFailed other than "raised" has ended the process; so does leaving the context.
    """

    def __init__(
        self,
        *,
        channel: socket.socket,
        output: int,
        process: int,
        scratch: int,
        watchdog: Watchdog,
        end: Callable[[bool], int | None],
        release: Callable[[], None],
        layers: frozenset[str],
    ) -> None:
        """`process`: a pidfd. `end` kills and reaps the child and all below it, given whether it is
        at work; its wait status, or None if the zygote is gone. `release` removes the scratch
        folder. `layers`: what must confine it before it gets a candidate.
        """
        channel.setblocking(False)
        os.set_blocking(output, False)
        self._channel, self._output, self._process = channel, output, process
        self._scratch = scratch
        self._watchdog = watchdog
        self._end, self._release = end, release
        self._reader = MessageReader()
        self._unsent = memoryview(b"")
        self._printed = bytearray()
        self._layers = layers
        self._is_confined = self._is_working = False
        self._is_open = True
        self._has_output = True
        self._patience_s = math.inf
        self._silent_s = 0.0
        self._poll = select.poll()
        for descriptor in (channel.fileno(), output, process):
            self._poll.register(descriptor, select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def process(self) -> int:
        """A pidfd, to measure the process by."""
        return self._process

    @property
    def cpu_s(self) -> float | None:
        """CPU seconds of all its threads since its start, in nanoseconds' steps; compilers that it
        started are not among them. None once it has ended.
        """
        return process_cpu_s(self._process) if self._is_open else None

    @property
    def left_s(self) -> float:
        return self._watchdog.left_s

    @property
    def peak_memory_bytes(self) -> int:
        """The most that was seen of what the child uses beyond the zygote's own."""
        return self._watchdog.peak_bytes

    @property
    def printed(self) -> str:
        """The first 64 KiB of what the child wrote to its output."""
        return self._printed.decode(errors="replace")

    def call(
        self,
        op: str,
        values: Mapping[str, Any] | None = None,
        tensors: Mapping[str, Tensor] | None = None,
        *,
        reply_bytes: int = MAX_TENSOR_BYTES,
        on_event: OnEvent | None = None,
    ) -> Message:
        """Sends a request and waits for its reply; `on_event` gets what is reported on the way.

        What was left in the scratch folder can be read also after a failure.

        Raises ChildFailed: the candidate's exception ("raised": the child lives on), a broken
        limit, a malformed reply or one with more than `reply_bytes` of tensors, or its death.
        SandboxFault if the child did not come up as it must.
        """
        self.await_confinement()
        self._reader.tensor_cap = reply_bytes
        self._unsent = memoryview(encode({**(values or {}), "op": op}, tensors))
        self._is_working = True
        try:
            reply = _result(self._reply(on_event))
        except ProtocolError as error:
            self._stop()
            raise ChildFailed("protocol", printable(str(error))) from None
        except ChildFailed as failure:
            self._is_working = failure.kind != "raised"
            if self._is_working:
                self._stop()
            raise
        finally:
            self._patience_s = math.inf
        self._is_working = False
        return reply

    def expect_within(self, patience_s: float) -> None:
        """Until the reply, a silence of more than `patience_s` from now on, or since something was
        heard, is a failure: "stalled"."""
        self._patience_s, self._silent_s = patience_s, 0.0

    def await_confinement(self) -> dict[str, Any]:
        """What the child says of its confinement, once; no candidate has run in it before."""
        if self._is_confined:
            return {}
        try:
            said = self._next_message().values
        except ChildFailed:
            self.close()
            raise
        self._is_confined = self._watchdog.holds_candidate = True
        if lacking := self._layers - set(said["layers"]):
            self.close()
            reasons = "; ".join(said["missing"].get(layer, layer) for layer in sorted(lacking))
            raise SandboxFault(f"a child came up without {', '.join(sorted(lacking))}: {reasons}")
        return said

    def write(self, name: str, data: bytes) -> None:
        write_artifact(self._scratch, name, data)

    def read(self, name: str, at_most: int) -> bytes:
        """A file that the child left; ends the child first, so that nothing can still change it."""
        self._stop()
        return read_artifact(self._scratch, name, at_most)

    def close(self) -> None:
        self._stop()
        if self._scratch >= 0:
            os.close(self._scratch)
            self._scratch = -1
            self._release()

    def _stop(self) -> int | None:
        if not self._is_open:
            return None
        self._is_open = False
        try:
            status = self._end(self._is_working)
            self._read_output()
        finally:
            self._channel.close()
            os.close(self._output)
            os.close(self._process)
        return status

    def _reply(self, on_event: OnEvent | None) -> Message:
        """The message that ends a request, after any number of events."""
        for _ in range(_MAX_EVENTS):
            message = self._next_message()
            if "event" not in message.values:
                self._watchdog.look()  # so that a short call's memory is seen, too
                return message
            if on_event is not None:
                on_event(message.values)
        raise ChildFailed("protocol", f"more than {_MAX_EVENTS} messages to one request")

    def _next_message(self) -> Message:
        while (message := self._reader.next_message()) is None:
            self._pump()
        return message

    def _pump(self) -> None:
        """Moves whatever can be moved within 50 ms, then lets the watchdog look."""
        began_s = time.monotonic()
        wanted = select.POLLIN | (select.POLLOUT if self._unsent else 0)
        self._poll.modify(self._channel.fileno(), wanted)
        ready = dict(self._poll.poll(_POLL_MS))
        if self._output in ready:
            self._read_output()
        received = self._receive() if self._channel.fileno() in ready else False
        self._watchdog.check()
        if self._process in ready and not received:
            raise self._death()
        self._check_silence(0.0 if received else time.monotonic() - began_s)

    def _check_silence(self, silent_s: float) -> None:
        """Adds to the silence; one of no length ends it."""
        self._silent_s = self._silent_s + min(silent_s, _COUNTED_SILENCE_S) if silent_s else 0.0
        if self._silent_s > self._patience_s:
            raise ChildFailed("stalled", f"nothing was heard for {self._silent_s:.0f} s")

    def _receive(self) -> bool:
        """Sends and receives what is possible at once; whether anything came."""
        try:
            if self._unsent:
                self._unsent = self._unsent[self._channel.send(self._unsent) :]
        except BlockingIOError:
            pass
        except ConnectionError:
            self._unsent = memoryview(b"")  # the child is dying: its death says more
        try:
            data = self._channel.recv(_READ_BYTES)
        except BlockingIOError:
            return False
        except ConnectionError:
            data = b""
        if not data:
            raise self._death()
        self._reader.feed(data)
        return True

    def _read_output(self) -> None:
        try:
            data = os.read(self._output, _READ_BYTES)
        except BlockingIOError:
            return
        if not data and self._has_output:  # every writer has closed it
            self._has_output = False
            self._poll.unregister(self._output)
        self._watchdog.output_bytes += len(data)
        self._printed += data[: _KEPT_OUTPUT_BYTES - len(self._printed)]

    def _death(self) -> Exception:
        """Why the process is gone, or going: its exit can take longer than its socket's end."""
        exit_poll = select.poll()
        exit_poll.register(self._process, select.POLLIN)
        is_dead = bool(exit_poll.poll(_EXIT_MS))
        status = self._stop()
        if status is None:
            return SandboxFault("the zygote died while it had a child")
        if not is_dead:
            return ChildFailed("protocol", "the process closed its connection")
        last_words = printable(self.printed.strip()[-_SHOWN_OUTPUT_CHARS:])
        said = f"; it last said: {last_words}" if last_words else ""
        if not self._is_confined:
            return SandboxFault(f"a child did not come up (wait status {status}){said}")
        if not os.WIFSIGNALED(status):
            code = os.waitstatus_to_exitcode(status)
            return ChildFailed("crashed", f"exited with status {code} without an answer{said}")
        if (number := os.WTERMSIG(status)) == signal.SIGKILL:
            reason = "killed from outside, as the kernel does when memory runs out"
            return ChildFailed("oom", reason + said)
        return ChildFailed("crashed", f"killed by {signal.Signals(number).name}{said}")


def _result(message: Message) -> Message:
    """What the child answered; raises what the candidate did, or ProtocolError for neither."""
    result, error = message.values.get("result"), message.values.get("error")
    if isinstance(result, dict):
        return Message(values=result, tensors=message.tensors)
    if isinstance(error, dict) and error.get("kind") in _KINDS:
        said = str(error.get("message"))[:_MESSAGE_CHARS]  # a child's own cut is its word
        raise ChildFailed(error["kind"], printable(said))
    raise ProtocolError("the reply holds neither a result nor an error")
