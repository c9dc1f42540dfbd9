"""Mounting: mount(2), umount2(2), pivot_root(2) and the descriptor-based API of Linux 5.2 and later.

A function is the system call of the same name; it returns nothing or a new close-on-exec descriptor
that is the caller's to close, and raises OSError.
"""

from __future__ import annotations

import os

from ketch.linux.syscall import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    c_char_p,
    c_int,
    c_void_p,
    failed,
    function,
    number,
    raw,
)
from ketch.linux.syscall import c_long as _long

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_SYNCHRONOUS = 0x10
MS_REMOUNT = 0x20
MS_MANDLOCK = 0x40
MS_DIRSYNC = 0x80
MS_NOSYMFOLLOW = 0x100
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_SILENT = 0x8000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000
MS_STRICTATIME = 0x1000000
MS_LAZYTIME = 0x2000000

MNT_DETACH = 2

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

_mount = function("mount", c_char_p, c_char_p, c_char_p, _long, c_char_p)
_umount2 = function("umount2", c_char_p, c_int)
_pivot_root = raw("pivot_root", c_char_p, c_char_p)
_PIVOT_ROOT = number("pivot_root")
_open_tree = raw("open_tree", c_int, c_char_p, c_int)
_OPEN_TREE = number("open_tree")
_move_mount = raw("move_mount", c_int, c_char_p, c_int, c_char_p, c_int)
_MOVE_MOUNT = number("move_mount")
_fsopen = raw("fsopen", c_char_p, c_int)
_FSOPEN = number("fsopen")
_fsconfig = raw("fsconfig", c_int, c_int, c_char_p, c_char_p, c_int)
_FSCONFIG = number("fsconfig")
_fsmount = raw("fsmount", c_int, c_int, c_int)
_FSMOUNT = number("fsmount")
_mount_setattr = raw("mount_setattr", c_int, c_char_p, c_int, c_void_p, _long)
_MOUNT_SETATTR = number("mount_setattr")


def mount(source: str | None, target: str, fstype: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """mount(2); ``data`` longer than a page is cut off by the kernel, so it is refused here with E2BIG."""
    raw_data = None if data is None else os.fsencode(data)
    if raw_data is not None and len(raw_data) > 4095:
        raise OSError(7, "mount: options longer than 4095 bytes", target)
    source_bytes = None if source is None else os.fsencode(source)
    fstype_bytes = None if fstype is None else fstype.encode()
    if _mount(source_bytes, os.fsencode(target), fstype_bytes, flags, raw_data) != 0:
        raise failed("mount", target)


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    if _umount2(os.fsencode(target), flags) != 0:
        raise failed("umount2", target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    if _pivot_root(_PIVOT_ROOT, os.fsencode(new_root), os.fsencode(put_old)) != 0:
        raise failed("pivot_root", new_root)


def open_tree(path: str, *, dir_fd: int = AT_FDCWD, clone: bool = True, recursive: bool = False) -> int:
    """A detached copy (``clone``) of the mount at ``path``; ``""`` with ``dir_fd`` means that descriptor itself."""
    flags = OPEN_TREE_CLOEXEC
    if clone:
        flags |= OPEN_TREE_CLONE | (AT_RECURSIVE if recursive else 0)
    if not path:
        flags |= AT_EMPTY_PATH
    fd = _open_tree(_OPEN_TREE, dir_fd, os.fsencode(path), flags)
    if fd < 0:
        raise failed("open_tree", path)
    return fd


def move_mount(mount_fd: int, target_fd: int) -> None:
    """Attach the mount ``mount_fd`` on top of the object that ``target_fd`` refers to."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    if _move_mount(_MOVE_MOUNT, mount_fd, b"", target_fd, b"", flags) != 0:
        raise failed("move_mount")


def fsopen(fstype: str) -> int:
    """A file system context, to be given options with `fsconfig`."""
    fd = _fsopen(_FSOPEN, fstype.encode(), FSOPEN_CLOEXEC)
    if fd < 0:
        raise failed("fsopen", fstype)
    return fd


def fsconfig(context_fd: int, key: str, value: str | None = None) -> None:
    """Set one option; without a value it is a flag.  The kernel takes at most 255 bytes of value."""
    if value is None:
        result = _fsconfig(_FSCONFIG, context_fd, FSCONFIG_SET_FLAG, key.encode(), None, 0)
    else:
        result = _fsconfig(_FSCONFIG, context_fd, FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0)
    if result != 0:
        raise failed("fsconfig", key if value is None else f"{key}={value}")


def fscreate(context_fd: int) -> None:
    """Create the file system of ``context_fd``, for one `fsmount`."""
    if _fsconfig(_FSCONFIG, context_fd, FSCONFIG_CMD_CREATE, None, None, 0) != 0:
        raise failed("fsconfig")


def fsmount(context_fd: int, attributes: int = 0) -> int:
    """Mount the created file system of ``context_fd``, detached, with MOUNT_ATTR_* ``attributes``."""
    fd = _fsmount(_FSMOUNT, context_fd, FSMOUNT_CLOEXEC, attributes)
    if fd < 0:
        raise failed("fsmount")
    return fd


def mount_setattr(  # noqa: PLR0913 - the members of struct mount_attr
    mount_fd: int,
    path: str = "",
    *,
    set_: int = 0,
    clear: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
    recursive: bool = False,
) -> None:
    """Change MOUNT_ATTR_* flags and the propagation (MS_SHARED …) of a mount, or of the tree below it.

    ``userns_fd`` is the user namespace that MOUNT_ATTR_IDMAP takes its mapping from.
    """
    attributes = b"".join(v.to_bytes(8, "little") for v in (set_, clear, propagation, userns_fd))
    flags = (AT_RECURSIVE if recursive else 0) | (0 if path else AT_EMPTY_PATH)
    if _mount_setattr(_MOUNT_SETATTR, mount_fd, os.fsencode(path), flags, attributes, len(attributes)) != 0:
        raise failed("mount_setattr", path or None)
