"""Extraction of a layer's tar into a directory, in overlay's own form, never outside the directory.

Every path is opened beneath the root with openat2(2): ``..`` and symbolic links that lead out are refused
(InvalidArgument).  Whiteouts become overlay's: a character device 0/0 for a removed
name, ``trusted.overlay.opaque`` for a directory that hides what is below it (image-spec v1.1 §layer).
Owners, modes, times and extended attributes are set by descriptor.
"""

from __future__ import annotations

import os
import posixpath
import stat
from errno import EDQUOT, EEXIST, EIO, ELOOP, EMFILE, ENFILE, ENOENT, ENOMEM, ENOSPC, ENOTDIR, ENOTSUP, EXDEV
from typing import TYPE_CHECKING

from ketch import trees
from ketch.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable
from ketch.linux import ns
from ketch.linux.openat2 import open_beneath, open_unmounted
from ketch.storage import overlay_notes, ownership
from ketch.storage.archive import tar

if TYPE_CHECKING:
    from ketch.storage.archive.tar import Member, Source, TarReader

_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def extract(source: Source, root: str, *, layer: bool = True) -> int:
    """Unpack a plain tar stream into the existing directory ``root``, no link; returns the bytes of its files.

    Without ``layer`` it is any archive: names that begin like whiteouts are names, and any device node is made.

    Raises InvalidArgument for a broken archive or one that tries to escape; what was written by then stays
    for the caller to remove.
    """
    root_fd = os.open(root, _DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return Extractor(root_fd, layer).run(tar.TarReader(source))
    finally:
        os.close(root_fd)


def clean(name: str, what: str = "path") -> str:
    """A member's name as `relative` has it; InvalidArgument when it leads out."""
    path = relative(name)
    if path is None:
        raise InvalidArgument(f"extract `{name}`: {what} leads out of the archive")
    if "\0" in name:
        raise InvalidArgument(f"extract {name!r}: NUL in {what}")
    return path


def relative(name: str) -> str | None:
    """A member's name relative to the root (``.`` for the root itself), ``..`` resolved; None when it leads out.

    An absolute name is taken as a relative one: what is archived from ``/`` has such names.
    """
    path = posixpath.normpath("./" + name)
    return None if path == ".." or path.startswith("../") else path


class Extractor:
    """One extraction below ``root_fd``, which stays the caller's; `into` has a kind for directories that are in use."""

    def __init__(self, root_fd: int, layer: bool) -> None:
        self._root_fd = root_fd
        self._layer = layer
        self._parent = ""
        self._parent_fd = -1
        self._times: dict[str, int] = {}  # directories': set at the end, for their files change them
        self._size = 0

    def run(self, archive: TarReader) -> int:
        """Unpack all members; returns the bytes of their files."""
        try:
            for member in archive:
                try:
                    self._member(archive, member)
                except OSError as e:
                    raise _explain(e, member.name) from e
            for path, mtime in self._times.items():
                self._set_time(path, mtime)
        finally:
            if self._parent_fd >= 0:
                os.close(self._parent_fd)
        return self._size

    def _open(self, path: str, flags: int) -> int:
        """Open a directory of the archive; links that lead out of the root are refused (EXDEV)."""
        return open_beneath(self._root_fd, path, flags)

    def _open_near(self, path: str, flags: int) -> int:
        """Open a directory of the archive, from the last one when its path leads through that.

        What is deep down is not looked up from the root each time.
        """
        if self._parent_fd >= 0 and path.startswith(f"{self._parent}/"):
            return self._open_from(self._parent_fd, path[len(self._parent) + 1 :], path, flags)
        return self._open(path, flags)

    def _open_from(self, fd: int, name: str, path: str, flags: int) -> int:
        """Open ``path``, which is ``name`` in an open directory."""
        try:
            return open_beneath(fd, name, flags)
        except OSError as e:
            if e.errno != EXDEV:
                raise
        return self._open(path, flags)  # a link leads to somewhere else within the root

    def _enter(self, path: str, fd: int) -> None:
        if self._parent_fd >= 0:
            os.close(self._parent_fd)
        self._parent, self._parent_fd = path, fd

    def _set_time(self, path: str, mtime: int) -> None:
        try:
            fd = self._open_near(path, _DIRECTORY | os.O_NOFOLLOW)
        except OSError as e:
            if e.errno in (ENOENT, ENOTDIR, ELOOP, EXDEV):
                return  # a later member replaced it
            raise
        self._enter(path, fd)
        os.utime(fd, ns=(mtime, mtime))

    def _member(self, archive: TarReader, member: Member) -> None:
        path = self._clean(member.name)
        if path == ".":
            self._root(member)
            return
        directory, _, name = path.rpartition("/")
        dir_fd = self._open_parent(directory or ".")
        kind = member.kind
        if self._layer and name.startswith(_WHITEOUT):
            self._whiteout(dir_fd, name)
        elif kind == tar.FILE:
            self._file(archive, member, dir_fd, name)
        elif kind == tar.DIRECTORY:
            self._directory(member, path, dir_fd, name)
        elif kind == tar.SYMLINK:
            self._symlink(member, dir_fd, name)
        elif kind == tar.LINK:
            self._hard_link(member, dir_fd, name)
        else:
            self._node(member, dir_fd, name)

    def _clean(self, name: str, what: str = "path") -> str:
        return clean(name, what)

    def _root(self, member: Member) -> None:
        if member.kind == tar.DIRECTORY:
            self._finish_directory(".", os.dup(self._root_fd), member)

    def _open_parent(self, path: str) -> int:
        """A descriptor of the member's directory, which is made when the archive does not name it."""
        if path == self._parent:
            return self._parent_fd
        try:
            fd = self._open_near(path, _DIRECTORY)
        except FileNotFoundError:
            fd = self._make_parents(path)
        self._enter(path, fd)
        return fd

    def _make_parents(self, path: str) -> int:
        done = ""
        fd = os.dup(self._root_fd)
        for part in path.split("/"):
            done = f"{done}/{part}" if done else part
            try:
                below = self._open_from(fd, part, done, _DIRECTORY)
            except FileNotFoundError:
                self._make_parent(fd, part)
                below = self._open_from(fd, part, done, _DIRECTORY)
                os.fchmod(below, 0o755)  # whatever the umask
            finally:
                os.close(fd)
            fd = below
        return fd

    def _make_parent(self, dir_fd: int, name: str) -> None:
        os.mkdir(name, 0o755, dir_fd=dir_fd)

    def _whiteout(self, dir_fd: int, name: str) -> None:
        if name == _OPAQUE:
            self._make_opaque(dir_fd)
            return
        if name.startswith(".wh..wh."):
            return  # aufs's own bookkeeping
        hidden = name[len(_WHITEOUT) :]
        if hidden in ("", ".", ".."):
            raise InvalidArgument(f"extract `{name}`: not a whiteout")
        self._clear(dir_fd, hidden)
        try:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=dir_fd)
        except PermissionError as e:
            raise FailedPrecondition(
                f"extract a layer that removes `{hidden}`: the data root's file system makes no whiteouts",
                hint="use another file system for --data-root",
            ) from e

    def _make_opaque(self, dir_fd: int) -> None:
        try:
            os.setxattr(dir_fd, overlay_notes.OPAQUE, b"y")
        except OSError as e:
            if e.errno != ENOTSUP:
                raise
            raise FailedPrecondition(
                "extract a layer that replaces a directory of those below: the data root's file system keeps no"
                f" attributes {overlay_notes.PREFIX}*",
                hint="use another file system for --data-root",
            ) from e

    def _clear(self, dir_fd: int, name: str) -> None:
        """Remove an earlier member of the same name."""
        try:
            os.unlink(name, dir_fd=dir_fd)
        except FileNotFoundError:
            return
        except IsADirectoryError:
            trees.remove(dir_fd, name, open_unmounted)
        self._parent = "\0"  # its path may have led through what went; the descriptor still serves this member

    def _symlink(self, member: Member, dir_fd: int, name: str) -> None:
        self._clear(dir_fd, name)
        os.symlink(member.linkname, name, dir_fd=dir_fd)
        self._size += len(os.fsencode(member.linkname))
        ownership.give(name, *self._owner(member), dir_fd)
        if member.xattrs:
            _set_xattrs(f"/proc/self/fd/{dir_fd}/{name}", member.xattrs)
        os.utime(name, ns=(member.mtime_ns, member.mtime_ns), dir_fd=dir_fd, follow_symlinks=False)

    def _directory(self, member: Member, path: str, dir_fd: int, name: str) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=dir_fd)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
                self._clear(dir_fd, name)
                os.mkdir(name, 0o700, dir_fd=dir_fd)
        self._finish_directory(path, os.open(name, _DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd), member)

    def _finish_directory(self, path: str, fd: int, member: Member) -> None:
        try:
            self._set_owner(fd, member)
        finally:
            os.close(fd)
        self._times[path] = member.mtime_ns

    def _file(self, archive: TarReader, member: Member, dir_fd: int, name: str) -> None:
        try:
            fd = os.open(name, _NEW_FILE, 0o600, dir_fd=dir_fd)
        except FileExistsError:
            self._clear(dir_fd, name)
            fd = os.open(name, _NEW_FILE, 0o600, dir_fd=dir_fd)
        try:
            if member.extents is None:
                for _, data in archive.chunks(member):
                    _write_all(fd, data)
            else:
                for offset, data in archive.chunks(member):
                    os.lseek(fd, offset, os.SEEK_SET)
                    _write_all(fd, data)
                os.ftruncate(fd, member.size)
            self._size += member.size
            self._set_owner(fd, member)
            os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
        finally:
            os.close(fd)

    def _hard_link(self, member: Member, dir_fd: int, name: str) -> None:
        target = self._clean(member.linkname, "hard link")
        directory, _, source = target.rpartition("/")
        source_fd = self._open(directory or ".", _DIRECTORY)
        try:
            if os.path.samestat(os.fstat(source_fd), os.fstat(dir_fd)) and source == name:
                return
            os.stat(source, dir_fd=source_fd, follow_symlinks=False)
            self._clear(dir_fd, name)
            os.link(source, name, src_dir_fd=source_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
        finally:
            os.close(source_fd)

    def _node(self, member: Member, dir_fd: int, name: str) -> None:
        number = (member.major, member.minor)
        if self._layer and member.kind == tar.CHAR and number == (0, 0):
            # Overlay's own form of a whiteout: an archive must not speak for it.
            raise InvalidArgument(
                f"extract `{member.name}`: character device 0:0 in archive refused",
                hint="layers say that a file is removed with a name that begins with .wh.",
            )
        self._clear(dir_fd, name)
        kind = {tar.FIFO: stat.S_IFIFO, tar.BLOCK: stat.S_IFBLK}.get(member.kind, stat.S_IFCHR)
        try:
            os.mknod(name, kind | 0o600, os.makedev(*number), dir_fd=dir_fd)
        except PermissionError:
            if ns.LIMITED and kind != stat.S_IFIFO:
                return  # users make no devices, need none of an image's, and would have no use for such images else
            raise
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
        try:  # by descriptor: chmod(2) would follow a link that somebody put in the node's place
            if stat.S_IFMT(os.fstat(fd).st_mode) == kind:
                path = f"/proc/self/fd/{fd}"
                ownership.give(path, *self._owner(member), follow=True)
                os.chmod(path, member.mode)
                os.utime(path, ns=(member.mtime_ns, member.mtime_ns))
        finally:
            os.close(fd)

    def _owner(self, member: Member) -> tuple[int, int]:
        return member.uid, member.gid

    def _set_owner(self, fd: int, member: Member) -> None:
        """Set the owner, then mode and attributes: a change of owner clears setuid bits and capabilities."""
        ownership.give_with_mode(fd, *self._owner(member), member.mode)
        if member.xattrs:
            _set_xattrs(fd, member.xattrs)


def _write_all(fd: int, data: memoryview) -> None:
    done = os.write(fd, data)
    while done < len(data):
        done += os.write(fd, data[done:])


def _set_xattrs(target: int | str, xattrs: dict[str, bytes]) -> None:
    for name, value in xattrs.items():
        if name.startswith(("trusted.", overlay_notes.PREFIX)):
            continue  # overlay's own: an archive must not speak for it
        try:
            if isinstance(target, int):
                os.setxattr(target, name, value)
            else:
                os.setxattr(target, name, value, follow_symlinks=False)
        except OSError as e:
            if e.errno != ENOTSUP:  # the file system has no such attributes; Docker goes on, too
                raise


def _explain(error: OSError, name: str) -> Exception:
    if error.errno in (EXDEV, ELOOP):
        return InvalidArgument(f"extract `{name}`: a symbolic link leads out of the archive")
    if error.errno in (ENOENT, ENOTDIR, EEXIST):
        return InvalidArgument(f"extract `{name}`: {error.strerror} (a broken archive)")
    if error.errno in (ENOSPC, EDQUOT):
        return ResourceExhausted(f"extract `{name}`: no space left on the device")
    if error.errno in (EIO, EMFILE, ENFILE, ENOMEM):
        return Unavailable(f"extract `{name}`: {error.strerror}")  # it is not the archive's fault
    return InvalidArgument(f"extract `{name}`: {error.strerror or error}")
