"""Descriptors, terminal and pid of a process that is made: given by callers, and handed to them.

descriptors of ours    left open to the process (``--preserve-fds``), or sockets for it (``LISTEN_FDS``)
the terminal           its master is sent to ``--console-socket``, or stays with a call in the foreground
the process            its pid in ``--pid-file``, a pidfd sent to ``--pidfd-socket``
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket

from ketch.contexts import suppress
from ketch.errors import FailedPrecondition, InvalidArgument
from ketch.linux import fdpass
from ketch.runtime.failure import failure
from ketch.runtime.oci_cli import state as states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_cli.arguments import GivenOptions
    from ketch.runtime.oci_types import OciProcess

_FIRST = 3  # as sd_listen_fds(3)


class Handover:
    """The options for it; everything that can be checked before a process is made is.

    ``foreground``: the call stays, and shows the terminal in its own.
    """

    def __init__(self, options: GivenOptions, process: OciProcess, *, foreground: bool) -> None:
        self._console_socket = options.text("console-socket")
        self._pidfd_socket = options.text("pidfd-socket")
        self._pid_file = options.text("pid-file")
        self.terminal = bool(process.get("terminal"))
        self._check_terminal(foreground)
        self.listening = _listening()
        self.preserved = self.listening + options.count("preserve-fds")
        for fd in range(_FIRST, _FIRST + self.preserved):
            _check_open(fd, self.preserved)
        if self.listening:
            process["env"] = [*(process.get("env") or []), f"LISTEN_FDS={self.listening}", "LISTEN_PID=1"]

    def _check_terminal(self, foreground: bool) -> None:
        if self.terminal and not foreground and not self._console_socket:
            raise InvalidArgument(
                "cannot allocate a terminal: nobody would have it, as the call does not wait for the process",
                hint="give --console-socket, or use `run` or `exec` without --detach",
            )
        if self._console_socket and (foreground or not self.terminal):
            why = "the call waits for the process" if self.terminal else "process.terminal is false"
            raise FailedPrecondition(f"cannot use console socket `{self._console_socket}`: {why}")

    def give(self, pid: int, master_fd: int) -> int:
        """Hand over a process that has been made; the terminal's master, or -1 when it was sent or there is none."""
        if self._pidfd_socket:
            pidfd = os.pidfd_open(pid)
            try:
                _send(self._pidfd_socket, "pidfd", pidfd)
            finally:
                os.close(pidfd)
        if self._console_socket and master_fd >= 0:
            try:
                _send(self._console_socket, "/dev/ptmx", master_fd)
            finally:
                os.close(master_fd)
            master_fd = -1
        if master_fd >= 0:
            from ketch.runtime import tty

            tty.leave_line_feeds(master_fd)  # before the program writes: no carriage returns of ours
        return master_fd

    def write_pid(self, pid: int) -> None:
        """Write the pid file, all or nothing; last of all, as it tells that the process is there."""
        if not self._pid_file:
            return
        directory, name = os.path.split(self._pid_file)
        temporary = os.path.join(directory, f".{name}.{os.getpid()}")
        try:
            with open(temporary, "w", encoding="ascii") as file:
                file.write(str(pid))
            os.rename(temporary, self._pid_file)
        except OSError as e:
            with suppress(OSError):  # it was not even made
                os.unlink(temporary)
            raise failure("pid file", f"write pid file `{self._pid_file}`", e) from e


def _listening() -> int:
    """The number of sockets, from 3 on, that a service manager passed to this very process (sd_listen_fds(3))."""
    count = os.environ.get("LISTEN_FDS", "")
    if not count.isdecimal() or os.environ.get("LISTEN_PID") != str(os.getpid()):
        return 0
    return int(count)


def _check_open(fd: int, count: int) -> None:
    try:
        os.fstat(fd)
    except OSError as e:
        last = _FIRST + count - 1
        raise failure("descriptors", f"preserve descriptor {fd} (of {_FIRST} to {last})", e) from e


def _send(path: str, name: str, fd: int) -> None:
    """Send a descriptor, with its name, to the unix socket ``path`` (the convention of runc)."""
    connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        states.with_short_path(path, connection.connect)
        fdpass.send(connection, name.encode(), [fd])
    except OSError as e:
        raise failure("descriptors", f"send {name} to `{path}`", e) from e
    finally:
        connection.close()
