"""Copying a small directory into a tmpfs that is about to cover it (Podman's ``tmpcopyup``)."""

from __future__ import annotations

import os
import stat


def copy_tree(source_fd: int, target_fd: int) -> None:
    """Copy the content of one directory into another: files, directories, links, owners and modes.

    Device nodes, sockets and FIFOs are left out: what is under a path that becomes a tmpfs is data.
    Both descriptors may be O_PATH and stay the caller's.
    """
    here_fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=source_fd)
    into_fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=target_fd)
    try:
        for name in os.listdir(here_fd):
            _copy_one(here_fd, into_fd, name)
    finally:
        os.close(here_fd)
        os.close(into_fd)


def _copy_one(here_fd: int, into_fd: int, name: str) -> None:
    status = os.stat(name, dir_fd=here_fd, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=here_fd), name, dir_fd=into_fd)
    elif stat.S_ISDIR(status.st_mode):
        os.mkdir(name, 0o700, dir_fd=into_fd)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        from_fd, to_fd = os.open(name, flags, dir_fd=here_fd), os.open(name, flags, dir_fd=into_fd)
        try:
            copy_tree(from_fd, to_fd)
        finally:
            os.close(from_fd)
            os.close(to_fd)
    elif stat.S_ISREG(status.st_mode):
        _copy_file(here_fd, into_fd, name)
    else:
        return
    os.chown(name, status.st_uid, status.st_gid, dir_fd=into_fd, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(name, status.st_mode & 0o7777, dir_fd=into_fd)


def _copy_file(here_fd: int, into_fd: int, name: str) -> None:
    from_fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here_fd)
    try:
        to_fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=into_fd)
        try:
            while os.sendfile(to_fd, from_fd, None, 1 << 20):
                pass
        finally:
            os.close(to_fd)
    finally:
        os.close(from_fd)
