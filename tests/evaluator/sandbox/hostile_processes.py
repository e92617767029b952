"""Hostile candidates that are after other processes, or after processes of their own."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from hostile_scene import HostileCase, Scene

_LANDLOCK = frozenset({"landlock"})
_SECCOMP = frozenset({"seccomp"})
_EITHER = _LANDLOCK | _SECCOMP


def _told(scene: Scene) -> bool:
    return scene.told


def _killed(scene: Scene) -> bool:
    return scene.victim_is_dead


def _is_traced(scene: Scene) -> bool:
    status = Path(f"/proc/{scene.victim}/status").read_text()
    return f"TracerPid:\t{scene.child}" in status


def _closed_its_connection(scene: Scene) -> bool:
    return scene.failure is not None and "closed its connection" in scene.failure.message


def _has_pending_signal(scene: Scene) -> bool:
    status = Path(f"/proc/{scene.victim}/status").read_text()
    pending = next(line for line in status.splitlines() if line.startswith("ShdPnd"))
    return int(pending.split()[1], 16) != 0


def _is_running(program: str) -> object:
    def is_running(scene: Scene) -> bool:
        return any(Path(f"/proc/{pid}/comm").read_text().strip() == program for pid in scene.tree)

    return is_running


CASES = [
    HostileCase(
        name=name,
        source=source,
        stopped_by=stopped_by,
        succeeded=succeeded,  # type: ignore[arg-type]
        profiles=profiles,
    )
    for name, source, stopped_by, succeeded, profiles in (
        (
            "H3 read another's environment",
            "print(open(f'/proc/{VICTIM}/environ').read())",
            _LANDLOCK,
            _told,
            ("strict", "compile"),
        ),
        (
            "H3 read every environment",
            """
            for name in os.listdir("/proc"):
                try:
                    text = open(f"/proc/{name}/environ").read()
                except OSError:
                    continue
                if name == str(VICTIM):
                    print(text)
            """,
            _LANDLOCK,
            _told,
            ("strict", "compile"),
        ),
        (
            "H23 read another's memory file",
            """
            with open(f"/proc/{VICTIM}/mem", "rb", buffering=0) as memory:
                memory.seek(ADDRESS)
                print(memory.read(32))
            """,
            _LANDLOCK,
            _told,
            ("strict", "compile"),
        ),
        (
            "H23 read another's memory by a call",
            """
            class Vector(ctypes.Structure):
                _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
            found = ctypes.create_string_buffer(32)
            here, there = Vector(ctypes.addressof(found), 32), Vector(ADDRESS, 32)
            call("process_vm_readv", VICTIM, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
            print(found.raw)
            """,
            _EITHER,
            _told,
            ("strict", "compile"),
        ),
        (
            "H23 trace another",
            "call('ptrace', 0x4206, VICTIM, 0, 0)",
            _EITHER,
            _is_traced,
            ("strict", "compile"),
        ),
        (
            "H23 take another's open file",
            """
            held = call("pidfd_getfd", os.pidfd_open(VICTIM), HELD, 0)
            print(os.pread(held, 99, 0))
            """,
            _EITHER,
            _told,
            ("strict", "compile"),
        ),
        (
            "H24 kill another",
            "os.kill(VICTIM, signal.SIGKILL)",
            _EITHER,
            _killed,
            ("strict", "compile"),
        ),
        (
            "H24 kill another by its thread",
            "call('tgkill', VICTIM, VICTIM, 9)",
            _EITHER,
            _killed,
            ("strict", "compile"),
        ),
        (
            "H24 kill another by a queued signal",
            "call('rt_sigqueueinfo', VICTIM, 15, struct.pack('iii', 15, 0, -1) + bytes(116))",
            _EITHER,
            _killed,
            ("strict", "compile"),
        ),
        (
            "H24 kill another by a process file",
            "signal.pidfd_send_signal(os.pidfd_open(VICTIM), signal.SIGKILL)",
            _EITHER,
            _killed,
            ("strict", "compile"),
        ),
        (
            "H24 have a pipe kill another",
            """
            reading, writing = os.pipe()
            fcntl.fcntl(reading, fcntl.F_SETOWN, VICTIM)
            fcntl.fcntl(reading, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
            os.write(writing, b"x")
            """,
            _EITHER,
            _killed,
            ("strict", "compile"),
        ),
        (
            "H24 signal whatever there is",
            "os.kill(-1, signal.SIGURG)  # all but VICTIM, who keeps it pending, ignore this one",
            _EITHER,
            _has_pending_signal,
            ("strict", "compile"),
        ),
        (
            "H25 bind another to one core",
            "os.sched_setaffinity(VICTIM, {min(os.sched_getaffinity(VICTIM))})",
            _SECCOMP,
            lambda scene: len(os.sched_getaffinity(scene.victim)) < len(os.sched_getaffinity(0)),
            ("strict", "compile"),
        ),
        (
            "H25 slow another down",
            "os.setpriority(os.PRIO_PROCESS, VICTIM, 15)",
            _SECCOMP,
            lambda scene: os.getpriority(os.PRIO_PROCESS, scene.victim) == 15,
            ("strict", "compile"),
        ),
        (
            "H25 take another's open files away",
            "resource.prlimit(VICTIM, resource.RLIMIT_NOFILE, (5, 5))",
            _SECCOMP,
            lambda scene: resource.prlimit(scene.victim, resource.RLIMIT_NOFILE) == (5, 5),
            ("strict", "compile"),
        ),
        (
            "H10 a second process",
            "if os.fork() == 0: time.sleep(60)",
            _SECCOMP,
            lambda scene: len(scene.tree) == 2,
            ("strict",),
        ),
        (
            "H10 a second process by a raw call",
            "if call('clone', 17, 0, 0, 0, 0) == 0: time.sleep(60)",
            _SECCOMP,
            lambda scene: len(scene.tree) == 2,
            ("strict",),
        ),
        (
            "H10 another program in its place",
            "os.execv('/usr/bin/sleep', ['sleep', '60'])",
            _EITHER,
            _closed_its_connection,
            ("strict",),
        ),
        (
            "a program that the candidate has brought along",
            """
            with open("/usr/bin/sleep", "rb") as program:
                data = program.read()
            made = os.open("brought", os.O_CREAT | os.O_WRONLY, 0o777)
            os.write(made, data)
            os.close(made)
            if os.fork() == 0:
                os.execv("brought", ["brought", "60"])
            time.sleep(0.2)
            """,
            _LANDLOCK,
            _is_running("brought"),
            ("compile",),
        ),
    )
]
