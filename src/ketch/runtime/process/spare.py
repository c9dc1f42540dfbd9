"""The spare: a monitor with a first process in namespaces of its own, forked before anybody asks for a container.

    launcher ──fork──► spare ──fork──► first process
       │                 │◄──"netns"──── namespaces
       │◄──── b"ready" ──┤               waits for its bundle
       ├─ StartContainer ►  is the container's monitor from here on, and tells the first process of the bundle

That half of a start is the same for nearly all containers.  The launcher makes the spare when it has had nothing to do
for a moment, and at most one.  A spare ends when the launcher does, and its first process with it.

The mount namespace is made later: a copy of the host's mounts would be of now.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
from _socket import MSG_DONTWAIT, socket
from select import POLLIN, poll

from ketch.linux import fdpass, ns
from ketch.notation import documents
from ketch.runtime.cgroups import birth
from ketch.runtime.process import messages, monitor
from ketch.runtime.process.children import init
from ketch.runtime.process.children.parent import Parent, Prepared

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ketch.runtime.protocol import StartContainer
    from ketch.runtime.title import Title

_KINDS = {"ipc": ns.CLONE_NEWIPC, "network": ns.CLONE_NEWNET, "uts": ns.CLONE_NEWUTS}
_SOME_CGROUP = "/container"


class Spare:
    """The launcher's side of a spare."""

    def __init__(self, near: int) -> None:
        self._fd = near
        self._ready = False
        self.gone = False  # taken, or dead: not to be used again

    def take(self, message: StartContainer, payload: bytes, fds: list[int]) -> bool:
        """Make it the container's monitor; False: it is not ready, or does not suit, and somebody has to be forked.

        ``payload`` is the message as it came.
        """
        suits = set(message.get("namespaces", ())) == {"pid", *_KINDS} and not message.get("userns")
        if not suits or not self._is_ready():
            return False
        try:
            fdpass.send(self._fd, payload, fds)
        except OSError:
            self.close()
            return False
        self.close()
        return True

    def _is_ready(self) -> bool:
        """Whether it waits for its container."""
        if not self._ready:
            try:
                self._ready = bool(fdpass.recv(self._fd, 0, MSG_DONTWAIT, 16)[0])
            except BlockingIOError:
                return False
            if not self._ready:
                self.close()
        return self._ready

    def close(self) -> None:
        """Close the launcher's end, unless that was done; a spare that was not taken ends with the last copy of it."""
        if not self.gone:
            os.close(self._fd)
            self.gone = True


def make(launcher: socket, title: Title, example: str) -> Spare | None:
    """Fork a spare; None: there is no memory, or too many processes.

    ``example`` is the bundle of an earlier container, which may be gone by now, or empty.
    """
    near, far = messages.pair()
    try:
        pid = os.fork()
    except OSError:
        pid = -1
    if pid == 0:
        launcher.close()
        os.close(near)
        _serve(far, title, example)
    os.close(far)
    if pid < 0:
        os.close(near)
        return None
    return Spare(near)


def _serve(launcher_fd: int, title: Title, example: str) -> NoReturn:
    """Run in the forked process: prepare, wait, become a monitor."""
    try:
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        title.set("ketch-spare")
        monitor.settle()
        prepared = _prepare(launcher_fd, title, example)
        fdpass.send(launcher_fd, b"ready")
        messages.write_file("/proc/self/comm", b"ketch-spare")
        _wait(launcher_fd, prepared.sync_fd)
        payload, fds = fdpass.recv(launcher_fd)
        if not payload:
            os._exit(0)
        os.close(launcher_fd)
    except BaseException:
        os._exit(1)  # the launcher sees it, and forks when it has to
    monitor.begin(title, documents.loads(payload), fds[0], prepared)


def _prepare(launcher_fd: int, title: Title, example: str) -> Prepared:
    """Fork the first process, and wait until it has its namespaces."""
    sync_fd, child_end = messages.pair()
    passing = birth.saves_time(_SOME_CGROUP)
    pid = init.fork_child("host" if passing else "new")
    if pid == 0:
        os.close(launcher_fd)
        flags = sum(_KINDS.values()) | (ns.CLONE_NEWPID if passing else 0)
        init.spare_main(Parent(child_end, early=True).pass_on(passing), flags, title, example)
    os.close(child_end)
    message, fds = messages.receive_from_child(sync_fd)
    if message is None or message["ev"] != "netns":
        os._exit(1)
    return Prepared(pid, sync_fd, fds, passing=passing)


def _wait(launcher_fd: int, sync_fd: int) -> None:
    """Wait for the launcher's word; without its first process a spare is worth nothing, and ends."""
    waiting = poll()
    waiting.register(launcher_fd, POLLIN)
    waiting.register(sync_fd, POLLIN)
    if any(fd == sync_fd for fd, _ in waiting.poll()):
        os._exit(1)
