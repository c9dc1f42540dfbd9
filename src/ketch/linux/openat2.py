"""openat2(2): opening a path that may not lead out of its directory, and syncfs(2)."""

from __future__ import annotations

import os
from errno import EAGAIN, EBUSY, EXDEV

from ketch.linux.syscall import c_char_p, c_int, c_long, failed, function, number, raw

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

_TRIES = 256
_PIECE = 4000  # of a path; PATH_MAX is 4096
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
    """Open ``path`` below ``dir_fd``; OSError with EXDEV when a link or ``..`` would lead out.

    A path longer than PATH_MAX is opened piece by piece, and then a link that leads out of its piece is refused, too.
    """
    if len(path) < _PIECE // 4:  # in any encoding
        return openat2(dir_fd, path, flags, mode, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    fd = dir_fd
    pieces = _pieces(path)
    try:
        for piece in pieces[:-1]:
            below_fd = openat2(fd, piece, os.O_PATH | os.O_DIRECTORY, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
            if fd != dir_fd:
                os.close(fd)
            fd = below_fd
        return openat2(fd, pieces[-1], flags, mode, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    finally:
        if fd != dir_fd:
            os.close(fd)


def _pieces(path: str) -> list[str]:
    """A relative path in pieces as long as the kernel accepts."""
    pieces: list[str] = []
    names: list[str] = []
    size = 0
    for name in path.split("/"):
        length = len(os.fsencode(name)) + 1
        if size + length > _PIECE and names:
            pieces.append("/".join(names))
            names, size = [], 0
        names.append(name)
        size += length
    return [*pieces, "/".join(names)]


def open_unmounted(name: str, dir_fd: int) -> int:
    """Open a directory by its name (a link is none: ENOTDIR); EBUSY when something is mounted there."""
    try:
        return openat2(dir_fd, name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, 0, RESOLVE_NO_XDEV)
    except OSError as e:
        if e.errno == EXDEV:
            raise OSError(EBUSY, "something is mounted there", name) from None
        raise


def syncfs(fd: int) -> None:
    """Write everything of the file system that holds ``fd`` to the disk."""
    if _syncfs(fd) < 0:
        raise failed("syncfs")
