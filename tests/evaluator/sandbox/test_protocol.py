"""Frames: what arrives whole is the message, and anything else is refused without harm."""

from __future__ import annotations

import json
import pickle
import struct

import pytest
import torch

from linearch.evaluator.sandbox.protocol import (
    MAX_JSON_BYTES,
    MessageReader,
    ProtocolError,
    dump_tensors,
    encode,
    load_tensors,
    parse_json,
)


def _frame(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_messages_survive_any_cut_of_the_stream(piece: int) -> None:
    x = torch.randn(3, 5, dtype=torch.bfloat16)
    stream = encode({"op": "forward", "n": 1}, {"x": x}) + encode({"op": "end"})
    reader = MessageReader()
    messages = []
    for start in range(0, len(stream), piece):
        reader.feed(stream[start : start + piece])
        while (message := reader.next_message()) is not None:
            messages.append(message)
    assert [message.values for message in messages] == [{"op": "forward", "n": 1}, {"op": "end"}]
    assert torch.equal(messages[0].tensors["x"], x)


@pytest.mark.parametrize("length", [MAX_JSON_BYTES + 1, 2**32 - 1])
def test_a_frame_too_long_is_refused_by_its_header_alone(length: int) -> None:
    reader = MessageReader()
    reader.feed(struct.pack(">I", length))
    with pytest.raises(ProtocolError, match=str(length)):
        reader.next_message()


def test_a_tensor_frame_is_capped_by_what_the_call_allows() -> None:
    reader = MessageReader(tensor_cap=100)
    reader.feed(encode({}, {"x": torch.zeros(100)}))
    with pytest.raises(ProtocolError, match="at most 100"):
        reader.next_message()


@pytest.mark.parametrize(
    "text",
    [
        b'{"loss": NaN}',
        b'{"loss": -Infinity}',
        b'{"loss": 1e999}',
        b'{"a": 1, "a": 2}',
        b'{"a": ' + b"[" * 100_000,
        b"[1, 2]",
        b"\xff\xfe",
        b'{"a": ' + b"9" * 10_000 + b"}",
        pickle.dumps({"result": {}}),
        b"",
    ],
    ids=lambda text: repr(text[:16]),
)
def test_json_that_no_honest_child_sends_is_refused(text: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_json(text)


def _with_header(header: object, data: bytes = b"\0" * 8) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        struct.pack("<Q", 2**60) + b"{}",
        _with_header({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4_000_000_000]}}),
        _with_header({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 8]}}),
        _with_header({"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}),
        _with_header({"x": {"dtype": "Q7", "shape": [2], "data_offsets": [0, 8]}}),
        _with_header({"x": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}),
        _with_header({"x": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}),
        _with_header({"x": {"dtype": "F32", "shape": [2] + 69 * [1], "data_offsets": [0, 8]}}),
        _with_header([1, 2]),
        dump_tensors({"x": torch.zeros(4)})[:-1],
    ],
)
def test_false_safetensors_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        load_tensors(data)


def test_a_tensor_frame_without_safetensors_is_refused() -> None:
    reader = MessageReader()
    reader.feed(_frame(b'{"tensors": true}') + _frame(b"no tensors"))
    with pytest.raises(ProtocolError, match="safetensors"):
        reader.next_message()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, torch.zeros(1)])
def test_what_is_no_finite_plain_data_is_not_sent(value: object) -> None:
    with pytest.raises(ProtocolError):
        encode({"value": value})


def test_views_and_shared_tensors_are_sent_as_what_they_show() -> None:
    whole = torch.arange(6.0)
    tensors = load_tensors(dump_tensors({"even": whole[::2], "whole": whole, "again": whole}))
    assert torch.equal(tensors["even"], whole[::2])
    assert torch.equal(tensors["again"], whole)
