"""Copy-up of a small directory into the tmpfs that will cover it (Podman's ``tmpcopyup``)."""

from __future__ import annotations

import os
import stat

from ketch import trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_PIECE = 1 << 20


def copy_tree(source_fd: int, target_fd: int, check: Callable[[], None] = lambda: None) -> None:
    """Copy the content of one directory into another: files, directories, links, owners and modes.

    Device nodes, sockets and FIFOs are left out: what is under a path that becomes a tmpfs is data.
    Both descriptors may be O_PATH and stay the caller's.  ``check`` is called now and then; what it raises ends the
    copy.
    """
    here_fd = os.open(".", trees.DIRECTORY, dir_fd=source_fd)
    into_fd = os.open(".", trees.DIRECTORY, dir_fd=target_fd)
    try:
        with trees.Descent(here_fd) as here, trees.Descent(into_fd) as into:
            for name in here.walk():
                if name is None:
                    _copy_owner(".", into.fd, os.fstat(here.fd))
                    into.leave()
                else:
                    check()
                    _copy_one(here, into, name, check)
    finally:
        os.close(here_fd)
        os.close(into_fd)


def _copy_one(here: trees.Descent, into: trees.Descent, name: str, check: Callable[[], None]) -> None:
    """Copy one entry; both walks enter a directory."""
    status = os.stat(name, dir_fd=here.fd, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=here.fd), name, dir_fd=into.fd)
    elif stat.S_ISDIR(status.st_mode):
        os.mkdir(name, 0o700, dir_fd=into.fd)
        here.enter(name)
        into.enter(name)
        return
    elif stat.S_ISREG(status.st_mode):
        _copy_file(here.fd, into.fd, name, check)
    else:
        return
    _copy_owner(name, into.fd, status)


def _copy_owner(name: str, into_fd: int, status: os.stat_result) -> None:
    """Copy owner and mode; ``.`` is the directory itself."""
    os.chown(name, status.st_uid, status.st_gid, dir_fd=into_fd, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(name, status.st_mode & 0o7777, dir_fd=into_fd)


def _copy_file(here_fd: int, into_fd: int, name: str, check: Callable[[], None]) -> None:
    from_fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here_fd)
    try:
        to_fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=into_fd)
        try:
            while os.sendfile(to_fd, from_fd, None, _PIECE):
                check()
        finally:
            os.close(to_fd)
    finally:
        os.close(from_fd)
