"""A writer of directories as tar streams (pax), with owners, modes, times in ns, hard links and xattrs.

The tree may change while it is read, and who changes it may mean harm: every step is taken by descriptor, no
symbolic link is followed, and a file that grows or shrinks meanwhile keeps the size that its header says.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from errno import EACCES, ELOOP, ENOTDIR, ENXIO
from typing import IO, TYPE_CHECKING, Any

from ketch import trees
from ketch.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_BUFFER = 1 << 18
_TRIES = 10
_SWAPPED = (ELOOP, ENOTDIR, ENXIO, EACCES)  # what opening says when the kind is another one than a moment ago
_XATTR = "SCHILY.xattr."
_KINDS = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}


def write_tree(root: str, target: IO[bytes]) -> None:
    """Write everything below ``root``, itself included as ``./``; sockets are left out (they mean nothing later)."""
    root_fd = os.open(root, _DIRECTORY)
    try:
        write_directory(root_fd, ".", target)
    finally:
        os.close(root_fd)


def write_directory(fd: int, name: str | None, target: IO[bytes]) -> None:
    """Write an open directory as ``name``, or, for None, only its content; ``fd`` stays the caller's."""
    with archive_to(target) as archive:
        writer = TreeWriter(archive)
        if name is None:
            writer.content(fd, "")
        else:
            writer.directory(fd, name)


def write_entry(dir_fd: int, entry: str, name: str, target: IO[bytes]) -> None:
    """Write the entry ``entry`` of an open directory under another name (FileNotFoundError)."""
    with archive_to(target) as archive:
        TreeWriter(archive).entry(dir_fd, entry, name)


def archive_to(target: IO[bytes]) -> tarfile.TarFile:
    """A tar stream in pax form, to be used with ``with``."""
    archive = _Stream.open(  # the caller ends it
        fileobj=target, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_BUFFER
    )
    archive.copybufsize = _BUFFER  # type: ignore[attr-defined]  # 16 KiB otherwise
    return archive


class _Stream(tarfile.TarFile):
    """A tar stream that does not keep its members: hundreds of thousands would hold up every collection of garbage."""

    def addfile(self, *arguments: Any) -> None:
        super().addfile(*arguments)
        self.members.clear()  # type: ignore[attr-defined]


class TreeWriter:
    """A writer of trees to one archive; ``size`` is the bytes of files and link targets so far."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self.archive = archive
        self._links: dict[tuple[int, int], str] = {}
        self.size = 0

    def directory(self, fd: int, path: str) -> None:
        """Add an open directory and its content."""
        self.archive.addfile(header(path, os.fstat(fd), _xattrs(fd)))
        self.content(fd, path + "/")

    def content(self, fd: int, prefix: str) -> None:
        """Add the content of an open directory, of any depth, with ``prefix`` before each name."""
        with trees.Descent(fd) as at:
            for name in at.walk(trees.sorted_names):
                if name is not None:
                    with contextlib.suppress(FileNotFoundError):  # it went meanwhile
                        self._entry(at, name, prefix + at.prefix + name)

    def wanted(self, name: str, path: str) -> bool:
        """Whether to include an entry and everything below it."""
        del name, path
        return True

    def entered(self, fd: int, path: str) -> None:
        """Handle a directory that has been added, before its content."""

    def entry(self, dir_fd: int, name: str, path: str) -> None:
        """Add an entry of an open directory, as ``path``."""
        with trees.Descent(dir_fd) as at:
            self._entry(at, name, path)
            if at.depth:
                self.content(at.fd, path + "/")

    def _entry(self, at: trees.Descent, name: str, path: str) -> None:
        """Add one entry; ``at`` enters a directory."""
        if not self.wanted(name, path):
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
        self.archive.addfile(header(path, status, _xattrs(at.fd)))
        self.entered(at.fd, path)
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
        described = header(path, status, {})
        if stat.S_ISLNK(status.st_mode):
            described.linkname = os.readlink(name, dir_fd=dir_fd)
            self.size += status.st_size
        self.archive.addfile(described)

    def _file(self, fd: int, path: str, status: os.stat_result) -> None:
        described = header(path, status, _xattrs(fd))
        if status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                described.type, described.linkname = tarfile.LNKTYPE, first
                self.archive.addfile(described)
                return
        described.size = status.st_size
        self.size += status.st_size
        self.archive.addfile(described, _Exactly(fd, status.st_size))  # type: ignore[arg-type]


class _Exactly:
    """A file's content of exactly the announced size: truncated, or filled up with zeros."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd, self._left = fd, size

    def read(self, size: int) -> bytes:
        size = min(size, self._left)
        data = os.read(self._fd, size) or bytes(size)
        while len(data) < size:
            data += os.read(self._fd, size - len(data)) or bytes(size - len(data))
        self._left -= size
        return data


def header(path: str, status: os.stat_result, xattrs: dict[str, str], kind: bytes | None = None) -> tarfile.TarInfo:
    """A member's header, with size 0; of the type ``kind`` if given."""
    info = tarfile.TarInfo(path)
    info.type = kind or _KINDS[stat.S_IFMT(status.st_mode)]
    info.mode = stat.S_IMODE(status.st_mode)
    info.uid, info.gid = status.st_uid, status.st_gid
    info.mtime = status.st_mtime_ns // 1_000_000_000
    info.pax_headers = {"mtime": _seconds(status.st_mtime_ns), **xattrs}
    if info.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return info


def _seconds(ns: int) -> str:
    """Nanoseconds as pax writes times: a decimal fraction (POSIX.1-2017, pax)."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{seconds}.{rest:09d}" if ns >= 0 else str(seconds)


def _xattrs(fd: int) -> dict[str, str]:
    return dict(_read_xattrs(fd))


def _read_xattrs(fd: int) -> Iterator[tuple[str, str]]:
    for name in os.listxattr(fd):
        if name.startswith("trusted.overlay."):
            continue  # how overlay keeps a layer, not what is in it
        try:
            # tarfile writes pax values as UTF-8; surrogateescape carries any other byte through unchanged.
            yield _XATTR + name, os.getxattr(fd, name).decode("utf-8", "surrogateescape")
        except OSError:  # it went meanwhile, or is not ours to read
            continue
