"""Copies of upper directories as layers, in overlay's own form; the digest of the layer's tar is found out on the way.

Each file is read once, or, where it is large, copied by the kernel while it is read for the digest.  Somebody may be
writing to the directory: what is copied is what the tar says, but for large files that change at that moment, and then
there is no digest.
"""

from __future__ import annotations

import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ketch import trees
from ketch.storage import overlay_notes, ownership
from ketch.storage.archive.layer import LayerWriter, is_opaque
from ketch.storage.archive.write import SMALL
from ketch.storage.byte_copy import ByteCopier
from ketch.storage.layers.tars import SeenTar

if TYPE_CHECKING:
    from collections.abc import Callable, Set

    from ketch.storage.archive.write import Xattrs
    from ketch.storage.layers.tars import TarFacts

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TICK_NS = 50_000_000  # changes that are nearer to each other may have one time


def copy(upper_fd: int, directory: str, left_out: Set[str] = frozenset()) -> TarFacts | None:
    """Copy what an open upper directory has to an empty directory, but for paths such as ``/etc/hosts``.

    Returns the facts of the copy's tar, None: a file was changed while it was copied.  Sockets are left out.
    InvalidArgument for names that a layer cannot have.
    """
    seen = SeenTar()
    with ExitStack() as stack:
        target_fd = os.open(directory, trees.DIRECTORY)
        stack.callback(os.close, target_fd)
        target = stack.enter_context(trees.Descent(target_fd))
        pool = stack.enter_context(ThreadPoolExecutor(1))
        writer = _CopyingWriter(seen.write, target, pool, left_out)
        writer.content(upper_fd, "")
        writer.end()
    return None if writer.stale else seen.facts(writer.size)


class _CopyingWriter(LayerWriter):
    """A writer that makes everything that it adds to the tar in a directory as well; ``target`` goes with its walk."""

    def __init__(
        self,
        write: Callable[[bytes | memoryview], object],
        target: trees.Descent,
        pool: ThreadPoolExecutor,
        left_out: Set[str],
    ) -> None:
        super().__init__(write)
        self._target, self._pool, self._left_out = target, pool, left_out
        self._root_fd = target.fd
        self._bytes = ByteCopier()
        self._entered: list[tuple[os.stat_result, Xattrs]] = []
        self.stale = False

    def wanted(self, name: str, path: str) -> bool:
        return f"/{path}" not in self._left_out and super().wanted(name, path)

    def entered(self, fd: int, path: str, status: os.stat_result, xattrs: Xattrs) -> None:
        super().entered(fd, path, status, xattrs)
        name = path.rpartition("/")[2]
        os.mkdir(name, 0o700, dir_fd=self._target.fd)
        self._target.enter(name)
        if is_opaque(fd):
            os.setxattr(self._target.fd, overlay_notes.OPAQUE, b"y")
        self._entered.append((status, xattrs))

    def left(self) -> None:
        _give(self._target.fd, *self._entered.pop())
        self._target.leave()

    def file(self, fd: int, path: str, status: os.stat_result, xattrs: Xattrs) -> None:
        to_fd = os.open(path.rpartition("/")[2], _NEW, 0o600, dir_fd=self._target.fd)
        try:
            if status.st_size > SMALL:
                self._large(fd, to_fd, status)
            else:
                data = self._out.content(fd, status.st_size)
                while data:
                    data = data[os.write(to_fd, data) :]
            _give(to_fd, status, xattrs)
        finally:
            os.close(to_fd)

    def _large(self, fd: int, to_fd: int, status: os.stat_result) -> None:
        """Copy a file while it is read for the tar."""
        copying = self._pool.submit(self._bytes.copy, fd, to_fd, status)
        try:
            self._out.content(fd, status.st_size)
        finally:
            copying.result()
        after = os.fstat(fd)
        same = (after.st_ctime_ns, after.st_size) == (status.st_ctime_ns, status.st_size)
        self.stale |= not same or abs(time.time_ns() - after.st_ctime_ns) < _TICK_NS

    def linked(self, path: str, first: bytes) -> None:
        directory, _, name = os.fsdecode(first).rpartition("/")
        with trees.Descent(self._root_fd) as at:
            for part in directory.split("/") if directory else ():
                at.enter(part)
            new = path.rpartition("/")[2]
            os.link(name, new, src_dir_fd=at.fd, dst_dir_fd=self._target.fd, follow_symlinks=False)

    def made(self, name: str, status: os.stat_result, link: bytes = b"") -> None:
        fd, mode = self._target.fd, status.st_mode
        if stat.S_ISLNK(mode):
            os.symlink(link, os.fsencode(name), dir_fd=fd)
        else:
            os.mknod(name, mode, status.st_rdev, dir_fd=fd)
        ownership.give(name, status.st_uid, status.st_gid, fd)
        if not stat.S_ISLNK(mode):
            os.chmod(name, stat.S_IMODE(mode), dir_fd=fd)
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=fd, follow_symlinks=False)


def _give(fd: int, status: os.stat_result, xattrs: Xattrs) -> None:
    """Owner, attributes, mode and times of an open file, in an order in which none takes away another."""
    ownership.give(fd, status.st_uid, status.st_gid)
    for key, value in xattrs:
        os.setxattr(fd, key, value)
    os.fchmod(fd, stat.S_IMODE(status.st_mode))
    os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
