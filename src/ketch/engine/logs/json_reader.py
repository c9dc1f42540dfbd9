"""Reading a ``json-file`` log: from the files' lines to the bytes that ``GET /containers/{id}/logs`` sends.

While the container runs its monitor rings a bell when the log has grown, and the files are read on; what a
follower has not read costs nobody memory.
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING

from ketch.engine.logs.json_files import Entry, JsonFiles, Times, entries
from ketch.notation import stream_frames
from ketch.runtime.logs import log_format

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from ketch.engine.logs.follow import Follower
    from ketch.engine.logs.framed_reader import Formatter

_RINGS = 1 << 16
_NUMBERS = {"stdout": log_format.STDOUT, "stderr": log_format.STDERR}


async def read_json_logs(
    path: str,
    follower: Follower | None,
    formatter: Formatter,
    *,
    since_ns: int,
    until_ns: int,
    tail: int | None,
    follow: bool,
) -> AsyncIterator[bytes]:
    """Yield wire bytes: what is there, then (``follow``, while the container runs) what comes."""
    # Its monitor may answer later only: what is there is read meanwhile.
    joining = asyncio.ensure_future(_bell(follower)) if follow and follower is not None else None
    bell: socket.socket | None = None
    files = await asyncio.to_thread(JsonFiles, path)
    try:
        start = files.since(since_ns) if since_ns else (0, 0)
        if tail is not None:
            start = max(start, files.tail(tail, formatter.wanted, until_ns) if tail > 0 else files.end)
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
            elif bell is not None and not await _rung(bell, until_ns):
                bell.close()
                bell = None
                if until_ns and time.time_ns() > until_ns:
                    return
    finally:
        files.close()
        if joining is not None and not joining.cancel():
            bell = joining.result()
        if bell is not None:
            bell.close()


class _Wire:
    """Messages in, wire bytes out, by way of frames where lines and times count.

    Neighbours of one stream (and one time, where times count) go together: what was read from the container in one
    go has one time.
    """

    def __init__(self, formatter: Formatter) -> None:
        self._formatter = formatter
        self._times = Times()

    def of(self, messages: list[Entry]) -> bytes:
        plain = self._formatter.plain
        runs: list[tuple[str, str, list[str]]] = []
        stream, at, texts = "", "", list[str]()
        for one in messages:
            if one.stream != stream or (one.time != at and not plain) or not runs:
                stream, at, texts = one.stream, one.time, []
                runs.append((stream, at, texts))
            texts.append(one.log)
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
                payload = "".join(texts).encode()
                out += (payload,) if self._formatter.raw else (stream_frames.HEADER.pack(stream, len(payload)), payload)
        return b"".join(out)


async def _bell(follower: Follower) -> socket.socket | None:
    """A socket that rings when the log has grown; None when the container has ended just now."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    with theirs:
        try:
            there = await follower.attach(theirs.fileno(), stdout=True, stderr=True, bell=True)
        except BaseException:
            ours.close()
            raise
    if not there:
        ours.close()
        return None
    return ours


async def _rung(bell: socket.socket, until_ns: int) -> bool:
    """Wait for the bell; False when it is gone, or the time is up."""
    left = max((until_ns - time.time_ns()) / 1e9, 0) if until_ns else None
    try:
        return bool(await asyncio.wait_for(asyncio.get_running_loop().sock_recv(bell, _RINGS), left))
    except TimeoutError:
        return False
