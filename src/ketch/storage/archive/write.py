"""A writer of directories as tar streams (pax), with owners, modes, times in ns, hard links and xattrs.

The tree may change while it is read, and who changes it may mean harm: every step is taken by descriptor, no
symbolic link is followed, and a file that grows or shrinks meanwhile keeps the size that its header says.
"""

from __future__ import annotations

import os
import stat
from errno import EACCES, ELOOP, ENODATA, ENOTDIR, ENXIO, EOPNOTSUPP, EPERM
from typing import IO, TYPE_CHECKING

from ketch import trees
from ketch.errors import InvalidArgument, Unavailable
from ketch.storage import overlay_notes
from ketch.storage.archive import pax
from ketch.storage.archive.owners import archived

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.storage.archive.owners import Owners

    Xattrs = list[tuple[bytes, bytes]]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
SMALL = 1 << 16  # files that are gathered before they are passed on
_GATHERED = 1 << 18
_BUFFER = 1 << 20
_TRIES = 10
_MOST_EXTENTS = 10_000  # readers bound the map's size, many to 1 MiB
_SWAPPED = (ELOOP, ENOTDIR, ENXIO, EACCES)  # what opening says when the kind is another one than a moment ago
_GONE = (ENODATA, EPERM, EACCES)  # what reading an attribute says that went, or is not ours to read
_KINDS = {
    stat.S_IFLNK: pax.SYMLINK,
    stat.S_IFIFO: pax.FIFO,
    stat.S_IFCHR: pax.CHAR,
    stat.S_IFBLK: pax.BLOCK_DEVICE,
}


def write_tree(root: str, target: IO[bytes]) -> None:
    """Write everything below ``root``, itself included as ``./``; sockets are left out (they mean nothing later).

    Holes of files stay holes, which few readers of tar understand: GNU tar, libarchive, Go's, Python's and Ketch's.
    """
    root_fd = os.open(root, _DIRECTORY)
    try:
        writer = _SparseWriter(target.write)
        writer.directory(root_fd, ".")
        writer.end()
    finally:
        os.close(root_fd)


def write_directory(fd: int, name: str | None, target: IO[bytes], owners: Owners | None = None) -> None:
    """Write an open directory as ``name``, or, for None, only its content; ``fd`` stays the caller's.

    ``owners``: the user namespace through whose mapping the tree is seen.
    """
    writer = _writer(target, owners)
    if name is None:
        writer.content(fd, "")
    else:
        writer.directory(fd, name)
    writer.end()


def write_entry(dir_fd: int, entry: str, name: str, target: IO[bytes], owners: Owners | None = None) -> None:
    """Write the entry ``entry`` of an open directory under another name (FileNotFoundError)."""
    writer = _writer(target, owners)
    writer.entry(dir_fd, entry, name)
    writer.end()


class Gathered:
    """The output of a tar stream: small pieces go on together, whole buffers at once; ``total`` counts its bytes."""

    def __init__(self, write: Callable[[bytes | memoryview], object]) -> None:
        self._write = write
        self._pieces: list[bytes] = []
        self._size = 0
        self._buffer: memoryview | None = None
        self.total = 0

    def add(self, data: bytes) -> None:
        """Add a small piece."""
        self.total += len(data)
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= _GATHERED:
            self.flush()

    def flush(self) -> None:
        """Pass on what was gathered."""
        if self._pieces:
            self._write(b"".join(self._pieces))
            self._pieces.clear()
            self._size = 0

    def content(self, fd: int, size: int) -> bytes:
        """Add a file's content of exactly the announced size, truncated or filled up with zeros, and its padding.

        Returns the content of a small file, nothing of others.
        """
        if size <= SMALL:
            data = os.pread(fd, size, 0) if size else b""
            while len(data) < size:
                data += os.pread(fd, size - len(data), len(data)) or bytes(size - len(data))
            self.add(data.ljust(size + -size % pax.BLOCK, b"\0"))
            return data
        self.extent(fd, 0, size)
        self.add(bytes(-size % pax.BLOCK))
        return b""

    def extent(self, fd: int, at: int, size: int) -> None:
        """Add a part of a file's content, filled up with zeros where that ends early."""
        self.flush()
        self.total += size
        if self._buffer is None:
            self._buffer = memoryview(bytearray(_BUFFER))
        end = at + size
        while at < end:
            part = self._buffer[: min(end - at, _BUFFER)]
            done = os.preadv(fd, [part], at)
            if not done:
                part[:] = bytes(len(part))
                done = len(part)
            self._write(part[:done])
            at += done


class TreeWriter:
    """A writer of trees to one archive; ``size`` is the bytes of files and link targets so far.

    ``write`` gets buffers that are used again.
    """

    def __init__(self, write: Callable[[bytes | memoryview], object], out: Gathered | None = None) -> None:
        self._out = out or Gathered(write)
        self._links: dict[tuple[int, int], bytes] = {}
        self.size = 0

    def end(self) -> None:
        """Write the archive's end."""
        self._out.add(pax.END)
        self._out.flush()

    def directory(self, fd: int, path: str) -> None:
        """Add an open directory and its content."""
        self.member(pax.DIRECTORY, path + "/", os.fstat(fd), xattrs=_xattrs(fd))
        self.content(fd, path + "/")

    def member(
        self,
        kind: bytes,
        path: str,
        status: os.stat_result,
        link: bytes = b"",
        *,
        size: int = 0,
        xattrs: Xattrs | None = None,
    ) -> None:
        """Add a member's header (InvalidArgument)."""
        numbers = (stat.S_IMODE(status.st_mode), *self.owner(status), size, status.st_mtime_ns)
        device = None
        if kind in (pax.CHAR, pax.BLOCK_DEVICE):
            device = os.major(status.st_rdev), os.minor(status.st_rdev)
        try:
            self._out.add(
                pax.header(kind, _bytes(path), numbers, link, device=device, xattrs=self.attributes(xattrs or []))
            )
        except ValueError as e:
            raise InvalidArgument(f"archive `{path}`: {e}") from e

    def owner(self, status: os.stat_result) -> tuple[int, int]:
        """The owner that a member has for its file's."""
        return status.st_uid, status.st_gid

    def attributes(self, xattrs: Xattrs) -> Xattrs:
        """The extended attributes that a member has for its file's."""
        return xattrs

    def marker(self, path: str) -> None:
        """Add an empty file without owner and time, whose name alone says something."""
        self._out.add(pax.header(pax.FILE, _bytes(path), (0o600, 0, 0, 0, 0)))

    def content(self, fd: int, prefix: str) -> None:
        """Add the content of an open directory, of any depth, with ``prefix`` before each name."""
        files: list[dict[str, int]] = []  # of the directories on the way: the inodes of files by names, as these say

        def names(fd: int) -> list[str]:
            inodes: dict[str, int] = {}
            found = []
            with os.scandir(fd) as entries:
                for entry in entries:
                    found.append(entry.name)
                    if entry.is_file(follow_symlinks=False):
                        inodes[entry.name] = entry.inode()
            files.append(inodes)
            return trees.in_order(found)

        with trees.Descent(fd) as at:
            for name in at.walk(names):
                if name is None:
                    files.pop()
                    self.left()
                    continue
                try:
                    self._entry(at, name, prefix + at.prefix + name, files[-1].get(name, 0))
                except FileNotFoundError:
                    continue  # it went meanwhile

    def wanted(self, name: str, path: str) -> bool:
        """Whether to include an entry and everything below it."""
        del name, path
        return True

    def entered(self, fd: int, path: str, status: os.stat_result, xattrs: Xattrs) -> None:
        """Handle a directory that has been added, before its content."""

    def left(self) -> None:
        """Handle the end of the directory that was entered last."""

    def file(self, fd: int, path: str, status: os.stat_result, xattrs: Xattrs) -> None:
        """Add the content of an open file whose header was added."""
        del path, xattrs
        self._out.content(fd, status.st_size)

    def linked(self, path: str, first: bytes) -> None:
        """Handle a further name of a file that has been added."""

    def entry(self, dir_fd: int, name: str, path: str) -> None:
        """Add an entry of an open directory, as ``path``."""
        with trees.Descent(dir_fd) as at:
            self._entry(at, name, path)
            if at.depth:
                self.content(at.fd, path + "/")

    def known(self, path: str, inode: int) -> bool:
        """Whether a file could be added without a look at it, and was."""
        del path, inode
        return False

    def _entry(self, at: trees.Descent, name: str, path: str, inode: int = 0) -> None:
        """Add one entry; ``at`` enters a directory.  ``inode``: that of a file, as it was a moment ago."""
        if not self.wanted(name, path):
            return
        if inode and (self.known(path, inode) or self._regular(at.fd, name, path)):
            return
        for _ in range(_TRIES):
            status = os.stat(name, dir_fd=at.fd, follow_symlinks=False)
            kind = stat.S_IFMT(status.st_mode)
            if kind == stat.S_IFREG:
                if self._regular(at.fd, name, path):
                    return
            elif kind == stat.S_IFDIR:
                if self._directory(at, name, path):
                    return
            else:
                if kind in _KINDS:
                    self.special(at.fd, name, path, status)
                return
        raise Unavailable(f"archive `{path}`: it cannot be opened, or changes all the time")

    def _directory(self, at: trees.Descent, name: str, path: str) -> bool:
        """Add a directory; False when it is none any more."""
        try:
            status = at.enter(name)
        except OSError as e:
            if e.errno not in _SWAPPED:
                raise
            return False
        xattrs = _xattrs(at.fd)
        self.member(pax.DIRECTORY, path + "/", status, xattrs=xattrs)
        self.entered(at.fd, path, status, xattrs)
        return True

    def _regular(self, dir_fd: int, name: str, path: str) -> bool:
        """Add a regular file; False when it is none any more."""
        try:
            fd = os.open(name, _FILE, dir_fd=dir_fd)
        except OSError as e:
            if e.errno not in _SWAPPED:
                raise
            return False
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return False
            self._file(fd, path, status)
        finally:
            os.close(fd)
        return True

    def special(self, dir_fd: int, name: str, path: str, status: os.stat_result) -> None:
        """Add a symbolic link, a FIFO or a device node."""
        link = b""
        if stat.S_ISLNK(status.st_mode):
            link = _bytes(os.readlink(name, dir_fd=dir_fd))
            self.size += status.st_size
        self.member(_KINDS[stat.S_IFMT(status.st_mode)], path, status, link)
        self.made(name, status, link)

    def made(self, name: str, status: os.stat_result, link: bytes = b"") -> None:
        """Handle a symbolic link, a FIFO or a device node that has been added."""

    def _file(self, fd: int, path: str, status: os.stat_result) -> None:
        if status.st_nlink > 1:
            name = _bytes(path)
            first = self._links.setdefault((status.st_dev, status.st_ino), name)
            if first != name:
                self.member(pax.LINK, path, status, first)
                self.linked(path, first)
                return
        self.size += status.st_size
        self.regular(fd, path, status, _xattrs(fd))

    def regular(self, fd: int, path: str, status: os.stat_result, xattrs: Xattrs) -> None:
        """Add an open file."""
        self.member(pax.FILE, path, status, size=status.st_size, xattrs=xattrs)
        self.file(fd, path, status, xattrs)


class _SparseWriter(TreeWriter):
    """A writer of trees in which files keep their holes."""

    def regular(self, fd: int, path: str, status: os.stat_result, xattrs: Xattrs) -> None:
        size = status.st_size
        # Small ones are not worth it; of others without a hole nothing is asked.
        extents = _extents(fd, size) if size > SMALL and status.st_blocks * 512 < size else [(0, size)]
        if extents == [(0, size)]:
            super().regular(fd, path, status, xattrs)
            return
        numbers = (stat.S_IMODE(status.st_mode), *self.owner(status), size, status.st_mtime_ns)
        self._out.add(pax.sparse(_bytes(path), numbers, extents, xattrs))
        for offset, length in extents:
            self._out.extent(fd, offset, length)
        self._out.add(bytes(-sum(length for _, length in extents) % pax.BLOCK))


class _MappedWriter(TreeWriter):
    """A writer of trees that are seen through a user namespace's mapping."""

    def __init__(self, write: Callable[[bytes | memoryview], object], owners: Owners) -> None:
        super().__init__(write)
        self._owners = owners

    def owner(self, status: os.stat_result) -> tuple[int, int]:
        return self._owners.inside(status.st_uid, status.st_gid)

    def attributes(self, xattrs: Xattrs) -> Xattrs:
        return archived(xattrs, self._owners)


def _writer(target: IO[bytes], owners: Owners | None) -> TreeWriter:
    return TreeWriter(target.write) if owners is None else _MappedWriter(target.write, owners)


def _extents(fd: int, size: int) -> pax.Extents:
    """The extents of a file that are no holes, as many as readers take: where there are more, the smallest are joined.

    Where the file system cannot tell, the whole file is one.
    """
    found: pax.Extents = []
    end = 0
    try:
        while end < size:
            start = os.lseek(fd, end, os.SEEK_DATA)
            end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
            if start < end:
                found.append((start, end - start))
    except OSError as e:
        if e.errno != ENXIO:  # nothing but a hole follows
            return [(0, size)]
    smallest = SMALL
    while len(found) > _MOST_EXTENTS:
        found = _joined(found, smallest)
        smallest *= 2
    return found


def _joined(extents: pax.Extents, smallest: int) -> pax.Extents:
    """The extents with all holes that are smaller than that filled."""
    joined = extents[:1]
    for offset, length in extents[1:]:
        start, before = joined[-1]
        if offset - start - before < smallest:
            joined[-1] = (start, offset + length - start)
        else:
            joined.append((offset, length))
    return joined


def _bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _xattrs(fd: int) -> Xattrs:
    """The extended attributes of an open file, by name, without those by which overlay keeps a layer."""
    found: list[tuple[bytes, bytes]] = []
    try:
        names = os.listxattr(fd)
    except OSError as e:
        if e.errno != EOPNOTSUPP:
            raise
        return found  # a file system without any
    for name in sorted(names):
        if not name.startswith(overlay_notes.PREFIX):
            try:
                found.append((_bytes(name), os.getxattr(fd, name)))
            except OSError as e:
                if e.errno not in _GONE:
                    raise
    return found
