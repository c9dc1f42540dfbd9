"""Entries that a client sends, as they are made in the directory of a layer, and the content of its files."""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from contextlib import contextmanager
from errno import EDQUOT, EINVAL, ENAMETOOLONG, ENOSPC
from typing import TYPE_CHECKING, NamedTuple

from ketch.errors import Conflict, InvalidArgument, ResourceExhausted
from ketch.storage import ownership
from ketch.storage.archive.limits import Reserve
from ketch.storage.contexts.attributes import attributes, set_attributes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.storage.contexts.fill import Row
    from ketch.storage.contexts.sent import SentEntry

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_AGAIN = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = 64  # files that are open at once
AN_ENTRY = 4096  # bytes that one takes on the disk, about


class _File:
    """A file that comes: its descriptor (-1: closed), and the bytes that have come."""

    __slots__ = ("fd", "path", "size")

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = -1
        self.size = 0


class ReceivedFiles:
    """Files whose content comes, by their numbers in the list; `close` it.  Blocking.

    They are made in one directory: at their own paths, or ``numbered``, by their numbers.
    """

    def __init__(self, directory: str, *, numbered: bool = False) -> None:
        # Files that are to come, of which there may be many: what else is known of them is in their rows.
        self.expected: dict[int, tuple[tuple[str, bytes], ...]] = {}  # extended attributes
        self._begun: dict[int, _File] = {}
        self._open: OrderedDict[int, _File] = OrderedDict()
        self._numbered = numbered
        self._owner = os.geteuid(), os.getegid()
        self.fd = os.open(directory, DIRECTORY)
        self.reserve = Reserve(self.fd, "receive the build context")

    def close(self) -> None:
        """Close what is open."""
        for file in self._open.values():
            os.close(file.fd)
        self._open.clear()
        os.close(self.fd)

    def data(self, number: int, row: Row, piece: bytes | memoryview) -> None:
        """Write the next piece of a file (KetchError)."""
        with told(row[0]):
            self.reserve.take(len(piece))
            file = self._file(number, row)
            file.size += len(piece)
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(file.fd, rest) :]

    def _file(self, number: int, row: Row) -> _File:
        """The file, open; that which has been open for longest is closed where there are many."""
        file = self._begun.get(number)
        if file is not None and file.fd >= 0:
            return file
        if len(self._open) >= _OPEN:
            _, oldest = self._open.popitem(last=False)
            os.close(oldest.fd)
            oldest.fd = -1
        if file is None:
            file = _File(str(number) if self._numbered else row[0])
            file.fd = os.open(file.path, _NEW, 0o600, dir_fd=self.fd)
            self._begun[number] = file
        else:
            file.fd = os.open(file.path, _AGAIN, dir_fd=self.fd)
        self._open[number] = file
        return file

    def end(self, number: int, row: Row) -> int:
        """Close a file with all that it has; returns its size (Conflict: there is less of it than was told)."""
        path, mode, told_size, mtime_ns, _, owner, _ = row
        with told(path):
            file = self._file(number, row)
            if file.size < told_size:
                raise Conflict(
                    f"`{path}` in the build context: the client sends {file.size} of its {told_size} bytes",
                    hint="it may not read the file, or the file changed meanwhile",
                )
            uid, gid = owner >> 32, owner & 0xFFFFFFFF
            if (uid, gid) != self._owner:
                ownership.give(file.fd, uid, gid)
            given = self.expected.pop(number)
            if given:
                set_attributes(file.fd, given)
            os.fchmod(file.fd, stat.S_IMODE(mode))
            os.utime(file.fd, ns=(mtime_ns, mtime_ns))
        del self._begun[number], self._open[number]
        os.close(file.fd)
        return file.size


class _Directory(NamedTuple):
    """Owner, mode and time of a directory, which it gets when all is in it."""

    mode: int
    mtime_ns: int
    uid: int
    gid: int


class EntryMaker:
    """A maker of entries in an open directory, which stays the caller's.  Blocking."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._owner = os.geteuid(), os.getegid()
        self._directories: dict[str, _Directory] = {}
        self._hard_links: list[tuple[str, str]] = []

    def directory(self, one: SentEntry, *, exists: bool = False) -> None:
        """Make a directory; of one that ``exists``, only give it what it has."""
        if not exists:
            os.mkdir(one.path, 0o700, dir_fd=self._fd)
        if one.attributes or exists:
            fd = os.open(one.path, DIRECTORY, dir_fd=self._fd)
            try:
                for name in attributes(fd) if exists else ():
                    os.removexattr(fd, name)
                set_attributes(fd, one.attributes)
            finally:
                os.close(fd)
        self._directories[one.path] = _Directory(stat.S_IMODE(one.mode), one.mtime_ns, one.uid, one.gid)

    def touched(self, row: Row) -> None:
        """Have a directory that is there get its time again, after something in it was made or removed."""
        path, mode, _, mtime_ns, _, owner, _ = row
        self._directories.setdefault(path, _Directory(stat.S_IMODE(mode), mtime_ns, owner >> 32, owner & 0xFFFFFFFF))

    def hard_link(self, path: str, target: str) -> None:
        """Make a file's further name, when all files are there."""
        self._hard_links.append((path, target))

    def other(self, one: SentEntry) -> None:
        """Make a symbolic link or a node."""
        path = one.path
        if stat.S_ISLNK(one.mode):
            os.symlink(one.link, path, dir_fd=self._fd)
        else:
            os.mknod(path, stat.S_IFMT(one.mode) | 0o600, one.device, dir_fd=self._fd)
        if (one.uid, one.gid) != self._owner:
            ownership.give(path, one.uid, one.gid, self._fd)
        if not stat.S_ISLNK(one.mode):
            os.chmod(path, stat.S_IMODE(one.mode), dir_fd=self._fd)
        os.utime(path, ns=(one.mtime_ns, one.mtime_ns), dir_fd=self._fd, follow_symlinks=False)

    def finish(self) -> None:
        """Make what is made last: hard links, and the modes and times of directories, the inner ones first."""
        for path, target in self._hard_links:
            with told(path):
                os.link(target, path, src_dir_fd=self._fd, dst_dir_fd=self._fd, follow_symlinks=False)
        for path in sorted(self._directories, reverse=True):
            one = self._directories[path]
            with told(path):
                if (one.uid, one.gid) != self._owner:
                    ownership.give(path, one.uid, one.gid, self._fd)
                os.chmod(path, one.mode, dir_fd=self._fd)
                os.utime(path, ns=(one.mtime_ns, one.mtime_ns), dir_fd=self._fd)


@contextmanager
def told(path: str) -> Iterator[None]:
    """Errors of the kernel as what they mean for an entry."""
    try:
        yield
    except OSError as e:
        if e.errno in (ENOSPC, EDQUOT):
            raise ResourceExhausted(
                "receive the build context: no space left on device",
                hint="make room, for instance with: docker system prune",
            ) from e
        if e.errno in (ENAMETOOLONG, EINVAL):
            raise InvalidArgument(f"{path[:200]!r} in the build context: {e.strerror}") from e
        raise
