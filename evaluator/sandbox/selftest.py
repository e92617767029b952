"""Trusted code in a confined process tries each forbidden act; what is not refused is named.

An act counts as refused only by the errors of a refusal: one that fails because its target is not
there has not been stopped. `python -m linearch.evaluator.sandbox.selftest [strict|compile]` runs it
outside a sandbox's zygote and prints JSON.
"""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
import platform
import resource
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any, NoReturn

import torch

from ..mps import PIPES
from .confinement import Plan, confine
from .kernel import LayerMissing, prctl, system_call, unshare
from .limits import MIB, Limits, hide_memory
from .namespaces import enter_namespaces
from .places import python_files, readable_places
from .seccomp import Profile
from .syscall_numbers import NUMBERS

_REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP)
_DISCARD_PORT = ("127.0.0.1", 9)
_NEWUSER = 0x10000000

Act = Callable[[], object]


def acts_not_refused(
    profile: Profile, outside: str, device: str, withheld: tuple[str, ...]
) -> list[str]:
    """`outside`: a file of ours that the process may not touch; `withheld`: library files with
    text that is held out. Runs in the confined process.
    """
    parent = os.getppid()
    acts = {
        **_acts_on_files(outside),
        **_acts_on_text(withheld),
        **(_acts_on_text(_sources()) if profile == "strict" else {}),
        **_acts_on_the_network(),
        **_acts_on_mps(os.environ.get(PIPES)),
        **_acts_on_a_process(parent),
        **_acts_on_the_kernel(),
        **(_acts_that_start_processes() if profile == "strict" else {}),
        **(_acts_that_share_memory() if device == "cpu" else {}),
    }
    return [name for name, act in acts.items() if not _is_refused(act)]


def _is_refused(act: Act) -> bool:
    try:
        act()
    except OSError as error:
        return error.errno in _REFUSALS
    return False


def _acts_on_files(outside: str) -> dict[str, Act]:
    nameless = os.O_TMPFILE | os.O_RDWR
    return {
        "read a file outside": lambda: os.open(outside, os.O_RDONLY),
        "write a file outside": lambda: os.open(outside, os.O_WRONLY),
        "empty a file outside": lambda: os.open(outside, os.O_RDONLY | os.O_TRUNC),
        "make a file outside": lambda: os.open(outside + "-new", os.O_WRONLY | os.O_CREAT),
        "change the mode of a file outside": lambda: os.chmod(outside, 0o600),
        "change the times of a file outside": lambda: os.utime(outside),
        "list the folder outside": lambda: os.listdir(os.path.dirname(outside)),
        "read /etc/passwd": lambda: os.open("/etc/passwd", os.O_RDONLY),
        "list /": lambda: os.listdir("/"),
        "make a symbolic link": lambda: os.symlink(outside, "link"),
        "make a pipe": lambda: os.mkfifo("pipe"),
        "open a file without a name": lambda: os.open(".", nameless),
        "remove a file outside": lambda: os.unlink(outside),
    }


def _acts_on_text(withheld: tuple[str, ...]) -> dict[str, Act]:
    return {f"read {path}": partial(os.open, path, os.O_RDONLY) for path in withheld}


def _sources() -> tuple[str, ...]:
    """Of Python, of torch and of ours, compiled too: what a process with compilers may read."""
    files = [os.path.realpath(module) for module in (os.__file__, torch.__file__, __file__)]
    return tuple(path for path in (*files, *map(cache_from_source, files)) if os.path.exists(path))


def _acts_on_the_network() -> dict[str, Act]:
    def send(data: bytes) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.sendto(data, _DISCARD_PORT)

    def connect(family: int, address: Any) -> None:
        with socket.socket(family) as stream:
            stream.connect(address)

    return {
        "connect by TCP": lambda: connect(socket.AF_INET, _DISCARD_PORT),
        "send by UDP": lambda: send(b""),
        "connect to a unix socket": lambda: connect(socket.AF_UNIX, "/nonexistent/socket"),
        "connect to an abstract socket": lambda: connect(socket.AF_UNIX, "\0nonexistent"),
        "make a pair of sockets": socket.socketpair,
    }


def _acts_on_mps(pipes: str | None) -> dict[str, Act]:
    """The service obeys whoever connects to it: `quit` would end the CUDA of all."""

    def connect() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
            control.connect(f"{pipes}/control")

    if pipes is None or not os.path.isdir(pipes):
        return {}
    return {
        "list the multi-process service's folder": lambda: os.listdir(pipes),
        "command the multi-process service": connect,
    }


def _acts_on_a_process(pid: int) -> dict[str, Act]:
    def renice() -> None:
        os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid))

    return {
        "signal the zygote": lambda: os.kill(pid, 0),
        "read the zygote's environment": lambda: os.open(f"/proc/{pid}/environ", os.O_RDONLY),
        "read the zygote's memory file": lambda: os.open(f"/proc/{pid}/mem", os.O_RDONLY),
        "read the zygote's memory": lambda: _call("process_vm_readv", pid),
        "trace the zygote": lambda: _call("ptrace", 2, pid),  # reads a word of it
        "hold the zygote": lambda: os.pidfd_open(pid),
        "bind the zygote to a core": lambda: os.sched_setaffinity(pid, os.sched_getaffinity(0)),
        "change the zygote's priority": renice,
        "see the zygote's limits": lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE),
        "have a file signal the zygote": lambda: fcntl.fcntl(0, fcntl.F_SETOWN, pid),
    }


def _acts_on_the_kernel() -> dict[str, Act]:
    raw = """bpf userfaultfd io_uring_setup keyctl shmget perf_event_open mount setns fallocate
        landlock_create_ruleset mincore cachestat fadvise64 preadv2"""
    return {
        **{name: partial(_call, name) for name in raw.split()},
        "filter system calls": lambda: _call("seccomp", 1),
        "put a page out of memory": lambda: _call("madvise", 0, 0, 21),
        "have a table of files of its own": lambda: _call("close_range", 999, 999, 2),
        "start a thread with one": lambda: _call("clone", 0x10000),
        "lock a file": lambda: fcntl.lockf(0, fcntl.LOCK_SH),
        "memfd_create": lambda: os.memfd_create("x"),
        "unshare": lambda: unshare(_NEWUSER),
        "outlive the zygote": lambda: prctl(1, 0),
        "hide from the supervisor": lambda: hide_memory(True),
    }


def _acts_that_start_processes() -> dict[str, Act]:
    def fork() -> None:
        if (pid := os.fork()) == 0:
            os._exit(0)
        os.waitpid(pid, 0)

    return {
        "fork": fork,
        "execute a program": lambda: os.execv("/nonexistent", ["x"]),
        "lock a file against every process": lambda: fcntl.flock(0, fcntl.LOCK_SH),
    }


def _acts_that_share_memory() -> dict[str, Act]:
    return {
        "map shared memory without a file": lambda: mmap.mmap(-1, mmap.PAGESIZE),
        "open a file of zeros to map it": lambda: os.open("/dev/zero", os.O_RDWR),
    }


def _call(name: str, *arguments: int) -> None:
    number = NUMBERS[name][platform.machine() == "aarch64"]
    assert number is not None
    system_call(number, *arguments, *[0] * (6 - len(arguments)))


def main() -> None:
    profile: Profile = "compile" if sys.argv[1:] == ["compile"] else "strict"
    with tempfile.TemporaryDirectory(prefix="linearch-") as folder:
        json.dump(_probe(profile, Path(folder)), sys.stdout)


def _probe(profile: Profile, folder: Path) -> dict[str, Any]:
    """What confinement a child of this process has; `folder` becomes this process's own."""
    missing = {}
    try:
        enter_namespaces(python_files())
    except LayerMissing as reason:
        missing["namespaces"] = str(reason)
    outside, scratch = folder / "outside", folder / "scratch"
    outside.touch()
    scratch.mkdir()
    plan = Plan(profile=profile, device="cpu", scratch=str(scratch), places=readable_places())
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        _examine_self(plan, str(outside), sending)
    os.close(sending)
    with os.fdopen(receiving) as answer:
        values: dict[str, Any] = json.loads(answer.read())
    os.waitpid(child, 0)
    layers = [*([] if missing else ["namespaces"]), *values["layers"]]
    return {**values, "layers": layers, "missing": {**missing, **values["missing"]}}


def _examine_self(plan: Plan, outside: str, answer: int) -> NoReturn:
    try:
        os.chdir(plan.scratch)
        limits = Limits(wall_s=1, memory_bytes=256 * MIB)
        _, confinement = confine(limits, plan, start=lambda: None)
        failed = acts_not_refused(plan.profile, outside, plan.device, plan.places.withheld)
        os.write(answer, json.dumps({**asdict(confinement), "failed_acts": failed}).encode())
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
