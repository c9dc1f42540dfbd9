"""Copies of directory trees with everything a file has: owner, mode, times, xattrs, hard links, holes.

The copier of volumes' first content, of ``tmpcopyup``, and of the vfs driver.  Both trees are walked by descriptor and
no symbolic link is followed, for a container may be writing in one of them.  Where the file system can share blocks
(FICLONE), a copy costs no room.  Sockets, FIFOs and device nodes are made anew.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from ketch import trees
from ketch.storage import overlay_notes, ownership
from ketch.storage.byte_copy import ByteCopier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.storage.archive.owners import Owners


class Copier:
    """A copier of entries below one target directory, which keeps hard links.

    ``check`` is called now and then; what it raises ends the copy.  With ``owners``, a user namespace, the copies
    belong to those that own the files inside of it.  ``size`` is the bytes of the files so far.
    """

    def __init__(self, target_fd: int, check: Callable[[], None] = lambda: None, owners: Owners | None = None) -> None:
        self.size = 0
        self._root_fd, self._owners = target_fd, owners
        self._check = check
        self._links: dict[tuple[int, int], str] = {}
        self._bytes = ByteCopier(check)

    def tree(self, source_fd: int) -> None:
        """Copy a directory's content to the target, and what the directory itself has."""
        self.content(source_fd)
        copy_metadata(source_fd, self._root_fd, os.fstat(source_fd), self._owners)

    def content(self, source_fd: int) -> None:
        """Copy what is in a directory to the target."""
        self._links.clear()
        with trees.Descent(source_fd) as source, trees.Descent(self._root_fd) as target:
            self._below(source, target, "")

    def entry(self, source_fd: int, name: str, target_fd: int, path: str) -> None:
        """Copy one entry of a directory to the same name in another, ``path`` below the target."""
        directory, slash, _ = path.rpartition("/")
        with trees.Descent(source_fd) as source, trees.Descent(target_fd) as target:
            self._entry(source, name, target, directory + slash)
            if not source.depth:
                return
            with trees.Descent(source.fd) as below, trees.Descent(target.fd) as into:
                self._below(below, into, path + "/")
            copy_metadata(source.fd, target.fd, os.fstat(source.fd), self._owners)

    def _below(self, source: trees.Descent, target: trees.Descent, prefix: str) -> None:
        """Copy everything below two walks' present directories, of which the target's is ``prefix`` below its root."""
        for name in source.walk():
            if name is None:
                if not source.lost:
                    copy_metadata(source.fd, target.fd, os.fstat(source.fd), self._owners)
                target.leave()
                continue
            with suppress(FileNotFoundError):  # removed while this went on
                if self._make_way(source.fd, name, target.fd):
                    self._entry(source, name, target, prefix)

    def _make_way(self, source_fd: int, name: str, target_fd: int) -> bool:
        """Make room for an entry in the target; False when it is not to be copied."""
        del source_fd, name, target_fd
        return True

    def _entry(self, source: trees.Descent, name: str, target: trees.Descent, prefix: str) -> None:
        """Copy one entry; both walks enter a directory."""
        self._check()
        status = os.stat(name, dir_fd=source.fd, follow_symlinks=False)
        mode = status.st_mode
        if stat.S_ISDIR(mode):
            self._directory(source, name, target)
            return
        if status.st_nlink > 1 and (known := self._links.get((status.st_dev, status.st_ino))) is not None:
            self._link(known, target.fd, name)
            return
        if stat.S_ISREG(mode):
            self._file(source.fd, name, target.fd)
        else:
            if stat.S_ISLNK(mode):
                os.symlink(os.readlink(name, dir_fd=source.fd), name, dir_fd=target.fd)
            else:
                os.mknod(name, mode, status.st_rdev, dir_fd=target.fd)
            _copy_metadata_by_name(source.fd, target.fd, name, status, self._owners)
        if status.st_nlink > 1:
            self._links[status.st_dev, status.st_ino] = f"{prefix}{source.prefix}{name}"

    def _link(self, known: str, target_fd: int, name: str) -> None:
        directory, _, first = known.rpartition("/")
        with trees.Descent(self._root_fd) as at:
            for part in directory.split("/") if directory else ():
                at.enter(part)
            os.link(first, name, src_dir_fd=at.fd, dst_dir_fd=target_fd, follow_symlinks=False)

    def _directory(self, source: trees.Descent, name: str, target: trees.Descent) -> None:
        """Enter a directory of the source, and a new one of the same name in the target."""
        source.enter(name)
        try:
            self._make_directory(source.fd, name, target.fd)
            target.enter(name)
        except BaseException:
            source.leave()
            raise

    def _make_directory(self, source_fd: int, name: str, target_fd: int) -> None:
        """Make a directory for the content of the open one."""
        del source_fd
        os.mkdir(name, 0o700, dir_fd=target_fd)

    def _file(self, source_fd: int, name: str, target_fd: int) -> None:
        flags = os.O_NOFOLLOW | os.O_CLOEXEC
        from_fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | flags, dir_fd=source_fd)
        try:
            to_fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o600, dir_fd=target_fd)
            try:
                status = os.fstat(from_fd)
                self._bytes.copy(from_fd, to_fd, status)
                copy_metadata(from_fd, to_fd, status, self._owners)
                self.size += status.st_size
            finally:
                os.close(to_fd)
        finally:
            os.close(from_fd)


def copy_metadata(source_fd: int, target_fd: int, status: os.stat_result, owners: Owners | None = None) -> None:
    """Owner, xattrs, mode and times of an open file; the order matters (chown takes capabilities and set-id bits)."""
    ownership.give(target_fd, *_owner(status, owners))
    for key in _listed(source_fd):
        _set(target_fd, key, _inside(key, os.getxattr(source_fd, key), owners))
    os.fchmod(target_fd, stat.S_IMODE(status.st_mode))
    os.utime(target_fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def _copy_metadata_by_name(
    source_fd: int, target_fd: int, name: str, status: os.stat_result, owners: Owners | None
) -> None:
    """The same of an entry that cannot be opened (to open a device or a FIFO does something)."""
    ownership.give(name, *_owner(status, owners), target_fd)
    with suppress(FileNotFoundError):  # a root that is being made may have no /proc
        for key, value in xattrs(f"/proc/self/fd/{source_fd}/{name}").items():
            _set(f"/proc/self/fd/{target_fd}/{name}", key, _inside(key, value, owners))
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target_fd)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target_fd, follow_symlinks=False)


def _owner(status: os.stat_result, owners: Owners | None) -> tuple[int, int]:
    if owners is None:
        return status.st_uid, status.st_gid
    return owners.inside(status.st_uid, status.st_gid)


def _inside(name: str, value: bytes, owners: Owners | None) -> bytes:
    """An extended attribute for a copy, whose users may be others."""
    if owners is None:
        return value
    from ketch.storage.archive.owners import seen_inside  # a container's first process copies, too, and has no need

    return seen_inside(name, value, owners)


def _set(target: int | str, key: str, value: bytes) -> None:
    try:
        if isinstance(target, str):
            os.setxattr(target, key, value, follow_symlinks=False)
        else:
            os.setxattr(target, key, value)
    except OSError as e:
        if e.errno != errno.EOPNOTSUPP:
            raise


def _listed(fd: int) -> list[str]:
    try:
        names = os.listxattr(fd)
    except OSError as e:
        if e.errno != errno.EOPNOTSUPP:
            raise
        return []
    return [name for name in names if not name.startswith(overlay_notes.PREFIX)]


def xattrs(path: str) -> dict[str, bytes]:
    """The extended attributes of a file or link itself, without overlay's own."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as e:
        if e.errno != errno.EOPNOTSUPP:
            raise
        return {}
    return {n: os.getxattr(path, n, follow_symlinks=False) for n in names if not n.startswith(overlay_notes.PREFIX)}
