"""Inode flags (ioctl_iflags(2)), as chattr(1) sets them."""

from __future__ import annotations

import fcntl
import os
from errno import ENOTTY, EOPNOTSUPP, EPERM

FS_IOC_GETFLAGS = 0x80086601
FS_IOC_SETFLAGS = 0x40086602
FS_TOPDIR_FL = 0x00020000


def spread(path: str) -> bool:
    """Tell ext4 that a directory's subdirectories are unrelated (to spread them); False where unsupported.

    It places each in a block group of its own then.  Otherwise ext4 looks for inodes next to the directory's, where
    it walks past every inode that was deleted in the last minutes: making 12 000 files where as many were
    just removed took 5.6 s, and 1.1 s with the flag (Linux 6.18).
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = int.from_bytes(fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(8)), "little")
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, (flags | FS_TOPDIR_FL).to_bytes(8, "little"))
    except OSError as e:
        if e.errno not in (ENOTTY, EOPNOTSUPP, EPERM):
            raise
        return False
    finally:
        os.close(fd)
    return True
