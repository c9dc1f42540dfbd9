"""Copies of directory trees with everything a file has: owner, mode, times, xattrs, hard links, holes.

Both trees are walked by descriptor and no symbolic link is followed, for a container may be writing in one of
them.  Where the file system can share blocks (FICLONE), a copy costs no room.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING

from ketch import trees
from ketch.linux.openat2 import open_unmounted
from ketch.storage.archive.layer import is_opaque, is_whiteout

if TYPE_CHECKING:
    from collections.abc import Callable

_FICLONE = 0x40049409
_NO_CLONE = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM)
_OVERLAY = "trusted.overlay."  # overlay's own notes mean nothing in a merged tree
_CHUNK = 1 << 20
_PIECE = 16 << 20  # of one call, which nothing but the process's death interrupts


class Copier:
    """A copier of entries below one target directory, which keeps hard links.

    ``check`` is called now and then; what it raises ends the copy.
    """

    def __init__(self, target_fd: int, check: Callable[[], None] = lambda: None) -> None:
        self._root_fd = target_fd
        self._check = check
        self._links: dict[tuple[int, int], str] = {}

    def tree(self, source_fd: int, *, layer: bool = False) -> None:
        """Copy a directory's content to the target; with ``layer`` over its content, as overlay would show it."""
        self._links.clear()
        with trees.Descent(source_fd) as source, trees.Descent(self._root_fd) as target:
            self._below(source, target, "", layer)
        copy_metadata(source_fd, ".", self._root_fd, ".", os.fstat(source_fd))

    def entry(self, source_fd: int, name: str, target_fd: int, path: str) -> None:
        """Copy one entry of a directory to the same name in another, ``path`` below the target."""
        with trees.Descent(source_fd) as source, trees.Descent(target_fd) as target:
            self._entry(source, name, target, path, layer=False)
            if not source.depth:
                return
            with trees.Descent(source.fd) as below, trees.Descent(target.fd) as into:
                self._below(below, into, path + "/", layer=False)
            copy_metadata(source.fd, ".", target.fd, ".", os.fstat(source.fd))

    def _below(self, source: trees.Descent, target: trees.Descent, prefix: str, layer: bool) -> None:
        """Copy everything below two walks' present directories."""
        for name in source.walk():
            if name is None:
                if not source.lost:
                    copy_metadata(source.fd, ".", target.fd, ".", os.fstat(source.fd))
                target.leave()
                continue
            with contextlib.suppress(FileNotFoundError):  # removed while this went on
                if not layer or _make_way(source.fd, name, target.fd):
                    self._entry(source, name, target, prefix + source.prefix + name, layer)

    def _entry(self, source: trees.Descent, name: str, target: trees.Descent, path: str, layer: bool) -> None:
        """Copy one entry; both walks enter a directory."""
        self._check()
        status = os.stat(name, dir_fd=source.fd, follow_symlinks=False)
        mode = status.st_mode
        if stat.S_ISDIR(mode):
            _directory(source, name, target, layer)
            return
        known = self._links.get((status.st_dev, status.st_ino))
        if known is not None:
            self._link(known, target.fd, name)
            return
        if stat.S_ISREG(mode):
            _copy_file(source.fd, name, target.fd, self._check)
        elif stat.S_ISLNK(mode):
            os.symlink(os.readlink(name, dir_fd=source.fd), name, dir_fd=target.fd)
        else:
            os.mknod(name, mode, status.st_rdev, dir_fd=target.fd)
        copy_metadata(source.fd, name, target.fd, name, status)
        if status.st_nlink > 1:
            self._links[status.st_dev, status.st_ino] = path

    def _link(self, known: str, target_fd: int, name: str) -> None:
        directory, _, first = known.rpartition("/")
        with trees.Descent(self._root_fd) as at:
            for part in directory.split("/") if directory else ():
                at.enter(part)
            os.link(first, name, src_dir_fd=at.fd, dst_dir_fd=target_fd, follow_symlinks=False)


def _make_way(source_fd: int, name: str, target_fd: int) -> bool:
    """Remove what a layer's entry hides, before it is copied; False for a whiteout, which is not copied."""
    status = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
    over = _mode(target_fd, name)
    if over and not (stat.S_ISDIR(over) and stat.S_ISDIR(status.st_mode)):
        trees.remove(target_fd, name, open_unmounted)
    return not is_whiteout(status)


def _directory(source: trees.Descent, name: str, target: trees.Descent, layer: bool) -> None:
    """Enter a directory of the source, and a new one of the same name in the target."""
    above_fd = target.fd
    source.enter(name)
    try:
        if layer and is_opaque(source.fd):
            trees.remove(above_fd, name, open_unmounted)
        try:
            os.mkdir(name, 0o700, dir_fd=above_fd)
        except FileExistsError:
            if not layer:
                raise
        target.enter(name)
    except BaseException:
        source.leave()
        raise


def copy_metadata(source_fd: int, name: str, target_fd: int, target: str, status: os.stat_result) -> None:
    """Owner, xattrs, mode and times of one entry; the order matters (chown takes capabilities and set-id bits)."""
    os.chown(target, status.st_uid, status.st_gid, dir_fd=target_fd, follow_symlinks=False)
    source_path, target_path = f"/proc/self/fd/{source_fd}/{name}", f"/proc/self/fd/{target_fd}/{target}"
    for key, value in xattrs(source_path).items():
        try:
            os.setxattr(target_path, key, value, follow_symlinks=False)
        except OSError as e:
            if e.errno != errno.EOPNOTSUPP:
                raise
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, stat.S_IMODE(status.st_mode), dir_fd=target_fd)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target_fd, follow_symlinks=False)


def xattrs(path: str) -> dict[str, bytes]:
    """The extended attributes of a file or link itself, without overlay's own."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as e:
        if e.errno != errno.EOPNOTSUPP:
            raise
        return {}
    return {n: os.getxattr(path, n, follow_symlinks=False) for n in names if not n.startswith(_OVERLAY)}


def copy_data(source_fd: int, target_fd: int, size: int, check: Callable[[], None]) -> None:
    """Copy a file's bytes, as a reflink where possible; holes stay holes."""
    try:
        fcntl.ioctl(target_fd, _FICLONE, source_fd)
        return
    except OSError as e:
        if e.errno not in _NO_CLONE:
            raise
    os.ftruncate(target_fd, size)
    offset = 0
    while offset < size:
        try:
            offset = os.lseek(source_fd, offset, os.SEEK_DATA)
        except OSError as e:
            if e.errno != errno.ENXIO:
                raise
            return
        end = min(os.lseek(source_fd, offset, os.SEEK_HOLE), size)
        while offset < end:
            check()
            copied = _some(source_fd, target_fd, offset, min(end - offset, _PIECE))
            if not copied:  # it became shorter
                return
            offset += copied


def _some(source_fd: int, target_fd: int, offset: int, length: int) -> int:
    try:
        return os.copy_file_range(source_fd, target_fd, length, offset, offset)
    except OSError as e:
        if e.errno not in _NO_CLONE:
            raise
    return os.pwrite(target_fd, os.pread(source_fd, min(length, _CHUNK), offset), offset)


def _copy_file(source_fd: int, name: str, target_fd: int, check: Callable[[], None]) -> None:
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    _with(
        os.open(name, os.O_RDONLY | os.O_NONBLOCK | flags, dir_fd=source_fd),
        lambda source: _with(
            os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o600, dir_fd=target_fd),
            lambda two: copy_data(source, two, os.fstat(source).st_size, check),
        ),
    )


def _with(fd: int, work: Callable[[int], None]) -> None:
    try:
        work(fd)
    finally:
        os.close(fd)


def _mode(directory_fd: int, name: str) -> int:
    try:
        return os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0
