"""Tar streams of ``cp`` on this side: packing what is here, and unpacking what comes, never outside its directory."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from contextlib import suppress
from typing import TYPE_CHECKING

from ketch.errors import InvalidArgument, KetchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import IO

_CHUNK = 1 << 18
_CAPABILITY = "SCHILY.xattr.security.capability"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {
    stat.S_IFREG: tarfile.REGTYPE, stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE, stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE,
}  # fmt: skip


def pack(path: str, name: str, rename: Callable[[str], str]) -> Iterator[bytes]:
    """A tar stream of a file or a directory, whose entries begin with ``name``; sockets are left out."""
    links: dict[tuple[int, int], str] = {}
    for place, entry in _walk(path, name):
        try:
            status = os.lstat(place)
        except FileNotFoundError:
            continue  # it went meanwhile
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            continue
        info = tarfile.TarInfo(rename(entry))
        info.type, info.mode, info.mtime = kind, stat.S_IMODE(status.st_mode), status.st_mtime_ns // 1_000_000_000
        info.uid, info.gid = status.st_uid, status.st_gid
        if kind == tarfile.SYMTYPE:
            info.linkname = os.readlink(place)
        elif kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
            info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        elif kind == tarfile.REGTYPE:
            first = links.setdefault((status.st_dev, status.st_ino), info.name) if status.st_nlink > 1 else info.name
            if first != info.name:
                info.type, info.linkname = tarfile.LNKTYPE, first
            else:
                yield from _file(place, info)
                continue
        yield _header(info)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _walk(path: str, name: str) -> Iterator[tuple[str, str]]:
    yield path, name
    if os.path.isdir(path) and (not os.path.islink(path) or path.endswith(("/", "/."))):
        for child in sorted(os.listdir(path)):
            yield from _walk(os.path.join(path, child), f"{name.rstrip('/')}/{child}")


def _file(path: str, info: tarfile.TarInfo) -> Iterator[bytes]:
    """A header and exactly as many bytes as it says, whatever happens to the file meanwhile."""
    try:
        with open(path, "rb") as f:
            info.size = left = os.fstat(f.fileno()).st_size
            with suppress(OSError):  # it has none
                capability = os.getxattr(f.fileno(), "security.capability")
                info.pax_headers = {_CAPABILITY: capability.decode("utf-8", "surrogateescape")}
            yield _header(info)
            while left:
                data = f.read(min(left, _CHUNK)) or bytes(min(left, _CHUNK))
                left -= len(data)
                yield data
    except OSError as e:
        raise InvalidArgument(f"read `{path}`: {e.strerror}") from e
    yield bytes(-info.size % tarfile.BLOCKSIZE)


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


class Incoming:
    """Chunks as a file for ``tarfile``; ``count`` is what has come so far."""

    def __init__(self, chunks: Iterable[bytes], report: Callable[[int], None]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""
        self._report = report
        self.count = 0

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; fewer only at the end."""
        while len(self._rest) < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            self.count += len(chunk)
            self._report(self.count)
            self._rest += chunk
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def unpack(source: Incoming, directory: str, rename: Callable[[str], str], *, owners: bool) -> None:
    """Unpack into an existing directory; with ``owners`` files belong to whom the archive says.

    A directory and something else never take each other's place.  InvalidArgument for a broken archive.
    """
    root_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with tarfile.open(fileobj=source, mode="r|", bufsize=_CHUNK) as archive:  # type: ignore[call-overload]
            _Unpacker(root_fd, directory, rename, owners).run(archive)
    except tarfile.TarError as e:
        raise InvalidArgument(f"unpack into `{directory}`: {e}", hint="the archive is damaged or cut short") from e
    finally:
        os.close(root_fd)


class _Unpacker:
    def __init__(self, root_fd: int, directory: str, rename: Callable[[str], str], owners: bool) -> None:
        self._root_fd, self._directory = root_fd, directory
        self._rename, self._owners = rename, owners
        self._times: list[tuple[str, int]] = []

    def run(self, archive: tarfile.TarFile) -> None:
        for member in archive:
            path = self._inner(self._rename(member.name))
            if path in ("", "."):
                continue
            try:
                self._member(archive, member, path)
            except OSError as e:
                raise KetchError(f"write `{os.path.join(self._directory, path)}`: {e.strerror or e}") from e
        for path, mtime in reversed(self._times):
            with suppress(OSError):  # a later entry replaced it
                os.utime(path, (mtime, mtime), dir_fd=self._root_fd, follow_symlinks=False)

    @staticmethod
    def _inner(name: str) -> str:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise InvalidArgument(f"unpack `{name}`: it leads out of the directory")
        return "/".join(parts)

    def _parent(self, path: str) -> int:
        """A descriptor of the directory that an entry belongs to, made if it is missing; no link is followed."""
        fd = os.dup(self._root_fd)
        for part in path.split("/")[:-1]:
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=fd)
            try:
                below = os.open(part, _DIRECTORY, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        return fd

    def _member(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        name = path.rpartition("/")[2]
        dir_fd = self._parent(path)
        try:
            there = self._make_room(member, path, name, dir_fd)
            if member.isdir():
                if not there:
                    os.mkdir(name, dir_fd=dir_fd)
                self._finish(os.open(name, _DIRECTORY, dir_fd=dir_fd), member)
                self._times.append((path, int(member.mtime)))
            elif member.issym():
                os.symlink(member.linkname, name, dir_fd=dir_fd)
                if self._owners:
                    os.chown(name, member.uid, member.gid, dir_fd=dir_fd, follow_symlinks=False)
            elif member.islnk():
                self._link(member, name, dir_fd)
            elif member.isfile():
                self._file(archive.extractfile(member), member, name, dir_fd)
            else:
                self._node(member, name, dir_fd)
        finally:
            os.close(dir_fd)

    def _make_room(self, member: tarfile.TarInfo, path: str, name: str, dir_fd: int) -> bool:
        """Take away a file that is there; True when a directory is and may stay."""
        try:
            directory = stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return False
        if directory != member.isdir():
            kinds = ("directory", "non-directory") if directory else ("non-directory", "directory")
            shown = os.path.join(self._directory, path)
            raise InvalidArgument(f'cannot overwrite {kinds[0]} "{shown}" with {kinds[1]} "{self._directory}"')
        if not directory:
            os.unlink(name, dir_fd=dir_fd)
        return directory

    def _file(self, content: IO[bytes] | None, member: tarfile.TarInfo, name: str, dir_fd: int) -> None:
        fd = os.open(name, _NEW, 0o600, dir_fd=dir_fd)
        with open(fd, "wb", closefd=False) as f:
            if content is not None:
                shutil.copyfileobj(content, f, _CHUNK)
        os.utime(fd, (int(member.mtime), int(member.mtime)))
        self._finish(fd, member)

    def _link(self, member: tarfile.TarInfo, name: str, dir_fd: int) -> None:
        target = self._inner(self._rename(member.linkname))
        target_fd = self._parent(target)
        try:
            os.link(target.rpartition("/")[2], name, src_dir_fd=target_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
        finally:
            os.close(target_fd)

    def _node(self, member: tarfile.TarInfo, name: str, dir_fd: int) -> None:
        kind = stat.S_IFIFO if member.isfifo() else stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        os.mknod(name, kind | member.mode & 0o777, os.makedev(member.devmajor, member.devminor), dir_fd=dir_fd)

    def _finish(self, fd: int, member: tarfile.TarInfo) -> None:
        """Owner and mode, and close the descriptor."""
        try:
            if self._owners:
                os.fchown(fd, member.uid, member.gid)
            os.fchmod(fd, member.mode & 0o7777)
        finally:
            os.close(fd)
