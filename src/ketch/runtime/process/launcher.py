"""The launcher: a warm process that only forks monitors, so that a start costs milliseconds in Python.

It has imported the runtime, compiled the default seccomp filter and frozen its heap before the first
request; when it has nothing to do it forks the half of a container that all have in common (`spare`); it has no
threads, so fork is safe; and it runs from a sealed copy of the interpreter in memory, so
that nothing in a container can reach the host's python binary through /proc (CVE-2019-5736).
When its socket ends, because ketchd died or stopped, it ends as well; the monitors live on.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import sys
from _socket import AF_UNIX, SOCK_SEQPACKET, socket
from select import POLLIN, poll

from ketch.contexts import suppress
from ketch.failpoints import armed, failpoint, follow, follow_no_more
from ketch.linux import fdpass, prctl, signals
from ketch.notation import documents
from ketch.runtime import defaults, hooks, tty  # noqa: F401 - the first processes of some need these
from ketch.runtime.cgroups import common
from ketch.runtime.process import messages, monitor, preload
from ketch.runtime.process import spare as spares
from ketch.runtime.rootfs import overlay
from ketch.runtime.security import seccomp, seccomp_default
from ketch.runtime.title import Title

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ketch.runtime.protocol import StartContainer

_HIGHEST_FD = 1 << 30
_MOMENT_MS = 10  # longer than between the requests of a burst, shorter than a start


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
    common.prepare()
    with suppress(OSError):  # the kernel has no overlay: containers that need it say so
        overlay.takes_lower_directories()
    title = Title()
    title.set("ketch-launcher")
    sys.path_importer_cache.clear()  # only importing needed it
    sock = socket(AF_UNIX, SOCK_SEQPACKET, 0, fd)
    preload.freeze()
    messages.send(sock, {"ev": "ready", "cgroup": no_cgroup})
    _serve(sock, title)


def _serve(sock: socket, title: Title) -> NoReturn:
    """Fork monitors, and a spare when there has been nothing to do for a moment."""
    waiting = poll()
    waiting.register(sock, POLLIN)
    spare: spares.Spare | None = None
    example = ""  # the bundle of the last start: the next may be like it
    wanted = not armed()  # a test's fault is for a container that it starts
    while True:
        if not waiting.poll(_MOMENT_MS if wanted else None):
            spare, wanted = spares.make(sock, title, example), False
            continue
        try:
            payload, fds = fdpass.recv(sock)
        except OSError:
            os._exit(1)
        if not payload:
            os._exit(0)
        message = documents.loads(payload)
        if message.get("timing"):
            follow()
        failpoint("launcher.asked")
        # For one that nobody waits for there is no spare: to have it ready costs as much again as to fork.
        if message.get("ahead") or spare is None or not spare.take(message, payload, fds):
            _fork(sock, message, fds, title, spare)
        example = message["bundle"]
        for fd in fds:
            os.close(fd)
        follow_no_more()
        if spare is None or spare.gone:
            spare, wanted = None, not (armed() or message.get("ahead"))


def _fork(sock: socket, message: StartContainer, fds: list[int], title: Title, spare: spares.Spare | None) -> None:
    try:
        pid = os.fork()
    except OSError:
        # No memory or no more processes: ketchd sees that the connection ends, and the next start may work.
        pid = -1
    if pid:
        failpoint("launcher.forked")
        return
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    sock.close()
    if spare is not None:
        spare.close()  # which ends when nobody has this end any more
    monitor.begin(title, message, fds[0])
