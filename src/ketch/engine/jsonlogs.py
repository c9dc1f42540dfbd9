"""Reading a ``json-file`` log: from the files' lines to the bytes that ``GET /containers/{id}/logs`` sends.

While the container runs its monitor rings a bell when the log has grown, and the files are read on; what a
follower has not read costs nobody memory.
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING

from ketch.engine.jsonfiles import Entry, JsonFiles, Times, entries
from ketch.errors import KetchError
from ketch.runtime import logformat
from ketch.runtime.process.backlog import MUX_HEADER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ketch.engine.logs import Formatter
    from ketch.engine.shim import Monitor

_RINGS = 1 << 16


async def read_json_logs(
    path: str,
    monitor: Monitor | None,
    formatter: Formatter,
    *,
    since_ns: int,
    until_ns: int,
    tail: int | None,
    follow: bool,
) -> AsyncIterator[bytes]:
    """Yield wire bytes: what is there, then (``follow``, while the container runs) what comes."""
    bell = await _bell(monitor) if follow and monitor is not None else None
    files = await asyncio.to_thread(JsonFiles, path)
    try:
        start = files.since(since_ns) if since_ns else (0, 0)
        if tail is not None:
            start = max(start, files.tail(tail, formatter.wanted, until_ns) if tail > 0 else files.end)
        files.seek(start)
        wire, over = _Wire(formatter), False
        while not over:
            over = bell is None  # then this is the last look
            while not formatter.done and (block := await asyncio.to_thread(files.next)):
                if chunk := wire.of(entries(block)):
                    yield chunk
            if formatter.done:
                return
            if bell is not None and not await _rung(bell, until_ns):
                bell.close()
                bell = None
                if until_ns and time.time_ns() > until_ns:
                    return
    finally:
        files.close()
        if bell is not None:
            bell.close()


class _Wire:
    """Messages in, wire bytes out, by way of frames where lines and times count."""

    def __init__(self, formatter: Formatter) -> None:
        self._formatter = formatter
        self._times = Times()

    def of(self, messages: list[Entry]) -> bytes:
        if self._formatter.plain:
            return self._plain(messages)
        frames: list[bytes] = []
        for one in messages:
            payload = one.log.encode()
            stream = logformat.STDERR if one.stream == "stderr" else logformat.STDOUT
            header = logformat.HEADER.pack(self._times(one.time), len(payload), stream, 0)
            frames += (header, payload, logformat.TRAILER.pack(len(payload)))
        return self._formatter.block(b"".join(frames))[0]

    def _plain(self, messages: list[Entry]) -> bytes:
        """Nobody asks for lines: neighbours of one stream become one frame."""
        runs: list[tuple[int, list[str]]] = []
        last, texts = "", list[str]()
        for one in messages:
            if one.stream != last or not runs:
                last, texts = one.stream, list[str]()
                runs.append((logformat.STDERR if last == "stderr" else logformat.STDOUT, texts))
            texts.append(one.log)
        out: list[bytes] = []
        for stream, run in runs:
            if self._formatter.wanted[stream]:
                payload = "".join(run).encode()
                out += (payload,) if self._formatter.raw else (MUX_HEADER.pack(stream, len(payload)), payload)
        return b"".join(out)


async def _bell(monitor: Monitor) -> socket.socket | None:
    """A socket that rings when the log has grown; None when the container has ended just now."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    with theirs:
        try:
            await monitor.attach(theirs.fileno(), stdout=True, stderr=True, bell=True)
        except KetchError:
            ours.close()
            return None
        except BaseException:
            ours.close()
            raise
    return ours


async def _rung(bell: socket.socket, until_ns: int) -> bool:
    """Wait for the bell; False when it is gone, or the time is up."""
    left = max((until_ns - time.time_ns()) / 1e9, 0) if until_ns else None
    try:
        return bool(await asyncio.wait_for(asyncio.get_running_loop().sock_recv(bell, _RINGS), left))
    except TimeoutError:
        return False
