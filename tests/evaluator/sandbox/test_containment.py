"""What the self-test finds, the level that follows, and what is refused below it."""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_scene import LIMITS, Bare

from linearch.errors import PreflightError
from linearch.evaluator.environment import environment
from linearch.evaluator.sandbox import containment, landlock, seccomp
from linearch.evaluator.sandbox.containment import Containment, found, probe_containment
from linearch.evaluator.sandbox.failures import SandboxFault
from linearch.evaluator.sandbox.kernel import LayerMissing
from linearch.evaluator.sandbox.landlock import FileAccess, restrict_files
from linearch.evaluator.sandbox.supervisor import Sandbox

_ALL = ("no-new-privileges", "landlock", "capabilities", "seccomp")
_NOWHERE = FileAccess(readable=(), listable=(), writable=(), devices=(), may_execute=False)

MakeSource = Callable[..., str]


@pytest.fixture
def service() -> Iterator[dict[str, str]]:
    """A folder with the socket that the multi-process service listens on."""
    with (
        tempfile.TemporaryDirectory(prefix="mps-") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control,
    ):
        control.bind(f"{folder}/control")
        control.listen()
        yield {"CUDA_MPS_PIPE_DIRECTORY": folder}


@pytest.mark.parametrize("profile", ["strict", "compile"])
def test_every_forbidden_act_is_refused_here(profile: str) -> None:
    found = probe_containment(profile)
    assert found.failed_acts == ()
    assert found.level in ("confined", "isolated"), found
    assert found.refusal is None
    assert set(_ALL) < set(found.layers)


def test_a_sandbox_finds_what_the_probe_finds(sandbox: Sandbox, compile_sandbox: Sandbox) -> None:
    assert sandbox.containment == probe_containment("strict")
    assert compile_sandbox.containment == probe_containment("compile")


@pytest.mark.parametrize(
    ("layer", "act"),
    [
        ("landlock", "read /etc/passwd"),
        ("seccomp", "send by UDP"),
        ("seccomp", "fork"),
        ("seccomp", "change the mode of a file outside"),
        ("seccomp", "map shared memory without a file"),
        ("seccomp", "have a table of files of its own"),
        ("seccomp", "start a thread with one"),
        ("seccomp", "lock a file"),
        ("landlock", "open a file of zeros to map it"),
    ],
)
def test_without_a_layer_the_self_test_names_it_and_the_acts(
    layer: str, act: str, bare_zygote: Bare
) -> None:
    bare_zygote.choose("strict", frozenset({layer}))
    found = bare_zygote._self_test({"namespaces": "left out"})
    assert found.level == "process"
    assert layer not in found.layers
    assert act in found.failed_acts
    assert f"{layer}: left out" in found.missing
    with pytest.raises(PreflightError, match="--unsafe-no-sandbox"):
        found.require(allow_unsafe=False)
    found.require(allow_unsafe=True)


def test_a_child_with_less_than_the_self_test_found_gets_no_candidate(bare_zygote: Bare) -> None:
    bare_zygote.choose("strict", frozenset())
    bare_zygote._without = frozenset({"seccomp"})  # as if the kernel had refused it this once
    with (
        bare_zygote.spawn(LIMITS) as child,
        pytest.raises(SandboxFault, match="without seccomp"),
    ):
        child.call("load", {"source": "", "convention": "linearch"})


def test_a_child_finds_the_service_of_its_gpu_and_can_neither_look_into_it_nor_command_it(
    service: dict[str, str], tmp_path: Path, hostile_source: MakeSource
) -> None:
    with Sandbox(tmp_path / "sandbox", mps=service) as sandbox:
        assert sandbox.containment.failed_acts == ()
        with sandbox.spawn(LIMITS) as child:
            told = "print(os.environ['CUDA_MPS_PIPE_DIRECTORY'])"
            child.call("load", {"source": hostile_source(top=told), "convention": "linearch"})
            child.close()
            assert child.printed.strip() == service["CUDA_MPS_PIPE_DIRECTORY"]


@pytest.mark.parametrize(
    ("layer", "act"),
    [
        ("seccomp", "command the multi-process service"),
        ("landlock", "list the multi-process service's folder"),
    ],
)
def test_a_child_without_a_layer_reaches_the_service_of_its_gpu(
    layer: str, act: str, service: dict[str, str], tmp_path: Path
) -> None:
    """So CUDA, which comes up before seccomp, can connect although Landlock holds already."""
    without = frozenset({layer})
    with Sandbox(tmp_path / "sandbox", mps=service, without=without) as sandbox:
        assert act in sandbox.containment.failed_acts


def test_the_level_needs_every_layer_and_every_refusal() -> None:
    assert found("strict", _ALL, {}, []).level == "confined"
    assert found("strict", (*_ALL, "namespaces"), {}, []).level == "isolated"
    assert found("strict", (*_ALL, "namespaces"), {}, ["fork"]).level == "process"
    for layer in _ALL:
        rest = [other for other in (*_ALL, "namespaces") if other != layer]
        assert found("strict", rest, {layer: "why"}, []).level == "process"


def _no_such_call(*arguments: Any) -> int:
    raise OSError(38, "Function not implemented")


def test_a_kernel_without_landlock_is_told_from_one_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(landlock, "system_call", _no_such_call)
    with pytest.raises(LayerMissing, match="no Landlock"):
        restrict_files(_NOWHERE)


def test_a_machine_without_a_table_of_calls_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp.platform, "machine", lambda: "riscv64")
    with pytest.raises(LayerMissing, match="riscv64"):
        seccomp.restrict_calls("strict", 1, signals_are_scoped=True, shares_memory=False)


def test_another_system_has_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containment.sys, "platform", "darwin")
    found = probe_containment("strict")
    assert found.level == "none"
    assert found.refusal is not None
    assert "darwin" in found.refusal


def test_a_probe_that_cannot_run_is_no_containment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containment.sys, "executable", "/nonexistent/python")
    assert probe_containment("strict").level == "none"


def test_the_level_is_stored_with_results() -> None:
    sandbox = found("strict", _ALL, {"namespaces": "why"}, [])
    stored = environment(device="cpu", gpu_name=None, threads=1, corpus="x", sandbox=sandbox)
    assert json.loads(json.dumps(stored))["sandbox"] == {
        "level": "confined",
        "profile": "strict",
        "layers": ["process", "empty-environment", "watchdog", *_ALL],
    }


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("profile", ["strict", "compile"])
def test_the_filter_is_one_that_the_kernel_takes(
    machine: str, profile: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seccomp.platform, "machine", lambda: machine)
    code = seccomp.filter_code(profile, 77, signals_are_scoped=False, shares_memory=False)
    assert len(code) < 4096
    is_jump = {0x15, 0x35, 0x45}
    for place, (operation, if_true, if_false, _) in enumerate(code):
        if operation in is_jump:
            assert place + 1 + max(if_true, if_false) < len(code)
    assert code[-1] == (0x06, 0, 0, 0x7FFF0000)


def _verdict(code: list[tuple[int, int, int, int]], data: bytes) -> int:
    """Runs a filter as the kernel would."""
    place = accumulator = 0
    while True:
        operation, if_true, if_false, constant = code[place]
        place += 1
        if operation == 0x06:
            return constant
        if operation == 0x20:
            accumulator = int.from_bytes(data[constant : constant + 4], "little")
        elif operation == 0x54:
            accumulator &= constant
        else:
            test: dict[int, Callable[[int, int], bool]] = {
                0x15: int.__eq__,
                0x35: int.__ge__,
                0x45: lambda a, b: bool(a & b),
            }
            place += if_true if test[operation](accumulator, constant) else if_false


@pytest.mark.parametrize(
    ("name", "arguments", "verdict"),
    [
        ("clone", [0x3D0F00], 0x7FFF0000),  # a thread
        ("clone", [17], 0x50001),
        ("clone", [0x3D0B00], 0x50001),  # a thread with a table of files of its own
        ("clone", [0x7C3D0F00], 0x50001),
        ("close_range", [3, 9, 4], 0x7FFF0000),
        ("close_range", [3, 9, 6], 0x50001),
        ("fallocate", [3, 0, 0, 1], 0x5005F),
        ("mmap", [0, 9, 3, 0x22], 0x7FFF0000),  # private, no file
        ("mmap", [0, 9, 3, 0x01], 0x7FFF0000),  # shared, a file
        ("mmap", [0, 9, 3, 0x21], 0x50001),
        ("mmap", [0, 9, 3, 0x4031], 0x50001),
        ("clone3", [], 0x50026),
        ("kill", [77, 9], 0x7FFF0000),
        ("kill", [78, 9], 0x50001),
        ("openat", [0, 0, 0], 0x7FFF0000),
        ("openat", [0, 0, 0o1001], 0x7FFF0000),
        ("openat", [0, 0, 0o1000], 0x50001),
        ("openat", [0, 0, 0o20200002], 0x50001),
        ("sendto", [3, 0, 0, 0, 0, 0], 0x7FFF0000),
        ("sendto", [3, 0, 0, 0, 1 << 40, 16], 0x50001),
        ("fcntl", [3, 6], 0x50001),
        ("fcntl", [3, 3], 0x7FFF0000),
        ("ioctl", [0, 0x5401], 0x7FFF0000),
        ("ioctl", [0, 0x5412], 0x50001),
        ("prctl", [15], 0x7FFF0000),
        ("prctl", [1], 0x50001),
        ("socket", [2, 1, 0], 0x50001),
    ],
)
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_call_gets_its_verdict(
    machine: str, name: str, arguments: list[int], verdict: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seccomp.platform, "machine", lambda: machine)
    architecture, column = seccomp._ARCHITECTURES[machine]
    number = seccomp.NUMBERS[name][column]
    assert number is not None
    padded = [*arguments, *[0] * (6 - len(arguments))]
    head = number.to_bytes(4, "little") + architecture.to_bytes(4, "little") + bytes(8)
    data = head + b"".join(value.to_bytes(8, "little") for value in padded)
    code = seccomp.filter_code("strict", 77, signals_are_scoped=True, shares_memory=False)
    assert _verdict(code, data) == verdict


def test_a_call_by_another_table_or_younger_than_ours_gets_through_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(seccomp.platform, "machine", lambda: "x86_64")
    code = seccomp.filter_code("compile", 77, signals_are_scoped=True, shares_memory=True)

    def verdict(number: int, architecture: int) -> int:
        head = number.to_bytes(4, "little") + architecture.to_bytes(4, "little")
        return _verdict(code, head + bytes(56))

    x86_64, i386 = 0xC000003E, 0x40000003
    assert verdict(39, x86_64) == 0x7FFF0000
    assert verdict(39, i386) == 0x80000000
    assert verdict(0x40000000 + 39, x86_64) == 0x80000000
    assert verdict(4095, x86_64) == 0x50026


@pytest.mark.parametrize(
    ("flags", "allowed"), [(17, True), (0x3D0F00, True), (0x3D0B00, False), (0x10000011, False)]
)
def test_compilers_may_start_processes_but_no_thread_that_hides_files(
    flags: int, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seccomp.platform, "machine", lambda: "x86_64")
    code = seccomp.filter_code("compile", 77, signals_are_scoped=True, shares_memory=False)
    head = (56).to_bytes(4, "little") + (0xC000003E).to_bytes(4, "little") + bytes(8)
    assert (_verdict(code, head + flags.to_bytes(8, "little") + bytes(40)) == 0x7FFF0000) is allowed


def test_the_refusal_says_what_is_missing_and_what_to_do() -> None:
    lacking = Containment(
        level="process",
        profile="strict",
        layers=(),
        missing=("landlock: the kernel offers no Landlock", "namespaces: not allowed"),
        failed_acts=("list /",),
    )
    assert lacking.refusal is not None
    assert "no Landlock" in lacking.refusal
    assert "not refused: list /" in lacking.refusal
    assert "namespaces" not in lacking.refusal
