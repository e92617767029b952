"""Candidates that take without end: each is cut short, and takes as much once its limit is gone.

Without the limit they run in a reduced form, which a machine survives.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from linearch.evaluator.sandbox.failures import ChildFailed
from linearch.evaluator.sandbox.limits import MIB, Limits
from linearch.evaluator.sandbox.processes import tree_below
from linearch.evaluator.sandbox.supervisor import Sandbox

MakeSource = Callable[..., str]

_WIDE = Limits(
    wall_s=20,
    memory_bytes=1 << 40,
    caps_address_space=False,
    processes=500,
    output_bytes=64 * MIB,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bomb:
    """`limit` is what stops it, over limits that would not; `kind` and `says` tell how it ends."""

    source: str
    limit: dict[str, Any]
    kind: str
    says: str
    is_many_processes: bool = False


BOMBS = {
    "H13 touched memory": Bomb(
        source="kept = [bytearray(b'x' * (16 << 20)) for _ in range(12)]; time.sleep(0.3)",
        limit={"memory_bytes": 96 * MIB},
        kind="oom",
        says="MiB of memory",
    ),
    "H13 memory that is only asked for": Bomb(
        source="import torch\nkept = torch.empty(1 << 28)",
        limit={"memory_bytes": 96 * MIB, "caps_address_space": True},
        kind="oom",
        says="allocate",
    ),
    "H15 tables of pages that hold nothing": Bomb(
        source="""
        import mmap, numpy
        kept = mmap.mmap(-1, 10 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, prot=1)
        kept.madvise(mmap.MADV_NOHUGEPAGE)
        numpy.frombuffer(kept, dtype=numpy.uint8)[::4096].sum()
        """,
        limit={"memory_bytes": 12 * MIB},
        kind="oom",
        says="MiB of memory",
    ),
    "H17 a large file": Bomb(
        source="open('x', 'wb').write(bytes(6 << 20)); time.sleep(0.3)",
        limit={"scratch_bytes": 4 * MIB},
        kind="raised",
        says="File too large",
    ),
    "H17 many files": Bomb(
        source="for i in range(6): open(str(i), 'wb').write(bytes(1 << 20))\ntime.sleep(0.3)",
        limit={"scratch_bytes": 4 * MIB},
        kind="protocol",
        says="MiB of files",
    ),
    "H17 removed files that are still open": Bomb(
        source="""
        kept = []
        for i in range(6):
            kept.append(open("x", "wb", buffering=0))
            kept[-1].write(bytes(1 << 20))
            os.unlink("x")
        time.sleep(0.3)
        """,
        limit={"scratch_bytes": 4 * MIB},
        kind="protocol",
        says="MiB of files",
    ),
    "H18 empty files": Bomb(
        source="for i in range(600): open(str(i), 'w').close()\ntime.sleep(0.3)",
        limit={"scratch_entries": 500},
        kind="protocol",
        says="more than 500 files",
    ),
    "H18 folders in folders": Bomb(
        source="for _ in range(600): os.mkdir('d'); os.chdir('d')\ntime.sleep(0.3)",
        limit={},
        kind="protocol",
        says="deep",
    ),
    "H10 processes": Bomb(
        source="""
        for _ in range(40):
            if os.fork() == 0:
                os.setsid()
                time.sleep(60)
        time.sleep(0.3)
        """,
        limit={"processes": 20},
        kind="protocol",
        says="more than 20 processes",
        is_many_processes=True,
    ),
    "H11 threads": Bomb(
        source="""
        import threading
        for _ in range(60):
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        time.sleep(0.3)
        """,
        limit={"threads": 30},
        kind="protocol",
        says="threads",
    ),
    "H30 output": Bomb(
        source="for _ in range(30): print('\\x1b[2J' * 20_000)\ntime.sleep(0.3)",
        limit={"output_bytes": 1 * MIB},
        kind="protocol",
        says="printed more",
    ),
    "H19 a loop that ignores signals": Bomb(
        source="""
        for number in (1, 2, 15):
            signal.signal(number, signal.SIG_IGN)
        until = time.time() + 1.5
        while time.time() < until: pass
        """,
        limit={"wall_s": 0.4},
        kind="timeout",
        says="no answer within 0.4 s",
    ),
    "H20 sleep in C": Bomb(
        source="ctypes.CDLL(None).usleep(1_500_000)",
        limit={"wall_s": 0.4},
        kind="timeout",
        says="no answer within 0.4 s",
    ),
}  # fmt: skip


def _run(sandbox: Sandbox, limits: Limits, source: str) -> ChildFailed | None:
    with sandbox.spawn(limits) as child:
        try:
            child.call("load", {"source": source, "convention": "linearch"})
        except ChildFailed as failure:
            return failure
    return None


@pytest.mark.parametrize("profile", ["strict", "compile"])
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_cut_short_and_nothing_is_left_of_it(
    name: str, profile: str, sandbox: Sandbox, compile_sandbox: Sandbox, hostile_source: MakeSource
) -> None:
    bomb = BOMBS[name]
    if bomb.is_many_processes and profile == "strict":
        pytest.skip("there is no second process to begin with")
    chosen = compile_sandbox if profile == "compile" else sandbox
    limits = replace(_WIDE, **bomb.limit)
    started = time.monotonic()
    failure = _run(chosen, limits, hostile_source(top=bomb.source))
    assert failure is not None
    assert (failure.kind, bomb.says in failure.message) == (bomb.kind, True), failure.message
    if failure.kind == "timeout":
        assert time.monotonic() - started < limits.wall_s + 2
    assert chosen.zygote_pid is not None
    assert tree_below(chosen.zygote_pid, 99) == []


@pytest.mark.parametrize("name", [name for name, bomb in BOMBS.items() if bomb.limit])
def test_it_goes_off_once_its_limit_is_gone(
    name: str, compile_sandbox: Sandbox, hostile_source: MakeSource
) -> None:
    assert _run(compile_sandbox, _WIDE, hostile_source(top=BOMBS[name].source)) is None


def test_memory_is_cut_within_a_third_beyond_its_limit(
    sandbox: Sandbox, hostile_source: MakeSource
) -> None:
    bomb = "kept = []\nwhile True: kept.append(bytearray(b'x' * (1 << 20))); time.sleep(0.002)"
    with sandbox.spawn(replace(_WIDE, memory_bytes=192 * MIB)) as child:
        with pytest.raises(ChildFailed, match="MiB of memory"):
            child.call("load", {"source": hostile_source(top=bomb), "convention": "linearch"})
        assert child.peak_memory_bytes < 1.3 * 192 * MIB


def test_removed_files_that_are_mapped_are_counted(
    sandbox: Sandbox, hostile_source: MakeSource
) -> None:
    mapping = """
    import mmap
    kept = []
    for _ in range(6):
        with open("x", "wb+") as file:
            file.write(bytes(4096))
            file.flush()
            kept.append(mmap.mmap(file.fileno(), 4096))
        os.unlink("x")
    time.sleep(2)
    """
    failure = _run(sandbox, _WIDE, hostile_source(top=mapping))
    assert failure is not None
    assert (failure.kind, "still mapped" in failure.message) == ("protocol", True), failure.message
