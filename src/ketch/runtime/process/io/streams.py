"""The standard streams of one process: pipes or a terminal, its log, and the clients attached to it."""

from __future__ import annotations

import fcntl
import os

from ketch.contexts import suppress
from ketch.notation import documents, stream_frames
from ketch.runtime import tty
from ketch.runtime.logs import log_format
from ketch.runtime.logs.json_log import JsonLogWriter
from ketch.runtime.process.io.backlog import replay_frames, replay_lines
from ketch.runtime.process.io.client import AttachedClient
from ketch.runtime.process.io.detach import Matcher, parse
from ketch.runtime.process.loop import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.runtime.process.io.backlog import Backlog
    from ketch.runtime.process.io.remote import Remote
    from ketch.runtime.process.io.spool import Spool
    from ketch.runtime.process.loop import Loop
    from ketch.runtime.protocol import LogPosition, ProcessEnding, StreamsRequest

_CHUNK = 1 << 16
_F_SETPIPE_SZ = 1031
_PIPE_SIZE = 1 << 20
_INPUT_LIMIT = 1 << 16


class Streams:
    """Owns the monitor's ends; ``child_fds`` are the process's and are closed after the fork."""

    def __init__(self, loop: Loop, *, terminal: bool, stdin: bool) -> None:
        self._loop = loop
        self.terminal = terminal
        self.log: log_format.FramedLogWriter | None = None
        self.driver: JsonLogWriter | Remote | None = None  # another log than the framed one, or beside it
        self.spool: Spool | None = None
        self.clients: list[AttachedClient] = []
        self.closing = 0  # connections that wait for their client's end
        self.taken = 0  # bytes that clients have got from what was kept for them: whether they move at all
        self.stdin_once = False
        self.on_end: Callable[[], None] = lambda: None
        self.on_drained: Callable[[], None] = lambda: None
        self.on_lost: Callable[[], None] = lambda: None  # a client has gone by itself
        self._outputs: dict[int, int] = {}
        self._small: set[int] = set()  # pipes of the default size
        self._input_fd = -1
        self._queue = bytearray()
        self._close_input = False
        self._input_over = not (terminal or stdin)
        self._accepted = True  # what accepts_input was when clients heard of it
        self._paused = False
        self._listening = False
        self.child_fds: list[int] = []
        if terminal:
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            self.child_fds = [null, null, null]
        else:
            self._make_pipes(stdin)

    def _make_pipes(self, stdin: bool) -> None:
        if stdin:
            inner, self._input_fd = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self._input_fd, False)
        else:
            inner = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self.child_fds.append(inner)
        for number in (log_format.STDOUT, log_format.STDERR):
            outer, inner = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(outer, False)
            self._outputs[outer] = number
            self._small.add(outer)
            self.child_fds.append(inner)

    def dup_to_stdio(self) -> None:
        """Make ``child_fds`` descriptors 0, 1, 2, in the child."""
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in self.child_fds]
        for target, fd in enumerate(high):
            os.dup2(fd, target)

    def forked(self) -> None:
        """Close the monitor's copies of the child's descriptors after the fork."""
        for fd in set(self.child_fds):
            os.close(fd)
        self.child_fds = []

    def take_terminal(self, master_fd: int) -> None:
        """Take the terminal's master, for `listen`."""
        os.set_blocking(master_fd, False)
        self._outputs = {master_fd: log_format.STDOUT}
        self._input_fd = master_fd

    def listen(self, master_fd: int = -1) -> None:
        """Begin to read; ``master_fd`` is the terminal's, when there is one that was not taken yet."""
        if master_fd >= 0:
            self.take_terminal(master_fd)
        self._listening = True
        for fd in self._outputs:
            self._loop.add(fd, READ, lambda events, fd=fd: self._ready(fd, events))  # type: ignore[misc]
        if self._input_fd >= 0 and not self.terminal:
            self._loop.add(self._input_fd, 0, self._input_ready)
        self._flush()

    # -- output ----------------------------------------------------------------------------------

    def _ready(self, fd: int, events: int) -> None:
        if events & WRITE:
            self._flush()
        if fd not in self._outputs or not events & ~WRITE:
            return
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:  # EIO: the last process closed the terminal
            data = b""
        if not data:
            self._end_output(fd)
            return
        if len(data) == _CHUNK and fd in self._small:
            self._enlarge(fd)
        self._emit(self._outputs[fd], data)

    def _enlarge(self, fd: int) -> None:
        """Enlarge a pipe, for processes that write much.

        Not from the beginning: pipes count against their user (pipe(7), pipe-user-pages-soft), and behind that
        limit every pipe that a container of the same user makes gets two pages only.
        """
        self._small.discard(fd)
        with suppress(OSError):  # the limit is reached: the default size works, too
            fcntl.fcntl(fd, _F_SETPIPE_SZ, _PIPE_SIZE)

    def _emit(self, stream: int, data: bytes) -> None:
        frame = None
        if self.log is not None:
            try:
                frame = self.log.write(stream, data)
            except OSError:
                frame = None  # a full disk must not stop the container; live clients still get the output
        if self.driver is not None:
            self.driver.write(stream, data)
            if self.spool is not None:
                self.spool.write(stream, data)
        for client in list(self.clients):
            client.deliver(stream, data, frame)
        if (self.log is None or self.driver is not None) and self._must_wait():
            self._pause(True)

    def _must_wait(self) -> bool:
        """Whether the process must wait: for a client without a log, or for a log server."""
        return (self.driver is not None and self.driver.full) or any(c.full for c in self.clients)

    def _pause(self, paused: bool) -> None:
        """Stop reading the outputs, so that the process waits at a full pipe, or continue."""
        if paused == self._paused:
            return
        self._paused = paused
        for fd in self._outputs:
            self._loop.change(fd, self._interest(fd))

    def _interest(self, fd: int) -> int:
        writing = WRITE if fd == self._input_fd and self._queue else 0
        return (0 if self._paused else READ) | writing

    def _end_output(self, fd: int) -> None:
        self._loop.remove(fd)
        del self._outputs[fd]
        self._small.discard(fd)
        if fd == self._input_fd:
            self._input_fd = -1
            self._input_over = True
        os.close(fd)
        if not self._outputs:
            if self.driver is not None:
                self.driver.finish()
            self.on_end()

    def stop_backpressure(self) -> None:
        """Read the rest of an ended process's output, however slow the log server is."""
        if self.driver is not None:
            self.driver.stop_backpressure()
            self.on_log_drain(0)

    def on_log_drain(self, size: int) -> None:
        """Handle a log server that has taken ``size`` bytes, or is gone."""
        self.taken += size
        if self._paused and not self._must_wait():
            self._pause(False)
        if not self.busy:
            self.on_drained()

    @property
    def ended(self) -> bool:
        """Whether every output was read to its end."""
        return not self._outputs

    def drain_and_close(self) -> None:
        """Read what the ended process's outputs have now, and stop."""
        for fd, stream in list(self._outputs.items()):
            left = _PIPE_SIZE  # what it has written is no more; its children may go on for ever
            while left > 0:
                try:
                    data = os.read(fd, _CHUNK)
                except OSError:
                    break
                if not data:
                    break
                self._emit(stream, data)
                left -= len(data)
        self.close_outputs()

    def close_outputs(self) -> None:
        """Stop reading outputs: an ended process's that another one still holds, or one's without anybody to read."""
        if not self._listening:
            return
        for fd in list(self._outputs):
            self._end_output(fd)

    # -- input -----------------------------------------------------------------------------------

    @property
    def accepts_input(self) -> bool:
        """Whether clients should be read from."""
        return not self._input_over and len(self._queue) < _INPUT_LIMIT

    def feed(self, data: bytes) -> None:
        """Accept input for the process; it is kept until the terminal exists."""
        if not self._input_over:
            self._queue += data
            self._flush()

    def _flush(self) -> None:
        if self._listening and self._input_fd >= 0:
            self._write_input()
        if self._accepted != self.accepts_input:
            self._accepted = self.accepts_input
            for client in self.clients:
                client.room_changed()

    def _write_input(self) -> None:
        fd = self._input_fd
        while self._queue:
            try:
                sent = os.write(fd, self._queue)
            except BlockingIOError:
                break
            except OSError:  # the process does not read any more
                self._queue.clear()
                self._close_input = not self.terminal
                break
            del self._queue[:sent]
        if not self._queue and self._close_input:
            self._loop.remove(fd)
            os.close(fd)
            self._input_fd = -1
            self._input_over = True
        elif self.terminal:
            self._loop.change(fd, self._interest(fd))
        else:
            self._loop.change(fd, WRITE if self._queue else 0)

    def _input_ready(self, events: int) -> None:
        if events & ~WRITE:
            # The process closed its stdin: EPOLLERR would be reported for ever.
            self._queue.clear()
            self._close_input = True
        self._flush()

    def input_ended(self, _client: AttachedClient | None) -> None:
        """Handle a client's end of input."""
        if self.stdin_once and not self.terminal:
            self._close_input = True
            self._flush()

    def resize(self, rows: int, cols: int) -> None:
        """Set the terminal's size; nothing happens without one."""
        if self.terminal and self._input_fd >= 0:
            tty.set_size(self._input_fd, rows, cols)

    # -- clients ---------------------------------------------------------------------------------

    def attach(
        self,
        fd: int,
        request: StreamsRequest,
        output_format: int,
        initial: bytes,
        start: LogPosition | str | None = None,
    ) -> None:
        """Take a client's socket, which stays the caller's if this raises.

        ``output_format``: one of `backlog`'s; ``initial``: its first input; ``start``: where in the log it begins.
        """
        wanted = (request["stdin"], request["stdout"], request["stderr"])
        detaches = self.terminal and wanted[0] and not request.get("hangup")
        keys = Matcher(parse(request.get("detach_keys", ""))) if detaches else None
        backlog = self._replay(start)
        client = AttachedClient(self._loop, fd, self, wanted=wanted, output_format=output_format, keys=keys)
        client.told_ending = request.get("ending", False)
        self.clients.append(client)
        if backlog is not None:
            client.catch_up_from(backlog)
        if initial and wanted[0]:
            client.take(initial)

    def _replay(self, position: LogPosition | str | None) -> Backlog | None:
        if not position:
            return None
        if self.log is not None:
            return replay_frames(self.log, position)
        return replay_lines(self.driver, position) if isinstance(self.driver, JsonLogWriter) else None

    def lag_log(self) -> log_format.FramedLogWriter | None:
        """The log whose files a slow client reads, after the last emitted chunk; None without one."""
        return self.spool.open() if self.spool is not None else self.log

    @property
    def busy(self) -> bool:
        """Whether a client has not received everything, or not seen the end, yet."""
        return self.has_unsent or self.closing > 0

    @property
    def has_unsent(self) -> bool:
        """Whether output for a client or the log server has not even been sent."""
        return bool(self.clients) or (self.driver is not None and self.driver.pending)

    def detach(self, client: AttachedClient, *, quietly: bool = False) -> None:
        """Detach a client; the process keeps its stdin."""
        self.closing += client.close(quietly=quietly)
        if client in self.clients:
            self.clients.remove(client)
        self._tidy()
        if not self.busy:
            self.on_drained()

    def client_closed(self) -> None:
        """Handle a client's close after the end."""
        self.closing -= 1
        if not self.busy:
            self.on_drained()

    def drop(self, client: AttachedClient) -> None:
        """Drop a client that is gone."""
        if client in self.clients:
            self.detach(client)
            if client.stdin:
                self.input_ended(client)
            self.caught_up(client)
            self.on_lost()

    def caught_up(self, client: AttachedClient) -> None:
        """Handle a client that has caught up, or is gone."""
        if self._paused and not self._must_wait():
            self._pause(False)
        self._tidy()
        if client.finishing and not client.closed and not client.behind:
            self.detach(client)

    def _tidy(self) -> None:
        if self.spool is not None and self.spool.log is not None:
            log = self.spool.log
            if not any(client.reads is log for client in self.clients):
                self.spool.close()

    def finish(self, ending: ProcessEnding) -> None:
        """Close the clients after the last output, each when it has received everything, and ``ending`` if it asked."""
        frame = stream_frames.frame(stream_frames.ENDING, documents.dumps(ending).encode())
        for client in list(self.clients):
            client.conclude(frame)
            if not client.closed and not client.behind:
                self.detach(client)
        self._drop_input()

    def discard(self) -> None:
        """Close everything of a process that never ran, and its clients."""
        self.on_end = self.on_drained = lambda: None
        self.forked()
        for client in list(self.clients):
            self.detach(client, quietly=True)
        self.close_outputs()
        for fd in self._outputs:
            os.close(fd)
        if self._input_fd in self._outputs:
            self._input_fd = -1
        self._outputs = {}
        self._drop_input()

    def _drop_input(self) -> None:
        self._input_over = True
        if self._input_fd >= 0:
            self._queue.clear()
            if self._listening:
                self._loop.remove(self._input_fd)
            os.close(self._input_fd)
            self._input_fd = -1
