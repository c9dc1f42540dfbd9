"""Calls on a descriptor's own object, also of O_PATH: fchownat(2), fstatfs(2)."""

from __future__ import annotations

import ctypes

from ketch.linux.syscall import AT_EMPTY_PATH, c_char_p, c_int, c_void_p, failed, function

# include/uapi/linux/magic.h
PROC = 0x9FA0
DEVPTS = 0x1CD1

_SIZE = 256  # struct statfs, whose first word is the type
_fchownat = function("fchownat", c_int, c_char_p, c_int, c_int, c_int)
_fstatfs = function("fstatfs", c_int, c_void_p)


def chown_node(fd: int, uid: int, gid: int) -> None:
    """Change the owner of the very object of an O_PATH descriptor, which fchown(2) refuses."""
    if _fchownat(fd, b"", uid, gid, AT_EMPTY_PATH) < 0:
        raise failed("fchownat")


def file_system(fd: int) -> int:
    """The magic number of its file system; descriptors of O_PATH will do."""
    buffer = ctypes.create_string_buffer(_SIZE)
    if _fstatfs(fd, buffer) < 0:
        raise failed("fstatfs")
    return int.from_bytes(buffer.raw[:8], "little")
