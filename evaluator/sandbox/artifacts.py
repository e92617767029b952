"""Files that cross the boundary through a child's scratch folder, where any name may be a trap."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess

from .failures import ChildFailed


def read_artifact(folder: int, name: str, at_most: int) -> bytes:
    """The bytes of a plain file in an open folder.

    Raises ChildFailed("protocol") for a link, pipe, device or folder, a second hard link, a missing
    file or one of more than `at_most` bytes.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=folder)
    except OSError as error:
        raise ChildFailed("protocol", f"no readable {name}: {error.strerror}") from None
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
        os.close(descriptor)
        raise ChildFailed("protocol", f"{name} is no plain file")
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(at_most + 1)
    if len(data) > at_most:
        raise ChildFailed("protocol", f"{name} has more than {at_most} bytes")
    return data


def write_artifact(folder: int, name: str, data: bytes) -> None:
    """Puts a new file into an open folder; raises ChildFailed("protocol") if the name is taken."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, 0o600, dir_fd=folder)
    except FileExistsError:
        raise ChildFailed("protocol", f"something else is in the place of {name}") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def remove_scratch(folder: str) -> None:
    """Removes what a candidate may have made deep or closed to its owner; what resists stays."""
    try:
        shutil.rmtree(folder)
    except (OSError, RecursionError):
        for command in (("chmod", "-R", "u+rwx"), ("rm", "-rf")):
            subprocess.run([*command, "--", folder], check=False, stderr=subprocess.DEVNULL)
