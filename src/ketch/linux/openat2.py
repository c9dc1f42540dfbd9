"""openat2(2): opening a path that may not lead out of its directory, and syncfs(2)."""

from __future__ import annotations

import os
from errno import EAGAIN

from ketch.linux.syscall import c_char_p, c_int, c_long, failed, function, number, raw

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

_TRIES = 256
_openat2 = raw("openat2", c_int, c_char_p, c_char_p, c_long)
_OPENAT2 = number("openat2")
_syncfs = function("syncfs", c_int)


def openat2(dir_fd: int, path: str, flags: int, mode: int, resolve: int) -> int:
    """openat2(2); the descriptor is close-on-exec and the caller's.

    While anything on the machine is renamed or mounted, the kernel cannot always tell whether a ``..`` stays inside,
    and says EAGAIN: then it is asked again.
    """
    how = b"".join(word.to_bytes(8, "little") for word in (flags | os.O_CLOEXEC, mode, resolve))
    name = os.fsencode(path)
    for _ in range(_TRIES):
        fd = _openat2(_OPENAT2, dir_fd, name, how, len(how))
        if fd >= 0:
            return fd
        error = failed("openat2", path)
        if error.errno != EAGAIN:
            break
    raise error


def open_beneath(dir_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """Open ``path`` below ``dir_fd``; OSError with EXDEV when a link or ``..`` would lead out."""
    return openat2(dir_fd, path, flags, mode, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)


def syncfs(fd: int) -> None:
    """Write everything of the file system that holds ``fd`` to the disk."""
    if _syncfs(fd) < 0:
        raise failed("syncfs")
