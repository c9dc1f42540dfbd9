"""Mounts in the host's mount namespace: those of volumes with options, while they are used."""

from __future__ import annotations

import os
from errno import EINVAL

from ketch.linux import mount as m
from ketch.runtime.rootfs.mount_options import MountOptions
from ketch.runtime.rootfs.mounts import make_file_system


def mount_at(mount_point: str, fstype: str, source: str, words: list[str]) -> None:
    """Mount a file system, or with the word ``bind`` a directory, at a directory of the host; OSError."""
    options = MountOptions(words)
    if options.bind:
        tree_fd = _open_bind(source, options)
    elif fstype in ("none", ""):
        raise OSError(EINVAL, "type none needs o=bind")
    else:
        tree_fd = make_file_system(fstype, source, options)
    try:
        mount_point_fd = os.open(mount_point, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            m.move_mount(tree_fd, mount_point_fd)
        finally:
            os.close(mount_point_fd)
        if options.propagation:
            m.mount_setattr(tree_fd, propagation=options.propagation, recursive=options.propagation_recursive)
    finally:
        os.close(tree_fd)


def _open_bind(source: str, options: MountOptions) -> int:
    tree_fd = m.open_tree(source, recursive=options.recursive)
    if options.set or options.clear:
        m.mount_setattr(tree_fd, set_=options.set, clear=options.clear)
    return tree_fd


def is_mounted(mount_point: str) -> bool:
    """Whether something is mounted at a directory; also when it is of the same file system as its parent."""
    return _mount_id(mount_point) != _mount_id(os.path.dirname(mount_point))


def _mount_id(path: str) -> str:
    """The id of the mount that a path lies on (proc_pid_fdinfo(5), ``mnt_id``)."""
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as f:
            return next(line for line in f if line.startswith("mnt_id:"))
    finally:
        os.close(fd)


def unmount(mount_point: str) -> None:
    """Unmount everything at a path, if it exists; containers that use it keep their own mounts."""
    while os.path.isdir(mount_point) and is_mounted(mount_point):
        m.umount2(mount_point, m.MNT_DETACH)
