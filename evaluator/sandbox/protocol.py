"""Messages over a socketpair: a frame of JSON, then a frame of safetensors if there are tensors.

A frame is a 4-byte big-endian length and that many bytes. Every length is capped before anything is
read, and nothing is ever unpickled: what a child sends can be refused but can never run.
"""

from __future__ import annotations

import json
import math
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

MAX_JSON_BYTES = 1 << 20
MAX_TENSOR_BYTES = 1 << 28
_LENGTH = struct.Struct(">I")
_READ_BYTES = 1 << 18
_DTYPES = frozenset(
    {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool}
    | {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8}
)
_MAX_DIMS = 16
_INT_CHARS = 19  # what 64 bits hold; arithmetic on more could fail in places that expect none


class ProtocolError(Exception):
    """Bytes that are no message: too long, not JSON, not finite, not safetensors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    values: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict)


def encode(values: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> bytes:
    """The frames of one message. Raises ProtocolError if `values` are not finite plain data."""
    try:
        text = json.dumps({**values, "tensors": bool(tensors)}, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ProtocolError(f"cannot be sent as JSON: {error}") from None
    frames = _frame(text.encode())
    return frames + _frame(dump_tensors(tensors)) if tensors else frames


def dump_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """safetensors bytes of copies on the CPU."""
    return safetensors.torch.save(
        {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }
    )


def load_tensors(data: bytes) -> dict[str, Tensor]:
    """The tensors in safetensors bytes.

    Raises ProtocolError for a false header or offsets, and for tensors that torch can hold but not
    calculate with, which would fail where nobody expects it.
    """
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ProtocolError(f"no valid safetensors: {error}") from None
    for tensor in tensors.values():
        if tensor.dtype not in _DTYPES or tensor.ndim > _MAX_DIMS:
            raise ProtocolError(f"a tensor of {tensor.dtype} with {tensor.ndim} axes")
    return tensors


class MessageReader:
    """Turns the bytes of a stream into messages, whatever pieces they arrive in.

    A length beyond its cap raises ProtocolError as soon as it is announced.
    """

    def __init__(self, tensor_cap: int = MAX_TENSOR_BYTES) -> None:
        self.tensor_cap = tensor_cap
        self._received = bytearray()
        self._values: dict[str, Any] | None = None

    def feed(self, data: bytes) -> None:
        self._received += data

    def next_message(self) -> Message | None:
        """The next whole message, or None until more bytes are fed."""
        if self._values is None:
            frame = self._next_frame(MAX_JSON_BYTES)
            if frame is None:
                return None
            values = parse_json(frame)
            if values.pop("tensors", False) is not True:
                return Message(values=values)
            self._values = values
        frame = self._next_frame(self.tensor_cap)
        if frame is None:
            return None
        values, self._values = self._values, None
        return Message(values=values, tensors=load_tensors(frame))

    def _next_frame(self, cap: int) -> bytes | None:
        if len(self._received) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._received)
        if length > cap:
            raise ProtocolError(f"a frame of {length} bytes, at most {cap} are allowed")
        end = _LENGTH.size + length
        if len(self._received) < end:
            return None
        frame = bytes(memoryview(self._received)[_LENGTH.size : end])
        del self._received[:end]
        return frame


def parse_json(frame: bytes) -> dict[str, Any]:
    """One JSON object; refuses numbers beyond bounds, repeated keys and bottomless nesting."""
    try:
        values = json.loads(
            frame.decode(),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_bounded,
            object_pairs_hook=_unique_keys,
        )
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"no valid JSON: {type(error).__name__}: {error}") from None
    if not isinstance(values, dict):
        raise ProtocolError(f"a JSON object was expected, got {type(values).__name__}")
    return values


def send(sock: socket.socket, values: Mapping[str, Any], tensors: Any = None) -> None:
    """Blocks until the message is written; raises OSError when the other end is gone."""
    sock.sendall(encode(values, tensors))


def receive(sock: socket.socket, reader: MessageReader) -> Message:
    """Blocks for one message; raises EOFError when the other end is gone."""
    while (message := reader.next_message()) is None:
        data = sock.recv(_READ_BYTES)
        if not data:
            raise EOFError("the other end of the socket is closed")
        reader.feed(data)
    return message


def _frame(data: bytes) -> bytes:
    if len(data) >= 1 << 32:
        raise ProtocolError(f"{len(data)} bytes do not fit into one frame")
    return _LENGTH.pack(len(data)) + data


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a finite number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:32]} is not a finite number")
    return value


def _bounded(text: str) -> int:
    if len(text) > _INT_CHARS:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("an object repeats a key")
    return values
