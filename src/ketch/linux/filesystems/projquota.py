"""Project quotas: a limit for everything below a directory (quotactl(2), FS_IOC_FSSETXATTR), on ext4 and XFS."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

from ketch.linux.syscall import c_char_p, c_int, c_void_p, failed, function

FS_IOC_FSGETXATTR = 0x801C581F
FS_IOC_FSSETXATTR = 0x401C5820
FS_XFLAG_PROJINHERIT = 0x200
_XATTR = struct.Struct("=IIIII8x")  # flags, extent size, extents, project id, cow extent size
_PRJQUOTA = 2
_Q_GETQUOTA, _Q_SETQUOTA = 0x800007, 0x800008
_Q_XGETQSTAT, _Q_XSETQLIM = ord("X") << 8 | 5, ord("X") << 8 | 4
_DQBLK = struct.Struct("=QQQQQQQQI4x")
_QIF_BLIMITS = 1
_FS_DISK_QUOTA = struct.Struct("=bbHI" + "Q" * 9 + "II" + "HH" + "i" + "QQQ" + "iHh8s")
_FS_PROJ_QUOTA, _FS_DQ_BSOFT, _FS_DQ_BHARD = 2, 1 << 2, 1 << 3

_quotactl = function("quotactl", c_int, c_char_p, c_int, c_void_p)


def project(path: str) -> int:
    """The project id of a directory; 0 for none.  OSError where the file system has no such thing."""
    return int(_attributes(path)[3])


def set_project(path: str, number: int) -> None:
    """Give a directory, and what is made in it from now on, to a project."""
    flags, extent_size, extents, _, cow = _attributes(path)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        values = _XATTR.pack(flags | FS_XFLAG_PROJINHERIT, extent_size, extents, number, cow)
        fcntl.ioctl(fd, FS_IOC_FSSETXATTR, values)
    finally:
        os.close(fd)


def enabled(device: str, kind: str) -> bool:
    """Whether limits of projects are enforced on this device with a file system of this kind."""
    if kind == "xfs":
        buffer = ctypes.create_string_buffer(256)
        if _quotactl(_Q_XGETQSTAT << 8 | _PRJQUOTA, device.encode(), 0, buffer) < 0:
            return False
        return bool(struct.unpack_from("=H", buffer, 2)[0] & 0x20)  # FS_QUOTA_PDQ_ENFD
    buffer = ctypes.create_string_buffer(_DQBLK.size)
    return _quotactl(_Q_GETQUOTA << 8 | _PRJQUOTA, device.encode(), 0, buffer) >= 0


def set_limit(device: str, kind: str, number: int, size: int) -> None:
    """Limit a project to ``size`` bytes; 0: no limit."""
    if kind == "xfs":
        blocks = size // 512
        data = _FS_DISK_QUOTA.pack(
            1,
            _FS_PROJ_QUOTA,
            _FS_DQ_BSOFT | _FS_DQ_BHARD,
            number,
            blocks,
            blocks,
            *(0,) * 7,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            b"",
        )
        command = _Q_XSETQLIM
    else:
        blocks = size // 1024
        data = _DQBLK.pack(blocks, blocks, 0, 0, 0, 0, 0, 0, _QIF_BLIMITS)
        command = _Q_SETQUOTA
    buffer = ctypes.create_string_buffer(data, len(data))
    if _quotactl(command << 8 | _PRJQUOTA, device.encode(), number, buffer) < 0:
        raise failed("quotactl", device)


def _attributes(path: str) -> tuple[int, ...]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _XATTR.unpack(fcntl.ioctl(fd, FS_IOC_FSGETXATTR, bytes(_XATTR.size)))
    finally:
        os.close(fd)
