"""Descriptors of processes, which stay those of one process although pids are used again."""

from __future__ import annotations

import os
from errno import EINVAL, ENOENT, ESRCH


def open_process(pid: int) -> int:
    """A descriptor of a process (pidfd_open(2)); ProcessLookupError when there is none with this pid.

    While a process is being reaped, and of a pid that a thread has by now, kernels before 6.15 say EINVAL, later ones
    ENOENT of the latter.
    """
    try:
        return os.pidfd_open(pid)
    except OSError as e:
        if e.errno in (EINVAL, ENOENT):
            raise ProcessLookupError(ESRCH, os.strerror(ESRCH)) from e
        raise


def start_time(pid: int) -> int:
    """The start time of a process in clock ticks since boot; 0 for a missing one or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # the name, field 2, may contain anything, also parentheses and spaces
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
