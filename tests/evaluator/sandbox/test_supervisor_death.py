"""kill -9 of the supervisor takes the zygote, the child, its daemon and their files with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

_SUPERVISOR = """
import sys
from pathlib import Path
from linearch.evaluator.sandbox.failures import ChildFailed
from linearch.evaluator.sandbox.limits import MIB, Limits
from linearch.evaluator.sandbox.processes import tree_below
from linearch.evaluator.sandbox.supervisor import Sandbox

sandbox = Sandbox(Path(sys.argv[1]), profile="compile")
child = sandbox.spawn(Limits(wall_s=60, memory_bytes=512 * MIB))
child.call("load", {"source": Path(sys.argv[2]).read_text(), "convention": "linearch"})
print(sandbox.zygote_pid, *tree_below(sandbox.zygote_pid, 9), flush=True)
child.call("build", {"model": {"vocab_size": 8, "d_model": 8, "n_layers": 1, "n_heads": 1,
                               "mlp_width": 8}, "seed": 0})
"""

_DAEMON = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)
os.wait()
"""


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_no_process_outlives_a_killed_supervisor(
    tmp_path: Path, hostile_source: Callable[..., str]
) -> None:
    source = tmp_path / "candidate.py"
    source.write_text(hostile_source(top=_DAEMON, init="time.sleep(60)"))
    with subprocess.Popen(
        [sys.executable, "-c", _SUPERVISOR, str(tmp_path / "sandbox"), str(source)],
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        text=True,
    ) as supervisor:
        assert supervisor.stdout is not None
        pids = list(map(int, supervisor.stdout.readline().split()))
        assert len(pids) == 3  # zygote, child, daemon
        assert all(map(_is_running, pids))
        os.kill(supervisor.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(map(_is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(_is_running, pids))
    assert not (tmp_path / "sandbox").exists()
