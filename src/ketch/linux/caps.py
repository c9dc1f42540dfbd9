"""Capabilities: names, and the five sets of the calling thread (capabilities(7), capset(2)), also as somebody else."""

from __future__ import annotations

import struct
from errno import EINVAL

from ketch.contexts import contextmanager
from ketch.linux.prctl import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAP_AMBIENT_RAISE,
    PR_CAPBSET_DROP,
    PR_CAPBSET_READ,
    prctl,
)
from ketch.linux.syscall import buffer, c_int, c_void_p, failed, function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# In the kernel's order: the number of a capability is its place (include/uapi/linux/capability.h).
_KERNEL_ORDER = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
    SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
    AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
    PERFMON BPF CHECKPOINT_RESTORE
"""
NAMES = tuple(f"CAP_{name}" for name in _KERNEL_ORDER.split())
NUMBERS = {name: number for number, name in enumerate(NAMES)}

_VERSION_3 = 0x20080522
_capset = function("capset", c_void_p, c_void_p)
_capget = function("capget", c_void_p, c_void_p)
_setfsuid = function("setfsuid", c_int)
_setfsgid = function("setfsgid", c_int)


def mask(names: list[str]) -> int:
    """The bit set of capability ``names`` (``CAP_CHOWN`` …); KeyError names one that is not known."""
    bits = 0
    for name in names:
        bits |= 1 << NUMBERS[name]
    return bits


def names(bits: int) -> list[str]:
    """The names in a bit set, in the kernel's order; bits that have no name here are left out."""
    return [name for number, name in enumerate(NAMES) if bits >> number & 1]


def get() -> tuple[int, int, int]:
    """(effective, permitted, inheritable) of the calling thread."""
    header = struct.pack("=Ii", _VERSION_3, 0)
    data = buffer(24)
    if _capget(header, data) != 0:
        raise failed("capget")
    e0, p0, i0, e1, p1, i1 = struct.unpack("=6I", data.raw)
    return e0 | e1 << 32, p0 | p1 << 32, i0 | i1 << 32


def set_(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) for the calling thread."""
    low = 0xFFFFFFFF
    header = struct.pack("=Ii", _VERSION_3, 0)
    data = struct.pack(
        "=6I",
        effective & low,
        permitted & low,
        inheritable & low,
        effective >> 32,
        permitted >> 32,
        inheritable >> 32,
    )
    if _capset(header, data) != 0:
        raise failed("capset")


def bounding() -> int:
    """The bounding set; capabilities newer than this kernel are absent."""
    bits = 0
    for number in range(len(NAMES)):
        try:
            if prctl(PR_CAPBSET_READ, number):
                bits |= 1 << number
        except OSError:  # EINVAL: the kernel has no such capability, nor any later one
            break
    return bits


def drop_bounding(drop: int) -> None:
    """Remove every capability in ``drop`` from the bounding set (needs CAP_SETPCAP); absent ones do no harm."""
    for number in range(64):
        if drop >> number & 1:
            try:
                prctl(PR_CAPBSET_DROP, number)
            except OSError as e:
                if e.errno == EINVAL and number > NUMBERS["CAP_SYSLOG"]:
                    return  # the kernel knows no such capability, nor any later one
                raise


def set_ambient(bits: int) -> None:
    """Make the ambient set exactly ``bits``, all of which must be permitted and inheritable."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(64):
        if bits >> number & 1:
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)


@contextmanager
def owner_of_files(uid: int, gid: int) -> Iterator[None]:
    """A context in which what the calling thread makes is somebody else's (setfsuid(2)), with its own capabilities."""
    effective, permitted, inheritable = get()
    former_gid, former_uid = _setfsgid(gid), _setfsuid(uid)
    try:
        set_(effective, permitted, inheritable)  # who is not root loses those that have to do with files
        yield
    finally:
        _setfsuid(former_uid)
        _setfsgid(former_gid)
        set_(effective, permitted, inheritable)
