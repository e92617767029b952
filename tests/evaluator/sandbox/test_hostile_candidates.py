"""Candidates that hang, die, flood or flee: each ends as its own class, nothing is left of it."""

from __future__ import annotations

import os
import platform
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hostile_scene import Bare

from linearch.evaluator.sandbox import watchdog
from linearch.evaluator.sandbox.failures import ChildFailed, SandboxFault
from linearch.evaluator.sandbox.handle import Child
from linearch.evaluator.sandbox.limits import MIB, Limits
from linearch.evaluator.sandbox.processes import ProcessUsage, tree_below, usage_of
from linearch.evaluator.sandbox.supervisor import Sandbox

MakeSource = Callable[..., str]

_MODEL = {
    "vocab_size": 32,
    "d_model": 8,
    "n_layers": 1,
    "n_heads": 1,
    "mlp_width": 8,
    "pattern": "L",
    "window": 4,
}

# Sends bytes of its own over the child's socket, in place of the reply.
_FORGE = """
for fd in range(3, 64):
    try:
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            os.write(fd, {data!r})
            {then}
    except OSError:
        pass
"""


def _build(child: Child, source: str) -> None:
    child.call("load", {"source": source, "convention": "linearch"})
    child.call("build", {"model": _MODEL, "seed": 0})


def _hidden(child: Child, source: str) -> torch.Tensor:
    _build(child, source)
    tokens = torch.zeros(1, 4, dtype=torch.int64)
    asked = {"precision": "fp32", "train": False}
    return child.call("hidden", asked, {"tokens": tokens}).tensors["hidden"]


def _failure(sandbox: Sandbox, limits: Limits, source: str) -> ChildFailed:
    """How the candidate fails, after making sure that no process of it is left."""
    with sandbox.spawn(limits) as child, pytest.raises(ChildFailed) as failure:
        _hidden(child, source)
    assert _below(sandbox) == []
    return failure.value


def _below(sandbox: Sandbox) -> list[int]:
    assert sandbox.zygote_pid is not None
    return tree_below(sandbox.zygote_pid, at_most=100)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_an_honest_candidate_answers(
    sandbox: Sandbox, limits: Limits, hostile_source: MakeSource
) -> None:
    with sandbox.spawn(limits) as child:
        hidden = _hidden(child, hostile_source())
        assert child.peak_memory_bytes > 0
    assert hidden.shape == (1, 4, 8)


@pytest.mark.parametrize("place", ["top", "init", "forward"])
def test_an_endless_loop_is_cut_at_the_deadline(
    place: str, sandbox: Sandbox, limits: Limits, hostile_source: MakeSource
) -> None:
    assert sandbox.containment.level != "process"  # the zygote is up before the clock starts
    ignoring = "for s in (1, 2, 15): signal.signal(s, signal.SIG_IGN)\nwhile True: pass"
    started = time.monotonic()
    failure = _failure(sandbox, replace(limits, wall_s=0.7), hostile_source(**{place: ignoring}))
    assert failure.kind == "timeout"
    assert time.monotonic() - started < 0.7 + 2


@pytest.mark.parametrize(
    ("forward", "kind", "says"),
    [
        ("sys.exit(0)", "crashed", "SystemExit"),
        ("os._exit(0)", "crashed", "status 0"),
        ("ctypes.string_at(0)", "crashed", "SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGABRT)", "crashed", "SIGABRT"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "oom", "killed from outside"),
        ("os.kill(os.getpid(), signal.SIGSTOP)", "timeout", "no answer"),
        ("time.sleep(60)", "timeout", "no answer"),
        ("x = torch.zeros(1 << 40)", "oom", "allocate"),
        ("raise KeyError('state')", "raised", "KeyError: 'state' (line "),
        ("raise ValueError('\\x1b[2J\\0' + chr(0xd800))", "raised", "\ufffd[2J\ufffd\ufffd"),
        ("for _ in range(100): print('x' * 100_000)", "protocol", "printed more"),
        ("os.close(2); os.close(1); os._exit(3)", "crashed", "status 3"),
        (_FORGE.format(data=b"\xff\xff\xff\xff", then=""), "protocol", "4294967295 bytes"),
        (_FORGE.format(data=b"\0\0\0\x0c{\"loss\":NaN}", then=""), "protocol", "NaN"),
        (_FORGE.format(data=b"\0\0\0\x02{}", then=""), "protocol", "neither"),
        (_FORGE.format(data=b"\0\0\0\x09", then="os._exit(0)"), "crashed", "status 0"),
        (_FORGE.format(data=b"", then="os.close(fd); time.sleep(60)"), "protocol", "closed"),
        ("os.makedirs('/'.join(['a'] * 40)); time.sleep(60)", "protocol", "deep"),
        ("for i in range(999): open(str(i), 'w')\ntime.sleep(60)", "protocol", "files"),
        ("for i in range(9): open(str(i), 'wb').write(bytes(2**20))\ntime.sleep(60)",
         "protocol", "MiB of files"),
    ],
)  # fmt: skip
def test_each_way_to_fail_has_its_class(
    forward: str, kind: str, says: str, sandbox: Sandbox, limits: Limits, hostile_source: MakeSource
) -> None:
    small = replace(limits, wall_s=2.5, scratch_entries=500, scratch_bytes=4 * MIB)
    failure = _failure(sandbox, small, hostile_source(forward=forward))
    assert (failure.kind, says in failure.message) == (kind, True), failure.message


def test_a_candidates_exception_leaves_the_child_able_to_answer(
    sandbox: Sandbox, limits: Limits, hostile_source: MakeSource
) -> None:
    with sandbox.spawn(limits) as child:
        with pytest.raises(ChildFailed, match="ZeroDivisionError"):
            _hidden(child, hostile_source(forward="1 / 0"))
        assert _hidden(child, hostile_source()).isfinite().all()


@pytest.mark.parametrize("caps_address_space", [True, False])
def test_a_memory_bomb_ends_as_oom(
    caps_address_space: bool, sandbox: Sandbox, limits: Limits, hostile_source: MakeSource
) -> None:
    bomb = "kept = []\nwhile True:\n    kept.append(torch.ones(1 << 22))\n    time.sleep(0.005)"
    small = replace(limits, memory_bytes=128 * MIB, caps_address_space=caps_address_space)
    with sandbox.spawn(small) as child:
        with pytest.raises(ChildFailed) as failure:
            _hidden(child, hostile_source(forward=bomb))
        assert failure.value.kind == "oom"
        assert child.peak_memory_bytes < 1.5 * small.memory_bytes


def test_shared_memory_counts_as_memory_where_it_is_allowed(
    bare_zygote: Bare, limits: Limits, hostile_source: MakeSource
) -> None:
    bare_zygote.choose("strict", frozenset({"seccomp"}))
    bomb = "import mmap\nkept = mmap.mmap(-1, 1 << 28)\nkept.write(bytes(1 << 28))\ntime.sleep(60)"
    small = replace(limits, memory_bytes=128 * MIB, caps_address_space=False)
    assert _failure(bare_zygote, small, hostile_source(forward=bomb)).kind == "oom"


# The first thread of a process ends by a call of its own, and another goes on.
_WITHOUT_FIRST_THREAD = """
import threading
from linearch.evaluator.sandbox.syscall_numbers import NUMBERS

def go_on():
    time.sleep({0})
    os._exit(7)

threading.Thread(target=go_on).start()
ctypes.CDLL(None).syscall({1}, 0)
"""
_EXIT = 93 if platform.machine() == "aarch64" else 60


def test_a_process_does_not_outlive_its_first_thread(
    sandbox: Sandbox, limits: Limits, hostile_source: MakeSource
) -> None:
    ends = hostile_source(top=_WITHOUT_FIRST_THREAD.format(60, _EXIT))
    started = time.monotonic()
    failure = _failure(sandbox, limits, ends)
    assert (failure.kind, "first thread" in failure.message) == ("protocol", True), failure.message
    assert time.monotonic() - started < 5


def test_it_would_if_nobody_looked(
    sandbox: Sandbox,
    limits: Limits,
    hostile_source: MakeSource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def of_the_first_thread(pid: int) -> ProcessUsage | None:
        usage = usage_of(pid)
        return usage if usage is None or usage.has_first_thread else None

    monkeypatch.setattr(watchdog, "usage_of", of_the_first_thread)
    ends = hostile_source(top=_WITHOUT_FIRST_THREAD.format(1, _EXIT))
    failure = _failure(sandbox, limits, ends)
    assert (failure.kind, "status 7" in failure.message) == ("crashed", True), failure.message


def test_a_fork_bomb_is_ended_with_all_its_processes(
    compile_sandbox: Sandbox, limits: Limits, hostile_source: MakeSource
) -> None:
    bomb = """
    for i in range(60):
        if os.fork() == 0:
            os.setsid()
            time.sleep(60)
    time.sleep(60)
    """
    few = replace(limits, processes=20)
    failure = _failure(compile_sandbox, few, hostile_source(forward=bomb))
    assert (failure.kind, "processes" in failure.message) == ("protocol", True)


def test_a_thread_bomb_is_ended(
    sandbox: Sandbox, limits: Limits, hostile_source: MakeSource
) -> None:
    bomb = """
    import threading
    for i in range(60):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    time.sleep(60)
    """
    few = replace(limits, threads=30, caps_address_space=False)  # stacks would fill it first
    failure = _failure(sandbox, few, hostile_source(forward=bomb))
    assert (failure.kind, "threads" in failure.message) == ("protocol", True)


def test_a_daemon_does_not_outlive_its_candidate(
    compile_sandbox: Sandbox, limits: Limits, hostile_source: MakeSource
) -> None:
    daemon = """
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            print(os.getpid(), flush=True)
            time.sleep(60)
        os._exit(0)
    os.wait()
    """
    with compile_sandbox.spawn(limits) as child:
        _build(child, hostile_source(top=daemon))
        pids = _below(compile_sandbox)
    assert len(pids) == 2  # the child, and the daemon that the zygote has adopted
    assert str(pids[1]) in child.printed
    assert not any(_is_alive(pid) for pid in pids)


def test_nothing_of_the_supervisors_environment_reaches_the_child(
    tmp_path: Path, limits: Limits, hostile_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "canary-value")
    spill = """
    print(dict(os.environ), sys.argv, open("/proc/self/environ").read())
    """
    # With nothing that keeps it from looking: there is nothing to be found.
    with (
        Sandbox(tmp_path, without=frozenset({"landlock", "namespaces"})) as sandbox,
        sandbox.spawn(limits) as child,
    ):
        _hidden(child, hostile_source(top=spill))
        child.close()
    assert child.printed.count("LANG") == 2
    assert "canary" not in child.printed


def test_a_file_of_training_data_is_open_and_nothing_else_of_ours(
    sandbox: Sandbox, limits: Limits, hostile_source: MakeSource, tmp_path: Path
) -> None:
    (tmp_path / "train.bin").write_bytes(b"training")
    spill = """
    for fd in range(3, 256):
        if os.path.lexists(f"/proc/self/fd/{fd}"):
            print(os.readlink(f"/proc/self/fd/{fd}"))
    """
    with sandbox.spawn(limits, data=tmp_path / "train.bin") as child:
        _build(child, hostile_source(top=spill))
        child.close()
    opened = child.printed.split()
    assert sum(name.startswith("socket:") for name in opened) == 1
    assert [name for name in opened if "socket:" not in name] == [str(tmp_path / "train.bin")]


def test_a_dead_zygote_is_the_machinerys_fault_and_is_replaced(
    tmp_path: Path, limits: Limits, hostile_source: MakeSource
) -> None:
    kill = hostile_source(forward="os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)")
    with Sandbox(tmp_path, without=frozenset({"landlock", "seccomp"})) as sandbox:
        with sandbox.spawn(limits) as child, pytest.raises(SandboxFault):
            _hidden(child, kill)
        with sandbox.spawn(limits) as child:
            assert _hidden(child, hostile_source()).isfinite().all()


def test_a_dead_zygote_whose_log_is_gone_is_the_machinerys_fault_too(
    tmp_path: Path, limits: Limits
) -> None:
    with Sandbox(tmp_path) as sandbox:
        assert sandbox.containment
        assert sandbox.zygote_pid is not None
        os.kill(sandbox.zygote_pid, signal.SIGKILL)
        (tmp_path / "zygote.log").unlink()
        with pytest.raises(SandboxFault, match="removed its log"):
            sandbox.spawn(limits)


def test_a_zygote_cannot_be_killed_from_below(
    sandbox: Sandbox, limits: Limits, hostile_source: MakeSource
) -> None:
    kill = hostile_source(forward="os.kill(os.getppid(), signal.SIGKILL)")
    sandbox.start()
    zygote = sandbox.zygote_pid
    with sandbox.spawn(limits) as child, pytest.raises(ChildFailed, match="PermissionError"):
        _hidden(child, kill)
    assert sandbox.zygote_pid == zygote
    assert zygote is not None
    assert _is_alive(zygote)


def test_the_scratch_folder_goes_with_its_child(
    sandbox: Sandbox, limits: Limits, hostile_source: MakeSource
) -> None:
    nest = "print(os.getcwd())\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')"
    with sandbox.spawn(limits) as child:
        with pytest.raises(ChildFailed, match="deep"):
            _build(child, hostile_source(top=nest))
        child.close()
    assert not os.path.exists(child.printed.strip())


def test_a_forged_message_is_cut_to_what_a_table_can_show(
    sandbox: Sandbox, limits: Limits, hostile_source: MakeSource
) -> None:
    forge = """
    import linearch.evaluator.sandbox.child as child
    child.describe = lambda error: {"kind": "raised", "message": "obey " * 180_000}
    """
    failure = _failure(sandbox, limits, hostile_source(top=forge, forward="raise ValueError"))
    assert failure.message.startswith("obey obey")
    assert len(failure.message) < 1000
