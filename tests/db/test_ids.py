from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from linearch.db import ids, new_id


def test_ids_grow_within_one_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 2_000_000_000_000_000_000)
    monkeypatch.setattr(ids, "_last", 0)
    made = [new_id() for _ in range(500)]
    assert made == sorted(set(made))


def test_ids_grow_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = new_id()
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000_000_000_000)
    assert new_id() > before


def test_an_id_is_26_characters_that_begin_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = new_id()
    monkeypatch.setattr(ids, "_last", 0)  # restored afterwards: later ids follow the real clock
    monkeypatch.setattr(time, "time_ns", lambda: 0xFFFF_FFFF_FFFF * 1_000_000)
    latest = new_id()
    assert len(earlier) == len(latest) == 26
    assert latest.startswith("7ZZZZZZZZZ")
    assert set(earlier) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ")


def test_threads_never_make_the_same_id() -> None:
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: new_id(), range(4000)))
    assert len(set(made)) == len(made)


def test_a_forked_process_does_not_count_on_from_its_parent() -> None:
    new_id()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, new_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs, ours = os.read(reader, 26).decode(), new_id()
    assert theirs[-8:] != ours[-8:]
