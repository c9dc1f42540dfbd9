"""fchownat(2) on a descriptor's own object."""

from __future__ import annotations

from ketch.linux.syscall import AT_EMPTY_PATH, c_char_p, c_int, failed, function

_fchownat = function("fchownat", c_int, c_char_p, c_int, c_int, c_int)


def chown_node(fd: int, uid: int, gid: int) -> None:
    """Change the owner of the very object of an O_PATH descriptor, which fchown(2) refuses."""
    if _fchownat(fd, b"", uid, gid, AT_EMPTY_PATH) < 0:
        raise failed("fchownat")
