"""Pid files: reading, and telling a live owner from a stale file.

A file that its daemon left behind names a process that is gone, or another one that got its pid since: that one began
after the file was written.
"""

from __future__ import annotations

import os
import time

_SLACK_S = 0.5  # clocks tick, and are set


def read(path: str) -> int:
    """The pid in a file; 0 when there is none."""
    try:
        with open(path, encoding="ascii") as f:
            return int(f.read(32))
    except (FileNotFoundError, ValueError):
        return 0


def owner(path: str) -> int:
    """The pid of the living process, another than this one, that the file belongs to; 0 when it is stale."""
    pid = read(path)
    if pid <= 0 or pid == os.getpid():
        return 0
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            fields = f.read().rpartition(")")[2].split()
        written = os.stat(path).st_mtime
    except (FileNotFoundError, ProcessLookupError):
        return 0
    state, begun_ticks = fields[0], int(fields[19])  # the third and the 22nd field (proc_pid_stat(5))
    if state in ("Z", "X"):
        return 0
    up_s = time.clock_gettime(time.CLOCK_BOOTTIME) - begun_ticks / os.sysconf("SC_CLK_TCK")
    return pid if time.time() - up_s <= written + _SLACK_S else 0


def name(pid: int) -> str:
    """The process's name in the kernel (``comm``)."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as f:
            return f.read().strip()
    except (FileNotFoundError, ProcessLookupError):
        return "?"
