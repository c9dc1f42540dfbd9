"""Locks between processes: flock(2) on files that nobody but root can open.

Whoever can open a file can lock it, and whoever can bind an abstract socket's name can keep it; so locks of the whole
machine live in a directory of root's, where other users can hold nobody up.  A lock ends with its process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from typing import TYPE_CHECKING

from ketch.errors import FailedPrecondition

if TYPE_CHECKING:
    from types import TracebackType

_directory_path = "/run/ketch-locks"
_LONGEST_PAUSE_S = 0.02


class Held(Exception):
    """Another process has the lock; ``pid`` is the one in the file (``?`` when not written yet)."""

    def __init__(self, pid: str) -> None:
        super().__init__(f"held by process {pid}")
        self.pid = pid


class FileLock:
    """A lock of this process, until ``close`` or the end of the context."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def close(self) -> None:
        """Release it; idempotent.  The file stays: removing it would let two processes lock two files of one name."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def take(path: str, *, wait_s: float = 0.0) -> FileLock:
    """Lock the file ``path``, made when it is missing (Held; OSError: ELOOP for a link).

    With ``wait_s`` another holder is given that long.
    """
    return _lock(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), wait_s)


def use_directory(path: str) -> None:
    """Take the process's named locks in another directory from now on: that of the user who has started it."""
    global _directory_path
    _directory_path = path


def directory() -> str:
    """The path of the directory of named locks."""
    return _directory_path


def take_named(name: str, *, wait_s: float = 0.0) -> FileLock:
    """A lock of the whole machine by name (Held; FailedPrecondition when the directory is not root's alone)."""
    directory = _directory()
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return _lock(os.open(name, flags, 0o600, dir_fd=directory), wait_s)
    finally:
        os.close(directory)


def _directory() -> int:
    with contextlib.suppress(FileExistsError):
        os.mkdir(_directory_path, 0o700)
    fd = os.open(_directory_path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    found = os.fstat(fd)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        os.close(fd)
        raise FailedPrecondition(
            f"lock in `{_directory_path}`: other users can get in",
            hint=f"make it ketchd's user's own: chmod 700 {_directory_path}",
        )
    return fd


def _lock(fd: int, wait_s: float) -> FileLock:
    deadline, pause_s = time.monotonic() + wait_s, 0.0005
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Held(os.pread(fd, 32, 0).decode(errors="replace").strip() or "?") from None
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        with contextlib.suppress(OSError):  # a full disk: it is for messages only
            os.pwrite(fd, f"{os.getpid():<10}\n".encode(), 0)
    except BaseException:
        os.close(fd)
        raise
    return FileLock(fd)
