"""Control connections of a monitor: those of ketchd, now and after its restarts.

    run_dir/control.sock ──accept──► connection ──► hello, then requests and answers, events in between
    launcher's message   ──────────► the first connection (it needs no hello)

Descriptors that ketchd wants to have again after a restart (its sockets in the container's network namespace) are kept
here and come with the hello.

A connection that does not read is dropped, never waited for: what it must know is on disk, and it can connect
again.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_SEQPACKET, socket

from ketch.contexts import suppress
from ketch.runtime.failure import to_message
from ketch.runtime.process import messages
from ketch.runtime.process.loop import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ketch.runtime.process.loop import Loop
    from ketch.runtime.protocol import MonitorEvent, MonitorRequest, MonitorState

    # (connection, request, descriptors) → the answer's fields, None when it comes later; what is kept leaves the list
    Serve = Callable[[socket, MonitorRequest, list[int]], Mapping[str, Any] | None]


class Controls:
    """All connections; ``on_last_lost`` is called when the last one is lost."""

    def __init__(
        self,
        loop: Loop,
        run_dir: str,
        serve: Serve,
        hello: Callable[[], MonitorState],
        on_last_lost: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._run_dir = run_dir
        self._serve = serve
        self._hello = hello
        self._on_last_lost = on_last_lost
        self._all: list[socket] = []
        self._listener: socket | None = None
        self._kept: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._all)

    def has(self, control: socket) -> bool:
        """Whether a connection is still open."""
        return control in self._all

    def listen(self) -> None:
        """Accept connections in the run directory, by a short path: socket names have only 107 bytes."""
        messages.write_file(os.path.join(self._run_dir, messages.PID_FILE), b"%d\n" % os.getpid())
        for name in (messages.CONTROL_SOCKET, messages.EXIT_RECORD):  # what an earlier run left
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(self._run_dir, name))
        directory = os.open(self._run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK)
            listener.bind(f"/proc/self/fd/{directory}/{messages.CONTROL_SOCKET}")
            listener.listen(8)
        finally:
            os.close(directory)
        self._listener = listener
        self._loop.add(listener.fileno(), READ, self._accept)

    def listen_again(self) -> None:
        """Make the socket again, on ketchd's request, in a run directory that was wiped."""
        listener = self._listener
        if listener is None:
            return
        self._loop.remove(listener.fileno())
        listener.close()
        self._listener = None
        self.listen()

    def keep(self, fds: list[int]) -> None:
        """Keep descriptors, ours from now on, for the next connection, in place of those kept before."""
        for fd in self._kept:
            os.close(fd)
        self._kept = fds

    def stop_listening(self) -> None:
        """Stop accepting and leave the names to the container's next monitor; connections stay."""
        self.keep([])
        if self._listener is None:
            return
        self._loop.remove(self._listener.fileno())
        self._listener.close()
        self._listener = None
        for name in (messages.PID_FILE, messages.CONTROL_SOCKET):
            with suppress(OSError):  # the exec root may be gone by now
                os.unlink(os.path.join(self._run_dir, name))

    def _accept(self, _events: int) -> None:
        assert self._listener is not None
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined]
        except OSError:  # it went away before its turn, or there is no descriptor left for it
            return
        control = socket(AF_UNIX, SOCK_SEQPACKET, 0, fd)
        self.add(control)
        self.send(control, {"ev": "hello", **self._hello()}, self._kept)

    def add(self, control: socket) -> None:
        """Serve a connection until it ends."""
        control.setblocking(False)
        self._all.append(control)
        self._loop.add(control.fileno(), READ, lambda _events: self._request(control))

    def _drop(self, control: socket) -> None:
        if control not in self._all:
            return
        self._all.remove(control)
        self._loop.remove(control.fileno())
        control.close()
        if not self._all:
            self._on_last_lost()

    def send(self, control: socket, message: Mapping[str, Any], fds: list[int] | tuple[int, ...] = ()) -> bool:
        """Send to one connection; False when it is gone."""
        if control not in self._all:
            return False
        try:
            messages.send(control, message, fds)
        except OSError:
            self._drop(control)
            return False
        return True

    def answer(self, control: socket, seq: int, error: Mapping[str, Any] | None) -> None:
        """Answer a request that `Serve` left for later, if whoever asked is still there."""
        if self.has(control):
            self.send(control, {"seq": seq, "ok": error is None, **({"error": error} if error else {})})

    def broadcast(self, message: MonitorEvent, fds: list[int] | tuple[int, ...] = ()) -> bool:
        """Send to every connection; False when none accepted the message."""
        sent = 0
        for control in list(self._all):
            sent += self.send(control, message, fds)
        return sent > 0

    def _request(self, control: socket) -> None:
        message: MonitorRequest | None
        try:
            message, fds = messages.receive(control)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            message, fds = None, []
        if message is None:
            self._drop(control)
            return
        answer: Mapping[str, Any] | None
        try:
            answer = self._serve(control, message, fds)
        except Exception as e:  # a request that this monitor does not understand must not cost a container
            answer = {"ok": False, "error": to_message(e)}
        finally:
            for fd in fds:
                os.close(fd)
        if answer is not None:
            self.send(control, {"seq": message.get("seq", 0), "ok": True, **answer})
