"""A connection to a monitor: requests with their answers, events, signs of life.

A monitor that is stopped (SIGSTOP, a frozen cgroup, a debugger) accepts what it is sent and answers nothing.  It serves
its requests in turn and none after the time that stands in it: so a request that `Silent` was raised for is not carried
out when the monitor goes on, hours later.

Everything happens in the event loop's thread, driven by readiness of the socket; no call blocks.
"""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING, Any

from ketch.engine.monitors import process as monitor_process
from ketch.errors import Unavailable
from ketch.runtime.failure import from_message
from ketch.runtime.process import messages

if TYPE_CHECKING:
    from ketch.runtime.protocol import Answer, MonitorEvent, MonitorRequest

_ANSWER_S = 30.0  # how long a request may take that was begun …
BEGIN_S = 6.0  # … and how long until it is
_MARGIN_S = 0.5  # for an answer that is on its way
_LOOK_S, _LOOK_AGAIN_S = 1.0, 10.0  # when, and how often then, a late one is asked for a sign of life


class Silent(Unavailable):
    """A monitor that lives does not answer."""


class MonitorConnection:
    """The socket and the requests on their way; ``process`` is the monitor's own pid, 0 until it has said it."""

    def __init__(self, fd: int, process: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.process = process
        self._seq = 0
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._signs: set[asyncio.Future[None]] = set()
        self._why = "its monitor ended unexpectedly"
        self._use(fd)

    def _use(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop.add_reader(fd, self._readable)

    def _close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._fd >= 0

    def check_not_stopped(self) -> None:
        """Raise Silent when the monitor's process is stopped."""
        if monitor_process.is_stopped(self.process):
            hint = f"let it go on: kill -CONT {self.process}"
            raise Silent(f"the container's monitor (pid {self.process}) is stopped", hint=hint)

    # -- what comes ------------------------------------------------------------------------------

    def _readable(self) -> None:
        while self._fd >= 0:
            try:
                message, fds = messages.receive(self._fd)
            except BlockingIOError:
                return
            except OSError as e:
                message, fds = None, []
                self._why = str(e.strerror)
                if e.errno == errno.EMSGSIZE:  # descriptors for which there was no room were cut off
                    self._why = "not all descriptors that it sent arrived; are too many open files in ketchd?"
            if message is None:
                self._close()
                self._break(Unavailable(f"the connection to the container's monitor broke: {self._why}"))
                return
            self._message_came()
            if "ev" in message:
                self._event(message, fds)
            elif (future := self._waiting.pop(message["seq"], None)) is not None and not future.done():
                future.set_result(message)

    def _message_came(self) -> None:
        """Handle a message of the monitor."""
        self._wake()

    def _wake(self) -> None:
        for sign in self._signs:
            if not sign.done():
                sign.set_result(None)
        self._signs.clear()

    def _event(self, message: MonitorEvent, fds: list[int]) -> None:
        """Handle an event of the monitor; the descriptors are ours."""
        raise NotImplementedError

    def _break(self, why: Unavailable) -> None:
        """Handle the end of the connection."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(why)
                future.exception()  # retrieved: nobody may ever ask, and that is no fault
        self._waiting.clear()
        self._wake()

    # -- what is asked ---------------------------------------------------------------------------

    def _ask(self, request: MonitorRequest, fds: tuple[int, ...] = ()) -> tuple[int, asyncio.Future[Answer]]:
        """Send a request; returns its number and its answer (Unavailable when it cannot be sent)."""
        op = request["op"]
        if self._fd < 0:
            raise Unavailable(f"ask the container's monitor to {op}: there is no connection to it")
        self._seq = seq = self._seq + 1
        future = self._waiting[seq] = self._loop.create_future()
        try:
            messages.send(self._fd, {**request, "seq": seq}, fds)
        except OSError as e:
            del self._waiting[seq]
            raise Unavailable(f"ask the container's monitor to {op}: {e.strerror}") from e
        return seq, future

    async def _call(self, request: MonitorRequest, fds: tuple[int, ...] = (), *, begin_s: float = BEGIN_S) -> Answer:
        """Ask and wait for the answer (Silent, Unavailable, and the errors that the monitor answers)."""
        request["by"] = self._loop.time() + begin_s
        seq, future = self._ask(request, fds)
        try:
            if not await self._patiently(future, begin_s + _MARGIN_S, _ANSWER_S):
                raise Silent(f"ask the container's monitor (pid {self.process}) to {request['op']}: it does not answer")
            answer = future.result()
        finally:
            self._waiting.pop(seq, None)
        if not answer["ok"]:
            raise from_message(answer["error"])
        return answer

    async def _patiently(self, future: asyncio.Future[Any], begin_s: float, answer_s: float | None) -> bool:
        """Wait for an answer as long as there are signs of life; returns whether it came.

        When a request that was sent later is answered, the one that is waited for has been begun.
        """
        begin = self._loop.time()
        first = min(_LOOK_S, begin_s)
        await asyncio.wait((future,), timeout=first)
        while not future.done() and (answer_s is None or self._loop.time() < begin + answer_s):
            try:
                seq, sign = self._ask({"op": "status"})
            except Unavailable:  # no room for another: it reads nothing
                await asyncio.wait((future,), timeout=begin_s - first)
                break
            try:
                await asyncio.wait((future, sign), timeout=begin_s - first, return_when=asyncio.FIRST_COMPLETED)
                if not sign.done():
                    break
            finally:
                self._waiting.pop(seq, None)
            await asyncio.wait((future,), timeout=_LOOK_AGAIN_S)
        return future.done()

    async def sign(self) -> None:
        """Wait for any message of the monitor, or the connection's end."""
        sign: asyncio.Future[None] = self._loop.create_future()
        self._signs.add(sign)
        try:
            await sign
        finally:
            self._signs.discard(sign)
