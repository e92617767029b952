"""The CPU time of another process, read through its pidfd."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from linearch.evaluator.sandbox.cpu_time import process_cpu_s


def test_it_is_the_time_that_the_process_itself_measures():
    ours = os.pidfd_open(os.getpid())
    before = time.process_time()
    seen = process_cpu_s(ours)
    after = time.process_time()
    os.close(ours)

    assert seen is not None
    assert before <= seen <= after


def test_a_process_that_is_gone_has_none():
    process = subprocess.Popen([sys.executable, "-c", ""])
    theirs = os.pidfd_open(process.pid)
    process.wait()

    assert process_cpu_s(theirs) is None
    os.close(theirs)
