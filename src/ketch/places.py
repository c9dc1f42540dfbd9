"""Locations of files: of root's engine, and of that of a user without any rights.

A user's are where the XDG Base Directory Specification (0.8) has them.
"""

from __future__ import annotations

import os
import stat

from ketch.errors import FailedPrecondition

_NAME = "ketch"
LARGEST_LOG = 10 << 20
LOG_VARIABLE = "KETCH_LOG"  # tells ketchd that its standard error is that file, which it keeps small


class Locations:
    """Absolute paths; ``pid_file`` and ``log`` are of a daemon that the command line starts."""

    __slots__ = ("config", "data_root", "exec_root", "locks", "log", "pid_file", "socket")

    config: str
    data_root: str
    exec_root: str
    locks: str
    log: str
    pid_file: str
    socket: str

    def __init__(self, **paths: str) -> None:
        for name in self.__slots__:
            setattr(self, name, paths[name])

    @property
    def host(self) -> str:
        """The URL of the socket."""
        return f"unix://{self.socket}"


ROOT = Locations(
    data_root="/var/lib/ketch",
    exec_root="/run/ketch",
    socket="/var/run/ketch.sock",
    config="/etc/ketch/daemon.json",
    locks="/run/ketch-locks",
    pid_file="/var/run/ketchd.pid",
    log="/var/log/ketchd.log",
)


def mine() -> Locations:
    """The places of the user that the process runs as."""
    if os.geteuid() == 0:
        return ROOT
    data = _below("XDG_DATA_HOME", ".local/share")
    run = _runtime_directory() or f"{data}/run"
    return Locations(
        data_root=data,
        exec_root=f"{run}/{_NAME}",
        socket=f"{run}/ketch.sock",
        config=f"{_below('XDG_CONFIG_HOME', '.config')}/daemon.json",
        locks=f"{run}/ketch-locks",
        pid_file=f"{run}/ketchd.pid",
        log=f"{_below('XDG_STATE_HOME', '.local/state')}/ketchd.log",
    )


def answering() -> Locations:
    """The places of the engine that this user's commands are for.

    It is their own, if that is there or root's does not let them in.
    """
    here = mine()
    return here if here is ROOT or os.path.exists(here.socket) or not _answers(ROOT.socket) else ROOT


def _answers(path: str) -> bool:
    """Whether somebody listens on a socket who lets this user in; a daemon that was killed leaves its file."""
    import socket  # here: root's commands do not ask

    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(path) == 0


def _below(variable: str, otherwise: str) -> str:
    """Our directory below the one that a variable names, else below one of the home; relative ones do not count."""
    base = os.environ.get(variable, "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), otherwise)
    if not os.path.isabs(base):
        raise FailedPrecondition(
            f"find the home of user {os.geteuid()}: HOME is not an absolute path, and /etc/passwd has no other",
            hint="set HOME to a directory of this user",
        )
    return os.path.join(base, _NAME)


def _runtime_directory() -> str:
    """``XDG_RUNTIME_DIR``, if it is the user's alone; else an empty text."""
    return "" if runtime_directory_problem() else os.environ["XDG_RUNTIME_DIR"]


def runtime_directory_problem() -> str:
    """The reason why ``XDG_RUNTIME_DIR`` does not count; empty: it does."""
    path = os.environ.get("XDG_RUNTIME_DIR", "")
    if not os.path.isabs(path):
        return f"XDG_RUNTIME_DIR is {path or 'not set'}"
    try:
        found = os.stat(path)
    except OSError as e:
        return f"XDG_RUNTIME_DIR is {path}: {os.strerror(e.errno or 0).lower()}"
    if not stat.S_ISDIR(found.st_mode):
        return f"XDG_RUNTIME_DIR is {path}, which is no directory"
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        return f"XDG_RUNTIME_DIR is {path}, which is not this user's alone"
    if not os.access(path, os.W_OK | os.X_OK):
        return f"XDG_RUNTIME_DIR is {path}, which this user cannot write to"
    return ""
