"""Notifications of a seccomp filter: its listener goes to a supervisor's socket (SCMP_ACT_NOTIFY, ``listenerPath``).

    child                                     its parent
    ── {"ev":"notify"} + page, pidfd ──────►
    waits for the page to change  ◄─────────  connects to the supervisor
    closes everything, writes the number      waits for the listener's number in the page
    seccomp(2): the listener has that number  copies it (pidfd_getfd(2)), sends it to the supervisor
    waits for the page to change  ◄─────────  writes into the page
    execve(2)

The filter may have the supervisor asked about any system call, and execve(2) closes the listener.  So the child
waits without a call, in a page of memory that it shares with its parent.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import gc
import os
import select
import time
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket
from errno import EBADF, ETIMEDOUT

from ketch.contexts import ExitStack, contextmanager, suppress
from ketch.linux import fdpass, ns, prctl
from ketch.linux.processes.pidfd_getfd import copy_descriptor
from ketch.linux.seccomp import ANSWER, CONNECTED, LOST, SENT
from ketch.notation import documents
from ketch.runtime.failure import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from mmap import mmap
    from typing import NoReturn

    from ketch.runtime.oci_types import OciSeccomp
    from ketch.runtime.protocol import ChildListener

_LISTENER = "anon_inode:seccomp notify"
_PAGE = 4096
_HIGHEST_FD = 1 << 30
_NUMBER = slice(0, 4)  # of the page: the descriptor that the listener will be
_WAIT_S = 10.0
_PAUSE_S = 0.0002


class Listener:
    """The child's side; ``path`` is the supervisor's socket, in the host's files."""

    __slots__ = ("_metadata", "_page", "_page_fd", "path")

    def __init__(self, profile: OciSeccomp) -> None:
        import mmap  # few need it

        self.path = profile["listenerPath"]
        self._metadata = profile.get("listenerMetadata") or ""
        self._page_fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
        os.ftruncate(self._page_fd, _PAGE)
        self._page = mmap.mmap(self._page_fd, _PAGE)

    def announce(self, sync_fd: int) -> None:
        """Tell the parent; to be called before descriptors are closed."""
        message: ChildListener = {"ev": "notify", "path": self.path, "metadata": self._metadata}
        process = os.pidfd_open(os.getpid())
        fdpass.send(sync_fd, documents.dumps(message).encode(), [self._page_fd, process])
        os.close(process)

    def ready(self) -> mmap:
        """The page to watch once the filter is in force; called when no descriptor is opened or closed any more.

        RuntimeFailure with step ``seccomp``: nobody listens there.
        """
        deadline = time.monotonic() + 2 * _WAIT_S
        while not self._page[ANSWER]:
            if time.monotonic() > deadline:
                raise self.lost(ETIMEDOUT)
            time.sleep(_PAUSE_S)
        if self._page[ANSWER] != CONNECTED:
            raise self.lost(self._page[ANSWER + 1])
        number = os.dup(0)  # the lowest free one: the next one, too
        os.close(number)
        self._page[_NUMBER] = number.to_bytes(4, "little")
        return self._page

    def lost(self, number: int) -> Exception:
        """The error of a supervisor that cannot be reached."""
        what = f"connect to the seccomp listener `{self.path}`"
        return failure("seccomp", what, OSError(number, os.strerror(number)))


def hand_over(message: ChildListener, fds: list[int], state: Mapping[str, object]) -> None:
    """The parent's side: send the child's listener with the container's state (runtime-spec, seccomp); closes ``fds``.

    No error here is the child's end meanwhile, nor a supervisor that is not there: the child hears of it, and tells it.
    One that goes later takes the child with it.
    """
    page_fd, process = fds
    with ExitStack() as stack:
        stack.callback(os.close, page_fd)
        stack.callback(os.close, process)
        answer, connected = bytes((SENT, 0)), False
        try:
            connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
            stack.callback(connection.close)
            connection.settimeout(_WAIT_S)
            connection.connect(message["path"])
            os.pwrite(page_fd, bytes((CONNECTED, 0)), ANSWER)
            connected = True
            listener = _copy(process, page_fd)
            stack.callback(os.close, listener)
            told = {
                "ociVersion": state["ociVersion"],
                "fds": ["seccompFd"],
                "pid": _pid(process),
                "metadata": message["metadata"],
                "state": state,
            }
            fdpass.send(connection, documents.dumps(told).encode(), [listener])
        except OSError as e:
            answer = bytes((LOST, e.errno or ETIMEDOUT))
            if connected:  # its filter is in force, perhaps, and it could not even say so
                _kill(process)
        finally:
            os.pwrite(page_fd, answer, ANSWER)


def hand_over_aside(message: ChildListener, fds: list[int], state: Mapping[str, object]) -> None:
    """As `hand_over`, in a process of its own: a child that somebody has stopped takes its time."""
    page_fd, process = fds
    try:
        with _own_pid_namespace():
            if os.fork() == 0:
                _aside(message, fds, state)
    except OSError as e:
        os.pwrite(page_fd, bytes((LOST, e.errno or ETIMEDOUT)), ANSWER)
    finally:
        os.close(page_fd)
        os.close(process)


@contextmanager
def _own_pid_namespace() -> Iterator[None]:
    """A context in which children are born where this process is: the end of another's PID 1 would wait for them."""
    with ExitStack() as stack:
        fds = [os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in ("pid", "pid_for_children")]
        for fd in fds:
            stack.callback(os.close, fd)
        ns.setns(fds[0], ns.CLONE_NEWPID)
        try:
            yield
        finally:
            ns.setns(fds[1], ns.CLONE_NEWPID)


def _aside(message: ChildListener, fds: list[int], state: Mapping[str, object]) -> NoReturn:
    """Hand over in the forked child, which ends with its parent, and has none of the parent's descriptors."""
    try:
        gc.disable()
        prctl.prctl(prctl.PR_SET_DUMPABLE, 0)
        prctl.set_parent_death_signal(_signal.SIGKILL)
        low, high = sorted(fds)
        for first, end in ((3, low), (low + 1, high), (high + 1, _HIGHEST_FD)):
            os.closerange(first, end)
        hand_over(message, fds, state)
    finally:
        os._exit(0)


def _kill(process: int) -> None:
    with suppress(ProcessLookupError):
        _signal.pidfd_send_signal(process, _signal.SIGKILL)


def _pid(process: int) -> int:
    """The number that a process has here; 0: it has none."""
    with open(f"/proc/self/fdinfo/{process}", encoding="ascii") as file:
        return next((int(line.split()[1]) for line in file if line.startswith("Pid:")), 0)


def _copy(process: int, page_fd: int) -> int:
    """The child's listener, as soon as it is there (OSError: it has ended, or takes too long)."""
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline and not select.select([process], [], [], 0)[0]:
        number = int.from_bytes(os.pread(page_fd, 4, 0), "little")
        if number:
            try:
                copy = copy_descriptor(process, number)
            except OSError as e:
                if e.errno != EBADF:
                    raise
            else:
                if os.readlink(f"/proc/self/fd/{copy}") == _LISTENER:
                    return copy
                os.close(copy)
        time.sleep(_PAUSE_S)
    raise TimeoutError
