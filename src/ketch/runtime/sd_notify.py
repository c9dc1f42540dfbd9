"""Readiness of the service in a container, passed on to the service manager (sd_notify(3)).

A manager that waits for a unit of ``Type=notify`` names its socket in ``NOTIFY_SOCKET``.  The container cannot reach
that.  So it gets a directory of its own, in which ``start`` makes a socket and waits:

    ROOT/ID/notify/               the container's /run/notify, read-only
    ROOT/ID/notify/notify.sock    what its own NOTIFY_SOCKET names

Of what the program says, that it is ready is passed on and nothing else: the manager would take its other words (the
main process, descriptors to keep, the watchdog) for the runtime's.
"""

from __future__ import annotations

import fcntl
import os
from _signal import SIGIO, signal  # type: ignore[import-not-found]
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_CLOEXEC, SOCK_DGRAM, SOL_SOCKET, socket
from select import POLLIN, poll

from ketch.contexts import suppress
from ketch.errors import InvalidArgument
from ketch.runtime.failure import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciConfig

_VARIABLE = "NOTIFY_SOCKET"
_DIRECTORY = "notify"
_NAME = "notify.sock"
_PLACE = "/run/notify"
_READY = b"READY=1"
_MOST = 4096  # of one message, as systemd takes
_AT_ONCE = 64  # messages, of a program that does not stop
_BARRIER_MS = 30_000  # for a manager that does not know of barriers


def prepare(document: OciConfig, directory: str) -> None:
    """Give a new container, whose state is in ``directory``, the place of its socket (InvalidArgument, OSError)."""
    _address()
    os.mkdir(f"{directory}/{_DIRECTORY}", 0o755)
    options = ["bind", "nosuid", "noexec", "nodev", "ro"]
    mounts = document.get("mounts") or []
    document["mounts"] = [
        *mounts,
        {"destination": _PLACE, "source": f"{directory}/{_DIRECTORY}", "type": "bind", "options": options},
    ]
    process = document["process"]
    others = [entry for entry in process.get("env") or () if not entry.startswith(f"{_VARIABLE}=")]
    process["env"] = [*others, f"{_VARIABLE}={_PLACE}/{_NAME}"]


def listen(directory: str) -> ReadinessSocket | None:
    """Make the socket of a container that is about to start; None when `prepare` was not called for it."""
    path = f"{directory}/{_DIRECTORY}"
    if not os.path.isdir(path):
        return None
    try:
        return ReadinessSocket(_address(), path)
    except OSError as e:
        raise failure("start", f"wait for readiness in `{path}`", e) from e


class ReadinessSocket:
    """A container's socket, and the manager's."""

    def __init__(self, address: str, directory: str) -> None:
        """Bind it in ``directory`` for every user of the container (OSError)."""
        self._address = address
        self._socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
        directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            path = f"/proc/self/fd/{directory_fd}/{_NAME}"  # however long the directory's own is
            with suppress(FileNotFoundError):  # one of a start that failed
                os.unlink(path)
            self._socket.bind(path)
            os.chmod(path, 0o777)
        except BaseException:
            self.close()
            raise
        finally:
            os.close(directory_fd)

    def close(self) -> None:
        """Close the socket; what the program says from now on is an error for it."""
        self._socket.close()

    def wait(self, pid: int, process_fd: int) -> None:
        """Wait until the program of the process ``pid`` is ready, or ends, and tell the manager (OSError).

        The manager has the process as the unit's main one from then on, and knows it when this returns: it may not find
        out who sent it something when that has ended.
        """
        events = poll()
        events.register(self._socket.fileno(), POLLIN)
        events.register(process_fd, POLLIN)
        while True:
            ready = {fd for fd, _ in events.poll()}
            if self._socket.fileno() in ready and self._read_ready():
                self._tell(pid)
                self._wait_for_manager()
                return
            if process_fd in ready:
                return

    def pass_on(self) -> None:
        """Tell the manager as soon as the program is ready, while this process, the unit's main one, does other things.

        Signals tell of messages; one that cannot be passed on is lost.
        """

        def on_message(_number: int, _frame: object) -> None:
            with suppress(OSError):
                if self._read_ready():
                    self._tell(os.getpid())

        fd = self._socket.fileno()
        signal(SIGIO, on_message)
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
        on_message(SIGIO, None)  # what came before

    def _read_ready(self) -> bool:
        """Read the messages that are there; whether one says that the program is ready."""
        self._socket.setblocking(False)
        found = False
        for _ in range(_AT_ONCE):
            try:
                message = self._socket.recv(_MOST)
            except BlockingIOError:
                break
            found = found or _READY in message.split(b"\n")
        return found

    def _tell(self, pid: int) -> None:
        self._send(_READY + b"\nMAINPID=%d\n" % pid)

    def _send(self, message: bytes, fd: int = -1) -> None:
        sender = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
        try:
            sender.connect(self._address)
            ancillary = [(SOL_SOCKET, SCM_RIGHTS, fd.to_bytes(4, "little"))] if fd >= 0 else []
            sender.sendmsg([message], ancillary)
        finally:
            sender.close()

    def _wait_for_manager(self) -> None:
        """Wait until the manager has read what was sent: it closes a descriptor (sd_notify_barrier(3))."""
        near, far = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                self._send(b"BARRIER=1", far)
            finally:
                os.close(far)
            closed = poll()
            closed.register(near, 0)  # a pipe without writers is always told of
            closed.poll(_BARRIER_MS)
        finally:
            os.close(near)


def _address() -> str:
    """The manager's socket; an abstract one begins with a zero byte (unix(7))."""
    text = os.environ.get(_VARIABLE, "")
    if text[:1] not in ("/", "@"):
        what = f"tell the service manager of readiness: {_VARIABLE} is `{text}`"
        raise InvalidArgument(what, hint="it must be an absolute path, or the name of an abstract socket after `@`")
    return f"\0{text[1:]}" if text[0] == "@" else text
