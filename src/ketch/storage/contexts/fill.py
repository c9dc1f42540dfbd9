"""A layer filled with the entries of a scan: hard links of what is known already, copies of the rest.

The source is read below its descriptor alone, through no symbolic link (openat2(2)), and each file is compared with
what the scan saw of it, before and after it is read.  Owners become 0; modes, times and extended attributes stay.
"""

from __future__ import annotations

import os
import stat
from errno import EDQUOT, EMLINK, ENOENT, ENOSPC, ENOTDIR, EXDEV
from typing import TYPE_CHECKING

from ketch.errors import InvalidArgument, PermissionDenied, ResourceExhausted
from ketch.linux.openat2 import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2
from ketch.storage.byte_copy import ByteCopier
from ketch.storage.contexts.attributes import attributes, set_attributes
from ketch.storage.contexts.scan import changed, entry

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from ketch.storage.contexts.scan import ScanEntry

    Row = ScanEntry | tuple[str, int, int, int, int, int, int]

_BELOW = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = (EDQUOT, ENOSPC)
_NOT_LINKED = (EMLINK, ENOENT, ENOTDIR, EXDEV)


class Known:
    """Entries whose content is below a descriptor already, in files that never change; nothing, without any."""

    def __init__(self, fd: int = -1, entries: Collection[Row] = ()) -> None:
        self.fd = fd
        self.entries = entries


def fill(
    source_fd: int,
    entries: Sequence[ScanEntry],
    target: str,
    known: Known,
    copied: Callable[[int], None] = lambda _bytes: None,
) -> None:
    """Fill an empty directory with the entries of a scan of ``source_fd``.

    ``copied`` is told the bytes of each file that was copied; what it raises ends the work.  Conflict: something
    changed since the scan; InvalidArgument, PermissionDenied: something cannot be in a layer, or not be read.
    """
    target_fd = os.open(target, _DIRECTORY | os.O_CLOEXEC)
    try:
        with _Filling(source_fd, target_fd, known, copied) as filling:
            filling.run(entries)
    finally:
        os.close(target_fd)


class _Filling:
    def __init__(self, source_fd: int, target_fd: int, known: Known, copied: Callable[[int], None]) -> None:
        self._root_fd, self._bytes = target_fd, ByteCopier(lambda: copied(0))
        self._source_fd, self._known, self._copied = source_fd, known, copied
        self._parent, self._parent_fd = "", source_fd
        self._several: set[int] = set()  # inodes of files with several names among those that are taken
        self._first: dict[tuple[int, ...], str] = {}  # the first name of each, by all that a scan tells of it
        self._owned = (os.geteuid(), os.getegid()) == (0, 0)  # what is made belongs to 0 without being told

    def __enter__(self) -> _Filling:
        return self

    def __exit__(self, *_: object) -> None:
        self._enter("", self._source_fd)

    def run(self, entries: Sequence[ScanEntry]) -> None:
        directories: list[ScanEntry] = []
        self._several = _of_several_names(entries)
        for one in entries:
            try:
                if stat.S_ISDIR(one.mode):
                    self._make_directory_of(one)
                    directories.append(one)
                else:
                    self._take(one)
            except OSError as e:
                if e.errno not in _FULL:
                    raise
                message = f"copy `{one.path}` of the build context: no space left on device"
                raise ResourceExhausted(message, hint="make room, for instance with: builder prune") from e
        for one in reversed(directories):
            self._finish(one)

    def _take(self, one: ScanEntry) -> None:
        """Have a file, a link or a node: linked to what is known, or copied."""
        if one.inode in self._several and self._link_again(one):
            return
        if one not in self._known.entries or not self._link_known(one.path, self._known.fd):
            self._copy(one)
        if one.inode in self._several:
            self._first[one[1:]] = one.path

    def _link_again(self, one: ScanEntry) -> bool:
        """Link a file to its first name; False: this is the first."""
        first = self._first.get(one[1:])
        if first is not None:
            os.link(first, one.path, src_dir_fd=self._root_fd, dst_dir_fd=self._root_fd, follow_symlinks=False)
        return first is not None

    def _link_known(self, path: str, known_fd: int) -> bool:
        try:
            os.link(path, path, src_dir_fd=known_fd, dst_dir_fd=self._root_fd, follow_symlinks=False)
        except OSError as e:
            if e.errno not in _NOT_LINKED:
                raise
            return False
        return True

    def _make_directory_of(self, one: ScanEntry) -> None:
        fd = self._opened(one.path)
        self._enter(one.path, fd)
        if entry(one.path, os.fstat(fd)) != one:
            raise changed(one.path)
        os.mkdir(one.path, 0o700, dir_fd=self._root_fd)
        found = attributes(fd)
        if found:
            target_fd = os.open(one.path, _DIRECTORY | os.O_CLOEXEC, dir_fd=self._root_fd)
            try:
                set_attributes(target_fd, found.items())
            finally:
                os.close(target_fd)

    def _finish(self, one: ScanEntry) -> None:
        """Set a directory's mode and time when everything is in it."""
        if not self._owned:
            os.chown(one.path, 0, 0, dir_fd=self._root_fd)
        os.chmod(one.path, stat.S_IMODE(one.mode), dir_fd=self._root_fd)
        os.utime(one.path, ns=(one.mtime_ns, one.mtime_ns), dir_fd=self._root_fd)

    def _enter(self, directory: str, fd: int) -> None:
        """Note the directory of the source that is read now, and close the last one."""
        if self._parent_fd != self._source_fd:
            os.close(self._parent_fd)
        self._parent, self._parent_fd = directory, fd

    def _opened(self, directory: str) -> int:
        """A directory of the source, by its path."""
        try:
            return openat2(self._source_fd, directory, _DIRECTORY, 0, _BELOW)
        except PermissionError as e:
            raise PermissionDenied(f"open `{directory}` in the build context: permission denied") from e
        except OSError as e:
            raise changed(directory) from e

    def _copy(self, one: ScanEntry) -> None:
        """Copy a file, a link or a node."""
        directory, _, name = one.path.rpartition("/")
        if directory != self._parent:
            self._enter(directory, self._opened(directory) if directory else self._source_fd)
        try:
            if stat.S_ISREG(one.mode):
                self._copy_file(one, name)
            else:
                status = os.stat(name, dir_fd=self._parent_fd, follow_symlinks=False)
                if entry(one.path, status) != one:
                    raise changed(one.path)
                if stat.S_ISLNK(one.mode):
                    self._copy_link(one, name)
                else:
                    self._make_node(one, status)
        except FileNotFoundError as e:
            raise changed(one.path) from e

    def _copy_file(self, one: ScanEntry, name: str) -> None:
        from_fd = _open_file(one.path, name, self._parent_fd)
        try:
            status = os.fstat(from_fd)
            if entry(one.path, status) != one:
                raise changed(one.path)
            to_fd = os.open(one.path, _NEW, 0o600, dir_fd=self._root_fd)
            try:
                self._bytes.copy(from_fd, to_fd, status)
                if entry(one.path, os.fstat(from_fd)) != one:
                    raise changed(one.path)
                if not self._owned:
                    os.fchown(to_fd, 0, 0)
                set_attributes(to_fd, attributes(from_fd).items())
                os.fchmod(to_fd, stat.S_IMODE(one.mode))
                os.utime(to_fd, ns=(one.mtime_ns, one.mtime_ns))
            finally:
                os.close(to_fd)
        finally:
            os.close(from_fd)
        self._copied(one.size)

    def _copy_link(self, one: ScanEntry, name: str) -> None:
        target = os.readlink(name, dir_fd=self._parent_fd)
        if entry(one.path, os.stat(name, dir_fd=self._parent_fd, follow_symlinks=False)) != one:
            raise changed(one.path)
        os.symlink(target, one.path, dir_fd=self._root_fd)
        self._set_owner(one)
        os.utime(one.path, ns=(one.mtime_ns, one.mtime_ns), dir_fd=self._root_fd, follow_symlinks=False)

    def _make_node(self, one: ScanEntry, status: os.stat_result) -> None:
        if stat.S_ISCHR(one.mode) and status.st_rdev == 0:
            raise InvalidArgument(
                f"`{one.path}` in the build context: a character device 0:0 cannot be in a layer",
                hint="overlay file systems take it for a file that was removed; name it in .dockerignore",
            )
        kind = stat.S_IFREG if stat.S_ISSOCK(one.mode) else stat.S_IFMT(one.mode)  # a socket is an empty file there
        os.mknod(one.path, kind | 0o600, status.st_rdev, dir_fd=self._root_fd)
        self._set_owner(one)
        os.chmod(one.path, stat.S_IMODE(one.mode), dir_fd=self._root_fd)
        os.utime(one.path, ns=(one.mtime_ns, one.mtime_ns), dir_fd=self._root_fd)

    def _set_owner(self, one: ScanEntry) -> None:
        if not self._owned:
            os.chown(one.path, 0, 0, dir_fd=self._root_fd, follow_symlinks=False)


def _of_several_names(entries: Sequence[ScanEntry]) -> set[int]:
    """The inodes that are met more than once."""
    seen: set[int] = set()
    several: set[int] = set()
    for one in entries:
        (several if one.inode in seen else seen).add(one.inode)
    return several


def _open_file(path: str, name: str, directory_fd: int) -> int:
    try:
        return os.open(name, _READ, dir_fd=directory_fd)
    except PermissionError as e:
        raise PermissionDenied(f"open `{path}` in the build context: permission denied") from e
    except OSError as e:
        raise changed(path) from e
