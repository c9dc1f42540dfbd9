"""The clients that are connected (``POST /session``, Control.Session), by the names that builds call them by."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ketch.buildkit.session.client import ClientSession
from ketch.errors import AlreadyExists, InvalidArgument, NotFound
from ketch.rpc.client import Channel
from ketch.rpc.health import HealthService
from ketch.rpc.status import Code, RpcError
from ketch.rpc.wire.health_pb2 import HealthCheckRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ketch.rpc.bytestream import ByteStream

log = logging.getLogger(__name__)
_ID, _NAME = "x-docker-expose-session-uuid", "x-docker-expose-session-name"
_KEY, _METHODS = "x-docker-expose-session-sharedkey", "x-docker-expose-session-grpc-method"
_LONGEST = 256  # characters of an id
_MOST_METHODS = 256
_CHECKED_S = 5.0  # a client is asked so often whether it is there, …
_ANSWER_S = 15.0  # … answers within this time, or half as long again as last time, …
_FAILURES = 2  # … and is given up after so many times without an answer


class Sessions:
    """All clients; used in the event loop."""

    def __init__(self, directory: str) -> None:
        """``directory``: a place for sockets, made where it is missing; short, since their paths are."""
        self._directory = directory
        self._connected: dict[str, ClientSession] = {}
        self._arrivals: dict[str, list[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        return len(self._connected)

    async def get(self, id: str, *, wait_s: float = 5) -> ClientSession:
        """A client by its id, which may connect later than its build begins (NotFound)."""
        prefix, colon, rest = id.partition(":")
        id = rest if colon and rest else prefix  # names of sources are told apart by what stands before it
        try:
            async with asyncio.timeout(wait_s):
                while id not in self._connected:
                    await self._arrival(id)
        except TimeoutError:
            raise NotFound(
                f"no active session for {id}: context deadline exceeded", hint="the client is gone"
            ) from None
        return self._connected[id]

    def find(self, id: str) -> ClientSession | None:
        """A client that is connected now."""
        return self._connected.get(id)

    async def _arrival(self, id: str) -> None:
        arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._arrivals.setdefault(id, [])
        waiting.append(arrival)
        try:
            await arrival
        finally:
            waiting.remove(arrival)
            if not waiting:
                self._arrivals.pop(id, None)

    def check(self, headers: Mapping[str, Sequence[str]]) -> str:
        """The id of a client that wants to connect (InvalidArgument; AlreadyExists: it is connected)."""
        id = _one(headers, _ID)
        if not id or len(id) > _LONGEST or not id.isprintable():
            raise InvalidArgument(f"a session needs an id of up to {_LONGEST} characters in the header {_ID}")
        if id in self._connected:
            raise AlreadyExists(f"session {id} already exists")
        return id

    async def serve(self, stream: ByteStream, headers: Mapping[str, Sequence[str]]) -> None:
        """Serve one connection to its end; ``headers`` by names in lower case (InvalidArgument, AlreadyExists)."""
        id = self.check(headers)
        channel = Channel.over(stream)
        session = ClientSession(
            channel,
            id=id,
            name=_one(headers, _NAME),
            shared_key=_one(headers, _KEY),
            methods={one.lower() for one in headers.get(_METHODS, ())[:_MOST_METHODS]},
            directory=self._directory,
        )
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        self._connected[id] = session
        for arrival in self._arrivals.get(id, ()):
            if not arrival.done():
                arrival.set_result(None)
        health = asyncio.create_task(_until_silent(channel, id))
        ends: list[asyncio.Future[Any]] = [health, channel.closed]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._connected[id]
            health.cancel()
            (silent,) = await asyncio.gather(health, return_exceptions=True)
            await session.close()
            await channel.close(silent if isinstance(silent, str) else "")

    async def close(self) -> None:
        """End all connections."""
        for session in list(self._connected.values()):
            await session.channel.close()


async def _until_silent(channel: Channel, id: str) -> str:
    """Ask a client now and then whether it is there, until it is not, and say so: a host may vanish without a word."""
    answered, failures, last_s = time.monotonic(), 0, 0.0
    while failures < _FAILURES:
        await asyncio.sleep(_CHECKED_S)
        begun = time.monotonic()
        try:
            await channel.unary(HealthService.Check, HealthCheckRequest(), timeout=max(_ANSWER_S, 1.5 * last_s))
            failures = 0
        except RpcError as e:
            # whoever answers is there, even if it does not know the question
            failures = failures + 1 if e.code in (Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE) else 0
        last_s = time.monotonic() - begun
        if not failures:
            answered = time.monotonic()
    silent = f"the client has not answered for {time.monotonic() - answered:.0f} s"
    log.warning("session %s: healthcheck failed fatally: %s", id, silent)
    return silent


def _one(headers: Mapping[str, Sequence[str]], name: str) -> str:
    with suppress(IndexError):
        return headers.get(name, ())[0]
    return ""
