"""Access to libc: bound functions, raw system calls, and the conversion of -1 to OSError.

Functions are bound once, at import, because looking one up through ctypes costs more than calling it.
Names and argument orders are the kernel's own.  Numbers from 424 up are the same on every architecture;
the few older ones are listed for each machine that Ketch runs on.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import c_char_p, c_int, c_long, c_void_p

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

libc = ctypes.CDLL(None, use_errno=True)

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

_NUMBERS = {
    "x86_64": {
        "pivot_root": 155,
        "seccomp": 317,
        "keyctl": 250,
        "bpf": 321,
        "execveat": 322,
        "rt_sigaction": 13,
        "set_mempolicy": 238,
        "ioprio_set": 251,
        "sched_setattr": 314,
    },
    "aarch64": {
        "pivot_root": 41,
        "seccomp": 277,
        "keyctl": 219,
        "bpf": 280,
        "execveat": 281,
        "rt_sigaction": 134,
        "set_mempolicy": 237,
        "ioprio_set": 30,
        "sched_setattr": 274,
    },
}
_COMMON = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
}
MACHINE = os.uname().machine


def failed(call: str, path: str | None = None) -> OSError:
    """The OSError for a call that has just returned -1, with the call's name in its text."""
    number = ctypes.get_errno()
    reason = f"{call}: {os.strerror(number)}"
    return OSError(number, reason, path) if path is not None else OSError(number, reason)


def function(name: str, *argtypes: Any, restype: Any = c_int) -> Callable[..., int]:
    """Bind a libc function; the result is the raw return value (-1 on error, see `failed`)."""
    bound: Any = libc[name]
    bound.argtypes = argtypes
    bound.restype = restype
    return bound  # type: ignore[no-any-return]


def raw(name: str, *argtypes: Any) -> Callable[..., int]:
    """Bind a system call by number; pass the number that `number` gives as the first argument."""
    return function("syscall", c_long, *argtypes, restype=c_long)


def number(name: str) -> int:
    """The number of a system call on this machine; -1 (answered with ENOSYS) where it is not known."""
    common = _COMMON.get(name)
    return common if common is not None else _NUMBERS.get(MACHINE, {}).get(name, -1)


__all__ = [
    "AT_EMPTY_PATH",
    "AT_FDCWD",
    "AT_RECURSIVE",
    "AT_SYMLINK_NOFOLLOW",
    "MACHINE",
    "c_char_p",
    "c_int",
    "c_long",
    "c_void_p",
    "failed",
    "function",
    "libc",
    "number",
    "raw",
]
