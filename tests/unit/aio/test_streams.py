"""Frames and lines, however the bytes are cut."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.aio.streams import Chunk, Frames, Lines, Stream
from ketch.aio.waiting import Asyncio, Blocking, after, finished
from ketch.notation.stream_frames import ENDING, frame
from tests.support.waiting import patient

chunks = st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(min_size=1, max_size=20)))


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


def joined(found: list[Chunk]) -> list[tuple[str, bytes]]:
    """Neighbours of one stream as one."""
    whole: list[tuple[str, bytes]] = []
    for stream, data in found:
        if whole and whole[-1][0] == stream:
            whole[-1] = (stream, whole[-1][1] + data)
        elif data:
            whole.append((stream, data))
    return whole


@given(chunks, st.lists(st.integers(0, 12)), st.binary(max_size=10))
def test_frames(said, sizes, last):
    data = b"".join(frame(1 if stream == "stdout" else 2, text) for stream, text in said) + frame(ENDING, last)
    frames = Frames()
    found = [chunk for piece in cut(data, sizes) for chunk in frames.fed(piece)]
    assert joined(found) == joined([Chunk(*one) for one in said])
    assert frames.result == last


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.sampled_from([b"a", b"\n", b"b\nc", b"\n\n"]))))
def test_lines(said):
    lines = Lines()
    found = [line for chunk in said for line in lines.fed(Chunk(*chunk))] + lines.ended()
    for stream in ("stdout", "stderr"):
        whole = b"".join(data for name, data in said if name == stream)
        assert [line.data for line in found if line.stream == stream] == whole.splitlines(keepends=True)


def test_a_line_without_an_end():
    """Comes in pieces: what is kept of it is bounded, and not copied again with each byte that comes."""
    lines, piece = Lines(), Chunk("stdout", b"x" * (1 << 18))
    found = [line for _ in range(64) for line in lines.fed(piece)] + lines.fed(Chunk("stdout", b"y\nz")) + lines.ended()
    assert max(len(line.data) for line in found) < 2 << 20
    assert b"".join(line.data for line in found) == b"x" * (16 << 20) + b"y\nz"
    assert found[-1].data == b"z"


def test_both_directions_at_once():
    """Neither end reads before the other has written: what is queued goes while input is awaited."""
    here, there = socket.socketpair()
    size = 4 << 20
    stream = Stream(here, Blocking())

    def echo() -> None:
        while data := there.recv(1 << 16):
            there.sendall(data)
        there.close()

    thread = threading.Thread(target=echo)
    thread.start()
    stream.queue(b"x" * size, end=True)
    received = 0
    while data := finished(stream.receive(after(30))):
        received += len(data)
    thread.join()
    stream.close()
    assert received == size


async def test_closed_while_a_task_reads():
    """The reader sees the end, and the next socket of that number is watched as any other."""
    for end in ("closed", "cancelled"):
        here, there = socket.socketpair()
        number = here.fileno()
        stream = Stream(here, Asyncio())
        reader = asyncio.create_task(stream.receive(after(30)))
        await asyncio.sleep(0)
        stream.close()
        if end == "cancelled":
            reader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader
        else:
            assert await reader == b""
        assert here.fileno() == -1
        there.close()
        near, far = socket.socketpair()
        assert number in (near.fileno(), far.fileno())
        for one, other in ((near, far), (far, near)):
            again = Stream(one, Asyncio())
            reader = asyncio.create_task(again.receive(after(30)))
            await asyncio.sleep(0)
            other.setblocking(False)
            other.send(b"x")
            assert await reader == b"x"
        near.close()
        far.close()


async def test_closed_while_a_task_writes():
    here, there = socket.socketpair()
    stream = Stream(here, Asyncio())
    writer = asyncio.create_task(stream.send(bytes(1 << 22), after(30)))
    await asyncio.sleep(0)
    stream.close()
    with pytest.raises(BrokenPipeError):
        await writer
    there.close()


def test_closed_while_a_thread_reads():
    here, there = socket.socketpair()
    stream = Stream(here, Blocking())
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(finished(stream.receive(after(30)))))
    thread.start()
    until = time.monotonic() + patient(30)
    while not stream._waiting and time.monotonic() < until:
        time.sleep(0.001)
    stream.close()
    thread.join()
    assert found == [b""]
    assert here.fileno() == -1
    there.close()
