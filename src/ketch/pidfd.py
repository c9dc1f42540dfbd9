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
