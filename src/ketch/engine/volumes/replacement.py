"""The replacement of a directory's content by what was unpacked beside it; one that breaks off is finished later.

All of it lies in the directory itself, and so on its file system: each step is a renaming.

    .ketch-restore-NUMBER           what has been unpacked so far: it counts as nothing, and the next restore removes it
    .ketch-restore-NUMBER.whole     all of it: from here on it is the content, unless what is there cannot go
    .ketch-restore-NUMBER.old       what was there before goes into this
    .ketch-restore-NUMBER.moving    nothing of before is left beside it: its entries move up

A journal, out of reach for who writes in the directory, has the name of the replacement that goes on.

Who may write there by another way can exchange any of these at any time: they are reached from descriptors, and what
is a link by then is refused.  What is on the disk after a power cut is in an order, too: all that was unpacked before
the journal, that before the first renaming, what is put aside before anything takes its place, and the new content in
its place before the old one goes.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from contextlib import contextmanager, suppress
from errno import ESTALE
from typing import TYPE_CHECKING

from ketch.failpoints import failpoint
from ketch.storage import flush
from ketch.storage.removal import remove_tree, try_to_remove

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = ".ketch-restore-"
_NAME = re.compile(re.escape(_PREFIX) + r"[0-9a-f]{16}\Z")


def begin(directory: str) -> str:
    """Make the directory into which the new content is to be unpacked, and return its path."""
    path = os.path.join(directory, _PREFIX + secrets.token_hex(8))
    os.mkdir(path, 0o700)
    return path


def is_leftover(name: str) -> bool:
    """Whether an entry is what an unpacking that broke off has left: it counts as nothing."""
    return _NAME.match(name) is not None


def replace(unpacked: str, journal: str) -> None:
    """Replace the content of the directory in which ``unpacked`` lies; what breaks off, `finish` ends.

    OSError when something that is there cannot go, or there is no room: then all is as before, without what was
    unpacked.
    """
    directory, name = os.path.split(unpacked)
    with _opened(directory) as fd:
        try:
            flush.file_system(directory)
            _note(journal, name)
            failpoint("volume.restore-noted")
            _rename(fd, name, fd, f"{name}.whole")
            _put_aside(directory, fd, name)
        except OSError:
            _put_back(directory, fd, name, journal)
            raise
    finish(directory, journal)


def finish(directory: str, journal: str, gone: str = "") -> None:
    """End the replacement in a directory that the journal has; does nothing where there is none.

    ``gone`` is where the caller wants what was there before, to remove it later, if it is on the same file system.
    OSError as of `replace`.
    """
    try:
        with open(journal, encoding="ascii", errors="replace") as f:
            name = f.read(100)
    except FileNotFoundError:
        return
    if is_leftover(name) and os.path.isdir(directory):  # else it was being written: nothing had begun
        with _opened(directory) as fd:
            _finish(directory, fd, name, journal, gone)
    os.unlink(journal)


def _finish(directory: str, fd: int, name: str, journal: str, gone: str) -> None:
    if _is_directory(f"{name}.whole", fd):
        try:
            _put_aside(directory, fd, name)
        except OSError:
            _put_back(directory, fd, name, journal)
            raise
    if _is_directory(f"{name}.moving", fd):
        _move_up(directory, fd, name, gone)
    elif _is_directory(f"{name}.old", fd):
        _put_back(directory, fd, name, journal)
        raise OSError(ESTALE, "what was unpacked has been moved away", os.path.join(directory, name))


def _note(journal: str, name: str) -> None:
    with open(journal, "w", encoding="ascii") as f:
        f.write(name)
        f.flush()
        os.fsync(f.fileno())
    with _opened(os.path.dirname(journal)) as fd:
        os.fsync(fd)


@contextmanager
def _opened(name: str, dir_fd: int | None = None) -> Iterator[int]:
    # A path is nobody else's, and may have links of whoever runs the machine.
    no_link = os.O_NOFOLLOW if dir_fd is not None else 0
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | no_link | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def _is_directory(name: str, dir_fd: int) -> bool:
    with suppress(FileNotFoundError):
        return stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode)
    return False


def _put_aside(directory: str, fd: int, name: str) -> None:
    """Move everything that was there before into a directory that goes."""
    whole, old = f"{name}.whole", f"{name}.old"
    with suppress(FileExistsError):
        os.mkdir(old, 0o700, dir_fd=fd)
    with _opened(old, fd) as old_fd:
        for one in set(os.listdir(fd)) - {whole, old}:
            _rename(fd, one, old_fd, one)
    flush.file_system(directory)
    failpoint("volume.restore-aside")
    _rename(fd, whole, fd, f"{name}.moving")


def _put_back(directory: str, fd: int, name: str, journal: str) -> None:
    """Have what was there before again; what was unpacked counts as nothing before it is removed."""
    old = f"{name}.old"
    if _is_directory(old, fd):
        with _opened(old, fd) as old_fd:
            _move_all(old_fd, fd)
        os.rmdir(old, dir_fd=fd)
    with suppress(FileNotFoundError):
        _rename(fd, f"{name}.whole", fd, name)
    flush.file_system(directory)
    with suppress(FileNotFoundError):
        os.unlink(journal)
    try_to_remove(os.path.join(directory, name))


def _move_up(directory: str, fd: int, name: str, gone: str) -> None:
    moving, old = f"{name}.moving", f"{name}.old"
    failpoint("volume.restore-moving")
    with _opened(moving, fd) as moving_fd:
        status = os.fstat(moving_fd)
        _move_all(moving_fd, fd)
    flush.file_system(directory)
    failpoint("volume.restore-moved")
    if gone:
        with suppress(OSError):
            os.rename(old, gone, src_dir_fd=fd)
    remove_tree(os.path.join(directory, old))
    os.fchown(fd, status.st_uid, status.st_gid)
    os.fchmod(fd, status.st_mode & 0o7777)
    os.rmdir(moving, dir_fd=fd)
    os.utime(fd, ns=(status.st_mtime_ns, status.st_mtime_ns))
    flush.file_system(directory)
    failpoint("volume.restore-done")


def _move_all(source_fd: int, target_fd: int) -> None:
    for name in os.listdir(source_fd):
        _rename(source_fd, name, target_fd, name)


def _rename(source_fd: int, name: str, target_fd: int, new_name: str) -> None:
    os.rename(name, new_name, src_dir_fd=source_fd, dst_dir_fd=target_fd)
