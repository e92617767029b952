"""Hostile candidates that are after the network, or after what the kernel has to offer."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from hostile_scene import HostileCase, Scene

_LANDLOCK = frozenset({"landlock"})
_SECCOMP = frozenset({"seccomp"})
_EITHER = _LANDLOCK | _SECCOMP
_ROOT = _SECCOMP | {"capabilities"}


def _received(name: str) -> object:
    return lambda scene: scene.received(name)


def _holds(what: str) -> object:
    return lambda scene: any(what in name for name in scene.files_of_the_child())


def _can_be_reached(scene: Scene) -> bool:
    port = scene.printed.strip()
    if not port.isdigit():
        return False
    with socket.create_connection(("127.0.0.1", int(port)), timeout=1):
        return True


def _maps(what: str) -> object:
    return lambda scene: what in Path(f"/proc/{scene.child}/maps").read_text()


def _hides_files(scene: Scene) -> bool:
    """Whether a thread has files open that its process does not show."""
    threads = Path(f"/proc/{scene.child}/task").iterdir()
    return len({tuple(sorted(os.listdir(thread / "fd"))) for thread in threads}) > 1


def _ran_to_its_end(scene: Scene) -> bool:
    """Nothing that it asked for was refused: all it lacks is a Mixer."""
    return "gives no class" in str(scene.failure)


def _left_shared_memory(scene: Scene) -> bool:
    segments = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return any(int(line.split()[4]) == scene.child for line in segments)


def _left_a_key(scene: Scene) -> bool:
    return "linearch-museum" in Path("/proc/keys").read_text()


def _has_its_own_users(scene: Scene) -> bool:
    return os.readlink(f"/proc/{scene.child}/ns/user") != os.readlink("/proc/self/ns/user")


def _has_its_own_filter(scene: Scene) -> bool:
    ours = 1 if "seccomp" in scene.layers else 0
    return int(scene.status_of_the_child("Seccomp_filters")) > ours


def _case(
    name: str, source: str, stopped_by: frozenset[str], succeeded: object, needs_root: bool = False
) -> HostileCase:
    return HostileCase(
        name=name,
        source=source,
        stopped_by=stopped_by,
        succeeded=succeeded,  # type: ignore[arg-type]
        needs_root=needs_root,
    )


CASES = [
    _case(
        "H5 connect by TCP",
        "s = socket.socket(); s.connect(TCP)",
        _EITHER,
        _received("TCP"),
    ),
    _case(
        "H5 be reached by TCP",
        "s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1])",
        _EITHER,
        _can_be_reached,
    ),
    _case(
        "H6 send by UDP",
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', UDP)",
        _SECCOMP,
        _received("UDP"),
    ),
    _case(
        "H7 connect to a unix socket",
        "s = socket.socket(socket.AF_UNIX); s.connect(UNIX)",
        _SECCOMP,
        _received("UNIX"),
    ),
    _case(
        "H8 connect to an abstract unix socket",
        "s = socket.socket(socket.AF_UNIX); s.connect(ABSTRACT)",
        _EITHER,
        _received("ABSTRACT"),
    ),
    _case(
        "H9 connect by raw calls",
        """
        s = call("socket", 2, 1, 0)
        address = struct.pack("=HH4s8x", 2, socket.htons(TCP[1]), bytes([127, 0, 0, 1]))
        call("connect", s, address, 16)
        """,
        _EITHER,
        _received("TCP"),
    ),
    _case(
        "H9 ask the kernel about the network",
        """
        s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        s.send(struct.pack("=LHHLLB3x", 20, 18, 0x301, 1, 0, 0))
        print("lo" if b"lo\\0" in s.recv(65536) else "")
        """,
        _SECCOMP,
        lambda scene: scene.printed.strip() == "lo",
    ),
    _case(
        "H9 calls through a ring",
        "kept = call('io_uring_setup', 4, bytes(120))",
        _SECCOMP,
        _holds("[io_uring]"),
    ),
    _case(
        "H9 handle the page faults of the kernel",
        "kept = call('userfaultfd', 1)",
        _SECCOMP,
        _holds("[userfaultfd]"),
    ),
    _case(
        "H9 a table in the kernel",
        "kept = call('bpf', 0, struct.pack('IIII', 2, 4, 4, 1) + bytes(112), 128)",
        _ROOT,
        _holds("bpf-map"),
        needs_root=True,
    ),
    _case(
        "H14 memory that no folder shows",
        "kept = os.memfd_create('x')",
        _SECCOMP,
        _holds("/memfd:"),
    ),
    _case(
        "H14 shared memory that outlives it",
        """
        kept = call("shmget", 0, 1 << 20, 0o1600)
        call("shmat", kept, None, 0)
        call("shmctl", kept, 0, None)  # it goes when the process does
        """,
        _SECCOMP,
        _left_shared_memory,
    ),
    _case(
        "H15 shared memory without a file, which goes out of sight and stays",
        """
        import mmap
        kept = mmap.mmap(-1, 64 << 20)
        kept.write(bytes(64 << 20))
        kept.madvise(mmap.MADV_DONTNEED)
        """,
        _SECCOMP,
        _maps("/dev/zero (deleted)"),
    ),
    _case(
        "H15 the same by way of the device of zeros",
        """
        import mmap
        kept = mmap.mmap(os.open("/dev/zero", os.O_RDWR), 64 << 20)
        """,
        _LANDLOCK,
        _maps("/dev/zero"),
    ),
    _case(
        "H17 a table of files of a thread's own, by closing none",
        """
        import threading

        def hide():
            call("close_range", 999, 999, 2)
            kept = os.open("x", os.O_CREAT | os.O_RDWR)
            os.unlink("x")
            time.sleep(60)

        threading.Thread(target=hide, daemon=True).start()
        time.sleep(0.2)
        """,
        _SECCOMP,
        _hides_files,
    ),
    _case(
        "H17 a table of files of a thread's own, from its start",
        """
        stack = ctypes.create_string_buffer(1 << 16)
        top = ctypes.c_void_p((ctypes.addressof(stack) + (1 << 16)) & ~15)
        memory_signals_and_thread = 0x100 | 0x800 | 0x10000
        if libc.clone(libc.sleep, top, memory_signals_and_thread, ctypes.c_void_p(60)) < 0:
            raise OSError(ctypes.get_errno(), "clone")
        kept = os.open("x", os.O_CREAT | os.O_RDWR)
        """,
        _SECCOMP,
        _hides_files,
    ),
    _case(
        "S9 see which pages of a file are in memory",
        """
        import mmap
        page = mmap.mmap(os.open("/etc/ld.so.cache", os.O_RDONLY), 1, mmap.MAP_PRIVATE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        call("mincore", address, 4096, ctypes.create_string_buffer(1))
        """,
        _SECCOMP,
        _ran_to_its_end,
    ),
    _case(
        "S9 put a file out of memory for the next process to see",
        "call('fadvise64', os.open('/etc/ld.so.cache', os.O_RDONLY), 0, 0, 4)",
        _SECCOMP,
        _ran_to_its_end,
    ),
    _case(
        "S9 put what it has mapped out of memory",
        """
        import mmap
        page = mmap.mmap(os.open("/etc/ld.so.cache", os.O_RDONLY), 1, mmap.MAP_PRIVATE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        call("madvise", address, 4096, 21)
        """,
        _SECCOMP,
        _ran_to_its_end,
    ),
    _case(
        "rules on files of its own making",
        "kept = call('landlock_create_ruleset', struct.pack('QQQ', 1, 0, 0), 8, 0)",
        _SECCOMP,
        _holds("landlock-ruleset"),
    ),
    _case(
        "a key in the kernel's keeping",
        "call('add_key', b'user\\0', b'linearch-museum\\0', b'x', 1, -3)",
        _SECCOMP,
        _left_a_key,
    ),
    _case(
        "namespaces of its own",
        "call('unshare', 0x10000000)",
        _SECCOMP,
        _has_its_own_users,
    ),
    _case(
        "another root folder",
        "os.chroot('.')",
        _ROOT,
        lambda scene: os.readlink(f"/proc/{scene.child}/root") != "/",
        needs_root=True,
    ),
    _case(
        "more of the processor than others get",
        "os.setpriority(os.PRIO_PROCESS, 0, -5)",
        _ROOT,
        lambda scene: os.getpriority(os.PRIO_PROCESS, scene.child) == -5,
        needs_root=True,
    ),
    _case(
        "H35 a filter of its own on system calls",
        """
        class Program(ctypes.Structure):
            _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]
        allow = Program(1, struct.pack("HBBI", 6, 0, 0, 0x7FFF0000))
        call("seccomp", 1, 0, ctypes.byref(allow))
        """,
        _SECCOMP,
        _has_its_own_filter,
    ),
    _case(
        "H9 calls by the table of another architecture, x32",
        "libc.syscall(ctypes.c_long(0x40000000 + 39))",
        _SECCOMP,
        lambda scene: scene.failure is None or scene.failure.kind == "raised",
    ),
    _case(
        "H9 calls by the table of another architecture, i386",
        """
        import mmap
        page = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 7)
        page.write(bytes.fromhex("b814000000cd80c3"))  # getpid by int 0x80
        start = ctypes.addressof(ctypes.c_char.from_buffer(page))
        ctypes.CFUNCTYPE(ctypes.c_int)(start)()
        """,
        _SECCOMP,
        lambda scene: scene.failure is None or scene.failure.kind == "raised",
    ),
]
