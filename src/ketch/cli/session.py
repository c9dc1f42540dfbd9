"""A terminal session with a container: both directions of bytes, raw mode, window size, signals."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` itself imports `enum`
import os
import select
import sys

from ketch.cli.errors import CombinationError, InterruptionError
from ketch.contexts import contextmanager, suppress
from ketch.errors import KetchError
from ketch.notation import stream_frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ketch.client.http import Hijacked

_CHUNK = 1 << 17
# Signals that are this program's own: those that cannot be caught, those of faults, of children, pipes and limits, and
# those by which a terminal stops what reads in the background (it would be asked again and again).
_OWN = frozenset(
    getattr(_signal, f"SIG{name}")
    for name in ("KILL", "STOP", "ILL", "TRAP", "BUS", "FPE", "SEGV", "CHLD", "PIPE", "URG", "XFSZ", "TTIN", "TTOU")
)
_INTERRUPTIONS = 3  # as many of SIGINT and SIGTERM leave a container that does not end


class Demultiplexer:
    """Demultiplexer of the daemon's frames: stream number, length, payload."""

    def __init__(self, write: Callable[[int, memoryview], None]) -> None:
        self._write = write
        self._head = b""
        self._stream = 1
        self._left = 0

    def feed(self, data: bytes) -> None:
        """Feed a piece of the stream; payload is passed on at once, whole frames or not."""
        view = memoryview(data)
        while view:
            if self._left:
                part = view[: self._left]
                self._write(self._stream, part)
                self._left -= len(part)
                view = view[len(part) :]
                continue
            need = 8 - len(self._head)
            self._head += bytes(view[:need])
            view = view[need:]
            if len(self._head) == 8:
                self._stream, self._left = stream_frames.HEADER.unpack(self._head)
                self._head = b""


def write_all(fd: int, data: memoryview | bytes) -> None:
    """Write everything to a descriptor of ours, also a non-blocking one."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])


def to_stdio(stream: int, data: memoryview) -> None:
    """Write a frame to its stream: 2 is standard error."""
    write_all(2 if stream == 2 else 1, data)


@contextmanager
def raw_terminal(active: bool) -> Iterator[None]:
    """A context with the terminal in raw mode, which is restored in any case."""
    if not active:
        yield
        return
    import termios
    import tty

    saved = termios.tcgetattr(0)
    try:
        tty.setraw(0, termios.TCSANOW)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSANOW, saved)


def check_terminal(tty: bool, interactive: bool) -> None:
    """Check that ``-it`` has a terminal on standard input, as with Docker."""
    if tty and interactive and not sys.stdin.isatty():
        raise CombinationError(
            "the input device is not a TTY", hint="leave out -t when standard input is not a terminal"
        )


def window() -> tuple[int, int]:
    """The size of our terminal as (rows, columns); zeros without one."""
    for fd in (1, 0):
        with suppress(OSError):
            size = os.get_terminal_size(fd)
            return size.lines, size.columns
    return 0, 0


class Session:
    """A session between our standard streams and a hijacked connection, until the daemon ends it."""

    def __init__(
        self,
        connection: Hijacked,
        *,
        tty: bool,
        stdin: bool,
        resize: Callable[[int, int], Any] | None = None,
        forward: Callable[[int], Any] | None = None,
        write: Callable[[int, memoryview], None] = to_stdio,
    ) -> None:
        self._sock = connection.sock
        self._initial = connection.initial
        self._tty = tty
        self._stdin = stdin
        self._resize = resize if tty else None
        self._forward = forward
        self._write = write
        self._interruptions = 0

    def run(self) -> None:
        """Run until the end of the output, and handle signals."""
        demultiplexer = Demultiplexer(self._write)
        emit: Callable[[bytes], None] = demultiplexer.feed
        if self._tty:
            emit = lambda data: self._write(1, memoryview(data))  # noqa: E731
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        wanted = self._signals()
        previous = {number: _signal.signal(number, self._caught) for number in wanted}
        old = _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        try:
            with raw_terminal(self._tty and self._stdin and os.isatty(0)):
                self._send_size()
                if self._initial:
                    emit(self._initial)
                self._copy(emit, reader)
        finally:
            _signal.set_wakeup_fd(old)
            for number, handler in previous.items():
                _signal.signal(number, handler)
            os.close(reader)
            os.close(writer)
            self._sock.close()

    def _signals(self) -> list[int]:
        if self._forward:
            return [int(number) for number in _signal.valid_signals() if number not in _OWN]
        return [int(_signal.SIGWINCH)] if self._resize else []

    def _send_size(self) -> bool:
        """Tell the size of our terminal, if there is one, and one for the process."""
        rows, cols = window()
        if not (self._resize and rows and cols):
            return False
        with suppress(KetchError):  # it may have ended already
            self._resize(rows, cols)
        return True

    def _copy(self, emit: Callable[[bytes], None], signals: int) -> None:
        poll = select.poll()
        sock_fd = self._sock.fileno()
        poll.register(sock_fd, select.POLLIN)
        poll.register(signals, select.POLLIN)
        if self._stdin:
            poll.register(0, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == sock_fd:
                    try:
                        data = self._sock.recv(_CHUNK)
                    except ConnectionResetError:
                        return
                    if not data:
                        return
                    emit(data)
                elif fd == signals:
                    self._handle_signals(os.read(signals, 512))
                elif not self._take_input():
                    poll.unregister(0)

    def _take_input(self) -> bool:
        try:
            data = os.read(0, _CHUNK)
        except OSError:
            data = b""
        try:
            if data:
                self._sock.sendall(data)
                return True
            self._sock.shutdown(1)  # SHUT_WR: the process sees the end of its input, we still see its output
        except OSError:
            pass  # the process has ended: the output's end comes next
        return False

    def _handle_signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number == _signal.SIGWINCH and self._send_size():
                continue
            if self._forward and number not in _OWN:
                with suppress(KetchError):
                    self._forward(number)
                self._end_if_interrupted()  # a request to a daemon that hangs was

    def _caught(self, number: int, _frame: object) -> None:
        """Count what may be meant for ourselves; signals are passed on where they are waited for, see `_copy`."""
        self._interruptions += number in (_signal.SIGINT, _signal.SIGTERM)
        self._end_if_interrupted()

    def _end_if_interrupted(self) -> None:
        if self._interruptions >= _INTERRUPTIONS:
            raise InterruptionError("interrupted three times", hint="the container may go on: see `ketch ps`")
