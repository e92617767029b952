"""Which files a candidate's process may open: its scratch, and what libraries consist of.

In the profile `strict` that is shared libraries: whatever Python code is needed has been loaded
before, and its text, which is much like what a candidate is trained on, cannot be read. Where
compilers run, Python's and torch's sources are needed too; then everything is named, and no folder
is granted whole that other software shares, for another Python's library would be a copy of the
text that the default corpus holds out.
"""

from __future__ import annotations

import os
import pwd
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..kernel_cache import KERNEL_CACHE
from .landlock import FileAccess
from .python_places import package_folders, package_places, standard_library
from .seccomp import Profile

_PACKAGE = Path(__file__).parents[2]
_OURS = ("__init__.py", "errors.py", "config.py", "kernels", "search_space", "evaluator")
_SYSTEM = (
    "/etc/ld.so.cache",
    "/dev/random",
    "/dev/urandom",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
)
_PREFIXES = ("/", "/usr", "/usr/local")
_LIBRARIES = ("*.so", "*.so.*", "*-linux-*", "locale", "nvidia*", "wsl")
_LIBRARY_FOLDERS = ("torch/lib", "nvidia/*/lib", "nvidia/*/*/lib")
_FOR_COMPILERS = ("*.a", "*.o", "gcc*", "llvm*", "clang*", "bfd-plugins")
_TOOL_FOLDERS = ("bin", "sbin", "include", "libexec", "*-linux-*")
_DRIVER = "/usr/local/nvidia"  # where containers have it
_CUDA_FOLDERS = "/usr/local/cuda*"
_CUDA_LIBRARIES = ("lib", "lib64", "targets", "nvvm", "extras/CUPTI/lib64")
# Found by trying: without its own maps and its threads' names CUDA does not come up. Both are named
# from inside, so that they are this process's own.
_READABLE_FOR_CUDA = ("/proc/self/maps",)
_WRITABLE_FOR_CUDA = ("/proc/self/task",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """`binaries` may be read, `sources` and `tools` too where compilers run, and of `listable` the
    names alone.

    `withheld` are files in none of them: what a self-test tries to read.
    """

    binaries: tuple[str, ...]
    sources: tuple[str, ...]
    tools: tuple[str, ...]
    listable: tuple[str, ...]
    withheld: tuple[str, ...]


def allowed_files(places: Places, scratch: str, profile: Profile, device: str) -> FileAccess:
    """`places`: from readable_places, called before the confinement."""
    is_cuda, compiles = device == "cuda", profile == "compile"
    for_compilers = (*places.sources, *places.tools) if compiles else ()
    return FileAccess(
        readable=(*places.binaries, *for_compilers, *(_READABLE_FOR_CUDA if is_cuda else ())),
        listable=places.listable if compiles else (),
        writable=(scratch, *(_WRITABLE_FOR_CUDA if is_cuda else ())),
        devices=("/dev/null", *(_gpu_nodes() if is_cuda else ())),
        may_execute=compiles,
    )


def readable_places() -> Places:
    """The interpreter's, the libraries' and our own code's places; never a folder of the user's.

    Of a clone only the folders with code that candidates use: runs and stores lie beside them. To
    be called with what a candidate needs loaded; starts a process for a moment.
    """
    standard = standard_library()
    ours = (str(_PACKAGE / name) for name in _OURS)
    kernels = os.environ.get(KERNEL_CACHE, "")
    return Places(
        binaries=_without_private((*_system_libraries(), *_package_libraries(), *_SYSTEM, kernels)),
        sources=_without_private((*standard.readable, *package_places(), *ours)),
        tools=_without_private(_tools()),
        listable=(standard.folder, *package_folders()),
        withheld=standard.withheld,
    )


def python_files() -> tuple[str, ...]:
    """Some of the files without which nothing can be imported."""
    return (os.__file__, sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), __file__)


def _system_libraries() -> Iterator[str]:
    named = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    for folder in {*_library_folders(), *filter(os.path.isabs, named)}:
        yield from _matching(folder, _LIBRARIES)
    for folder in _cuda_folders():
        yield from _matching(folder, _CUDA_LIBRARIES)
    yield _DRIVER


def _package_libraries() -> Iterator[str]:
    """What torch opens late, on a GPU above all."""
    for site in package_folders():
        yield from _matching(site, _LIBRARY_FOLDERS)


def _tools() -> Iterator[str]:
    for prefix in _prefixes() | _cuda_folders():
        yield from _matching(prefix, (*_TOOL_FOLDERS, "pyvenv.cfg"))
    for folder in _library_folders():
        yield from _matching(folder, _FOR_COMPILERS)


def _library_folders() -> set[str]:
    folders = (Path(prefix, name) for prefix in _prefixes() for name in ("lib", "lib64"))
    return {os.path.realpath(folder) for folder in folders}


def _cuda_folders() -> set[str]:
    named = os.environ.get("CUDA_HOME", "")
    return {*_matching("/", (_CUDA_FOLDERS[1:],)), *filter(os.path.isabs, [named])}


def _prefixes() -> set[str]:
    return {*_PREFIXES, os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix)}


def _matching(folder: str, patterns: tuple[str, ...]) -> Iterator[str]:
    return (str(path) for pattern in patterns for path in Path(folder).glob(pattern))


def _without_private(paths: tuple[str, ...] | Iterator[str]) -> tuple[str, ...]:
    """Their real paths, each once, without any at or above a home or the clone that runs."""
    real = {os.path.realpath(path) for path in paths if os.path.isabs(path)}
    return tuple(sorted(path for path in real if not _holds_private_files(path)))


def _holds_private_files(path: str) -> bool:
    return any(os.path.commonpath([path, place]) == path for place in _private_folders())


@cache
def _private_folders() -> tuple[str, ...]:
    """The user's home, and the clone that this package may run from."""
    homes = [os.path.realpath(pwd.getpwuid(os.getuid()).pw_dir)] if _has_home() else []
    is_installed = any(_PACKAGE.parent.glob("*.dist-info"))
    return (*homes, *(() if is_installed else (str(_PACKAGE),)))


def _has_home() -> bool:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir not in ("", "/", "/nonexistent")
    except KeyError:
        return False


def _gpu_nodes() -> Iterator[str]:
    yield from ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/zero")
    yield from map(str, Path("/dev").glob("nvidia[0-9]*"))
