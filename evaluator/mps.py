"""NVIDIA's multi-process service: processes run on a GPU side by side instead of in turns.

A process finds the service by a variable of its environment when its CUDA comes up. The price: a
process that reads or writes where it must not ends the CUDA of all that share the service.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_PROGRAM = "nvidia-cuda-mps-control"
PIPES, _LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
_CHOSEN = "CUDA_VISIBLE_DEVICES"
_BESIDE_THE_DRIVER = ("/usr/local/nvidia/bin", "/usr/bin", "/usr/local/cuda/bin", "/opt/bin")
_CALL_S = 10.0
_END_S = 5.0
_POLL_S = 0.05
_SAID_CHARS = 300


class MpsUnavailable(Exception):
    """One sentence: why processes take turns here."""


@contextmanager
def shared_gpu(environment: Mapping[str, str] | None = None) -> Iterator[dict[str, str]]:
    """A service of one's own while the context lasts; the variables by which processes find it.

    `environment` (by default this process's) says where to look for the program and whether a
    service of the user's is in use already: then that one is, and goes on. Raises MpsUnavailable.
    """
    environment = os.environ if environment is None else environment
    if PIPES in environment:
        _ask("get_server_list", environment)
        yield {PIPES: environment[PIPES]}
        return
    # The path of a socket in it may have 108 characters.
    with tempfile.TemporaryDirectory(prefix="mps-", ignore_cleanup_errors=True) as folder:
        ours = _start(Path(folder), environment)
        try:
            yield {PIPES: ours[PIPES]}
        finally:
            _stop(ours)


def has_served(variables: Mapping[str, str]) -> bool:
    """Whether a process's CUDA has found the service: it starts a server for the first that does,
    and CUDA that does not find it comes up without a word. Raises MpsUnavailable.
    """
    servers = _ask("get_server_list", {**os.environ, **variables}).split()
    return any(server.isdigit() for server in servers)


def end_client(variables: Mapping[str, str], pid: int) -> bool:
    """Ends what a process has on the GPU; False if the service knows no such process.

    For one that is about to be killed: a kernel that goes on after its process kept new ones from
    the GPU for some 10 s, and no CUDA that had met it busy came up again. Raises MpsUnavailable.
    """
    environment = {**os.environ, **variables}
    for server in _ask("get_server_list", environment).split():
        if str(pid) in _ask(f"get_client_list {server}", environment).split():
            _ask(f"terminate_client {server} {pid}", environment)
            return True
    return False


def find_control(environment: Mapping[str, str]) -> Path:
    """The program on the path or beside the driver's libraries; raises MpsUnavailable."""
    libraries = environment.get("LD_LIBRARY_PATH", "").split(":")
    beside = [str(Path(library).parent / "bin") for library in libraries if library]
    places = [*environment.get("PATH", "").split(":"), *beside, *_BESIDE_THE_DRIVER]
    found = shutil.which(_PROGRAM, path=":".join(place for place in places if place))
    if found is None:
        raise MpsUnavailable(f"{_PROGRAM} is not installed")
    return Path(found)


def _start(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    places = {PIPES: folder / "pipes", _LOGS: folder / "logs"}
    for place in places.values():
        place.mkdir()
    ours = {**environment, **{name: str(place) for name, place in places.items()}}
    # The service numbers the GPUs that it sees anew, and its clients choose by these numbers: with
    # all in sight, theirs are what they were.
    all_in_sight = {name: value for name, value in ours.items() if name != _CHOSEN}
    _call([str(find_control(ours)), "-d"], all_in_sight)
    _ask("get_server_list", ours)
    return ours


def _stop(ours: dict[str, str]) -> None:
    """Ends it with what is still connected, and waits until it is gone."""
    _ask(f"quit -t {_END_S:.0f}", ours)
    deadline = time.monotonic() + _CALL_S + _END_S
    while (Path(ours[PIPES]) / f"{_PROGRAM}.pid").exists():
        if time.monotonic() > deadline:
            raise MpsUnavailable(f"{_PROGRAM} goes on although it was told to quit")
        time.sleep(_POLL_S)


def _ask(command: str, environment: Mapping[str, str]) -> str:
    return _call([str(find_control(environment))], environment, command)


def _call(arguments: list[str], environment: Mapping[str, str], command: str = "") -> str:
    try:
        done = subprocess.run(
            arguments,
            env=dict(environment),
            input=f"{command}\n" if command else "",
            capture_output=True,
            text=True,
            timeout=_CALL_S + _END_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MpsUnavailable(f"{_PROGRAM} does not answer: {error}") from error
    said = " ".join((done.stderr + done.stdout).split())[:_SAID_CHARS]
    if done.returncode != 0 or "Cannot find MPS control daemon" in said:
        raise MpsUnavailable(f"{_PROGRAM} failed: {said or done.returncode}")
    return done.stdout
