"""What a container's run directory tells: whether its monitor is there, and how it ended."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from dataclasses import dataclass

from ketch.runtime.process import messages

log = logging.getLogger(__name__)
_END_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Exit:
    """How a container ended: ``code`` as Docker's, ``at_ns`` since the epoch, ``oom`` when memory ran out.

    ``lost``: its monitor was killed, so that its processes may still be there and its cgroup surely is.
    """

    code: int
    at_ns: int
    oom: bool
    lost: bool = False


def monitor_pid(run_dir: str, container_id: str) -> int:
    """The pid of the container's monitor, when it lives and has come so far as to write it down; else 0."""
    try:
        with open(os.path.join(run_dir, messages.PID_FILE), encoding="ascii") as f:
            pid = int(f.read())
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return pid if container_id.encode() in f.read() else 0
    except (OSError, ValueError):
        return 0


async def end_of(pid: int) -> None:
    """Wait until a monitor that undoes a start has done so: its names and its cgroup are free then."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(fd, ended.set)
    try:
        async with asyncio.timeout(_END_TIMEOUT_S):
            await ended.wait()
    except TimeoutError:
        log.warning("the monitor with pid %d takes long to undo a start", pid)
    finally:
        loop.remove_reader(fd)
        os.close(fd)


def dial(run_dir: str) -> int:
    """A connection to the monitor that listens in ``run_dir``, by a short path; -1 when there is none."""
    try:
        directory = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{directory}/{messages.CONTROL_SOCKET}")
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return -1
    finally:
        os.close(directory)
    return sock.detach()


def read_exit(run_dir: str) -> Exit | None:
    """What a monitor wrote when its container ended; None when there is no record, or one that nobody can read."""
    path = os.path.join(run_dir, messages.EXIT_RECORD)
    try:
        with open(path, encoding="utf-8") as f:
            record = json.load(f)
        return Exit(int(record["code"]), int(record["at"]), bool(record["oom"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as e:
        log.warning("read exit record `%s`: %s", path, e)
        return None
