"""Calls on a descriptor's own object, also of O_PATH, or on an entry: fchownat(2), fstatfs(2), statx(2)."""

from __future__ import annotations

import struct

from ketch.linux import syscall
from ketch.linux.syscall import AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, c_char_p, c_int, c_void_p, failed, function

# include/uapi/linux/magic.h
PROC = 0x9FA0
DEVPTS = 0x1CD1

_SIZE = 256  # struct statfs, whose first word is the type, and struct statx
_STATX_BTIME = 0x800
_FIELDS = struct.Struct("<I76xqI")  # of struct statx: stx_mask, stx_btime
_fchownat = function("fchownat", c_int, c_char_p, c_int, c_int, c_int)
_fstatfs = function("fstatfs", c_int, c_void_p)
_statx = function("statx", c_int, c_char_p, c_int, c_int, c_void_p)


def chown_node(fd: int, uid: int, gid: int) -> None:
    """Change the owner of the very object of an O_PATH descriptor, which fchown(2) refuses."""
    if _fchownat(fd, b"", uid, gid, AT_EMPTY_PATH) < 0:
        raise failed("fchownat")


def file_system(fd: int) -> int:
    """The magic number of its file system; descriptors of O_PATH will do."""
    buffer = syscall.buffer(_SIZE)
    if _fstatfs(fd, buffer) < 0:
        raise failed("fstatfs")
    return int.from_bytes(buffer.raw[:8], "little")


def birth_ns(directory_fd: int, name: bytes) -> int | None:
    """The time at which an entry's inode was made, in ns since 1970; None: the file system does not keep it.

    No later change moves it.  An empty name stands for what is open.
    """
    buffer = syscall.buffer(_SIZE)
    if _statx(directory_fd, name, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH, _STATX_BTIME, buffer) < 0:
        raise failed("statx", name.decode(errors="surrogateescape"))
    mask, seconds, nanoseconds = _FIELDS.unpack_from(buffer)
    return int(seconds) * 10**9 + int(nanoseconds) if mask & _STATX_BTIME else None
