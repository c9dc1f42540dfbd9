"""The process of a container's monitor, seen from outside: whether it lives, and its end.

A monitor that was stopped, or whose socket is gone, cannot be asked.  The pid that its run directory names, that the
kernel knows for the far end of a connection, or that is the parent of the container's PID 1, is its own only when
the process says so, too (`lives`): pids are used again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import struct
from errno import ENOENT, ESRCH
from typing import TYPE_CHECKING

from ketch import pidfd
from ketch.engine.monitors.run_directory import written_pid

if TYPE_CHECKING:
    from collections.abc import Iterable

log = logging.getLogger(__name__)
_GRACE_S = 2.0
_END_S = 5.0


def peer_pid(fd: int) -> int:
    """The pid of the process that listens where a unix socket is connected to; 0 when it is no process of ours."""
    borrowed = socket.socket(fileno=fd)
    try:
        raw = borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    finally:
        borrowed.detach()
    return int(struct.unpack("3i", raw)[0])


def lives(pid: int, container_id: str) -> bool:
    """Whether ``pid`` is the living monitor of this container (OSError when that cannot be found out).

    A process of a container may call itself what it likes, but it is in that container's cgroup.
    """
    if not _titled(pid, container_id):
        return False
    name = re.escape(container_id.encode())
    return re.search(rb"/([^/\n]*-)?" + name + rb"(\.scope)?(/|$)", _read(pid, "cgroup"), re.MULTILINE) is None


def _titled(pid: int, container_id: str) -> bool:
    return _read(pid, "cmdline").rstrip(b"\0") == f"ketch-monitor {container_id}".encode()


def find(run_dir: str, container_id: str, first_pid: int) -> int:
    """The pid of the living monitor of a container with PID 1 ``first_pid`` (0: not known); 0 when there is none.

    OSError when that cannot be found out.
    """
    for pid in (written_pid(run_dir), parent(first_pid)):
        if lives(pid, container_id):
            return pid
    return 0


def forks(container_id: str) -> list[int]:
    """Pids of a container's monitor and of its forks that have executed no program yet.

    Reads all of ``/proc``.
    """
    return [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if _titled(pid, container_id)]


async def end_forks(container_id: str, *, but: int) -> None:
    """End the processes that a monitor, which was killed during a start, has forked: they may be making the cgroup.

    The kernel kills them with it, but only after it has closed its connections; ``but`` is the monitor itself.
    """
    for pid in await asyncio.to_thread(forks, container_id):
        if pid == but:
            continue
        try:
            fd = pidfd.open_process(pid)
        except ProcessLookupError:
            continue
        try:
            if _titled(pid, container_id):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            if not await _ended(fd, _END_S):
                log.warning("container %s: process %d of a start that failed does not end", container_id[:12], pid)
        except ProcessLookupError:
            log.debug("container %s: process %d ended just now", container_id[:12], pid)
        finally:
            os.close(fd)


def handles_sigusr1(pid: int) -> bool:
    """Whether a process has a handler of SIGUSR1 (make the socket anew); without it the signal would end it."""
    for line in _read(pid, "status").splitlines():
        if line.startswith(b"SigCgt:"):
            return bool(int(line.split()[1], 16) >> (signal.SIGUSR1 - 1) & 1)
    return False


def is_stopped(pid: int) -> bool:
    """Whether it is stopped by a signal, or by a debugger."""
    return _stat(pid)[:1] in ([b"T"], [b"t"])


def child_with_program(pid: int, pids: Iterable[int]) -> int:
    """The one of ``pids`` that is a child of the monitor and has executed its program; 0: none."""
    own = _executable(pid)
    for candidate in pids:
        if parent(candidate) == pid and _executable(candidate) != own:
            return candidate
    return 0


async def end(pid: int, container_id: str, *, grace_s: float = _GRACE_S) -> bool:
    """End a monitor whose container has ended: continue it, then kill it; returns whether it is gone.

    Continued, it reads the rest of the output and writes the exit record.
    """
    if not pid:
        return True
    try:
        fd = pidfd.open_process(pid)
    except ProcessLookupError:
        return True
    try:
        if not lives(pid, container_id):  # looked at after it was pinned: this is the process that ends
            return True
        if grace_s and is_stopped(pid):
            signal.pidfd_send_signal(fd, signal.SIGCONT)
        if await _ended(fd, grace_s):
            return True
        log.warning("container %s: its monitor (pid %d) does not end by itself: killing it", container_id[:12], pid)
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        return await _ended(fd, _END_S)
    except ProcessLookupError:
        return True
    finally:
        os.close(fd)


def resume(pid: int, container_id: str) -> None:
    """Continue a container's monitor when it is stopped."""
    try:
        fd = pidfd.open_process(pid) if pid else -1
    except ProcessLookupError:
        return
    if fd < 0:
        return
    try:
        if lives(pid, container_id) and is_stopped(pid):
            signal.pidfd_send_signal(fd, signal.SIGCONT)
    except ProcessLookupError:
        log.debug("container %s: its monitor ended just now", container_id[:12])
    finally:
        os.close(fd)


async def ended(pid: int, timeout_s: float | None) -> bool:
    """Wait for the end of a process; False when it lives on after ``timeout_s`` (None: for ever)."""
    try:
        fd = pidfd.open_process(pid)
    except ProcessLookupError:
        return True
    try:
        return await _ended(fd, timeout_s)
    finally:
        os.close(fd)


async def _ended(fd: int, timeout_s: float | None) -> bool:
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(fd, over.set)
    try:
        await asyncio.wait_for(over.wait(), timeout_s)
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(fd)
    return True


def parent(pid: int) -> int:
    """The pid of a process's parent; 0 when there is no such process (OSError when that cannot be found out)."""
    fields = _stat(pid)
    return int(fields[1]) if len(fields) > 1 else 0


def has_child(pid: int, child: int) -> bool:
    """Whether a process has that child, which has not begun to end: then it would execute nothing any more."""
    return parent(child) == pid and _executable(child) != (0, 0)


def _stat(pid: int) -> list[bytes]:
    """The fields of ``/proc/PID/stat`` from the state on (proc_pid_stat(5))."""
    return _read(pid, "stat").rpartition(b")")[2].split()


def _executable(pid: int) -> tuple[int, int]:
    try:
        found = os.stat(f"/proc/{pid}/exe")
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # the last: it is being reaped
        return 0, 0
    return found.st_dev, found.st_ino


def _read(pid: int, name: str) -> bytes:
    """A file of ``/proc/PID``; empty when there is no such process."""
    if not pid:
        return b""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as f:
            return f.read()
    except OSError as e:
        if e.errno in (ENOENT, ESRCH):
            return b""
        raise
