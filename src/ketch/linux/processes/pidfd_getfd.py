"""pidfd_getfd(2): descriptors of another process."""

from __future__ import annotations

from ketch.linux.syscall import c_int, c_long, failed, number, raw

_pidfd_getfd = raw("pidfd_getfd", c_int, c_int, c_long)
_PIDFD_GETFD = number("pidfd_getfd")


def copy_descriptor(pidfd: int, fd: int) -> int:
    """A copy, close-on-exec, of the descriptor ``fd`` of the process that ``pidfd`` means."""
    copy = _pidfd_getfd(_PIDFD_GETFD, pidfd, fd, 0)
    if copy < 0:
        raise failed("pidfd_getfd")
    return copy
