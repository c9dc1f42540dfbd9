"""Access to libc: bound functions, raw system calls, and the conversion of -1 to OSError.

What the package ``ctypes`` would do is done here with the module beneath it: to import the package, with all its types,
takes as long as a tenth of a container's start by ``ketch-runtime``.  Its objects can be arguments all the same.

Functions are bound once, at import, because looking one up costs more than calling it.
Names and argument orders are the kernel's own.  Numbers from 424 up are the same on every architecture;
the few older ones are listed for each machine that Ketch runs on.
"""

from __future__ import annotations

import os
from _ctypes import FUNCFLAG_CDECL, FUNCFLAG_USE_ERRNO, CFuncPtr, _SimpleCData, addressof, dlopen, get_errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from ctypes import Array, c_char, c_char_p, c_int, c_long, c_void_p
    from typing import Any
else:

    class c_char(_SimpleCData):
        _type_ = "c"

    class c_int(_SimpleCData):
        _type_ = "i"

    class c_long(_SimpleCData):
        _type_ = "l"

    class c_char_p(_SimpleCData):
        _type_ = "z"

    class c_void_p(_SimpleCData):
        _type_ = "P"


class _Function(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = c_int


class _Program:
    """This program with its libraries, where functions are looked for."""

    _handle = dlopen(None, os.RTLD_NOW)  # type: ignore[arg-type]


_PROGRAM = _Program()

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
    number = get_errno()
    reason = f"{call}: {os.strerror(number)}"
    return OSError(number, reason, path) if path is not None else OSError(number, reason)


def function(name: str, *argtypes: Any, restype: Any = c_int) -> Callable[..., int]:
    """Bind a libc function; the result is the raw return value (-1 on error, see `failed`).

    AttributeError: the library has no such function.
    """
    bound: Any = _Function((name, _PROGRAM))  # type: ignore[arg-type]
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


def buffer(content: bytes | int) -> Array[c_char]:
    """Memory for a call, with these bytes or so many zeros, and nothing after them; its bytes are ``raw``."""
    if isinstance(content, int):
        return (c_char * content)()
    return (c_char * len(content)).from_buffer_copy(content)


__all__ = [
    "AT_EMPTY_PATH",
    "AT_FDCWD",
    "AT_RECURSIVE",
    "AT_SYMLINK_NOFOLLOW",
    "MACHINE",
    "addressof",
    "buffer",
    "c_char_p",
    "c_int",
    "c_long",
    "c_void_p",
    "failed",
    "function",
    "get_errno",
    "number",
    "raw",
]
