"""Notifications of a seccomp filter: its listener goes to a supervisor's socket (SCMP_ACT_NOTIFY, ``listenerPath``).

    child                                        its parent
    connects to the supervisor, host's root
    ── {"ev":"notify"} + page, connection ────►  waits for the listener's number in the page
    closes everything, writes the number
    seccomp(2): the listener has that number     copies it (pidfd_getfd(2)), sends it to the supervisor
    waits for the page to change  ◄────────────  writes into the page
    execve(2)

The filter may have the supervisor asked about any system call, and execve(2) closes the listener.  So the child
waits without a call, in a page of memory that it shares with its parent.
"""

from __future__ import annotations

import os
import select
import time
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket
from errno import EBADF

from ketch import pidfd
from ketch.contexts import ExitStack
from ketch.linux import fdpass
from ketch.linux.pidfd_getfd import copy_descriptor
from ketch.linux.seccomp import ANSWER, SENT
from ketch.runtime import documents
from ketch.runtime.failure import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from mmap import mmap

    from ketch.runtime.oci_types import OciSeccomp
    from ketch.runtime.protocol import ChildListener

_LISTENER = "anon_inode:seccomp notify"
_PAGE = 4096
_NUMBER = slice(0, 4)  # of the page: the descriptor that the listener will be
_LOST = 2
_WAIT_S = 10.0
_PAUSE_S = 0.0002


class Listener:
    """The child's side, connected to the supervisor in the host's files."""

    __slots__ = ("_connection", "_metadata", "_page", "_page_fd")

    def __init__(self, profile: OciSeccomp) -> None:
        """RuntimeFailure with step ``seccomp``: nobody listens there."""
        import mmap  # few need it

        path = profile["listenerPath"]
        self._metadata = profile.get("listenerMetadata") or ""
        self._connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        try:
            self._connection.connect(path)
        except OSError as e:
            raise failure("seccomp", f"connect to the seccomp listener `{path}`", e) from e
        self._page_fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
        os.ftruncate(self._page_fd, _PAGE)
        self._page = mmap.mmap(self._page_fd, _PAGE)

    def announce(self, sync_fd: int) -> None:
        """Tell the parent; to be called before descriptors are closed."""
        message: ChildListener = {"ev": "notify", "metadata": self._metadata}
        fdpass.send(sync_fd, documents.dumps(message).encode(), [self._page_fd, self._connection.fileno()])

    def ready(self) -> mmap:
        """The page to watch once the filter is in force; called when no descriptor is opened or closed any more."""
        number = os.dup(0)  # the lowest free one: the next one, too
        os.close(number)
        self._page[_NUMBER] = number.to_bytes(4, "little")
        return self._page


def hand_over(pid: int, metadata: str, fds: list[int], state: Mapping[str, object]) -> None:
    """The parent's side: send the child's listener with the container's state (runtime-spec, seccomp); closes ``fds``.

    A child that ends meanwhile is no error here, nor is a supervisor that has gone: the child hears of it and fails.
    """
    page_fd, connection_fd = fds
    with ExitStack() as stack:
        stack.callback(os.close, page_fd)
        connection = socket(fileno=connection_fd)
        stack.callback(connection.close)
        answer = _LOST
        try:
            process = pidfd.open_process(pid)
            stack.callback(os.close, process)
            listener = _copy(process, page_fd)
            stack.callback(os.close, listener)
            told = {
                "ociVersion": state["ociVersion"],
                "fds": ["seccompFd"],
                "pid": pid,
                "metadata": metadata,
                "state": state,
            }
            fdpass.send(connection, documents.dumps(told).encode(), [listener])
            answer = SENT
        except OSError:  # the child tells it
            return
        finally:
            os.pwrite(page_fd, bytes([answer]), ANSWER)


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
