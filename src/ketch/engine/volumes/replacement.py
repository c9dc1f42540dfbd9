"""The replacement of a directory's content by what was unpacked beside it; one that breaks off is finished later.

All of it lies in the directory itself, and so on its file system: each step is a renaming.

    .ketch-restore-NUMBER           what has been unpacked so far: it counts as nothing, and the next restore removes it
    .ketch-restore-NUMBER.whole     all of it: from here on it is the content, unless what is there cannot go
    .ketch-restore-NUMBER.old       what was there before goes into this
    .ketch-restore-NUMBER.moving    nothing of before is left beside it: its entries move up

A journal, out of reach for who writes in the directory, has the name of the replacement that goes on.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from ketch.storage import flush
from ketch.storage.removal import remove_tree, try_to_remove

if TYPE_CHECKING:
    from collections.abc import Iterable

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
    directory = os.path.dirname(unpacked)
    try:
        flush.file_system(directory)
        with open(journal, "w", encoding="ascii") as f:
            f.write(os.path.basename(unpacked))
            f.flush()
            os.fsync(f.fileno())
        os.rename(unpacked, f"{unpacked}.whole")
        _put_aside(directory, unpacked)
    except OSError:
        _put_back(directory, unpacked, journal)
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
    if is_leftover(name):  # else it was being written: nothing had begun
        path = os.path.join(directory, name)
        if _is_directory(f"{path}.whole"):
            try:
                _put_aside(directory, path)
            except OSError:
                _put_back(directory, path, journal)
                raise
        if _is_directory(f"{path}.moving"):
            _move_up(directory, path, gone)
    os.unlink(journal)


def _is_directory(path: str) -> bool:
    """Whether a path is a directory itself: somebody who may write beside it could have put a link there."""
    with suppress(FileNotFoundError):
        return stat.S_ISDIR(os.lstat(path).st_mode)
    return False


def _put_aside(directory: str, path: str) -> None:
    """Move everything that was there before into a directory that goes."""
    whole, old = f"{path}.whole", f"{path}.old"
    os.makedirs(old, 0o700, exist_ok=True)
    _move(directory, set(os.listdir(directory)) - {os.path.basename(whole), os.path.basename(old)}, old)
    os.rename(whole, f"{path}.moving")


def _put_back(directory: str, path: str, journal: str) -> None:
    """Have what was there before again; what was unpacked counts as nothing before it is removed."""
    old = f"{path}.old"
    if _is_directory(old):
        _move(old, os.listdir(old), directory)
        os.rmdir(old)
    with suppress(FileNotFoundError):
        os.rename(f"{path}.whole", path)
    flush.file_system(directory)
    with suppress(FileNotFoundError):
        os.unlink(journal)
    try_to_remove(path)


def _move_up(directory: str, path: str, gone: str) -> None:
    moving = f"{path}.moving"
    status = os.stat(moving)
    _move(moving, os.listdir(moving), directory)
    flush.file_system(directory)
    if gone:
        with suppress(OSError):
            os.rename(f"{path}.old", gone)
    remove_tree(f"{path}.old")
    os.chown(directory, status.st_uid, status.st_gid)
    os.chmod(directory, status.st_mode & 0o7777)
    os.rmdir(moving)
    os.utime(directory, ns=(status.st_mtime_ns, status.st_mtime_ns))


def _move(source: str, names: Iterable[str], target: str) -> None:
    for name in names:
        os.rename(os.path.join(source, name), os.path.join(target, name))
