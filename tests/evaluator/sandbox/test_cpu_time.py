"""The CPU time of another process, read through its pidfd, and of a child by its handle."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

from linearch.evaluator.sandbox.cpu_time import process_cpu_s
from linearch.evaluator.sandbox.limits import Limits
from linearch.evaluator.sandbox.supervisor import Sandbox

_BUSY_ON_A_THREAD = """
import threading

def burn():
    while time.thread_time() < 0.05: pass

worker = threading.Thread(target=burn)
worker.start()
worker.join()
"""


def test_it_is_the_time_that_the_process_itself_measures() -> None:
    ours = os.pidfd_open(os.getpid())
    before = time.process_time()
    seen = process_cpu_s(ours)
    after = time.process_time()
    os.close(ours)

    assert seen is not None
    assert before <= seen <= after


def test_a_process_that_is_gone_has_none() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    theirs = os.pidfd_open(process.pid)
    process.wait()

    assert process_cpu_s(theirs) is None
    os.close(theirs)


def test_a_childs_time_holds_that_of_ended_threads_and_goes_with_the_child(
    sandbox: Sandbox, limits: Limits, hostile_source: Callable[..., str]
) -> None:
    source = {"source": hostile_source(top=_BUSY_ON_A_THREAD), "convention": "linearch"}
    with sandbox.spawn(limits) as child:
        child.await_confinement()
        before_s = child.cpu_s
        child.call("load", source)
        after_s = child.cpu_s
    assert before_s is not None
    assert after_s is not None
    assert 0.05 <= after_s - before_s < 5
    assert child.cpu_s is None
