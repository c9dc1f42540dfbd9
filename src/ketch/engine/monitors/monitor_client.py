"""The engine's client of a container's monitor: its events, and requests to it.

Descriptors that are passed stay the caller's, which closes its own copy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from ketch.engine.monitors import process as monitor_process
from ketch.engine.monitors.link import BEGIN_S, MonitorConnection, Silent
from ketch.engine.monitors.run_directory import Exit, dial, read_exit
from ketch.errors import KetchError, RuntimeFailure, Unavailable
from ketch.failpoints import followed
from ketch.runtime.failure import from_message
from ketch.runtime.process import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Literal

    from ketch.runtime.oci_types import OciProcess
    from ketch.runtime.protocol import AttachRequest, ExecRequest, HelloEvent, LogPosition, MonitorEvent, StartRequest

log = logging.getLogger(__name__)
_BEGIN_SIGNAL_S = 1.0  # a signal has another way (see `direct`)
_UNDO_S = 30.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 5.0


class Created(Struct):
    """A created container before its start: its PID 1 and, with its own network namespace, two descriptors."""

    pid: int
    netns_fd: int | None
    rtnl_fd: int | None

    def close(self) -> None:
        """Close the descriptors."""
        for fd in (self.netns_fd, self.rtnl_fd):
            if fd is not None:
                os.close(fd)
        self.netns_fd = self.rtnl_fd = None


class StreamOptions(Struct, frozen=True, kw_only=True):
    """The streams that a client's socket sends and receives.

    ``output``: as it is, with Docker's 8-byte headers, as the log's frames, or a byte when the log has grown.
    ``initial``: input that came before the socket was taken.  ``start``: replay the log from there first.
    ``ending``: how the process ended is the last that comes, and ending the connection is left to others.
    ``hangup``: an exec'd process is hung up when the socket's other end is closed, by whoever and however.
    """

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    output: Literal["raw", "mux", "frames", "bell"] = "raw"
    detach_keys: str = ""
    initial: bytes = b""
    ending: bool = False
    hangup: bool = False
    start: LogPosition | Literal["start"] | None = None


class ExecProcess(Struct, frozen=True, kw_only=True):
    """A process to be added to a container: an OCI process object, and its terminal, if any, with its size."""

    document: OciProcess
    tty: bool = False
    rows: int = 0
    cols: int = 0


class MonitorClient(MonitorConnection):
    """A client of one monitor that reconnects when its connection breaks; ``exited`` is resolved once."""

    def __init__(self, fd: int, run_dir: str, process: int = 0) -> None:
        loop = asyncio.get_running_loop()
        self._run_dir = run_dir
        self._created: asyncio.Future[Created] = loop.create_future()
        self._hello: asyncio.Future[HelloEvent] = loop.create_future()
        self.exited: asyncio.Future[Exit] = loop.create_future()
        self.on_exec_exit: Callable[[str, int], None] = lambda _exec_id, _code: None
        self.on_oom: Callable[[], None] = lambda: None
        self.pid = 0
        self.started_at = 0
        self.state = ""
        self.execs: dict[str, int] = {}
        self.ooms = 0
        self.kept: list[int] = []
        self.undone = False  # it says that the start has failed, and that it has taken everything back
        self._begun = False
        self._spoken = False
        self._given_up = False
        self._pause_s = _FIRST_PAUSE_S
        super().__init__(fd, process)

    @classmethod
    def dial(cls, run_dir: str) -> MonitorClient | None:
        """A connection to the monitor of a container that ran before this process did; None when nobody listens.

        `greeted` tells whether it answers.  Raises Unavailable when it accepts no more, else as `run_directory.dial`.
        """
        fd = dial(run_dir)
        return cls(fd, run_dir, monitor_process.peer_pid(fd)) if fd >= 0 else None

    async def greeted(self, timeout_s: float | None) -> bool:
        """Wait for the greeting; False for a container that was never told to start, which its monitor undoes.

        Raises Silent when it says nothing, Unavailable when it ends, or what it says does not arrive.
        """
        try:
            hello = await asyncio.wait_for(asyncio.shield(self._hello), timeout_s)
        except TimeoutError as e:
            raise Silent(f"the monitor with pid {self.process} does not answer") from e
        self.pid, self.started_at, self.state = hello["pid"], hello["started_at"], hello["state"]
        self.process, self.execs, self.ooms = hello["monitor"], hello["execs"], hello.get("ooms", 0)
        if self.state in ("setup", "created"):
            self.disconnect()
            await monitor_process.ended(self.process, _UNDO_S)
            return False
        self._begun = True
        return True

    # -- what it says ----------------------------------------------------------------------------

    def _message_came(self) -> None:
        self._spoken = True
        self._pause_s = _FIRST_PAUSE_S
        super()._message_came()

    def _event(self, message: MonitorEvent, fds: list[int]) -> None:
        if message["ev"] == "created":
            self.pid, self.process = message["pid"], message.get("monitor", 0)
            created = Created(self.pid, *(fds[:2] if len(fds) >= 2 else (None, None)))
            if self._created.done():
                created.close()
            else:
                self._created.set_result(created)
        elif message["ev"] == "failed":
            self.undone = True
            _fail(self._created, from_message(message))
        elif message["ev"] == "exit":
            _resolve(self.exited, Exit(message["code"], message["at"], message["oom"]))
        elif message["ev"] == "exec_exit":
            exec_id, code = message["exec_id"], message["code"]
            # Behind the one who waits for the exec's start, which may have been told just now.
            self._loop.call_soon(lambda: self.on_exec_exit(exec_id, code))
        elif message["ev"] == "oom":
            self.on_oom()
        elif message["ev"] == "hello":
            if self._hello.done():  # a second connection: what it brings is here already
                for fd in fds:
                    os.close(fd)
            else:
                self.kept = fds
                self._hello.set_result(message)

    def _break(self, why: Unavailable) -> None:
        """Handle the end of the connection: the container ended, its monitor was killed, or we were too slow."""
        super()._break(why)
        _fail(self._created, RuntimeFailure(f"start container: {self._why}"))
        _fail(self._hello, why)
        if self.exited.done():
            return
        if self._spoken:
            self._find_again()
        else:
            self._later()

    def _find_again(self) -> None:
        """Find the exit record or make another connection; while the monitor lives without either, retry.

        It drops those that do not read for long; what it said meanwhile is on disk.  And for want of descriptors
        nothing at all can be learnt.
        """
        if self.exited.done() or self._given_up:
            return
        record = None
        try:
            record = read_exit(self._run_dir)
            if record is None and self._begun:
                if (fd := dial(self._run_dir)) >= 0:
                    self._spoken = False
                    self._use(fd)
                    return
                if monitor_process.lives(self.process, os.path.basename(self._run_dir)):
                    raise Unavailable("it does not listen")
        except (OSError, Unavailable) as e:
            log.info("connect to the monitor with pid %d again: %s", self.process, e)
            self._later()
            return
        self.exited.set_result(record or Exit(137, time.time_ns(), oom=False, lost=True))

    def _later(self) -> None:
        self._loop.call_later(self._pause_s, self._find_again)
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)

    def disconnect(self) -> None:
        """Close the connection for good; the container goes on."""
        self._given_up = True
        self._close()

    # -- what it is asked ------------------------------------------------------------------------

    async def created(self) -> Created:
        """Wait until PID 1 exists and waits for its start (RuntimeFailure when it could not be made).

        Silent: the launcher does not read what it was sent, or the monitor that it has forked is stopped.
        """
        if not await self._patiently(self._created, BEGIN_S, None):
            raise Silent("start container: neither the launcher nor the container's monitor answers")
        return self._created.result()

    async def start(self, args: list[str] | None = None) -> int:
        """Let PID 1 execute its program, or this one; returns the time in ns (RuntimeFailure when it cannot)."""
        self._begun = True
        request: StartRequest = {"op": "start"}
        if args:
            request["args"] = args
        try:
            answer = await self._call(request)
        except Unavailable as e:
            raise RuntimeFailure(f"start container: {e.message}") from e
        except KetchError:
            self.undone = True
            raise
        self.started_at = answer["started_at"]
        if (passages := followed()) is not None:
            passages += [(name, at) for name, at in answer.get("passages", ())]
        return self.started_at

    async def attach(self, fd: int, client: StreamOptions) -> None:
        """Pass a client's socket to the monitor."""
        request: AttachRequest = {
            "op": "attach",
            "stdin": client.stdin,
            "stdout": client.stdout,
            "stderr": client.stderr,
            "mux": client.output == "mux",
            "detach_keys": client.detach_keys,
            "early": bool(client.initial),
            "frames": client.output == "frames",
            "bell": client.output == "bell",
            "from": client.start,
        }
        if client.ending:
            request["ending"] = True
        with _in_memory(client.initial) as early:
            await self._call(request, (*early, fd))

    async def exec(self, exec_id: str, process: ExecProcess, fd: int | None, client: StreamOptions) -> int:
        """Start an exec, with a client's socket or without; returns its pid.

        RuntimeFailure when it cannot be executed.
        """
        initial = client.initial if fd is not None else b""
        request: ExecRequest = {
            "op": "exec",
            "exec_id": exec_id,
            "process": process.document,
            "tty": process.tty,
            "stdin": client.stdin,
            "stdout": client.stdout,
            "stderr": client.stderr,
            "detach_keys": client.detach_keys,
            "early": bool(initial),
            "rows": process.rows,
            "cols": process.cols,
        }
        if client.ending:
            request["ending"] = True
        if client.hangup:
            request["hangup"] = True
        if fd is not None and (client.output == "mux") is process.tty:
            request["mux"] = client.output == "mux"
        with _in_memory(initial) as early:
            answer = await self._call(request, (*early, *(() if fd is None else (fd,))))
        return answer["pid"]

    async def resize(self, rows: int, cols: int, exec_id: str | None = None) -> None:
        """Set a terminal's size."""
        await self._call({"op": "resize", "rows": rows, "cols": cols, "exec_id": exec_id})

    async def kill(self, signal: int, exec_id: str | None = None) -> None:
        """Send a signal to PID 1 or to an exec's process; nothing happens when the container has just ended."""
        try:
            await self._call({"op": "kill", "signal": signal, "exec_id": exec_id}, begin_s=_BEGIN_SIGNAL_S)
        except Unavailable:
            if not self.exited.done():
                raise

    def hold(self, fd: int) -> None:
        """Leave a copy of a waiting client's socket with the monitor (see `runtime.process.waits`); not waited for."""
        if self._fd < 0:
            return
        try:
            messages.send(self._fd, {"op": "hold", "seq": 0}, [fd])
        except OSError as e:
            log.warning("leave a waiting client with the monitor: %s", e.strerror)

    def keep(self, fds: list[int]) -> None:
        """Leave copies of descriptors with the monitor: they are in ``kept`` of whoever connects after a restart."""
        if self._fd < 0:
            return
        try:
            messages.send(self._fd, {"op": "keep", "seq": 0}, fds)
        except OSError as e:
            log.warning("leave sockets with the monitor: %s", e.strerror)

    async def abandon(self) -> bool:
        """Abandon a start: a monitor that loses its only connection before the start undoes everything and ends.

        True when it does not answer and will not do so.
        """
        silent = False
        if not self.exited.done() and self._fd >= 0:
            try:
                await self._call({"op": "kill", "signal": 9}, begin_s=_BEGIN_SIGNAL_S)
            except Silent:
                silent = True
            except KetchError:
                log.debug("abandon: the monitor was gone already")
        self.disconnect()
        if self._created.done() and self._created.exception() is None:
            self._created.result().close()  # whoever waited for it was cancelled, perhaps
        return silent


@contextlib.contextmanager
def _in_memory(data: bytes) -> Iterator[list[int]]:
    """An in-memory file with ``data``, as a list of one descriptor; an empty list without data."""
    if not data:
        yield []
        return
    fd = os.memfd_create("early", os.MFD_CLOEXEC)
    try:
        os.write(fd, data)
        yield [fd]
    finally:
        os.close(fd)


def _resolve(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # retrieved: nobody may ever ask, and that is no fault
