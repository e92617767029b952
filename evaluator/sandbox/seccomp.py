"""Which system calls this process and all it starts may make: a filter that the kernel runs.

A list of what is refused, with EPERM; a call by another architecture's table ends the process. It
is built by hand, since a library for it would have to be installed beside pip. It holds for every
thread, those of CUDA included. Two profiles: `strict` has one process, `compile` may start others.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from typing import Literal

from .kernel import LayerMissing, system_call
from .syscall_numbers import NUMBERS

Profile = Literal["strict", "compile"]

# Landlock leaves these open for any file of the same user.
_FILE_FACTS = """chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat setxattr lsetxattr
    fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat utime utimes futimesat
    utimensat file_setattr truncate link linkat symlink symlinkat mknod mknodat name_to_handle_at
    open_by_handle_at inotify_add_watch fanotify_init fanotify_mark"""
_OTHER_PROCESSES = """tkill rt_sigqueueinfo rt_tgsigqueueinfo ptrace process_vm_readv
    process_vm_writev process_madvise process_mrelease kcmp pidfd_open pidfd_getfd
    pidfd_send_signal setpriority ioprio_set sched_setattr sched_setparam sched_setscheduler
    migrate_pages move_pages perf_event_open"""
_SOCKETS = """socket socketpair connect bind listen accept accept4 sendmsg sendmmsg recvmsg
    recvmmsg"""
# Which pages of a library are in memory: what one process of a candidate changes there, the next
# one could read as a message.
_PAGE_CACHE = "mincore cachestat fadvise64"
# Memory and messages that outlive the process or that its measured memory does not show.
_SHARED_MEMORY = """memfd_create memfd_secret shmget shmat shmctl shmdt semget semop semctl
    semtimedop msgget msgsnd msgrcv msgctl mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify
    mq_getsetattr"""
_KERNEL = """bpf userfaultfd io_uring_setup io_uring_enter io_uring_register io_setup io_submit
    add_key request_key keyctl seccomp lsm_set_self_attr init_module finit_module delete_module
    kexec_load kexec_file_load reboot syslog sethostname setdomainname settimeofday clock_settime
    clock_adjtime adjtimex vhangup iopl ioperm modify_ldt lookup_dcookie splice tee vmsplice acct
    quotactl quotactl_fd swapon swapoff landlock_create_ruleset landlock_add_rule
    landlock_restrict_self personality unshare setns chroot pivot_root mount umount2
    fsopen fsmount fsconfig fspick move_mount open_tree open_tree_attr mount_setattr setuid setgid
    setreuid setregid setresuid setresgid setfsuid setfsgid setgroups capset"""
_FOR_COMPILERS = "fork vfork execve execveat flock"

_REFUSED_PRCTL = (
    1,  # PR_SET_PDEATHSIG
    4,  # PR_SET_DUMPABLE
    22,  # PR_SET_SECCOMP
    35,  # PR_SET_MM
    36,  # PR_SET_CHILD_SUBREAPER
    59,  # PR_SET_SYSCALL_USER_DISPATCH
    62,  # PR_SCHED_CORE
    0x59616D61,  # PR_SET_PTRACER
)
# Locks, signals to others by way of a file, leases and watches, large pipes.
_REFUSED_FCNTL = (6, 7, 8, 10, 15, 37, 38, 1024, 1026, 1031)
_REFUSED_IOCTL = (
    0x5412,  # TIOCSTI
    0x541C,  # TIOCLINUX
    0x8901,  # FIOSETOWN
    0x8902,  # SIOCSPGRP
    0x40086602,  # FS_IOC_SETFLAGS
    0x401C5820,  # FS_IOC_FSSETXATTR
)
_CLONE_FILES, _CLONE_THREAD = 0x400, 0x10000
_CLONE_INTO_NAMESPACES = 0x7E020000
_CLOSE_RANGE_UNSHARE = 2
_MAP_SHARED, _MAP_ANONYMOUS = 0x01, 0x20
_MADV_COLD, _MADV_PAGEOUT = 20, 21
_O_ACCMODE_AND_TRUNC, _O_TRUNC = 0o1003, 0o1000
_O_TMPFILE = 0o20000000

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_X32 = 0x40000000
_FIRST_UNKNOWN = 470  # calls younger than this table
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_SET_MODE_FILTER = 1
# To all threads at once, and without the slow-down that older kernels add against side channels.
_TSYNC_AND_SPEC_ALLOW = 0b101

_Code = list[tuple[int, int, int, int]]  # operation, jump if true, jump if false, constant


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def restrict_calls(
    profile: Profile, own_pid: int, *, signals_are_scoped: bool, shares_memory: bool
) -> None:
    """Confines this process for good. Needs no_new_privs or CAP_SYS_ADMIN; raises LayerMissing.

    `signals_are_scoped`: Landlock keeps signals inside already, so a compiler's may be sent.
    `shares_memory`: CUDA's driver may map memory without a file to share it with its devices.
    """
    if platform.machine() not in _ARCHITECTURES:
        raise LayerMissing(f"no table of system calls for {platform.machine()}")
    code = filter_code(
        profile, own_pid, signals_are_scoped=signals_are_scoped, shares_memory=shares_memory
    )
    packed = b"".join(struct.pack("HBBI", *instruction) for instruction in code)
    program = _Program(len(code), packed)
    number = 317 if platform.machine() == "x86_64" else 277
    try:
        other = system_call(number, _SET_MODE_FILTER, _TSYNC_AND_SPEC_ALLOW, ctypes.byref(program))
    except OSError as error:
        raise LayerMissing(f"the kernel refused the seccomp filter: {error.strerror}") from None
    if other:
        raise LayerMissing(f"thread {other} could not be confined by seccomp")


def filter_code(
    profile: Profile, own_pid: int, *, signals_are_scoped: bool, shares_memory: bool
) -> _Code:
    """The filter for this machine's architecture."""
    architecture, column = _ARCHITECTURES[platform.machine()]
    code = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
        (_AT_LEAST, 0, 1, _FIRST_UNKNOWN),
        _errno(errno.ENOSYS),
    ]
    verdicts = _verdicts(profile, own_pid, signals_are_scoped)
    if not shares_memory:  # whose size nobody could tell: what is dropped from view stays
        verdicts["mmap"] = _refuse_flags(3, _MAP_SHARED | _MAP_ANONYMOUS)
    for name, verdict in verdicts.items():
        number = NUMBERS[name][column]
        if number is not None:
            code += [(_EQUAL, 0, len(verdict), number), *verdict]
    return [*code, _allow()]


def _verdicts(profile: Profile, own_pid: int, signals_are_scoped: bool) -> dict[str, _Code]:
    refused = " ".join(
        (_FILE_FACTS, _OTHER_PROCESSES, _SOCKETS, _PAGE_CACHE, _SHARED_MEMORY, _KERNEL)
    )
    if profile == "strict":
        refused += f" {_FOR_COMPILERS}"
    verdicts: dict[str, _Code] = {name: [_errno(errno.EPERM)] for name in refused.split()}
    # Flags in memory cannot be looked at: libraries take these as missing and use the elder. A read
    # of the last kind could say whether it has to wait.
    verdicts |= {name: [_errno(errno.ENOSYS)] for name in ("clone3", "openat2", "preadv2")}
    # A whole disk between two looks; libraries write instead, as they do where a disk cannot.
    verdicts["fallocate"] = [_errno(errno.EOPNOTSUPP)]
    own = (0, own_pid)
    verdicts |= {
        "open": _open_with_flags(1),
        "openat": _open_with_flags(2),
        "sendto": _allow_without_address(4),  # our own channel is written with it
        "prctl": _refuse(0, _REFUSED_PRCTL),
        "close_range": _refuse_flags(2, _CLOSE_RANGE_UNSHARE),
        "madvise": _refuse(2, (_MADV_COLD, _MADV_PAGEOUT)),
        "fcntl": _refuse(1, _REFUSED_FCNTL),
        "ioctl": _refuse(1, _REFUSED_IOCTL),
        "prlimit64": _allow_only(0, own),
        "sched_setaffinity": _allow_only(0, own),
    }
    if profile == "strict":
        verdicts["clone"] = _allow_threads_alone(0)
    else:
        verdicts["clone"] = _refuse_namespaces(0)
    if profile == "strict" or not signals_are_scoped:
        verdicts |= {"kill": _allow_only(0, own), "tgkill": _allow_only(0, (own_pid,))}
    return verdicts


def _allow() -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, _ALLOW)


def _errno(code: int) -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, _ERRNO | code)


def _argument(index: int, *, high: bool = False) -> tuple[int, int, int, int]:
    return (_LOAD, 0, 0, 16 + 8 * index + (4 if high else 0))


def _allow_only(index: int, values: tuple[int, ...]) -> _Code:
    tests = [step for v in values for step in ((_EQUAL, 0, 1, v), _allow())]
    return [_argument(index), *tests, _errno(errno.EPERM)]


def _refuse(index: int, values: tuple[int, ...]) -> _Code:
    tests = [step for v in values for step in ((_EQUAL, 0, 1, v), _errno(errno.EPERM))]
    return [_argument(index), *tests, _allow()]


def _open_with_flags(index: int) -> _Code:
    """No file without a name, which nobody could count; and Landlock before ABI 3 lets a file be
    emptied by whoever may read it.
    """
    nameless = [_argument(index), (_ANY_BIT, 0, 1, _O_TMPFILE), _errno(errno.EPERM)]
    emptied = [(_AND, 0, 0, _O_ACCMODE_AND_TRUNC), (_EQUAL, 0, 1, _O_TRUNC), _errno(errno.EPERM)]
    return [*nameless, *emptied, _allow()]


def _refuse_flags(index: int, flags: int) -> _Code:
    """Refuses all of these at once."""
    masked = [_argument(index), (_AND, 0, 0, flags)]
    return [*masked, (_EQUAL, 0, 1, flags), _errno(errno.EPERM), _allow()]


def _allow_threads_alone(index: int) -> _Code:
    """No table of files of a thread's own, which /proc does not show with its process."""
    thread = _CLONE_THREAD | _CLONE_FILES
    masked = [_argument(index), (_AND, 0, 0, thread | _CLONE_INTO_NAMESPACES)]
    return [*masked, (_EQUAL, 0, 1, thread), _allow(), _errno(errno.EPERM)]


def _refuse_namespaces(index: int) -> _Code:
    """Other processes as well as threads, these with their process's table of files."""
    namespaces = [_argument(index), (_ANY_BIT, 0, 1, _CLONE_INTO_NAMESPACES), _errno(errno.EPERM)]
    threads = [(_AND, 0, 0, _CLONE_THREAD | _CLONE_FILES), (_EQUAL, 0, 1, _CLONE_THREAD)]
    return [*namespaces, *threads, _errno(errno.EPERM), _allow()]


def _allow_without_address(index: int) -> _Code:
    low = [_argument(index), (_EQUAL, 0, 3, 0)]
    high = [_argument(index, high=True), (_EQUAL, 0, 1, 0)]
    return [*low, *high, _allow(), _errno(errno.EPERM)]
