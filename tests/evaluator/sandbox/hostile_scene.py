"""Where hostile candidates are let loose: what they are after, and how it is seen that they got it.

Everything here is on the supervisor's side. What a candidate prints counts only where it cannot
know it otherwise.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from linearch.evaluator.sandbox.containment import CONFINING
from linearch.evaluator.sandbox.failures import ChildFailed
from linearch.evaluator.sandbox.limits import MIB, Limits
from linearch.evaluator.sandbox.processes import tree_below
from linearch.evaluator.sandbox.supervisor import Sandbox

LIMITS = Limits(wall_s=5, memory_bytes=256 * MIB)

_PREAMBLE = """
import ctypes, fcntl, os, resource, signal, socket, stat, struct, sys, time
from linearch.evaluator.sandbox.syscall_numbers import NUMBERS
libc = ctypes.CDLL(None, use_errno=True)

def call(number, *arguments):
    if isinstance(number, str):
        number = NUMBERS[number][os.uname().machine == "aarch64"]
    result = libc.syscall(ctypes.c_long(number), *[
        ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if result < 0:
        raise OSError(ctypes.get_errno(), f"call {number}")
    return result

"""

# Holds the secret in its environment, in its memory and in an open file without a name. It has no
# capabilities, or root's would protect it.
_VICTIM = """
import ctypes, os, signal, struct, sys
ctypes.CDLL(None).capset(struct.pack("II", 0x20080522, 0), bytes(24))
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})
secret = ctypes.create_string_buffer(sys.stdin.buffer.readline().strip())
held = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
os.unlink(sys.argv[1])
os.write(held, secret.value)
print(ctypes.addressof(secret), held, flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class HostileCase:
    """`stopped_by`: layers of which each is enough; with all of them left out it succeeds."""

    name: str
    source: str
    stopped_by: frozenset[str]
    succeeded: Callable[[Scene], bool]
    profiles: tuple[str, ...] = ("strict", "compile")
    needs_root: bool = False  # to succeed at all
    reads: Path | None = None  # what an ordinary user must be allowed to read for it to succeed
    limits: Limits = LIMITS


class Bare(Sandbox):
    """A zygote without namespaces, whose children have any profile and any layers."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, without=frozenset({"namespaces"}))

    def choose(self, profile: Any, without: frozenset[str]) -> None:
        self._wait_until_ready()
        self._profile, self._without = profile, without
        self._layers = CONFINING - without


@dataclass
class Scene:
    """One attempt: canaries, listeners and a victim that belongs to the same user."""

    folder: Path
    secret: str = field(default_factory=lambda: secrets.token_hex(16))
    printed: str = ""
    failure: ChildFailed | None = None
    tree: list[int] = field(default_factory=list)
    scratch: Path = Path("/nonexistent")
    layers: frozenset[str] = frozenset()
    _victim: subprocess.Popen[bytes] | None = None
    _open: list[socket.socket] = field(default_factory=list)
    _names: dict[str, Any] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.canary.write_text("untouched")
        self.canary.chmod(0o644)
        self.folder.joinpath("secret").write_text(self.secret)
        self._names = {"CANARY": str(self.canary), "FOLDER": str(self.folder)}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for listener in self._open:
            listener.close()
        if self._victim is not None:
            self._victim.kill()
            self._victim.communicate()

    @property
    def canary(self) -> Path:
        return self.folder / "canary"

    @property
    def child(self) -> int:
        return self.tree[0]

    @property
    def victim(self) -> int:
        assert self._victim is not None
        return self._victim.pid

    @property
    def victim_is_dead(self) -> bool:
        assert self._victim is not None
        try:
            self._victim.wait(0.3)
        except subprocess.TimeoutExpired:
            return False
        return True

    @property
    def told(self) -> bool:
        """Whether the candidate has printed the secret."""
        return self.secret in self.printed

    def files_of_the_child(self) -> list[str]:
        folder = f"/proc/{self.child}/fd"
        return [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)]

    def status_of_the_child(self, name: str) -> str:
        lines = Path(f"/proc/{self.child}/status").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(name))

    def received(self, name: str) -> bool:
        """Whether anything has come to a listener."""
        listener = next(s for s in self._open if s.getsockname() == self._names[name])
        listener.settimeout(0.1)
        try:
            if listener.type == socket.SOCK_DGRAM:
                return bool(listener.recv(9))
            listener.accept()[0].close()
        except TimeoutError:
            return False
        return True

    def attempt(self, zygote: Sandbox, case: HostileCase, without: frozenset[str]) -> bool:
        """Whether the case gets what it wants, as far as this side can see."""
        source = self._prepare(case.source)
        self.layers = CONFINING - without
        with zygote.spawn(case.limits) as child:
            assert zygote.zygote_pid is not None
            child.await_confinement()
            self.scratch = Path(os.readlink(f"/proc/self/fd/{child._scratch}"))
            self.tree = tree_below(zygote.zygote_pid, 99)
            try:
                child.call("load", {"source": source, "convention": "linearch"})
            except ChildFailed as failure:
                self.failure = failure
            if child._is_open:
                child._read_output()
            self.printed = child.printed
            self.tree = tree_below(zygote.zygote_pid, 99)
            return case.succeeded(self)

    def _prepare(self, source: str) -> str:
        self._listen(source)
        if "VICTIM" in source:
            self._start_victim()
        names = "".join(f"{name} = {value!r}\n" for name, value in self._names.items())
        return names + _PREAMBLE + textwrap.dedent(source)

    def _listen(self, source: str) -> None:
        wanted: dict[str, tuple[int, int, Any]] = {
            "TCP": (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            "UDP": (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            "UNIX": (socket.AF_UNIX, socket.SOCK_STREAM, str(self.folder / "socket")),
            "ABSTRACT": (socket.AF_UNIX, socket.SOCK_STREAM, b"\0museum-" + self.secret.encode()),
        }
        for name, (family, kind, address) in wanted.items():
            if name in source:
                listener = socket.socket(family, kind)
                listener.bind(address)
                if kind == socket.SOCK_STREAM:
                    listener.listen()
                self._open.append(listener)
                self._names[name] = listener.getsockname()

    def _start_victim(self) -> None:
        self._victim = subprocess.Popen(
            [sys.executable, "-S", "-c", _VICTIM, str(self.folder / "held")],
            env={"API_KEY": self.secret},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._victim.stdin is not None
        assert self._victim.stdout is not None
        self._victim.stdin.write(self.secret.encode() + b"\n")
        self._victim.stdin.flush()
        address, held = map(int, self._victim.stdout.readline().split())
        self._names |= {"VICTIM": self._victim.pid, "ADDRESS": address, "HELD": held}


def is_readable_for_others(path: Path) -> bool:
    """Whether any user may read it; a Python may lie in a home."""
    folders = all(folder.stat().st_mode & stat.S_IXOTH for folder in path.parents)
    return folders and bool(path.stat().st_mode & stat.S_IROTH)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def end(pid: int) -> None:
    """Ends a process that a test has let escape."""
    if is_alive(pid):
        os.kill(pid, signal.SIGKILL)
