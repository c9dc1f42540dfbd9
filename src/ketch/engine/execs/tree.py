"""The end of an exec'd process with all that it has started.

It was made to adopt orphans (PR_SET_CHILD_SUBREAPER, prctl(2)): so everything that descends from it is found below it,
also what has put itself into the background, and stays below it until it ends itself.  It is stopped first and killed
last.  A process that was killed is there for a while still: its memory has to be freed.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from ketch import pidfd

if TYPE_CHECKING:
    from collections.abc import Iterable

_PASSES = 1000  # what forks faster than it is found has its container's limit of processes
_ENDS_S = 1.0  # those of a paused container end when it goes on


class _Process(NamedTuple):
    """A process; with its start time a pid is that of one process."""

    pid: int
    begun: int


def kill(pid: int, begun: int) -> None:
    """Kill a process that began at this time (`pidfd.start_time`), and its descendants; none if it has ended.

    They have ended then, but for those that cannot within a second.
    """
    found = _seen(pid)
    if found is None or found[0].begun != begun:
        return
    _send(found[0], signal.SIGSTOP)
    below = _kill_below(pid)
    _send(found[0], signal.SIGKILL)
    _await_ends([found[0], *below])


def _await_ends(killed: Iterable[_Process]) -> None:
    deadline = time.monotonic() + _ENDS_S
    for one in killed:
        with suppress(ProcessLookupError):
            fd = pidfd.open_process(one.pid)
            try:
                if (now := _seen(one.pid)) is not None and now[0] == one:
                    poll = select.poll()
                    poll.register(fd, select.POLLIN)
                    poll.poll(max(0, deadline - time.monotonic()) * 1000)
            finally:
                os.close(fd)


def _kill_below(pid: int) -> set[_Process]:
    """Stop all descendants, until no new ones are found, and kill them, until nobody is left: one may be continued.

    Returns all that were killed.

    Who was sent SIGSTOP forks no more, although it may not look stopped: one that waits for its child of vfork(2), or
    is in the hands of a debugger, or frozen.
    """
    stopped: set[_Process] = set()
    killed: set[_Process] = set()
    for _ in range(_PASSES):
        left = _descendants(pid) - killed
        fresh = left - stopped
        for one in fresh:
            _send(one, signal.SIGSTOP)
        stopped |= fresh
        if fresh:
            continue
        if not left:
            return killed
        for one in left:
            _send(one, signal.SIGKILL)
        killed |= left
    for one in stopped - killed:
        _send(one, signal.SIGKILL)
    return stopped | killed


def _descendants(pid: int) -> set[_Process]:
    """All processes below one, also such as look like zombies: other threads than the first one may go on."""
    children: dict[int, list[_Process]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (seen := _seen(int(name))):
            children.setdefault(seen[1], []).append(seen[0])
    found: set[_Process] = set()
    left = children.get(pid, [])
    while left:
        one = left.pop()
        found.add(one)
        left += children.get(one.pid, [])
    return found


def _seen(pid: int) -> tuple[_Process, int] | None:
    """The process that a pid is of, and its parent's pid; None: there is none, or it is not for us to see (hidepid)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            fields = f.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return _Process(pid, int(fields[19])), int(fields[1])


def _send(one: _Process, number: signal.Signals) -> None:
    """Send a signal, if the pid still is that of the process that was seen."""
    try:
        fd = pidfd.open_process(one.pid)
    except ProcessLookupError:
        return
    try:
        now = _seen(one.pid)
        if now is not None and now[0] == one:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, number)
    finally:
        os.close(fd)
