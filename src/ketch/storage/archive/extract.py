"""Unpack a layer's tar into a directory, in overlay's own form, without ever leaving that directory.

Every path is opened beneath the root with openat2(2): absolute names, ``..`` and symbolic links that
lead out are refused (InvalidArgument).  Whiteouts become overlay's: a character device 0/0 for a removed
name, ``trusted.overlay.opaque`` for a directory that hides what is below it (image-spec v1.1 §layer).
tarfile only parses headers; owners, modes, times and extended attributes are set by descriptor.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from errno import EEXIST, ELOOP, ENOENT, ENOTDIR, EXDEV
from typing import IO

from ketch.errors import InvalidArgument, ResourceExhausted
from ketch.linux.openat2 import open_beneath

_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_XATTR = "SCHILY.xattr."
# Nodes that any container has in /dev anyway; an image has no business with others.
_NODES = frozenset(((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (10, 200), (10, 229)))
_BUFFER = 1 << 20


def extract(source: IO[bytes], root: str) -> int:
    """Unpack a plain tar stream into the existing directory ``root``; returns the bytes of its files.

    Raises InvalidArgument for a broken archive or one that tries to escape; what was written by then stays
    for the caller to remove.
    """
    root_fd = os.open(root, _DIRECTORY | os.O_CLOEXEC)
    try:
        return _Extractor(root_fd).run(source)
    except tarfile.TarError as e:
        raise InvalidArgument(f"read archive: {e}", hint="it is not a tar archive, or it is cut short") from e
    finally:
        os.close(root_fd)


def clean(name: str, what: str = "path") -> str:
    """A member's name relative to the root (``.`` for the root itself); InvalidArgument when it leads out."""
    if name.startswith("/"):
        raise InvalidArgument(f"extract `{name}`: absolute {what} in archive")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidArgument(f"extract `{name}`: {what} leads out of the archive")
    if "\0" in name:
        raise InvalidArgument(f"extract {name!r}: NUL in {what}")
    return "/".join(parts) or "."


class _Extractor:
    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        self._parent = ""
        self._parent_fd = -1
        self._directories: list[tuple[str, int]] = []
        self._size = 0

    def run(self, source: IO[bytes]) -> int:
        try:
            with tarfile.open(fileobj=source, mode="r|", bufsize=_BUFFER, errorlevel=2) as tar:
                for member in tar:
                    self._member(tar, member)
                    tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every header for ever
            for path, mtime in reversed(self._directories):
                fd = open_beneath(self._root_fd, path, _DIRECTORY)
                try:
                    os.utime(fd, ns=(mtime, mtime))
                finally:
                    os.close(fd)
        finally:
            if self._parent_fd >= 0:
                os.close(self._parent_fd)
        return self._size

    def _member(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = clean(member.name)
        try:
            if path == ".":
                if member.isdir():
                    self._finish_directory(path, os.dup(self._root_fd), member)
                return
            directory, _, name = path.rpartition("/")
            dir_fd = self._open_parent(directory or ".")
            if name.startswith(_WHITEOUT):
                self._whiteout(dir_fd, name)
            else:
                self._make(tar, member, path, dir_fd, name)
        except OSError as e:
            raise _explain(e, member.name) from e

    def _open_parent(self, path: str) -> int:
        """A descriptor of the member's directory, which is made when the archive does not name it."""
        if path == self._parent:
            return self._parent_fd
        try:
            fd = open_beneath(self._root_fd, path, _DIRECTORY)
        except FileNotFoundError:
            fd = self._make_parents(path)
        if self._parent_fd >= 0:
            os.close(self._parent_fd)
        self._parent, self._parent_fd = path, fd
        return fd

    def _make_parents(self, path: str) -> int:
        done = ""
        fd = os.dup(self._root_fd)
        for part in path.split("/"):
            done = f"{done}/{part}" if done else part
            try:
                below = open_beneath(self._root_fd, done, _DIRECTORY)
            except FileNotFoundError:
                os.mkdir(part, 0o755, dir_fd=fd)
                below = open_beneath(self._root_fd, done, _DIRECTORY)
            finally:
                os.close(fd)
            fd = below
        return fd

    def _whiteout(self, dir_fd: int, name: str) -> None:
        if name == _OPAQUE:
            os.setxattr(dir_fd, "trusted.overlay.opaque", b"y")
            return
        if name.startswith(".wh..wh."):
            return  # aufs's own bookkeeping
        hidden = name[len(_WHITEOUT) :]
        if hidden in ("", ".", ".."):
            raise InvalidArgument(f"extract `{name}`: not a whiteout")
        self._clear(dir_fd, hidden)
        os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=dir_fd)

    def _clear(self, dir_fd: int, name: str) -> None:
        """Take away what an earlier member put there."""
        try:
            os.unlink(name, dir_fd=dir_fd)
        except FileNotFoundError:
            return
        except IsADirectoryError:
            shutil.rmtree(name, dir_fd=dir_fd)
            self._parent, self._parent_fd = self._forget_parent()

    def _forget_parent(self) -> tuple[str, int]:
        # The cached directory may be the one that went; dir_fd itself stays open for this member.
        return "\0", self._parent_fd

    def _make(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str, dir_fd: int, name: str) -> None:
        if member.isdir():
            self._directory(member, path, dir_fd, name)
        elif member.isreg():
            self._file(tar, member, dir_fd, name)
        elif member.issym():
            self._clear(dir_fd, name)
            os.symlink(member.linkname, name, dir_fd=dir_fd)
            os.chown(name, member.uid, member.gid, dir_fd=dir_fd, follow_symlinks=False)
            self._xattrs(f"/proc/self/fd/{dir_fd}/{name}", member)
            mtime = _mtime(member)
            os.utime(name, ns=(mtime, mtime), dir_fd=dir_fd, follow_symlinks=False)
        elif member.islnk():
            self._hard_link(member, dir_fd, name)
        elif member.ischr() or member.isblk() or member.isfifo():
            self._node(member, path, dir_fd, name)
        else:
            raise InvalidArgument(f"extract `{member.name}`: unknown type {member.type!r} in archive")

    def _directory(self, member: tarfile.TarInfo, path: str, dir_fd: int, name: str) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=dir_fd)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
                self._clear(dir_fd, name)
                os.mkdir(name, 0o700, dir_fd=dir_fd)
        self._finish_directory(path, os.open(name, _DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd), member)

    def _finish_directory(self, path: str, fd: int, member: tarfile.TarInfo) -> None:
        try:
            os.fchown(fd, member.uid, member.gid)
            os.fchmod(fd, member.mode & 0o7777)
            self._xattrs(fd, member)
        finally:
            os.close(fd)
        self._directories.append((path, _mtime(member)))

    def _file(self, tar: tarfile.TarFile, member: tarfile.TarInfo, dir_fd: int, name: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, 0o600, dir_fd=dir_fd)
        except FileExistsError:
            self._clear(dir_fd, name)
            fd = os.open(name, flags, 0o600, dir_fd=dir_fd)
        try:
            content = tar.extractfile(member)
            if content is not None and member.size:
                self._copy(content, fd, member)
            os.fchown(fd, member.uid, member.gid)
            os.fchmod(fd, member.mode & 0o7777)
            self._xattrs(fd, member)
            mtime = _mtime(member)
            os.utime(fd, ns=(mtime, mtime))
        finally:
            os.close(fd)

    def _copy(self, content: IO[bytes], fd: int, member: tarfile.TarInfo) -> None:
        left = member.size
        while left:
            chunk = content.read(min(left, _BUFFER))
            if not chunk:
                raise InvalidArgument(f"extract `{member.name}`: the archive ends in the middle of it")
            if member.issparse() and not chunk.strip(b"\0"):
                os.lseek(fd, len(chunk), os.SEEK_CUR)
            else:
                os.writev(fd, [chunk])
            left -= len(chunk)
        os.ftruncate(fd, member.size)
        self._size += member.size

    def _hard_link(self, member: tarfile.TarInfo, dir_fd: int, name: str) -> None:
        target = clean(member.linkname, "hard link")
        directory, _, source = target.rpartition("/")
        source_fd = open_beneath(self._root_fd, directory or ".", _DIRECTORY)
        try:
            if os.path.samestat(os.fstat(source_fd), os.fstat(dir_fd)) and source == name:
                return
            os.stat(source, dir_fd=source_fd, follow_symlinks=False)
            self._clear(dir_fd, name)
            os.link(source, name, src_dir_fd=source_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
        finally:
            os.close(source_fd)

    def _node(self, member: tarfile.TarInfo, path: str, dir_fd: int, name: str) -> None:
        number = (member.devmajor, member.devminor)
        if not member.isfifo() and (member.isblk() or number not in _NODES or not path.startswith("dev/")):
            kind = "block" if member.isblk() else "character"
            raise InvalidArgument(
                f"extract `{member.name}`: {kind} device {number[0]}:{number[1]} in archive refused",
                hint="images get their devices at run time (--device)",
            )
        self._clear(dir_fd, name)
        mode = stat.S_IFIFO if member.isfifo() else stat.S_IFCHR
        os.mknod(name, mode | 0o600, os.makedev(*number), dir_fd=dir_fd)
        os.chown(name, member.uid, member.gid, dir_fd=dir_fd, follow_symlinks=False)
        os.chmod(name, member.mode & 0o7777, dir_fd=dir_fd)

    @staticmethod
    def _xattrs(target: int | str, member: tarfile.TarInfo) -> None:
        for key, value in member.pax_headers.items():
            if key.startswith(_XATTR) and not key.startswith(_XATTR + "trusted."):
                attribute, data = key[len(_XATTR) :], value.encode("utf-8", "surrogateescape")
                if isinstance(target, int):
                    os.setxattr(target, attribute, data)
                else:
                    os.setxattr(target, attribute, data, follow_symlinks=False)


def _mtime(member: tarfile.TarInfo) -> int:
    """Nanoseconds; pax times are decimal text, which a float would round."""
    text = member.pax_headers.get("mtime")
    if not text:
        return int(member.mtime) * 1_000_000_000
    seconds, _, fraction = text.partition(".")
    return int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, "0") or 0)


def _explain(error: OSError, name: str) -> Exception:
    if error.errno in (EXDEV, ELOOP):
        return InvalidArgument(f"extract `{name}`: a symbolic link leads out of the archive")
    if error.errno in (ENOENT, ENOTDIR, EEXIST):
        return InvalidArgument(f"extract `{name}`: {error.strerror} (a broken archive)")
    if error.errno == 28:
        return ResourceExhausted(f"extract `{name}`: no space left on the device")
    return InvalidArgument(f"extract `{name}`: {error.strerror or error}")
