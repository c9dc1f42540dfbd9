"""The engine's side of monitors: their datagrams as awaitable calls.

Everything happens in the event loop's thread, driven by readiness of the sockets; no call blocks.
Descriptors that are passed stay the caller's, which closes its own copy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ketch.engine.rundir import Exit, dial, end_of, read_exit
from ketch.errors import KetchError, RuntimeFailure, Unavailable
from ketch.runtime.failure import from_message
from ketch.runtime.process import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)
_ANSWER_TIMEOUT_S = 30.0


@dataclass
class Created:
    """A container that waits for its start: its PID 1 and, with a network namespace of its own, two descriptors."""

    pid: int
    netns_fd: int | None
    rtnl_fd: int | None

    def close(self) -> None:
        """Close the descriptors."""
        for fd in (self.netns_fd, self.rtnl_fd):
            if fd is not None:
                os.close(fd)
        self.netns_fd = self.rtnl_fd = None


class Monitor:
    """One connection to one monitor; ``exited`` is resolved once, whatever happens."""

    def __init__(self, fd: int, run_dir: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._run_dir = run_dir
        self._seq = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._created: asyncio.Future[Created] = self._loop.create_future()
        self._hello: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self.exited: asyncio.Future[Exit] = self._loop.create_future()
        self.on_exec_exit: Callable[[str, int], None] = lambda _exec_id, _code: None
        self.on_oom: Callable[[], None] = lambda: None
        self.pid = 0
        self.started_at = 0
        self.state = ""
        self.execs: dict[str, int] = {}
        self.ooms = 0
        self.kept: list[int] = []
        self._begun = False
        self._why = "its monitor ended unexpectedly"
        self._use(fd)

    def _use(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop.add_reader(fd, self._readable)

    @classmethod
    async def connect(cls, run_dir: str) -> Monitor | None:
        """Find the monitor of a container that ran before this process did; None when there is none.

        A container that was never told to start is not found: without us its monitor undoes it.
        """
        fd = dial(run_dir)
        if fd < 0:
            return None
        monitor = cls(fd, run_dir)
        try:
            hello = await asyncio.wait_for(monitor._hello, _ANSWER_TIMEOUT_S)
        except Unavailable:
            monitor.disconnect()
            return None
        except TimeoutError as e:  # stopped, or starved: its container must not be taken for dead
            monitor.disconnect()
            raise Unavailable(f"the monitor in `{run_dir}` does not answer") from e
        monitor.pid, monitor.started_at, monitor.state = hello["pid"], hello["started_at"], hello["state"]
        monitor.execs, monitor.ooms = hello["execs"], hello.get("ooms", 0)
        if monitor.state in ("setup", "created"):
            monitor.disconnect()
            await end_of(hello["monitor"])
            return None
        monitor._begun = True
        return monitor

    # -- what it says ----------------------------------------------------------------------------

    def _readable(self) -> None:
        while self._fd >= 0:
            try:
                message, fds = messages.receive(self._fd)
            except BlockingIOError:
                return
            except OSError as e:  # descriptors that did not fit in are cut off
                message, fds = None, []
                self._why = f"what it sent did not arrive ({e.strerror}); are too many open files here?"
            if message is None:
                self._lost()
                return
            self._dispatch(message, fds)

    def _dispatch(self, message: dict[str, Any], fds: list[int]) -> None:
        event = message.get("ev")
        if event is None:
            future = self._waiting.pop(message["seq"], None)
            if future is not None and not future.done():
                future.set_result(message)
        elif event == "created":
            self.pid = message["pid"]
            created = Created(self.pid, *(fds[:2] if len(fds) >= 2 else (None, None)))
            if self._created.done():
                created.close()
            else:
                self._created.set_result(created)
        elif event == "failed":
            _fail(self._created, from_message(message))
        elif event == "exit":
            _resolve(self.exited, Exit(message["code"], message["at"], message["oom"]))
        elif event == "exec_exit":
            # Behind the one who waits for the exec's start, which may have been told just now.
            self._loop.call_soon(lambda: self.on_exec_exit(message["exec_id"], message["code"]))
        elif event == "oom":
            self.on_oom()
        elif event == "hello":
            if self._hello.done():  # a second connection: what it brings is here already
                for fd in fds:
                    os.close(fd)
            else:
                self.kept = fds
                self._hello.set_result(message)

    def _lost(self) -> None:
        """The connection ended: the container has, too, or its monitor was killed, or we were too slow for it."""
        self.disconnect()
        gone = Unavailable("the container's monitor is gone")
        _fail(self._created, RuntimeFailure(f"start container: {self._why}"))
        _fail(self._hello, gone)
        for future in self._waiting.values():
            _fail(future, gone)
        self._waiting.clear()
        if self.exited.done():
            return
        record = read_exit(self._run_dir)
        if record is None and self._begun and (fd := dial(self._run_dir)) >= 0:
            self._use(fd)  # it drops those that do not read for long; what it said meanwhile is on disk
            return
        self.exited.set_result(record or Exit(137, time.time_ns(), oom=False, lost=True))

    def disconnect(self) -> None:
        """Close the connection; the container goes on."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    # -- what it is asked ------------------------------------------------------------------------

    async def created(self) -> Created:
        """Wait until PID 1 exists and waits for its start (RuntimeFailure when it could not be made)."""
        return await asyncio.shield(self._created)

    async def _call(self, op: str, *fds: int, **arguments: Any) -> dict[str, Any]:
        if self._fd < 0:
            raise Unavailable("the container's monitor is gone")
        self._seq = seq = self._seq + 1
        future = self._waiting[seq] = self._loop.create_future()
        try:
            messages.send(self._fd, {"op": op, "seq": seq, **arguments}, list(fds))
        except OSError as e:
            del self._waiting[seq]
            raise Unavailable(f"ask the container's monitor to {op}: {e.strerror}") from e
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                answer: dict[str, Any] = await future
        except TimeoutError:
            raise Unavailable(f"ask the container's monitor to {op}: no answer in {_ANSWER_TIMEOUT_S:.0f} s") from None
        finally:
            self._waiting.pop(seq, None)
        if not answer["ok"]:
            raise from_message(answer["error"])
        return answer

    async def start(self) -> int:
        """Let PID 1 execute its program; returns the time in ns (RuntimeFailure when it cannot)."""
        self._begun = True
        try:
            self.started_at = (await self._call("start"))["started_at"]
        except Unavailable as e:
            raise RuntimeFailure(f"start container: {e.message}") from e
        return self.started_at

    async def attach(
        self,
        fd: int,
        *,
        stdin: bool = False,
        stdout: bool = False,
        stderr: bool = False,
        mux: bool = False,
        detach_keys: str = "",
        initial: bytes = b"",
        start: Any = None,
        frames: bool = False,
        bell: bool = False,
    ) -> None:
        """Hand a client's socket over; ``start`` is "start" or {"inode", "offset"}: replay the log from there first."""
        with _in_memory(initial) as early:
            await self._call(
                "attach", *early, fd, stdin=stdin, stdout=stdout, stderr=stderr, mux=mux, detach_keys=detach_keys,
                early=bool(early), frames=frames, bell=bell, **{"from": start},
            )  # fmt: skip

    async def exec(
        self,
        exec_id: str,
        process: dict[str, Any],
        fd: int | None,
        *,
        tty: bool,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        detach_keys: str = "",
        initial: bytes = b"",
        rows: int = 0,
        cols: int = 0,
    ) -> int:
        """Run one more process; returns its pid (RuntimeFailure when it cannot be executed)."""
        with _in_memory(initial if fd is not None else b"") as early:
            answer = await self._call(
                "exec", *early, *([] if fd is None else [fd]), exec_id=exec_id, process=process, tty=tty, stdin=stdin,
                stdout=stdout, stderr=stderr, detach_keys=detach_keys, early=bool(early), rows=rows, cols=cols,
            )  # fmt: skip
        return int(answer["pid"])

    async def resize(self, rows: int, cols: int, exec_id: str | None = None) -> None:
        """Set a terminal's size."""
        await self._call("resize", rows=rows, cols=cols, exec_id=exec_id)

    async def kill(self, signal: int, exec_id: str | None = None) -> None:
        """Send a signal to PID 1 or to an exec's process; nothing happens when the container has just ended."""
        try:
            await self._call("kill", signal=signal, exec_id=exec_id)
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

    async def abandon(self) -> None:
        """Give a start up: a monitor that loses its only connection before the start undoes everything and ends."""
        if self.exited.done() or self._fd < 0:
            return
        try:
            await self._call("kill", signal=9)
        except KetchError:
            log.debug("abandon: the monitor was gone already")
        self.disconnect()


@contextlib.contextmanager
def _in_memory(data: bytes) -> Iterator[list[int]]:
    """A file that holds ``data``, as a descriptor in a list; nothing in it for nothing."""
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
