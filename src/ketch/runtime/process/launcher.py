"""The launcher: a warm process that only forks monitors, so that a start costs milliseconds in Python.

It has imported the runtime, compiled the default seccomp filter and frozen its heap before the first
request; it has no threads, so fork is safe; and it runs from a sealed copy of the interpreter in memory, so
that nothing in a container can reach the host's python binary through /proc (CVE-2019-5736).
When its socket ends, because ketchd died or stopped, it ends as well; the monitors live on.
"""

from __future__ import annotations

import _signal
import gc
import os
import sys
from _socket import socket
from typing import TYPE_CHECKING

from ketch.runtime import defaults, seccomp, seccomp_default
from ketch.runtime.process import messages, monitor

if TYPE_CHECKING:
    from typing import Any, NoReturn

_HIGHEST_FD = 1 << 30


def main(fd: int) -> NoReturn:
    """Serve start requests that arrive on ``fd`` (a connected SEQPACKET socket) until it ends."""
    os.closerange(3, fd)
    os.closerange(fd + 1, _HIGHEST_FD)
    os.chdir("/")
    os.umask(0o022)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)  # the kernel reaps the monitors
    for number in (_signal.SIGINT, _signal.SIGHUP):
        _signal.signal(number, _signal.SIG_IGN)
    seccomp.warm(seccomp_default.profile(list(defaults.DEFAULT_CAPS)))
    forget()
    sock = socket(fileno=fd)
    gc.disable()
    gc.collect()
    gc.freeze()
    while True:
        message, fds = messages.receive(sock)
        if message is None:
            os._exit(0)
        _fork(sock, message, fds)


def forget() -> None:
    """Drop what only importing needed."""
    sys.path_importer_cache.clear()


def _fork(sock: socket, message: dict[str, Any], fds: list[int]) -> None:
    pid = os.fork()
    if pid:
        for fd in fds:
            os.close(fd)
        return
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    sock.close()
    with open("/proc/self/comm", "w", encoding="ascii") as f:
        f.write("ketch-monitor")
    monitor.main(message, fds[0])
