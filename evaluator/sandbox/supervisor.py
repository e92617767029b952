"""The trusted side of the process boundary: one zygote, and one child after the other from it.

The supervisor keeps labels, head, loss and clock; it never imports a candidate's code.
"""

from __future__ import annotations

import json
import os
import select
import signal
import site
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..kernel_cache import reading_from
from ..mps import MpsUnavailable, end_client
from .artifacts import remove_scratch
from .containment import CONFINING, Containment, found
from .failures import ChildFailed, SandboxFault
from .freed_memory import PERTURB
from .handle import Child
from .limits import MIB, Limits
from .seccomp import Profile
from .watchdog import Watchdog

_START_S = 180.0
_FORK_S = 10.0
_END_S = 10.0
_SELF_TEST_S = 10.0
_LOG_CHARS = 1000
_MESSAGE_BYTES = 1 << 16
# The zygote's environment is made from nothing; these alone are taken over where they are set.
_TAKEN_OVER = (
    "CUDA_DEVICE_ORDER",
    "CUDA_HOME",
    "CUDA_VISIBLE_DEVICES",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
)

# glibc keeps a step's memory for the next one, in large pages: 2 to 8 % of a training step.
_KEEP_MEMORY = ":".join(
    (
        "glibc.malloc.hugetlb=1",
        f"glibc.malloc.top_pad={128 * MIB}",
        f"glibc.malloc.mmap_threshold={1024 * MIB}",
        f"glibc.malloc.trim_threshold={1024 * MIB}",
        PERTURB,  # until the zygote has loaded everything
    )
)


class Sandbox:
    """Owns a zygote, started on first use and again if it dies, and at most one child at a time.

    `folder` must be the sandbox's own: it holds a scratch folder a child, and goes altogether if
    this process is killed. Every method raises SandboxFault when the machinery fails. Not
    thread-safe: use one in each thread. `kernel_cache`: a folder of compiled kernels that children
    may read. `mps`: the variables by which their CUDA finds a service that it shares a GPU by.
    `without` leaves layers out: only for tests, which show by it what a layer is for.
    """

    def __init__(
        self,
        folder: Path,
        *,
        threads: int = 1,
        device: str = "cpu",
        profile: Profile = "strict",
        kernel_cache: Path | None = None,
        mps: Mapping[str, str] | None = None,
        without: frozenset[str] = frozenset(),
    ) -> None:
        self._folder = folder.absolute()
        self._threads = threads
        self._device = device
        self._profile = profile
        self._kernel_cache = kernel_cache
        self._mps = dict(mps or {})
        self._without = without
        self._containment: Containment | None = None
        self._layers: frozenset[str] = frozenset()
        self._zygote: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._is_ready = False
        self._child: Child | None = None
        self._watchdog: Watchdog | None = None  # of the newest child
        self._earlier_gpu_bytes = 0  # the peak of the job's children before it
        self._gpu_share: float | None = None
        self._numbers = count()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def zygote_pid(self) -> int | None:
        return None if self._zygote is None else self._zygote.pid

    @property
    def containment(self) -> Containment:
        """What the self-test of this zygote found; starts it if need be."""
        self._wait_until_ready()
        assert self._containment is not None
        return self._containment

    @property
    def peak_gpu_bytes(self) -> int:
        """The most GPU memory that one of the job's children was seen to hold; 0 where the driver
        does not tell."""
        newest = 0 if self._watchdog is None else self._watchdog.peak_gpu_bytes
        return max(self._earlier_gpu_bytes, newest)

    def begin_job(self, gpu_share: float | None) -> None:
        """From here on children belong to another job, and each may take `gpu_share` of a GPU's
        memory where its limits would give it less."""
        self._watchdog, self._earlier_gpu_bytes, self._gpu_share = None, 0, gpu_share

    def start(self) -> None:
        """Starts the zygote and returns at once; it loads torch meanwhile."""
        if self._zygote is not None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        module = f"{__package__}.zygote"
        numbers = (theirs.fileno(), os.getpid(), self._threads)
        arguments = [*map(str, numbers), *sorted(self._without)]
        with theirs, open(self._folder / "zygote.log", "wb") as log:
            self._zygote = subprocess.Popen(
                [sys.executable, "-P", "-m", module, *arguments],
                env=self._environment(),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._control = ours

    def spawn(self, limits: Limits, data: Path | None = None, device: str | None = None) -> Child:
        """A fresh child, with `data` open for it to read and no other file of ours."""
        if self._child is not None:
            self._child.close()
        self._wait_until_ready()
        self._child = self._fork(limits, data, device or self._device)
        return self._child

    def close(self) -> None:
        """Ends the child and the zygote; a later use starts anew."""
        if self._child is not None:
            self._child.close()
            self._child = None
        self._discard_zygote()

    def _fork(
        self, limits: Limits, data: Path | None, device: str, outside: Path | None = None
    ) -> Child:
        """`outside`: the file that a self-test tries to get at, in place of a candidate."""
        limits = self._widened(limits)
        scratch = self._folder / f"child-{next(self._numbers)}"
        scratch.mkdir(mode=0o700)
        request = {
            "op": "spawn",
            "scratch": str(scratch),
            "device": device,
            "profile": self._profile,
            "without": sorted(self._without),
            "limits": asdict(limits),
            "outside": None if outside is None else str(outside),
        }
        channel, theirs = socket.socketpair()
        output, their_output = os.pipe()
        given = [theirs.fileno(), their_output]
        if data is not None:
            given.append(os.open(data, os.O_RDONLY | os.O_CLOEXEC))
        try:
            answer = self._ask(request, _FORK_S, given)
        except SandboxFault:
            channel.close()
            os.close(output)
            raise
        finally:
            theirs.close()
            for descriptor in given[1:]:
                os.close(descriptor)
        assert self._zygote is not None
        folder = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._earlier_gpu_bytes = self.peak_gpu_bytes
        self._watchdog = Watchdog(self._zygote.pid, answer["memory_bytes"], folder, limits)
        return Child(
            channel=channel,
            output=output,
            process=os.pidfd_open(answer["pid"]),
            scratch=folder,
            watchdog=self._watchdog,
            end=partial(self._end_child, answer["pid"]),
            release=lambda: remove_scratch(str(scratch)),
            layers=self._layers,
        )

    def _widened(self, limits: Limits) -> Limits:
        fraction = limits.gpu_memory_fraction
        if fraction is None or self._gpu_share is None or self._gpu_share <= fraction:
            return limits
        return replace(limits, gpu_memory_fraction=self._gpu_share)

    def _end_child(self, pid: int, is_working: bool) -> int | None:
        """Kills the child and all below it; None if that took the zygote with it."""
        if is_working and self._mps:
            # A service that does not answer frees the GPU some seconds after the kill.
            with suppress(MpsUnavailable):
                end_client(self._mps, pid)
        try:
            return int(self._ask({"op": "end"}, _END_S)["status"])
        except SandboxFault:
            self._discard_zygote()
            return None

    def _wait_until_ready(self) -> None:
        self.start()
        if self._is_ready:
            return
        missing = self._receive(_START_S)["missing"]
        self._containment = self._self_test(missing)
        self._layers = frozenset(self._containment.layers) & CONFINING
        self._is_ready = True

    def _self_test(self, missing: dict[str, str]) -> Containment:
        """Trusted code in a child tries what is forbidden; `missing` in the zygote, and why."""
        self._layers = frozenset()
        outside = self._folder / "outside"
        outside.touch()
        limits = Limits(wall_s=_SELF_TEST_S, memory_bytes=512 * MIB)
        try:
            with self._fork(limits, None, self._device, outside) as child:
                said = child.await_confinement()
        except ChildFailed as failure:
            raise self._fault(f"did not pass its self-test ({failure})") from None
        layers = [*(() if missing else ("namespaces",)), *said["layers"]]
        return found(self._profile, layers, {**missing, **said["missing"]}, said["failed_acts"])

    def _ask(
        self, request: dict[str, Any], timeout_s: float, descriptors: list[int] | None = None
    ) -> dict[str, Any]:
        if self._control is None:
            raise SandboxFault("the zygote is gone")
        try:
            socket.send_fds(self._control, [json.dumps(request).encode()], descriptors or [])
        except OSError as error:
            raise self._fault(f"cannot be reached ({error})") from None
        return self._receive(timeout_s)

    def _receive(self, timeout_s: float) -> dict[str, Any]:
        assert self._control is not None
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        if not poll.poll(1000 * timeout_s):
            raise self._fault(f"gave no answer within {timeout_s:g} s")
        try:
            data = self._control.recv(_MESSAGE_BYTES)
        except ConnectionError:
            data = b""
        if not data:
            raise self._fault("died")
        answer: dict[str, Any] = json.loads(data)
        return answer

    def _fault(self, what: str) -> SandboxFault:
        """Discards the zygote, so that the next use starts another."""
        log = self._last_words()  # the zygote takes its folder with it
        self._discard_zygote()
        return SandboxFault(f"the zygote {what}" + (f": {log}" if log else ""))

    def _last_words(self) -> str:
        try:
            log = (self._folder / "zygote.log").read_text(errors="replace")
        except FileNotFoundError:
            return "it has removed its log already"
        return log.strip()[-_LOG_CHARS:]

    def _discard_zygote(self) -> None:
        """Dismisses the zygote, which ends all below it and itself; kills it if it does not."""
        zygote, control = self._zygote, self._control
        self._zygote, self._control, self._is_ready = None, None, False
        if zygote is None or control is None:
            return
        with control, suppress(OSError):  # it may be dead
            control.send(json.dumps({"op": "close"}).encode())
        try:
            zygote.wait(_END_S)
        except subprocess.TimeoutExpired:
            os.killpg(zygote.pid, signal.SIGKILL)
            zygote.wait()

    def _environment(self) -> dict[str, str]:
        threads = str(self._threads)
        home = str(self._folder)
        taken_over = (*_TAKEN_OVER, *(("PATH",) if self._profile == "compile" else ()))
        cache = {} if self._kernel_cache is None else reading_from(self._kernel_cache)
        return {
            **cache,
            **{name: os.environ[name] for name in taken_over if name in os.environ},
            **self._mps,
            "HOME": home,
            "TMPDIR": home,
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": "1",  # its threads would start at import, before the fork
            "GLIBC_TUNABLES": _KEEP_MEMORY,
            "PYTHONHASHSEED": "0",  # sets keep their order from run to run
            "PYTHONUNBUFFERED": "1",  # a child's last words arrive although it is killed
            "PYTHONUSERBASE": site.getuserbase(),
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # what deterministic matrix products need
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # asking for a GPU must not start CUDA
            "TORCHINDUCTOR_COMPILE_THREADS": "1",  # more would be processes that wait on sockets
            "TORCHINDUCTOR_VEC_ISA_OK": "1",  # or it asks a Python that would not come up
            "USER": "candidate",  # or a library asks /etc/passwd for a name
        }
