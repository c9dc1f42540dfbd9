"""Peers that break the rules, or only keep us busy: they lose their connection, at a bounded cost."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, suppress

import hpack
import pytest

from ketch.rpc import limits
from ketch.rpc.bytestream import over_socket
from ketch.rpc.client import Channel
from ketch.rpc.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    LARGEST_WINDOW,
    PREFACE,
    FrameKind,
    FrameReader,
    H2Error,
    H2Setting,
    frame,
    head,
    settings,
)
from ketch.rpc.method import Method
from ketch.rpc.server import serve
from ketch.rpc.status import Code, RpcError
from tests.support.waiting import patient

CALL = Method("/test.Raw/Call", bytes, bytes)
REQUEST = [(":method", "POST"), (":scheme", "http"), (":path", CALL.path), ("content-type", "application/grpc")]
GREETING = PREFACE + settings({})


class Raw:
    """A peer that writes frames as it likes."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.encoder, self.decoder, self.reader = hpack.Encoder(), hpack.Decoder(), FrameReader()

    async def send(self, data: bytes) -> None:
        with suppress(ConnectionError):
            await asyncio.get_running_loop().sock_sendall(self.sock, data)

    def request(self, number: int, headers=REQUEST, *, end: bool = False) -> bytes:
        flags = END_HEADERS | (END_STREAM if end else 0)
        return frame(FrameKind.HEADERS, flags, number, self.encoder.encode(headers, huffman=False))

    async def frames(self):
        """All frames until the other side closes."""
        loop = asyncio.get_running_loop()
        with suppress(ConnectionError):
            while data := await asyncio.wait_for(loop.sock_recv(self.sock, 1 << 16), patient(15)):
                for one in self.reader.read(data):
                    yield one.kind, one.flags, one.stream, bytes(one.content)

    async def ended_with(self) -> H2Error | None:
        """The error with which the other side ends the connection."""
        code = None
        async for kind, _, _, content in self.frames():
            if kind == FrameKind.GOAWAY:
                code = H2Error(int.from_bytes(content[4:8]))
        return code


@asynccontextmanager
async def served(handler=None):
    """A raw peer of our server."""

    async def wait(_call):
        await asyncio.Event().wait()

    near, far = socket.socketpair()
    serving = asyncio.create_task(serve(await over_socket(far), {CALL.path: (CALL, handler or wait)}))
    near.setblocking(False)
    try:
        yield Raw(near)
    finally:
        near.close()
        await asyncio.wait_for(serving, patient(15))


def bomb() -> bytes:
    """A small block of headers that is large when unpacked."""
    encoder = hpack.Encoder()
    block = encoder.encode([*REQUEST, ("x", "a" * 4000)])
    return block + encoder.encode([("x", "a" * 4000)]) * (limits.HEADERS // 4000)


CALLED = hpack.Encoder().encode(REQUEST)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", H2Error.PROTOCOL_ERROR),
        (PREFACE + frame(FrameKind.PING, 0, 0, bytes(8)), H2Error.PROTOCOL_ERROR),
        (GREETING + head(FrameKind.DATA, 0, 1, 16385), H2Error.FRAME_SIZE_ERROR),
        (GREETING + frame(FrameKind.DATA, 0, 1, b"x"), H2Error.PROTOCOL_ERROR),
        (GREETING + frame(FrameKind.DATA, 0, 0, b"x"), H2Error.PROTOCOL_ERROR),
        (GREETING + frame(FrameKind.HEADERS, END_HEADERS, 2, CALLED), H2Error.PROTOCOL_ERROR),
        (GREETING + frame(FrameKind.HEADERS, END_HEADERS, 0, CALLED), H2Error.PROTOCOL_ERROR),
        (GREETING + frame(FrameKind.HEADERS, END_HEADERS, 1, b"\xff\xff\xff"), H2Error.COMPRESSION_ERROR),
        (
            GREETING + frame(FrameKind.HEADERS, 0, 1, CALLED) + frame(FrameKind.PING, 0, 0, bytes(8)),
            H2Error.PROTOCOL_ERROR,
        ),
        (GREETING + frame(FrameKind.CONTINUATION, 0, 1, CALLED), H2Error.PROTOCOL_ERROR),
        (GREETING + frame(FrameKind.PING, 0, 0, bytes(7)), H2Error.FRAME_SIZE_ERROR),
        (GREETING + frame(FrameKind.SETTINGS, 0, 0, bytes(5)), H2Error.FRAME_SIZE_ERROR),
        (GREETING + settings({H2Setting.INITIAL_WINDOW_SIZE: 1 << 31}), H2Error.FLOW_CONTROL_ERROR),
        (GREETING + settings({H2Setting.MAX_FRAME_SIZE: 1}), H2Error.PROTOCOL_ERROR),
        (GREETING + frame(FrameKind.PING, 0, 1, bytes(8)), H2Error.PROTOCOL_ERROR),
        (GREETING + frame(FrameKind.SETTINGS, 0, 1), H2Error.PROTOCOL_ERROR),
        (GREETING + frame(FrameKind.SETTINGS, ACK, 0, bytes(6)), H2Error.FRAME_SIZE_ERROR),
        (GREETING + frame(FrameKind.GOAWAY, 0, 1, bytes(8)), H2Error.PROTOCOL_ERROR),
        (GREETING + frame(FrameKind.WINDOW_UPDATE, 0, 0, bytes(4)), H2Error.PROTOCOL_ERROR),
        (GREETING + frame(FrameKind.WINDOW_UPDATE, 0, 0, bytes(3)), H2Error.FRAME_SIZE_ERROR),
        (GREETING + frame(FrameKind.RST_STREAM, 0, 0, bytes(4)), H2Error.PROTOCOL_ERROR),
        (
            GREETING
            + frame(FrameKind.HEADERS, END_HEADERS, 1, CALLED)
            + frame(FrameKind.WINDOW_UPDATE, 0, 1, b"\x7f\0\0\0")
            + settings({H2Setting.INITIAL_WINDOW_SIZE: LARGEST_WINDOW}),
            H2Error.FLOW_CONTROL_ERROR,
        ),
        (GREETING + frame(FrameKind.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), H2Error.FLOW_CONTROL_ERROR),
        (GREETING + frame(FrameKind.WINDOW_UPDATE, 0, 9, b"\0\0\0\1"), H2Error.PROTOCOL_ERROR),
        (GREETING + frame(FrameKind.RST_STREAM, 0, 9, bytes(4)), H2Error.PROTOCOL_ERROR),
        (GREETING + frame(FrameKind.PUSH_PROMISE, END_HEADERS, 1, bytes(8)), H2Error.PROTOCOL_ERROR),
        (GREETING + frame(FrameKind.GOAWAY, 0, 0, b""), H2Error.FRAME_SIZE_ERROR),
        (GREETING + frame(FrameKind.HEADERS, 0x8 | END_HEADERS, 1, b"\xff"), H2Error.PROTOCOL_ERROR),
    ],
)
async def test_what_breaks_the_rules_ends_the_connection(data, code):
    async with served() as peer:
        await peer.send(data)
        assert await peer.ended_with() is code


@pytest.mark.parametrize(
    "flood",
    [
        frame(FrameKind.PING, 0, 0, bytes(8)),
        settings({}),
        frame(FrameKind.SETTINGS, 0, 0, settings({H2Setting.INITIAL_WINDOW_SIZE: 70000})[9:] * 20),
        frame(FrameKind.PRIORITY, 0, 1, bytes(5)),
        frame(77, 0, 0, b"?"),
        frame(FrameKind.WINDOW_UPDATE, 0, 0, b"\0\0\0\1"),
        frame(FrameKind.DATA, 0, 1, b""),
    ],
)
async def test_a_flood_of_frames_without_use_ends_the_connection(flood):
    async with served() as peer:
        await peer.send(GREETING + peer.request(1))
        sending = asyncio.create_task(peer.send(flood * 3000))
        assert await peer.ended_with() is H2Error.ENHANCE_YOUR_CALM
        await sending


async def test_a_flood_of_data_for_a_call_that_has_ended_ends_the_connection():
    async with served() as peer:
        gone = peer.request(1) + frame(FrameKind.RST_STREAM, 0, 1, b"\0\0\0\x08")
        await peer.send(GREETING + gone)
        sending = asyncio.create_task(peer.send(frame(FrameKind.DATA, 0, 1, b"x") * 3000))
        assert await peer.ended_with() is H2Error.ENHANCE_YOUR_CALM
        await sending


async def test_frames_of_several_calls_that_come_together_go_to_each():
    got = {}

    async def echo(call):
        messages = [message async for message in call]
        got[messages[0]] = messages

    texts = {1: b"one", 3: b"three", 5: b"five"}
    pieces = []
    async with served(echo) as peer:
        for number, text in texts.items():
            pieces.append(peer.request(number))
            message = b"\0" + len(text).to_bytes(4) + text
            pieces += [frame(FrameKind.DATA, 0, number, message[at : at + 1]) for at in range(len(message))]
        for _ in range(50):
            for number in texts:
                pieces.append(frame(FrameKind.DATA, 0, number, b"\0\0\0\0\1" + b"x") * 2)
        pieces += [frame(FrameKind.DATA, END_STREAM, number, b"\0\0\0\0\1" + b"y") for number in texts]
        await peer.send(GREETING + b"".join(pieces))
        ended = set()
        async for kind, flags, number, _ in peer.frames():
            if kind == FrameKind.HEADERS and flags & END_STREAM:
                ended.add(number)
            if ended == set(texts):
                break
    assert got == {text: [text, *[b"x"] * 100, b"y"] for text in texts.values()}


async def test_settings_that_change_all_streams_over_and_over_end_the_connection():
    """One frame has room for thousands of settings, each of which every stream has to follow."""
    async with served() as peer:
        one = settings({H2Setting.INITIAL_WINDOW_SIZE: 70000})[9:]
        await peer.send(GREETING + frame(FrameKind.SETTINGS, 0, 0, one * 1100))
        assert await peer.ended_with() is H2Error.ENHANCE_YOUR_CALM


async def test_a_flood_of_resets_ends_the_connection():
    begun = 0

    async def count(_call):
        nonlocal begun
        begun += 1
        await asyncio.Event().wait()

    async with served(count) as peer:
        await peer.send(GREETING)
        flood = b"".join(
            peer.request(number) + frame(FrameKind.RST_STREAM, 0, number, b"\0\0\0\x08") for number in range(1, 6001, 2)
        )
        sending = asyncio.create_task(peer.send(flood))
        assert await peer.ended_with() is H2Error.ENHANCE_YOUR_CALM
        await sending
    assert begun <= 1100


async def test_headers_that_unpack_to_too_much_end_the_connection():
    async with served() as peer:
        await peer.send(GREETING + frame(FrameKind.HEADERS, END_HEADERS, 1, bomb()[:16384]))
        assert await peer.ended_with() is H2Error.COMPRESSION_ERROR


async def test_headers_that_never_end_end_the_connection():
    async with served() as peer:
        await peer.send(GREETING + frame(FrameKind.HEADERS, 0, 1, CALLED))
        more = frame(FrameKind.CONTINUATION, 0, 1, bytes(16384))
        sending = asyncio.create_task(peer.send(more * 40))
        assert await peer.ended_with() is H2Error.ENHANCE_YOUR_CALM
        await sending


async def test_more_than_the_window_ends_the_connection():
    """Of a call that nobody reads, its window is all that is kept."""
    async with served() as peer:
        await peer.send(GREETING + peer.request(1))
        data = frame(FrameKind.DATA, 0, 1, bytes(16384))
        sending = asyncio.create_task(peer.send(data * (limits.WINDOW // 16384 + 1)))
        assert await peer.ended_with() is H2Error.FLOW_CONTROL_ERROR
        await sending


async def test_a_peer_that_asks_and_does_not_read_loses_the_connection():
    """Its pings are answered until so many answers wait."""
    near, far = socket.socketpair()
    serving = asyncio.create_task(serve(await over_socket(far), {}))
    near.setblocking(False)
    peer = Raw(near)
    await peer.send(GREETING)
    number = 1
    while not serving.done():  # each answer is longer than its question
        await peer.send(peer.request(number, [*REQUEST[:2], (":path", "/x" * 4000), REQUEST[3]], end=True))
        number += 2
        await asyncio.sleep(0)
    await serving
    assert number * 4000 < limits.UNREAD * 4
    near.close()


async def test_too_much_of_unfinished_messages_is_refused_and_the_connection_stays():
    """The windows of calls that wait for the rest of a message are opened, up to a bound for all of them."""
    codes = []

    async def one(call):
        try:
            await call.receive()
        except RpcError as e:
            codes.append(e.code)
            raise

    async with served(one) as peer:
        await peer.send(GREETING)
        streams = range(1, 13, 2)
        for number in streams:
            await peer.send(peer.request(number))
        rooms = dict.fromkeys((0, *streams), limits.WINDOW) | {0: limits.CONNECTION_WINDOW}
        left = dict.fromkeys(streams, limits.MESSAGE - 1)
        frames = peer.frames()
        while not codes:
            for number in streams:
                first = b"\0" + limits.MESSAGE.to_bytes(4) if left[number] == limits.MESSAGE - 1 else b""
                piece = first + bytes(max(0, min(16000, rooms[0] - 5, rooms[number] - 5, left[number])))
                left[number] -= len(piece) - len(first)
                rooms[0] -= len(piece)
                rooms[number] -= len(piece)
                if piece:
                    await peer.send(frame(FrameKind.DATA, 0, number, piece))
            if min(rooms[0], max(rooms[number] for number in streams)) < 16384:
                kind, _, number, content = await anext(frames)
                if kind == FrameKind.WINDOW_UPDATE:
                    rooms[number] += int.from_bytes(content)
            else:
                await asyncio.sleep(0)
        assert codes[0] is Code.RESOURCE_EXHAUSTED
        await peer.send(frame(FrameKind.PING, 0, 0, b"12345678"))
        async for kind, *_ in frames:
            if kind == FrameKind.PING:
                break


async def test_more_calls_than_are_allowed_are_refused_and_the_others_go_on():
    async with served() as peer:
        await peer.send(GREETING)
        sending = asyncio.create_task(
            peer.send(b"".join(peer.request(number) for number in range(1, 2 * limits.STREAMS + 3, 2)))
        )
        async for kind, _, number, content in peer.frames():
            if kind == FrameKind.RST_STREAM:
                assert (number, int.from_bytes(content)) == (2 * limits.STREAMS + 1, H2Error.REFUSED_STREAM)
                break
        await sending


async def test_data_behind_the_end_ends_the_call_alone():
    async with served() as peer:
        await peer.send(GREETING + peer.request(1, end=True) + peer.request(3) + frame(FrameKind.DATA, 0, 1, b"x"))
        await peer.send(frame(FrameKind.PING, 0, 0, b"12345678"))
        seen = []
        async for kind, flags, number, content in peer.frames():
            seen.append((kind, number))
            if kind == FrameKind.PING:
                assert (flags, content) == (ACK, b"12345678")
                break
        assert (FrameKind.RST_STREAM, 1) in seen


@pytest.mark.parametrize(
    "headers",
    [
        [(":method", "GET"), *REQUEST[1:]],
        [*REQUEST[:3], ("content-type", "text/html")],
        REQUEST[:3],
    ],
)
async def test_what_is_no_grpc_is_answered_by_http(headers):
    async with served() as peer:
        await peer.send(GREETING + peer.request(1, headers, end=True))
        async for kind, flags, _, content in peer.frames():
            if kind == FrameKind.HEADERS:
                assert dict(peer.decoder.decode(content))[":status"] == "415"
                assert flags & END_STREAM
                break


@asynccontextmanager
async def calling():
    """A raw server of our client."""
    near, far = socket.socketpair()
    near.setblocking(False)
    channel = Channel.over(await over_socket(far))
    peer = Raw(near)
    await peer.send(settings({}))
    assert await asyncio.get_running_loop().sock_recv(near, len(PREFACE)) == PREFACE
    try:
        yield channel, peer
    finally:
        await channel.close()
        near.close()


def answer(peer, headers, *, end=False, number=1):
    return frame(FrameKind.HEADERS, END_HEADERS | (END_STREAM if end else 0), number, peer.encoder.encode(headers))


OK = [(":status", "200"), ("content-type", "application/grpc")]


@pytest.mark.parametrize(
    ("write", "code"),
    [
        (lambda p: answer(p, [*OK, ("grpc-status", "5"), ("grpc-message", "gone")], end=True), Code.NOT_FOUND),
        (lambda p: answer(p, [(":status", "503")], end=True), Code.UNAVAILABLE),
        (lambda p: answer(p, [(":status", "404")], end=True), Code.UNIMPLEMENTED),
        (lambda p: answer(p, OK, end=True), Code.UNKNOWN),
        (lambda p: answer(p, OK) + frame(FrameKind.DATA, END_STREAM, 1, b""), Code.UNKNOWN),
        (lambda p: answer(p, [*OK, ("grpc-status", "0")], end=True), Code.INTERNAL),
        (lambda p: answer(p, OK) + frame(FrameKind.DATA, 0, 1, b"\1\0\0\0\1x"), Code.INTERNAL),
        (lambda p: answer(p, OK) + frame(FrameKind.DATA, END_STREAM, 1, b"\0\0\0\0\5x"), Code.INTERNAL),
        (lambda p: answer(p, OK) + frame(FrameKind.DATA, 0, 1, b"\0\xff\0\0\0"), Code.RESOURCE_EXHAUSTED),
        (lambda _: frame(FrameKind.RST_STREAM, 0, 1, int(H2Error.REFUSED_STREAM).to_bytes(4)), Code.UNAVAILABLE),
        (lambda _: frame(FrameKind.RST_STREAM, 0, 1, int(H2Error.CANCEL).to_bytes(4)), Code.CANCELLED),
        (lambda _: frame(FrameKind.RST_STREAM, 0, 1, (999).to_bytes(4)), Code.INTERNAL),
        (lambda _: frame(FrameKind.GOAWAY, 0, 0, bytes(8)), Code.UNAVAILABLE),
        (lambda _: frame(FrameKind.DATA, 0, 7, b"x"), Code.UNAVAILABLE),
        (lambda p: answer(p, OK, number=2), Code.UNAVAILABLE),
    ],
)
async def test_answers_that_are_none(write, code):
    async with calling() as (channel, peer):
        asking = asyncio.create_task(channel.unary(CALL, b"question"))
        async for kind, *_ in peer.frames():
            if kind == FrameKind.DATA:
                break
        await peer.send(write(peer))
        with pytest.raises(RpcError) as raised:
            await asyncio.wait_for(asking, patient(10))
    assert raised.value.code is code


async def test_a_farewell_lets_calls_end_and_no_new_ones_begin():
    async with calling() as (channel, peer):
        asking = asyncio.create_task(channel.unary(CALL, b"question"))
        async for kind, *_ in peer.frames():
            if kind == FrameKind.DATA:
                break
        await peer.send(frame(FrameKind.GOAWAY, 0, 0, (1).to_bytes(4) + bytes(4)))
        await peer.send(answer(peer, OK) + frame(FrameKind.DATA, 0, 1, b"\0\0\0\0\1x"))
        await peer.send(answer(peer, [("grpc-status", "0")], end=True))
        assert await asking == b"x"
        with pytest.raises(RpcError) as raised:
            await channel.unary(CALL, b"question")
        assert raised.value.code is Code.UNAVAILABLE


async def test_calls_wait_while_the_peer_takes_only_so_many():
    async with calling() as (channel, peer):
        ping = frame(FrameKind.PING, 0, 0, bytes(8))
        await peer.send(settings({H2Setting.MAX_CONCURRENT_STREAMS: 1}) + ping)
        frames = peer.frames()
        async for kind, *_ in frames:
            if kind == FrameKind.PING:  # it has read the settings
                break
        asking = [asyncio.create_task(channel.unary(CALL, b"question")) for _ in range(2)]
        asked, answered = [], 0
        async for kind, _, number, _ in frames:
            if kind == FrameKind.DATA:
                asked.append(number)
                assert len(asked) == answered + 1
                await peer.send(ping)
            elif kind == FrameKind.PING:  # it had the time to begin another
                answered += 1
                number = asked[-1]
                await peer.send(answer(peer, OK, number=number) + frame(FrameKind.DATA, 0, number, b"\0\0\0\0\1x"))
                await peer.send(answer(peer, [("grpc-status", "0")], end=True, number=number))
                if answered == 2:
                    break
        assert await asyncio.gather(*asking) == [b"x", b"x"]


async def test_a_small_window_of_the_peer_is_kept_to():
    async with calling() as (channel, peer):
        await peer.send(settings({H2Setting.INITIAL_WINDOW_SIZE: 10}) + frame(FrameKind.PING, 0, 0, bytes(8)))
        frames = peer.frames()
        async for kind, *_ in frames:
            if kind == FrameKind.PING:  # it has read the settings
                break
        asking = asyncio.create_task(channel.unary(CALL, b"x" * 35))
        got = b""
        async for kind, _, number, content in frames:
            if kind == FrameKind.DATA:
                assert len(content) <= 10
                got += content
                if len(got) == 40:
                    break
                await peer.send(frame(FrameKind.WINDOW_UPDATE, 0, number, len(content).to_bytes(4)))
        assert got == b"\0\0\0\0\x23" + b"x" * 35
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
