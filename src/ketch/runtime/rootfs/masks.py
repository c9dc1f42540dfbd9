"""Masked and read-only paths in the container's /proc and /sys."""

from __future__ import annotations

import os
import stat
from errno import ENOENT, ENOTDIR

from ketch.errors import RuntimeFailure
from ketch.linux import mount as m
from ketch.runtime.failure import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.rootfs.anchors import Anchors

_DEV_NULL = os.makedev(1, 3)
_HINT = "what is mounted on `/dev` hides the container's devices; mount it elsewhere, or below"


def mask(anchors: Anchors, masked: list[str], label: str = "") -> None:
    """Cover files with /dev/null and directories with an empty read-only tmpfs; skip missing paths.

    The tmpfs has the SELinux ``label``, if it is not empty.
    """
    empty: int = -1
    null_fd: int = -1
    try:
        for path in masked:
            target_fd = _open(anchors, path, "mask")
            if target_fd < 0:
                continue
            try:
                if stat.S_ISDIR(os.fstat(target_fd).st_mode):
                    empty = _cover_directory(target_fd, empty, label)
                else:
                    if null_fd < 0:
                        null_fd = _open_null(anchors)
                    _cover_file(target_fd, null_fd)
            except OSError as e:
                raise failure("masks", f"mask `{path}`", e) from e
            finally:
                os.close(target_fd)
    finally:
        for fd in (empty, null_fd):
            if fd >= 0:
                os.close(fd)


def make_readonly(anchors: Anchors, readonly: list[str]) -> None:
    """Bind each path on itself, read-only with all mounts below it."""
    for path in readonly:
        target_fd = _open(anchors, path, "make read-only")
        if target_fd < 0:
            continue
        try:
            tree_fd = m.open_tree("", dir_fd=target_fd, recursive=True)
            try:
                m.mount_setattr(tree_fd, set_=m.MOUNT_ATTR_RDONLY, recursive=True)
                m.move_mount(tree_fd, target_fd)
                anchors.hold(os.path.normpath(path), tree_fd)  # it covers what was held there
            finally:
                os.close(tree_fd)
        except OSError as e:
            raise failure("masks", f"make `{path}` read-only", e) from e
        finally:
            os.close(target_fd)


def _open(anchors: Anchors, path: str, verb: str) -> int:
    try:
        return anchors.open(path)
    except OSError as e:
        if e.errno in (ENOENT, ENOTDIR):
            return -1
        raise failure("masks", f"{verb} `{path}`", e) from e


def _cover_directory(target_fd: int, empty: int, label: str) -> int:
    """Attach the empty tmpfs, of which one superblock serves all; a copy can be taken once it is attached."""
    if empty < 0:
        context_fd = m.fsopen("tmpfs")
        try:
            m.fsconfig(context_fd, "source", "tmpfs")
            m.fsconfig(context_fd, "size", "0k")
            m.fsconfig(context_fd, "nr_inodes", "1")
            if label:
                m.fsconfig(context_fd, "context", label)
            attributes = m.MOUNT_ATTR_RDONLY | m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOEXEC
            m.fscreate(context_fd)
            empty = m.fsmount(context_fd, attributes)
        finally:
            os.close(context_fd)
        m.move_mount(empty, target_fd)
        return empty
    copy = m.open_tree("", dir_fd=empty)
    try:
        m.move_mount(copy, target_fd)
    finally:
        os.close(copy)
    return empty


def _open_null(anchors: Anchors) -> int:
    what = "mask parts of `/proc` and `/sys`: the container"
    try:
        fd = anchors.open("/dev/null", links=False)
    except (FileNotFoundError, NotADirectoryError) as e:
        raise RuntimeFailure(f"{what} has no `/dev/null`", step="masks", hint=_HINT) from e
    status = os.fstat(fd)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != _DEV_NULL:
        os.close(fd)
        raise RuntimeFailure(f"{what}'s `/dev/null` is not the null device", step="masks", hint=_HINT)
    return fd


def _cover_file(target_fd: int, null_fd: int) -> None:
    copy = m.open_tree("", dir_fd=null_fd)
    try:
        m.move_mount(copy, target_fd)
    finally:
        os.close(copy)
