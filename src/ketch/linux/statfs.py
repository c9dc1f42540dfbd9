"""fstatfs(2): the type of a descriptor's file system."""

from __future__ import annotations

import ctypes

from ketch.linux.syscall import c_int, c_void_p, failed, function

# include/uapi/linux/magic.h
PROC = 0x9FA0
DEVPTS = 0x1CD1

_SIZE = 256  # struct statfs, whose first word is the type
_fstatfs = function("fstatfs", c_int, c_void_p)


def kind(fd: int) -> int:
    """The file system's magic number; descriptors of O_PATH will do."""
    buffer = ctypes.create_string_buffer(_SIZE)
    if _fstatfs(fd, buffer) < 0:
        raise failed("fstatfs")
    return int.from_bytes(buffer.raw[:8], "little")
