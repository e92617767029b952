"""The process that forks the candidates' processes: torch and our trusted code loaded, no secrets.

The supervisor executes it with an environment of its own making and one end of a socketpair. It
has one child at a time, so whatever lives below it is the candidate's: ending a child means ending
all of that. It never touches CUDA, which no process can use after a fork.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import linecache
import os
import select
import signal
import socket
import sys
import tempfile
import traceback
from typing import Any, NoReturn

from ...search_space.contract import ALLOWED_IMPORTS
from .artifacts import remove_scratch
from .confinement import Plan
from .docstrings import forget_docstrings
from .freed_memory import overwrite_freed_memory
from .kernel import LayerMissing
from .limits import Limits, adopt_orphans, bind_to_parent, hide_memory
from .namespaces import enter_namespaces
from .places import Places, python_files, readable_places
from .preloaded_kernels import preload_kernels
from .processes import children_of, usage_of
from .python_places import loaded_of_the_standard_library
from .readable_imports import import_only_readable

# Parts of the standard library that torch, Triton and what they require load late, if at all: any
# may be text that is held out, which a child cannot read.
_LOADED_LATE_BY_LIBRARIES = (
    "_strptime",
    "cProfile",
    "concurrent.futures.process",
    "configparser",
    "email.headerregistry",
    "faulthandler",
    "getopt",
    "html",
    "importlib.metadata",
    "importlib.readers",
    "importlib.resources",
    "importlib.util",
    "multiprocessing.pool",
    "multiprocessing.queues",
    "multiprocessing.synchronize",
    "pstats",
    "secrets",
    "shlex",
    "statistics",
    "timeit",
    "xml.etree.ElementTree",
    "zoneinfo",
)
# Imported here once: in the profile strict children can read no source. torch.optim would load
# torch._dynamo on first use, and einops its part for torch.
_PRELOADED = (
    *_LOADED_LATE_BY_LIBRARIES,
    *ALLOWED_IMPORTS,
    "torch._dynamo",
    "torch.nn.attention.bias",
    "torch.nn.attention.flex_attention",
    "einops._torch_specific",
    "einops.layers.torch",
    "safetensors.torch",
    "linearch.search_space.asi_arch.stand_ins",
    "linearch.search_space.loading",
    "linearch.search_space.backbone",
    "linearch.evaluator.training",
    "linearch.evaluator.sandbox.child",
)
_MESSAGE_BYTES = 1 << 16
_PARENT_CHECK_MS = 1000


def main() -> None:
    """Arguments: the socket's file descriptor, the supervisor's process id, threads a child, and
    the layers that are left out.
    """
    descriptor, supervisor, threads = map(int, sys.argv[1:4])
    control = socket.socket(fileno=descriptor)
    folder = os.getcwd()
    missing = _isolate(set(sys.argv[4:]))
    adopt_orphans()
    _preload(threads)
    places = readable_places()
    _forget_sources(places)
    is_orphan = False
    try:
        _answer(control, {"missing": missing})
        is_orphan = not _serve(control, supervisor, places)
    except ConnectionError:
        is_orphan = True
    finally:
        _end_everything()
        if is_orphan:  # nobody else is left to remove it
            remove_scratch(folder)


def _isolate(without: set[str]) -> dict[str, str]:
    """Why namespaces are missing, if they are; nothing has been loaded or started before."""
    missing = {"namespaces": "left out"}
    if "namespaces" not in without:
        try:
            enter_namespaces(python_files())
            missing = {}
        except LayerMissing as reason:
            missing = {"namespaces": str(reason)}
    hide_memory(True)
    return missing


def _preload(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    for name in _PRELOADED:
        importlib.import_module(name)
    from .rehearsal import modules_loaded_late

    for name in modules_loaded_late():
        importlib.import_module(name)
    preload_kernels()


def _forget_sources(places: Places) -> None:
    """What a child may not read it does not find in its memory either, compiled code apart."""
    import_only_readable()
    linecache.clearcache()
    forget_docstrings({*places.withheld, *loaded_of_the_standard_library()})
    gc.collect()
    overwrite_freed_memory()
    gc.freeze()  # a collection in a child would copy every page that holds an object header


def _serve(control: socket.socket, supervisor: int, places: Places) -> bool:
    """Until the supervisor says that it is done (True) or is gone (False)."""
    child: int | None = None
    while (request := _next_request(control, supervisor)) is not None:
        values, descriptors = request
        if values["op"] == "spawn":
            assert child is None, "one child at a time"
            child = _spawn(control, {**values, "places": places}, descriptors)
            usage = usage_of(os.getpid())
            _answer(control, {"pid": child, "memory_bytes": usage.memory_bytes if usage else 0})
        elif values["op"] == "end":
            assert child is not None, "no child to end"
            _answer(control, {"status": _end(child)})
            child = None
        else:
            return True
    return False


def _next_request(
    control: socket.socket, supervisor: int
) -> tuple[dict[str, Any], list[int]] | None:
    """None once the supervisor is gone, even if a copy of its socket lives on elsewhere."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while not poll.poll(_PARENT_CHECK_MS):
        if os.getppid() != supervisor:
            return None
    data, descriptors, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, 4)
    for descriptor in descriptors:  # recv_fds takes no notice of MSG_CMSG_CLOEXEC
        os.set_inheritable(descriptor, False)
    return (json.loads(data), list(descriptors)) if data else None


def _answer(control: socket.socket, values: dict[str, Any]) -> None:
    control.send(json.dumps(values).encode())


def _spawn(control: socket.socket, values: dict[str, Any], descriptors: list[int]) -> int:
    zygote = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        for descriptor in descriptors:
            os.close(descriptor)
        raise SystemExit(f"cannot fork: {error}") from error
    if pid == 0:
        control.close()
        _become_child(zygote, values, *descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    return pid


def _become_child(
    zygote: int, values: dict[str, Any], channel: int, output: int, data: int | None = None
) -> NoReturn:
    """Never returns into the zygote's frames, whatever happens."""
    status = 1
    try:
        os.setsid()
        bind_to_parent(zygote)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        hide_memory(False)  # the supervisor looks at its open files
        _settle(values["scratch"])
        _run(socket.socket(fileno=channel), values, data)
        status = 0
    except BaseException:  # sys.exit in a candidate too; the supervisor reads it as last words
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _settle(scratch: str) -> None:
    """Makes the scratch folder the place for everything that a library might want to write."""
    os.chdir(scratch)
    tempfile.tempdir = None  # found again from TMPDIR
    os.environ.update(
        HOME=scratch,
        TMPDIR=scratch,
        TORCHINDUCTOR_CACHE_DIR=f"{scratch}/inductor",
        TRITON_CACHE_DIR=f"{scratch}/triton",
    )


def _run(channel: socket.socket, values: dict[str, Any], data: int | None) -> None:
    from . import child

    limits = Limits(**values["limits"])
    plan = Plan(
        profile=values["profile"],
        device=values["device"],
        scratch=values["scratch"],
        places=values["places"],
        without=frozenset(values["without"]),
    )
    if values["outside"] is None:
        child.main(channel, data, limits, plan)
    else:
        child.examine(channel, limits, plan, values["outside"])


def _end(child: int) -> int:
    """Kills the child and all its descendants; its wait status."""
    with contextlib.suppress(ProcessLookupError):  # it may not have come to its session yet
        os.killpg(child, signal.SIGKILL)  # all at once, before the tree can grow
    return _end_everything()[child]


def _end_everything() -> dict[int, int]:
    """Kills and reaps until nothing is left below; wait statuses by process id.

    Only direct children are killed, whose ids cannot be reused before they are reaped here; orphans
    become direct children, since this process adopts them.
    """
    statuses: dict[int, int] = {}
    while True:
        for pid in children_of(os.getpid()):
            os.kill(pid, signal.SIGKILL)
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:
            return statuses
        statuses[pid] = status


if __name__ == "__main__":
    main()
