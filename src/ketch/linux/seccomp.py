"""Seccomp filters: their actions and flags, and seccomp(2) to install them (libseccomp compiles them).

A filter binds the thread that installs it from the next system call on, so `Program.install_and_execve` does
nothing between the two.
"""

from __future__ import annotations

import os
import struct
from errno import EINVAL, ETIMEDOUT
from itertools import repeat

from ketch.linux.syscall import addressof, buffer, c_char_p, c_int, c_void_p, failed, function, get_errno, number, raw

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mmap import mmap
    from typing import Any, NoReturn


ACT_KILL_PROCESS = 0x80000000
ACT_KILL_THREAD = 0x00000000
ACT_TRAP = 0x00030000
ACT_ERRNO = 0x00050000
ACT_NOTIFY = 0x7FC00000
ACT_TRACE = 0x7FF00000
ACT_LOG = 0x7FFC0000
ACT_ALLOW = 0x7FFF0000

FILTER_FLAG_TSYNC = 1
FILTER_FLAG_LOG = 2
FILTER_FLAG_SPEC_ALLOW = 4
FILTER_FLAG_NEW_LISTENER = 8
FILTER_FLAG_WAIT_KILLABLE_RECV = 32

ANSWER, SENT, LOST, CONNECTED = 4, 1, 2, 3  # where a page says what became of the filter's listener; then an errno
_TURNS = 1 << 31  # a minute and more

_SET_MODE_FILTER = 1
_seccomp = raw("seccomp", c_int, c_int, c_void_p)
_SECCOMP = number("seccomp")
_execve = function("execve", c_char_p, c_void_p, c_void_p)


class FilterRefused(OSError):
    """seccomp(2) refused a filter."""


class ListenerLost(OSError):
    """The supervisor of a filter, which is in force, has gone before it was given the listener."""


class Program:
    """A filter as seccomp(2) takes it: 8 bytes an instruction, at most 4096 of them."""

    __slots__ = ("_address", "_buffer", "_flags", "_prog")

    def __init__(self, program: bytes, flags: int = 0) -> None:
        self._buffer = buffer(program)
        self._prog = buffer(struct.pack("@HP", len(program) // 8, addressof(self._buffer)))  # struct sock_fprog
        self._address = addressof(self._prog)
        self._flags = flags

    def install(self) -> None:
        """Install a filter for the calling thread; needs no_new_privs or CAP_SYS_ADMIN."""
        if _seccomp(_SECCOMP, _SET_MODE_FILTER, self._flags, self._address) < 0:
            raise FilterRefused(get_errno(), "seccomp")

    def install_and_execve(self, path: str, args: list[str], env: dict[str, str], page: mmap | None = None) -> NoReturn:
        """`install`, with execve(2) as the very next system call; returns only by raising FilterRefused or OSError.

        With FILTER_FLAG_NEW_LISTENER execve(2) waits until ``page`` says that somebody else has the listener.

        What may need memory or a descriptor is made first, and no Python function is called in between, which might
        map or unmap a piece of the interpreter's stack: the filter need not allow an interpreter's calls.
        """
        file = os.fsencode(path)
        argv = _strings([os.fsencode(arg) for arg in args])
        envp = _strings([os.fsencode(name) + b"=" + os.fsencode(value) for name, value in env.items()])
        call, mode, flags, address = _SECCOMP, _SET_MODE_FILTER, self._flags, self._address
        turns = repeat(None, _TURNS)
        if _seccomp(call, mode, flags, address) < 0:
            raise FilterRefused(get_errno(), "seccomp")
        if page is not None:
            for _ in turns:
                if page[ANSWER] != CONNECTED:
                    break
            if page[ANSWER] != SENT:
                raise ListenerLost(page[ANSWER + 1] or ETIMEDOUT, "send the filter's listener")
        _execve(file, argv, envp)
        raise failed("execve", path)


def _strings(values: list[bytes]) -> Any:
    """A NULL-terminated ``char *[]``; a NUL inside a string would silently end it (EINVAL)."""
    if any(b"\0" in value for value in values):
        raise OSError(EINVAL, "execve: an argument or variable with a NUL byte")
    return (c_char_p * (len(values) + 1))(*values, None)
