"""The candidate's process: the only place where a candidate's code runs.

It answers one request after the other until the supervisor hangs up. What the candidate raises is
caught here, at the worker's boundary, and told; what kills the process tells itself.
"""

from __future__ import annotations

import socket
import traceback
from dataclasses import asdict
from typing import Any

import torch

from ...kernels.forms import without_compilers
from .confinement import Plan, confine
from .failures import FailureKind
from .limits import Limits
from .mixer_bench import ContractBroken
from .protocol import MessageReader, ProtocolError, encode, receive, send
from .selftest import acts_not_refused
from .workbench import CANDIDATE_FILE, Workbench

_MESSAGE_CHARS = 500
_TRACEBACK_CHARS = 4000
_TRACEBACK_FRAMES = 6


def main(channel: socket.socket, data: int | None, limits: Limits, plan: Plan) -> None:
    """`data`: a descriptor of the training data, the only file of ours that the child may read.

    Says first how it is confined: no candidate has run yet, so that is believed.
    """
    device, confinement = confine(limits, plan, start=lambda: _start(plan.device, limits))
    if plan.profile == "strict":
        without_compilers()
    send(channel, {"event": "confined", **asdict(confinement)})
    serve(channel, Workbench(device, data))


def examine(channel: socket.socket, limits: Limits, plan: Plan, outside: str) -> None:
    """The self-test in the place of a candidate; `outside` is a file that it may not touch."""
    _, confinement = confine(limits, plan, start=lambda: None)
    failed = acts_not_refused(plan.profile, outside, plan.device, plan.places.withheld)
    send(channel, {"event": "confined", **asdict(confinement), "failed_acts": failed})


def serve(channel: socket.socket, workbench: Workbench) -> None:
    """Returns when the supervisor has closed its end."""
    reader = MessageReader()

    def report(event: str, **values: Any) -> None:
        send(channel, {"event": event, **values})

    while True:
        try:
            request = receive(channel, reader)
        except EOFError:
            return
        try:
            values, tensors = workbench.answer(request, report)
            reply = encode({"result": values}, tensors)
        except Exception as error:
            reply = encode({"error": describe(error)})
        channel.sendall(reply)


def describe(error: Exception) -> dict[str, str]:
    """What a candidate's exception says, cut to a size that fits into a prompt and a table."""
    said = "".join(traceback.format_exception_only(error)).strip()[:_MESSAGE_CHARS]
    lines = traceback.format_exception(error, limit=-_TRACEBACK_FRAMES)
    return {
        "kind": _kind(error, said),
        "message": said + _where(error) + _hint(error, said),
        "traceback": "".join(lines)[-_TRACEBACK_CHARS:],
    }


def _kind(error: Exception, said: str) -> FailureKind:
    if isinstance(error, (ProtocolError, ContractBroken)):
        return "protocol"
    # a CPU allocation that fails is a plain RuntimeError
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in said:
        return "oom"
    return "raised"


def _where(error: Exception) -> str:
    """The innermost line of the candidate's own source that the exception came through."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == CANDIDATE_FILE]
    return f" (line {lines[-1]} of the source)" if lines else ""


def _hint(error: Exception, said: str) -> str:
    """What a refusal that comes as it may from a compiler's depths has to do with."""
    frames = traceback.extract_tb(error.__traceback__)
    starts_process = any(frame.filename.endswith("subprocess.py") for frame in frames)
    if "PermissionError" in said and starts_process:
        return "; the sandbox's profile strict starts no processes, which compilers need"
    if "PermissionError" in said and any("/triton/" in frame.filename for frame in frames):
        return "; the sandbox's profile strict opens no sources, which compilers need"
    if "ModuleNotFoundError" in said:
        return "; the sandbox's profile strict loads no more libraries, which compilers need"
    return ""


def _start(device: str, limits: Limits) -> torch.device:
    """CUDA comes up here, in trusted code; see `confine` for what holds already."""
    # A decayed state is full of numbers near 1e-40, on which a CPU is many times slower.
    torch.set_flush_denormal(True)
    if device == "cuda":
        # The same seed shall give the same model, where an operator has a deterministic form.
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        # cuDNN's attention makes a plan for each new length, and rows are scored in many pieces.
        torch.backends.cuda.enable_cudnn_sdp(False)
        if limits.gpu_memory_fraction is not None:
            torch.cuda.set_per_process_memory_fraction(limits.gpu_memory_fraction)
        torch.zeros((), device=device)
    return torch.device(device)
