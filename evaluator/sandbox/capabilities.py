"""Root's powers, given up for good: by a root process, and by what it may execute later."""

from __future__ import annotations

import contextlib
import ctypes
import platform

from .kernel import LayerMissing, prctl, system_call

_PR_SET_NO_NEW_PRIVS = 38
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_CAP_AMBIENT, _CLEAR_ALL = 47, 4
_VERSION_3 = 0x20080522
_CAPGET_CAPSET = {"x86_64": (125, 126), "aarch64": (90, 91)}


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def forbid_new_privileges() -> None:
    """No program executed from here gains anything by its owner or its file's capabilities."""
    try:
        prctl(_PR_SET_NO_NEW_PRIVS, 1)
    except OSError as error:
        raise LayerMissing(f"the kernel refused no_new_privs: {error.strerror}") from None


def drop_capabilities() -> None:
    """Empties all of this thread's sets. The bounding set stays where the process may not shrink
    it: then it has nothing that no_new_privs would let it gain. Raises LayerMissing.
    """
    if platform.machine() not in _CAPGET_CAPSET:
        raise LayerMissing(f"no table of system calls for {platform.machine()}")
    with contextlib.suppress(OSError):  # EPERM without CAP_SETPCAP, EINVAL beyond the last one
        for capability in range(64):
            prctl(_PR_CAPBSET_READ, capability)
            prctl(_PR_CAPBSET_DROP, capability)
    capget, capset = _CAPGET_CAPSET[platform.machine()]
    header, data = _Header(version=_VERSION_3), (_Data * 2)()
    try:
        prctl(_PR_CAP_AMBIENT, _CLEAR_ALL)
        system_call(capset, ctypes.byref(header), ctypes.byref(data))
        system_call(capget, ctypes.byref(header), ctypes.byref(data))
    except OSError as error:
        raise LayerMissing(f"capabilities cannot be dropped: {error.strerror}") from None
    if any(word.effective | word.permitted | word.inheritable for word in data):
        raise LayerMissing("capabilities are still there after they were dropped")
