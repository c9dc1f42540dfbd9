"""Tar streams on the client's side: packing, and unpacking that never leaves its directory."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile

from ketch import trees
from ketch.contexts import suppress
from ketch.errors import InvalidArgument, KetchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import IO

_CHUNK = 1 << 18
_CAPABILITY = "SCHILY.xattr.security.capability"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}


def pack(
    path: str, name: str, rename: Callable[[str], str], *, owner: tuple[int, int] | None = None
) -> Iterator[bytes]:
    """A tar stream of a file or a directory, whose entries begin with ``name``; sockets are left out.

    A link to a directory is taken as that when ``path`` ends in a slash.  The tree may be of any depth.  ``owner`` owns
    all of it; None: who owns the files.
    """
    directory, _, entry = path.rpartition("/")
    if not entry or entry == ".":
        directory, entry = path, "."
    elif not directory:
        directory = "/" if path.startswith("/") else "."
    dir_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield from Packer(rename, owner=owner).tree(dir_fd, entry, name)
    finally:
        os.close(dir_fd)
    yield bytes(2 * tarfile.BLOCKSIZE)


class Packer:
    """Packs entries of trees one by one; of a file with several names the first one has the content."""

    def __init__(self, rename: Callable[[str], str], *, owner: tuple[int, int] | None = None) -> None:
        """``owner`` owns all of them; None: who owns the files."""
        self._rename, self._owner = rename, owner
        self._links: dict[tuple[int, int], str] = {}

    def tree(self, dir_fd: int, entry: str, name: str) -> Iterator[bytes]:
        """An entry and all below it."""
        with trees.Descent(dir_fd) as top:
            yield from self.entry(top, entry, name)
            if not top.depth:
                return
            with trees.Descent(top.fd) as at:
                for inner in at.walk(trees.sorted_names):
                    if inner is not None:
                        yield from self.entry(at, inner, f"{name.rstrip('/')}/{at.prefix}{inner}")

    def entry(self, at: trees.Descent, entry: str, name: str) -> Iterator[bytes]:
        """Pack one entry; ``at`` enters a directory.  A missing entry is left out."""
        try:
            status = os.stat(entry, dir_fd=at.fd, follow_symlinks=False)
            kind = _KINDS.get(stat.S_IFMT(status.st_mode))
            if kind is None:
                return
            info = tarfile.TarInfo(self._rename(name))
            info.type, info.mode, info.mtime = kind, stat.S_IMODE(status.st_mode), status.st_mtime_ns // 1_000_000_000
            info.uid, info.gid = self._owner or (status.st_uid, status.st_gid)
            if kind == tarfile.SYMTYPE:
                info.linkname = os.readlink(entry, dir_fd=at.fd)
            elif kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
                info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
            elif kind == tarfile.REGTYPE:
                first = self._first(status, info.name)
                if first == info.name:
                    yield from _file(at.fd, entry, info)
                    return
                info.type, info.linkname = tarfile.LNKTYPE, first
            elif kind == tarfile.DIRTYPE:
                at.enter(entry)
        except FileNotFoundError:
            return
        except OSError as e:
            raise InvalidArgument(f"read `{name}`: {e.strerror}") from e
        yield header(info)

    def _first(self, status: os.stat_result, name: str) -> str:
        """The first packed name of a file with hard links."""
        return self._links.setdefault((status.st_dev, status.st_ino), name) if status.st_nlink > 1 else name


def _file(dir_fd: int, entry: str, info: tarfile.TarInfo) -> Iterator[bytes]:
    """A file's header and exactly as many bytes as it announces, also if the file changes meanwhile."""
    with open(os.open(entry, _READ, dir_fd=dir_fd), "rb") as f:
        info.size = left = os.fstat(f.fileno()).st_size
        with suppress(OSError):  # it has none
            capability = os.getxattr(f.fileno(), "security.capability")
            info.pax_headers = {_CAPABILITY: capability.decode("utf-8", "surrogateescape")}
        yield header(info)
        while left:
            data = f.read(min(left, _CHUNK)) or bytes(min(left, _CHUNK))
            left -= len(data)
            yield data
    yield bytes(-info.size % tarfile.BLOCKSIZE)


def header(info: tarfile.TarInfo) -> bytes:
    """An entry's header in the archive."""
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


class Incoming:
    """Chunks as a file for ``tarfile``; ``count`` is the number of bytes so far."""

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


def unpack(
    source: Incoming, directory: str, rename: Callable[[str], str], *, owners: bool, plain: bool = False
) -> None:
    """Unpack into an existing directory; with ``owners`` files get the archive's owners.

    ``plain``: files, directories and links alone, and none that runs as its owner.

    A directory and something else never take each other's place.  InvalidArgument for a broken archive.
    """
    root_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with tarfile.open(fileobj=source, mode="r|", bufsize=_CHUNK) as archive:  # type: ignore[call-overload]
            unpacker = _Unpacker(root_fd, directory, rename, owners, plain)
            try:
                unpacker.run(archive)
            finally:
                unpacker.close()
    except tarfile.TarError as e:
        raise InvalidArgument(f"unpack into `{directory}`: {e}", hint="the archive is damaged or cut short") from e
    finally:
        os.close(root_fd)


class _Unpacker:
    def __init__(self, root_fd: int, directory: str, rename: Callable[[str], str], owners: bool, plain: bool) -> None:
        self._root_fd, self._directory = root_fd, directory
        self._rename, self._owners, self._plain = rename, owners, plain
        self._times: list[tuple[str, int]] = []
        self._dir, self._dir_fd = "", os.dup(root_fd)  # the directory that the last entry belonged to

    def run(self, archive: tarfile.TarFile) -> None:
        for member in archive:
            path = self._inner(self._rename(member.name))
            if path in ("", "."):
                continue
            if self._plain:
                if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
                    continue
                member.mode &= 0o777
            try:
                self._member(archive, member, path)
            except OSError as e:
                raise KetchError(f"write `{os.path.join(self._directory, path)}`: {e.strerror or e}") from e
        for path, mtime in self._times:
            with suppress(OSError):  # a later entry replaced it
                os.utime(self._directory_of(f"{path}/."), (mtime, mtime))

    def close(self) -> None:
        """Close the open directory."""
        os.close(self._dir_fd)

    @staticmethod
    def _inner(name: str) -> str:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise InvalidArgument(f"unpack `{name}`: it leads out of the directory")
        return "/".join(parts)

    def _directory_of(self, path: str) -> int:
        """A descriptor of the directory that an entry belongs to, made if it is missing; no link is followed.

        It is valid until the next call.  From the last one it is not far, as a rule.
        """
        wanted = path.rpartition("/")[0]
        if wanted == self._dir:
            return self._dir_fd
        rest = wanted
        if self._dir and wanted.startswith(f"{self._dir}/"):
            rest = wanted[len(self._dir) + 1 :]
        else:
            self._open("", os.dup(self._root_fd))
        for part in rest.split("/") if rest else ():
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=self._dir_fd)
            self._open(f"{self._dir}/{part}" if self._dir else part, trees.open_directory(part, self._dir_fd))
        return self._dir_fd

    def _open(self, directory: str, fd: int) -> None:
        os.close(self._dir_fd)
        self._dir, self._dir_fd = directory, fd

    def _member(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        name = path.rpartition("/")[2]
        dir_fd = self._directory_of(path)
        there = self._make_room(member, path, name, dir_fd)
        if member.isdir():
            if not there:
                os.mkdir(name, dir_fd=dir_fd)
            self._finish(trees.open_directory(name, dir_fd), member)
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

    def _make_room(self, member: tarfile.TarInfo, path: str, name: str, dir_fd: int) -> bool:
        """Remove an existing file; True for a directory that may stay."""
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
        dir_fd = os.dup(dir_fd)
        try:
            source_fd = self._directory_of(target)
            os.link(target.rpartition("/")[2], name, src_dir_fd=source_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
        finally:
            os.close(dir_fd)

    def _node(self, member: tarfile.TarInfo, name: str, dir_fd: int) -> None:
        kind = stat.S_IFIFO if member.isfifo() else stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        os.mknod(name, kind | member.mode & 0o777, os.makedev(member.devmajor, member.devminor), dir_fd=dir_fd)

    def _finish(self, fd: int, member: tarfile.TarInfo) -> None:
        """Set owner and mode, and close the descriptor."""
        try:
            if self._owners:
                os.fchown(fd, member.uid, member.gid)
            os.fchmod(fd, member.mode & 0o7777)
        finally:
            os.close(fd)
