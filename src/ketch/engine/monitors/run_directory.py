"""Reading of a container's run directory: its monitor's pid and socket, and the exit record."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket

from msgspec import Struct

from ketch.errors import Unavailable
from ketch.runtime.process import messages

log = logging.getLogger(__name__)


class Exit(Struct, frozen=True):
    """An exit record: ``code`` as Docker's, ``at_ns`` since the epoch, ``oom`` when memory ran out.

    ``lost``: its monitor was killed, so that its processes may still be there and its cgroup surely is.
    """

    code: int
    at_ns: int
    oom: bool
    lost: bool = False


def written_pid(run_dir: str) -> int:
    """The pid in the monitor's pid file; 0 when there is none (OSError: no free descriptor)."""
    try:
        with open(os.path.join(run_dir, messages.PID_FILE), encoding="ascii") as f:
            return int(f.read())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return 0


def dial(run_dir: str) -> int:
    """A connection to the monitor that listens in ``run_dir``, by a short path; -1 when there is none.

    Nothing waits: Unavailable when so many connections wait there already that the monitor must be stopped.
    """
    try:
        directory = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return -1
    try:
        with contextlib.ExitStack() as undo:
            sock = undo.enter_context(
                socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            )
            sock.connect(f"/proc/self/fd/{directory}/{messages.CONTROL_SOCKET}")
            undo.pop_all()
    except (FileNotFoundError, ConnectionRefusedError):
        return -1
    except BlockingIOError as e:
        raise Unavailable(f"connect to the monitor in `{run_dir}`: it does not accept connections") from e
    finally:
        os.close(directory)
    return sock.detach()


def read_exit(run_dir: str) -> Exit | None:
    """The exit record that a monitor wrote; None when it is missing or unreadable.

    OSError for want of descriptors: that says nothing about the record.
    """
    path = os.path.join(run_dir, messages.EXIT_RECORD)
    try:
        with open(path, encoding="utf-8") as f:
            record = json.load(f)
        return Exit(int(record["code"]), int(record["at"]), bool(record["oom"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        if isinstance(e, OSError) and e.errno in (errno.EMFILE, errno.ENFILE):
            raise
        log.warning("read exit record `%s`: %s", path, e)
        return None
