"""A hostile parent: ``python bad_parent.py UMASK COMMAND…`` ignores and blocks all signals first.

By the kernel's own calls: the C library keeps 32 and 33 from everybody, but a parent written in Go need not.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

_NUMBERS = {"x86_64": (13, 14), "aarch64": (134, 135)}  # rt_sigaction, rt_sigprocmask
_SIG_IGN, _SIG_SETMASK = 1, 2
_SIGKILL, _SIGSTOP = 9, 19


def main() -> None:
    """Spoil what a program inherits, and become it."""
    action, mask = _NUMBERS[os.uname().machine]
    libc = ctypes.CDLL(None, use_errno=True)
    ignore = struct.pack("=QQQQ", _SIG_IGN, 0, 0, 0)
    for number in range(1, 65):
        if number not in (_SIGKILL, _SIGSTOP):
            assert libc.syscall(action, number, ignore, None, ctypes.c_long(8)) == 0, number
    os.umask(int(sys.argv[1], 8))
    assert libc.syscall(mask, _SIG_SETMASK, b"\xff" * 8, None, ctypes.c_long(8)) == 0
    os.execvp(sys.argv[2], sys.argv[2:])


main()
