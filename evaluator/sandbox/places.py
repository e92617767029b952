"""Which files a candidate's process may open: what Python and torch consist of, and its scratch."""

from __future__ import annotations

import os
import pwd
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from .landlock import FileAccess
from .seccomp import Profile

_PACKAGE = Path(__file__).parents[2]
_OURS = ("__init__.py", "errors.py", "config.py", "kernels", "search_space", "evaluator")
_SYSTEM = (
    "/usr",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/dev/random",
    "/dev/urandom",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
)
_DEVICES = ("/dev/null", "/dev/zero")
# Found by trying: without its own maps or its threads' names CUDA does not come up. Both are named
# from inside, so that they are this process's own.
_READABLE_FOR_CUDA = ("/proc/self/maps", "/proc/devices", "/proc/driver/nvidia")
_WRITABLE_FOR_CUDA = ("/proc/self/task",)


def allowed_files(
    readable: Iterable[str], scratch: str, profile: Profile, device: str
) -> FileAccess:
    """`readable`: from readable_places, called before the confinement."""
    is_cuda = device == "cuda"
    return FileAccess(
        readable=(*readable, *(_READABLE_FOR_CUDA if is_cuda else ())),
        writable=(scratch, *(_WRITABLE_FOR_CUDA if is_cuda else ())),
        devices=(*_DEVICES, *(_gpu_nodes() if is_cuda else ())),
        may_execute=profile == "compile",
    )


def readable_places() -> tuple[str, ...]:
    """The interpreter's, the libraries' and our own code's places; never a folder of the user's.

    Of a clone only the folders with code that candidates use: runs and stores lie beside them.
    """
    installed = [sys.prefix, sys.base_prefix, *filter(_holds_packages, sys.path)]
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    named = [*installed, *libraries, os.environ.get("CUDA_HOME", "")]
    paths = {os.path.realpath(path) for path in named if os.path.isabs(path)}
    allowed = sorted(path for path in paths if not _holds_private_files(path))
    return (*allowed, *(str(_PACKAGE / name) for name in _OURS), *_SYSTEM)


def python_files() -> tuple[str, ...]:
    """Some of the files without which nothing can be imported."""
    return (os.__file__, sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), __file__)


def _holds_packages(folder: str) -> bool:
    """Whether pip installs there; other folders on the path are someone's own source."""
    return any(Path(folder).glob("*.dist-info"))


def _holds_private_files(path: str) -> bool:
    """Whether a home, or the clone that this package runs from, lies at or below `path`."""
    private = [os.path.realpath(pwd.getpwuid(os.getuid()).pw_dir)] if _has_home() else []
    if not _holds_packages(str(_PACKAGE.parent)):
        private.append(str(_PACKAGE))
    return any(os.path.commonpath([path, place]) == path for place in private)


def _has_home() -> bool:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir not in ("", "/", "/nonexistent")
    except KeyError:
        return False


def _gpu_nodes() -> Iterator[str]:
    yield from ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
    yield from map(str, Path("/dev").glob("nvidia[0-9]*"))
