"""What is read from /proc."""

from __future__ import annotations

import os
import subprocess
import sys

from linearch.evaluator.sandbox.processes import (
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
