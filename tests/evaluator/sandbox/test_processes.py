"""What is read from /proc."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from linearch.evaluator.sandbox.processes import (
    ProcessUsage,
    children_by_scan,
    children_of,
    tree_below,
    usage_of,
)

_PARENT_OF_TWO = """
import subprocess, sys
sleepers = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
print(*[s.pid for s in sleepers], flush=True)
sys.stdin.read()
for s in sleepers: s.kill()
"""


def test_descendants_are_found_by_both_ways_and_a_dead_one_uses_nothing() -> None:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", _PARENT_OF_TWO],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        sleepers = list(map(int, parent.stdout.readline().split()))
        assert children_of(parent.pid) == sleepers
        assert sorted(children_by_scan(parent.pid)) == sorted(sleepers)
        assert set(sleepers) < set(tree_below(os.getpid(), at_most=100))
        assert len(tree_below(os.getpid(), at_most=2)) == 2
        usage = usage_of(sleepers[0])
        parent.communicate()
    assert usage is not None
    assert usage.threads == 1
    assert usage.memory_bytes > 0
    assert usage_of(sleepers[0]) is None
    assert children_of(sleepers[0]) == []


_MIB = 1 << 20
_WITHOUT_FIRST_THREAD = """
import ctypes, os, sys, threading

def go_on():
    kept = bytearray(b"x" * (64 << 20))
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)

threading.Thread(target=go_on).start()
ctypes.CDLL(None).syscall(93 if os.uname().machine == "aarch64" else 60, 0)
"""
_WITH_SHARED_MEMORY = """
import mmap, sys
kept = mmap.mmap(-1, 64 << 20)
kept.write(bytes(64 << 20))
print("ready", flush=True)
sys.stdin.read()
"""


def _usage_during(program: str) -> ProcessUsage | None:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.1)  # a first thread may be ending
        usage = usage_of(process.pid)
        process.communicate()
    return usage


def test_a_process_without_its_first_thread_is_told_and_measured() -> None:
    usage = _usage_during(_WITHOUT_FIRST_THREAD)
    assert usage is not None
    assert not usage.has_first_thread
    assert 64 * _MIB < usage.memory_bytes < 128 * _MIB


def test_shared_memory_is_counted() -> None:
    usage = _usage_during(_WITH_SHARED_MEMORY)
    assert usage is not None
    assert usage.has_first_thread
    assert 64 * _MIB < usage.memory_bytes < 128 * _MIB
