"""A directory as a tar stream (pax), with owners, modes, times in ns, hard links and extended attributes.

The tree may change while it is read, and who changes it may mean harm: every step is taken by descriptor, no
symbolic link is followed, and a file that grows or shrinks meanwhile keeps the size that its header says.
"""

from __future__ import annotations

import os
import stat
import tarfile
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_BUFFER = 1 << 18
_XATTR = "SCHILY.xattr."
_KINDS = {
    stat.S_IFREG: tarfile.REGTYPE, stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE, stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE,
}  # fmt: skip


def write_tree(root: str, target: IO[bytes]) -> None:
    """Write everything below ``root``, itself included as ``./``; sockets are left out (they mean nothing later)."""
    root_fd = os.open(root, _DIRECTORY)
    try:
        with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_BUFFER) as archive:
            _Writer(archive).directory(root_fd, ".", os.fstat(root_fd))
    finally:
        os.close(root_fd)


class _Writer:
    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._links: dict[tuple[int, int], str] = {}

    def directory(self, fd: int, path: str, status: os.stat_result) -> None:
        self._archive.addfile(_header(path, status, _xattrs(fd)))
        for name in sorted(os.listdir(fd)):
            try:
                self._one(fd, name, f"{path}/{name}")
            except FileNotFoundError:
                continue  # it went meanwhile

    def _one(self, dir_fd: int, name: str, path: str) -> None:
        status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind not in _KINDS:
            return
        if kind in (stat.S_IFREG, stat.S_IFDIR):
            fd = os.open(name, _FILE if kind == stat.S_IFREG else _DIRECTORY, dir_fd=dir_fd)
            try:
                self._opened(fd, path, os.fstat(fd))
            finally:
                os.close(fd)
            return
        header = _header(path, status, {})
        if kind == stat.S_IFLNK:
            header.linkname = os.readlink(name, dir_fd=dir_fd)
        self._archive.addfile(header)

    def _opened(self, fd: int, path: str, status: os.stat_result) -> None:
        if stat.S_ISDIR(status.st_mode):
            self.directory(fd, path, status)
            return
        header = _header(path, status, _xattrs(fd))
        if status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                header.type, header.linkname = tarfile.LNKTYPE, first
                self._archive.addfile(header)
                return
        header.size = status.st_size
        self._archive.addfile(header, _Exactly(fd, status.st_size))  # type: ignore[arg-type]


class _Exactly:
    """A file's content cut off, or filled up with zeros, at the size that was promised."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd, self._left = fd, size

    def read(self, size: int) -> bytes:
        size = min(size, self._left)
        data = os.read(self._fd, size) or bytes(size)
        while len(data) < size:
            data += os.read(self._fd, size - len(data)) or bytes(size - len(data))
        self._left -= size
        return data


def _header(path: str, status: os.stat_result, xattrs: dict[str, str]) -> tarfile.TarInfo:
    header = tarfile.TarInfo(path)
    header.type = _KINDS[stat.S_IFMT(status.st_mode)]
    header.mode = stat.S_IMODE(status.st_mode)
    header.uid, header.gid = status.st_uid, status.st_gid
    header.mtime = status.st_mtime_ns // 1_000_000_000
    header.pax_headers = {"mtime": _seconds(status.st_mtime_ns), **xattrs}
    if header.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        header.devmajor, header.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return header


def _seconds(ns: int) -> str:
    """Nanoseconds as pax writes times: a decimal fraction (POSIX.1-2017, pax)."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{seconds}.{rest:09d}" if ns >= 0 else str(seconds)


def _xattrs(fd: int) -> dict[str, str]:
    return dict(_read_xattrs(fd))


def _read_xattrs(fd: int) -> Iterator[tuple[str, str]]:
    for name in os.listxattr(fd):
        try:
            # tarfile writes pax values as UTF-8; surrogateescape carries any other byte through unchanged.
            yield _XATTR + name, os.getxattr(fd, name).decode("utf-8", "surrogateescape")
        except OSError:  # it went meanwhile, or is not ours to read
            continue
