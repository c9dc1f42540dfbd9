"""Connections on which frames come that nobody should send: whatever comes, the other calls and the server go on."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress

import hpack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ketch.rpc import frames as h2
from ketch.rpc.bytestream import over_socket
from ketch.rpc.method import Method
from ketch.rpc.server import serve
from tests.support.waiting import patient

ECHO = Method("/test.Any/Echo", bytes, bytes)
REQUEST = [(":method", "POST"), (":scheme", "http"), (":path", ECHO.path), ("content-type", "application/grpc")]
BLOCK = hpack.Encoder().encode(REQUEST)
NUMBERS = st.sampled_from([0, 1, 2, 3, 5, 7, 0x7FFFFFFF])

contents = st.one_of(
    st.binary(max_size=64),
    st.just(BLOCK),
    st.just(b"\0\0\0\0\1x"),
    st.binary(min_size=4, max_size=4),
    st.binary(min_size=8, max_size=8),
    st.tuples(st.integers(0, 7), st.integers(0, 2**32 - 1)).map(lambda one: one[0].to_bytes(2) + one[1].to_bytes(4)),
    st.tuples(st.binary(max_size=20), st.integers(0, len(BLOCK))).map(lambda one: BLOCK[: one[1]] + one[0]),
)
any_frames = st.lists(
    st.builds(
        h2.frame, st.integers(0, 11), st.one_of(st.integers(0, 255), st.sampled_from([0, 1, 4, 5])), NUMBERS, contents
    ),
    max_size=30,
).map(b"".join)
calls = st.just(
    h2.frame(h2.FrameKind.HEADERS, h2.END_HEADERS, 1, BLOCK) + h2.frame(h2.FrameKind.DATA, 0, 1, b"\0\0\0\0\1x")
)


async def echo(call):
    async for message in call:
        await call.send(message)


async def given_to_a_server(pieces):
    """Send this to a server and end our side; what the server sends until it ends the connection."""
    near, far = socket.socketpair()
    near.setblocking(False)
    loop = asyncio.get_running_loop()
    serving = asyncio.create_task(serve(await over_socket(far), {ECHO.path: (ECHO, echo)}))
    received = bytearray()

    async def send():
        with suppress(ConnectionError):
            for piece in pieces:
                await loop.sock_sendall(near, piece)
                await asyncio.sleep(0)
            near.shutdown(socket.SHUT_WR)

    try:
        async with asyncio.timeout(patient(15)):
            sending = asyncio.create_task(send())
            with suppress(ConnectionError):
                while data := await loop.sock_recv(near, 1 << 16):
                    received += data
            await sending
            await serving
    finally:
        near.close()
    return bytes(received)


def check(received):
    """What a server sends consists of whole frames, none in a stream that has no number; nothing behind a farewell."""
    kinds = [(one.kind, one.stream) for one in h2.FrameReader().read(received)]
    assert (h2.FrameKind.RST_STREAM, 0) not in kinds
    assert [kind for kind, _ in kinds].count(h2.FrameKind.GOAWAY) <= 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.one_of(st.just(b""), calls), data=any_frames, cut=st.integers(0, 400))
def test_any_frames(caplog, start, data, cut):
    """No sequence of frames is an error of ours, or keeps the connection from ending."""
    caplog.clear()
    with caplog.at_level(logging.ERROR):
        whole = h2.PREFACE + h2.settings({}) + start + data
        check(asyncio.run(given_to_a_server([whole[:cut], whole[cut:]])))
    assert not caplog.records


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), greeted=st.booleans())
def test_any_bytes(caplog, data, greeted):
    caplog.clear()
    with caplog.at_level(logging.ERROR):
        check(asyncio.run(given_to_a_server([h2.PREFACE + h2.settings({}) + data if greeted else data])))
    assert not caplog.records
