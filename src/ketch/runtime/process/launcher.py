"""The launcher: a warm process that only forks monitors, so that a start costs milliseconds in Python.

It has imported the runtime, compiled the default seccomp filter and frozen its heap before the first
request; it has no threads, so fork is safe; and it runs from a sealed copy of the interpreter in memory, so
that nothing in a container can reach the host's python binary through /proc (CVE-2019-5736).
When its socket ends, because ketchd died or stopped, it ends as well; the monitors live on.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import sys
from _socket import AF_UNIX, SOCK_SEQPACKET, socket

from ketch.contexts import suppress
from ketch.failpoints import failpoint
from ketch.linux import prctl, signals
from ketch.runtime import defaults
from ketch.runtime.cgroups import common
from ketch.runtime.process import messages, monitor, preload
from ketch.runtime.security import seccomp, seccomp_default

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ketch.runtime.protocol import StartContainer

_HIGHEST_FD = 1 << 30


def main(fd: int, no_cgroup: str) -> NoReturn:
    """Serve start requests that arrive on ``fd`` (a connected SEQPACKET socket) until it ends.

    ``no_cgroup``: why this process is not in a cgroup of its own, if so.
    """
    os.closerange(3, fd)
    os.closerange(fd + 1, _HIGHEST_FD)
    os.chdir("/")
    os.umask(0o022)
    signals.reset()  # what ketchd's parent ignored or blocked (nohup, a shell's trap) is not for monitors
    # Inherited by every fork: a container's process that can see an exec's child must not look into it.
    prctl.prctl(prctl.PR_SET_DUMPABLE, 0)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)  # the kernel reaps the monitors
    for number in (_signal.SIGINT, _signal.SIGHUP):
        _signal.signal(number, _signal.SIG_IGN)
    seccomp.warm(seccomp_default.profile(list(defaults.DEFAULT_CAPS)))
    common.layout()
    title = _Title()
    title.set("ketch-launcher")
    sys.path_importer_cache.clear()  # only importing needed it
    sock = socket(AF_UNIX, SOCK_SEQPACKET, 0, fd)
    preload.freeze()
    messages.send(sock, {"ev": "ready", "cgroup": no_cgroup})
    while True:
        try:
            message, fds = messages.receive(sock)
        except OSError:
            os._exit(1)
        if message is None:
            os._exit(0)
        _fork(sock, message, fds, title)


def _fork(sock: socket, message: StartContainer, fds: list[int], title: _Title) -> None:
    failpoint("launcher.asked")
    try:
        pid = os.fork()
    except OSError:
        # No memory or no more processes: ketchd sees that the connection ends, and the next start may work.
        pid = -1
    if pid:
        failpoint("launcher.forked")
        for fd in fds:
            os.close(fd)
        return
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    sock.close()
    messages.write_file("/proc/self/comm", b"ketch-monitor")
    title.set(f"ketch-monitor {message['id']}")
    monitor.main(message, fds[0])


class _Title:
    """The process title: the memory of the command line that ``ps`` shows (proc_pid_cmdline(5))."""

    def __init__(self) -> None:
        fd = os.open("/proc/self/stat", os.O_RDONLY | os.O_CLOEXEC)
        fields = os.read(fd, 4096).rpartition(b")")[2].split()
        os.close(fd)
        self._start = int(fields[45])  # arg_start, the 48th field; the first two stand before the bracket
        self._room = int(fields[46]) - self._start

    def set(self, text: str) -> None:
        """Set the title, cut to the available room."""
        with suppress(OSError):  # only a name
            fd = os.open("/proc/self/mem", os.O_WRONLY | os.O_CLOEXEC)
            os.pwrite(fd, text.encode()[: self._room - 1].ljust(self._room, b"\0"), self._start)
            os.close(fd)
