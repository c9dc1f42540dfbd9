"""The notation of fuse-overlayfs in upper directories, and its translation into overlay's own.

Files say what the kernel's overlay has attributes and devices for: ``.wh..wh..opq`` or ``.wh..opq`` in a directory that
hides those below, ``.wh.NAME`` for a name that was removed, where it could make no device.  It refuses such names to
programs.  Attributes of its own tell where a file was copied from.
"""

from __future__ import annotations

import os
import stat
from errno import EOPNOTSUPP

from ketch import trees
from ketch.storage import overlay_notes

_OPAQUE = (".wh..wh..opq", ".wh..opq")
_REMOVED = ".wh."
_OWN = ("user.fuseoverlayfs.", "user.containers.")


def has_any(upper: str) -> bool:
    """Whether a directory says anything in this notation."""
    root_fd = os.open(upper, trees.DIRECTORY)
    try:
        with trees.Descent(root_fd) as at:
            if _own(at.fd):
                return True
            for name in at.walk():
                if name is None:
                    continue
                if name.startswith(_REMOVED) or _own_of(at.fd, name):
                    return True
                if _is_directory(at.fd, name):
                    at.enter(name)
    finally:
        os.close(root_fd)
    return False


def translate(upper: str) -> None:
    """Have a directory that nobody uses say the same in overlay's notation."""
    root_fd = os.open(upper, trees.DIRECTORY)
    try:
        with trees.Descent(root_fd) as at:
            times = [_times(at.fd)]
            for name in at.walk():
                if name is None:
                    os.utime(at.fd, ns=times.pop())
                elif name.startswith(_REMOVED):
                    _say(at.fd, name)
                elif _is_directory(at.fd, name):
                    at.enter(name)
                    times.append(_times(at.fd))
                    _forget(f"/proc/self/fd/{at.fd}", follow=True)
                else:
                    _forget(f"/proc/self/fd/{at.fd}/{name}", follow=False)
            os.utime(root_fd, ns=times.pop())
            _forget(f"/proc/self/fd/{root_fd}", follow=True)
    finally:
        os.close(root_fd)


def _say(directory_fd: int, note: str) -> None:
    os.unlink(note, dir_fd=directory_fd)
    if note in _OPAQUE:
        os.setxattr(directory_fd, overlay_notes.OPAQUE, b"y")
    else:
        os.mknod(note.removeprefix(_REMOVED), stat.S_IFCHR, 0, dir_fd=directory_fd)


def _own(fd: int) -> list[str]:
    return _listed(f"/proc/self/fd/{fd}", follow=True)


def _own_of(directory_fd: int, name: str) -> list[str]:
    return _listed(f"/proc/self/fd/{directory_fd}/{name}", follow=False)


def _listed(path: str, *, follow: bool) -> list[str]:
    try:
        names = os.listxattr(path, follow_symlinks=follow)
    except FileNotFoundError:  # it went meanwhile
        return []
    except OSError as e:
        if e.errno != EOPNOTSUPP:
            raise
        return []
    return [name for name in names if name.startswith(_OWN)]


def _forget(path: str, *, follow: bool) -> None:
    for name in _listed(path, follow=follow):
        os.removexattr(path, name, follow_symlinks=follow)


def _is_directory(directory_fd: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:  # it went meanwhile
        return False


def _times(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_atime_ns, status.st_mtime_ns
