"""Reading a ``json-file`` log: from the files' lines to the bytes that ``GET /containers/{id}/logs`` sends.

While the container runs its monitor rings a bell when the log has grown, and the files are read on; what a
follower has not read costs nobody memory.
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING

from ketch.engine.logs.json_files import JsonFiles, LogEntry, Times, entries
from ketch.engine.monitors.monitor_client import StreamOptions
from ketch.notation import stream_frames
from ketch.runtime.logs import log_format

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from ketch.engine.aio.streams import LogOptions
    from ketch.engine.logs.follow import Follower
    from ketch.engine.logs.framed_reader import Formatter

_RINGS = 1 << 16
_NUMBERS = {"stdout": log_format.STDOUT, "stderr": log_format.STDERR}


async def read_json_logs(
    path: str, follower: Follower | None, formatter: Formatter, options: LogOptions
) -> AsyncGenerator[bytes, None]:
    """Yield wire bytes: nothing when the files are open, the existing log, then (``follow``) new output."""
    # Its monitor may answer later only: what is there is read meanwhile.
    joining = asyncio.ensure_future(_bell(follower)) if options.follow and follower is not None else None
    bell: socket.socket | None = None
    files = await asyncio.to_thread(JsonFiles, path)
    try:
        yield b""
        start = files.since(options.since_ns) if options.since_ns else (0, 0)
        if options.tail is not None:
            tail = files.end
            if options.tail > 0:
                tail = files.tail(options.tail, formatter.wanted, options.until_ns)
            start = max(start, tail)
        files.seek(start)
        wire, over = _Wire(formatter), False
        while not over:
            over = bell is None and joining is None  # then this is the last look
            while not formatter.done and (block := await asyncio.to_thread(files.next)):
                if chunk := wire.of(entries(block)):
                    yield chunk
            if formatter.done:
                return
            if joining is not None:
                bell = await joining
                joining = None
            elif bell is not None and not await _rung(bell, options.until_ns):
                bell.close()
                bell = None
                if options.until_ns and time.time_ns() > options.until_ns:
                    return
    finally:
        files.close()
        if joining is not None and not joining.cancel():
            bell = joining.result()
        if bell is not None:
            bell.close()


class _Wire:
    """Converter of messages to wire bytes, through the log's frames when lines are filtered or stamped.

    Neighbours of one stream (and one time, where times count) are converted together: what was read from the container
    in one go has one time.
    """

    def __init__(self, formatter: Formatter) -> None:
        self._formatter = formatter
        self._times = Times()

    def of(self, messages: list[LogEntry]) -> bytes:
        plain = self._formatter.plain
        runs: list[tuple[str, str, list[str]]] = []
        stream, at, texts = "", "", list[str]()
        for entry in messages:
            if entry.stream != stream or (entry.time != at and not plain) or not runs:
                stream, at, texts = entry.stream, entry.time, []
                runs.append((stream, at, texts))
            texts.append(entry.log)
        return self._plain(runs) if plain else self._formatter.block(b"".join(self._frames(runs)))[0]

    def _frames(self, runs: list[tuple[str, str, list[str]]]) -> Iterator[bytes]:
        for stream, at, texts in runs:
            payload = "".join(texts).encode()
            yield log_format.HEADER.pack(self._times(at), len(payload), _NUMBERS.get(stream, 1), 0)
            yield payload
            yield log_format.TRAILER.pack(len(payload))

    def _plain(self, runs: list[tuple[str, str, list[str]]]) -> bytes:
        out: list[bytes] = []
        for name, _, texts in runs:
            stream = _NUMBERS.get(name, log_format.STDOUT)
            if self._formatter.wanted[stream]:
                raw = self._formatter.raw
                out.append(
                    "".join(texts).encode() if raw else stream_frames.frames(stream, [text.encode() for text in texts])
                )
        return b"".join(out)


async def _bell(follower: Follower) -> socket.socket | None:
    """A socket that becomes readable when the log has grown; None when the container has just ended."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    with theirs:
        try:
            there = await follower.attach(theirs.fileno(), StreamOptions(stdout=True, stderr=True, output="bell"))
        except BaseException:
            ours.close()
            raise
    if not there:
        ours.close()
        return None
    return ours


async def _rung(bell: socket.socket, until_ns: int) -> bool:
    """Wait for the log to grow; False when the monitor is gone or the time is over."""
    left = max((until_ns - time.time_ns()) / 1e9, 0) if until_ns else None
    try:
        return bool(await asyncio.wait_for(asyncio.get_running_loop().sock_recv(bell, _RINGS), left))
    except TimeoutError:
        return False
