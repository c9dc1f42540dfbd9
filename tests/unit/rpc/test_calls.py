"""Calls between two ends over a pair of sockets."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
from google.protobuf.any_pb2 import Any

from ketch.buildkit.services.files import FileSendService
from ketch.buildkit.wire.files.filesync_pb2 import BytesMessage
from ketch.errors import InvalidArgument, NotFound
from ketch.rpc import health, limits
from ketch.rpc.bytestream import over_socket
from ketch.rpc.client import Channel
from ketch.rpc.metadata import decode_binary, encode_binary
from ketch.rpc.method import Method
from ketch.rpc.server import serve, unary
from ketch.rpc.status import Code, RpcError
from ketch.rpc.tunnel import Tunnel
from tests.support.waiting import patient

ECHO = FileSendService.DiffCopy
ONE = Method("/test.One/Call", BytesMessage, BytesMessage)


@asynccontextmanager
async def ends(handlers):
    """A channel whose other end serves these."""
    near, far = socket.socketpair()
    table = {method.path: (method, handler) for method, handler in handlers.items()}
    serving = asyncio.create_task(serve(await over_socket(far), table))
    channel = Channel.over(await over_socket(near))
    try:
        yield channel
    finally:
        await channel.close()
        await asyncio.wait_for(serving, patient(10))


async def echo(call):
    async for message in call:
        await call.send(message)


async def test_a_unary_call():
    async def double(request, metadata):
        return BytesMessage(data=request.data * 2 + metadata["more"][0].encode())

    async with ends({ONE: unary(double)}) as channel:
        assert (await channel.unary(ONE, BytesMessage(data=b"ab"), {"more": ["!"]})).data == b"abab!"


async def test_messages_of_all_sizes_go_both_ways_whole_and_in_order():
    sizes = [0, 1, 16379, 16384, 16385, 65536, 5_000_000, 16_000_000, 3]

    async with ends({ECHO: echo}) as channel:
        async with channel.stream(ECHO) as call:

            async def send():
                for size in sizes:
                    await call.send(BytesMessage(data=size.to_bytes(4) * (size // 4)))
                await call.end()

            sending = asyncio.create_task(send())
            got = [message.data async for message in call]
            await sending
    assert [len(data) for data in got] == [size // 4 * 4 for size in sizes]
    assert all(data == size.to_bytes(4) * (size // 4) for size, data in zip(sizes, got, strict=True))


async def test_hundreds_of_calls_at_once():
    async with ends({ECHO: echo}) as channel:

        async def one(number):
            async with channel.stream(ECHO) as call:
                for turn in range(5):
                    await call.send(BytesMessage(data=b"%d %d" % (number, turn)))
                    assert (await call.receive()).data == b"%d %d" % (number, turn)
                await call.end()
                assert await call.receive() is None

        await asyncio.gather(*(one(number) for number in range(700)))


async def test_an_error_arrives_with_its_code_words_and_details():
    detail = Any(type_url="type.googleapis.com/errdefs.Vertex", value=b"\x0a\x01x")

    async def fail(_call):
        raise RpcError(Code.FAILED_PRECONDITION, "größer\n100 %", [detail])

    async with ends({ONE: fail}) as channel:
        with pytest.raises(RpcError) as raised:
            await channel.unary(ONE, BytesMessage())
    assert (raised.value.code, raised.value.message) == (Code.FAILED_PRECONDITION, "größer\n100 %")
    assert list(raised.value.details) == [detail]


async def test_an_error_of_ketch_has_the_code_of_its_kind():
    async def fail(_call):
        raise NotFound("no such thing")

    async with ends({ONE: fail}) as channel:
        with pytest.raises(RpcError, match="no such thing") as raised:
            await channel.unary(ONE, BytesMessage())
    assert raised.value.code is Code.NOT_FOUND


async def test_an_error_behind_answers_comes_after_them():
    async def fail(call):
        await call.send(BytesMessage(data=b"first"))
        raise RpcError(Code.ABORTED, "then")

    async with ends({ECHO: fail}) as channel:
        async with channel.stream(ECHO) as call:
            assert (await call.receive()).data == b"first"
            with pytest.raises(RpcError, match="then"):
                await call.receive()


async def test_what_is_not_served_is_said():
    async with ends({ONE: echo}) as channel:
        with pytest.raises(RpcError, match=r"unknown service moby\.filesync\.v1\.FileSend") as raised:
            await channel.unary(ECHO, BytesMessage())
        assert raised.value.code is Code.UNIMPLEMENTED
        other = Method("/test.One/Other", BytesMessage, BytesMessage)
        with pytest.raises(RpcError, match=r"unknown method Other for service test\.One"):
            await channel.unary(other, BytesMessage())


async def test_metadata_in_both_directions():
    async def answer(call):
        assert list(call.metadata["many"]) == ["a", "b"]
        assert decode_binary(call.metadata["raw-bin"][0]) == b"\0\xff"
        call.begin({"back": ["yes"]})

    async with ends({ECHO: answer}) as channel:
        async with channel.stream(ECHO, {"many": ["a", "b"], "raw-bin": [encode_binary(b"\0\xff")]}) as call:
            assert (await call.metadata())["back"] == ["yes"]
            assert await call.receive() is None


@pytest.mark.parametrize(
    "metadata", [{"Upper": ["a"]}, {"grpc-timeout": ["1S"]}, {"a": ["line\nline"]}, {":path": ["/"]}]
)
async def test_metadata_that_cannot_be_sent_is_refused(metadata):
    async with ends({ONE: echo}) as channel:
        with pytest.raises(InvalidArgument):
            await channel.unary(ONE, BytesMessage(), metadata)


async def test_leaving_a_call_early_cancels_its_handler():
    cancelled = asyncio.Event()

    async def wait(call):
        call.begin()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with ends({ECHO: wait}) as channel:
        async with channel.stream(ECHO) as call:
            await call.metadata()
        await asyncio.wait_for(cancelled.wait(), patient(10))


async def test_the_end_of_the_connection_cancels_handlers_and_fails_calls():
    cancelled = asyncio.Event()

    async def wait(_call):
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with ends({ECHO: wait}) as channel:

        async def one():
            async with channel.stream(ECHO) as call:
                await call.receive()

        calling = asyncio.create_task(one())
        await asyncio.sleep(0)
        await channel.close()
        with pytest.raises(RpcError) as raised:
            await calling
        assert raised.value.code is Code.UNAVAILABLE
        await asyncio.wait_for(channel.closed, patient(10))
        with pytest.raises(RpcError):
            await channel.unary(ONE, BytesMessage())


async def test_a_call_has_only_so_much_time_on_both_sides():
    expired = asyncio.Event()

    async def wait(_call):
        try:
            await asyncio.Event().wait()
        finally:
            expired.set()

    async with ends({ONE: wait}) as channel:
        with pytest.raises(RpcError) as raised:
            await channel.unary(ONE, BytesMessage(), timeout=0.05)
        assert raised.value.code is Code.DEADLINE_EXCEEDED
        await asyncio.wait_for(expired.wait(), patient(10))


async def test_a_sender_waits_while_nothing_is_taken():
    taken = asyncio.Event()

    async def later(call):
        await taken.wait()
        async for _ in call:
            pass

    async with ends({ECHO: later}) as channel:
        async with channel.stream(ECHO) as call:
            sent = 0

            async def send():
                nonlocal sent
                for _ in range(200):
                    await call.send(BytesMessage(data=bytes(1 << 17)))
                    sent += 1
                await call.end()

            sending = asyncio.create_task(send())
            done, _ = await asyncio.wait([sending], timeout=0.3)
            assert not done
            assert sent << 17 <= limits.WINDOW + limits.QUEUED
            taken.set()
            await sending
            assert await call.receive() is None


async def test_calls_that_nobody_reads_do_not_stop_others():
    stuck = asyncio.Event()

    async def later(_call):
        await stuck.wait()

    async with ends({ECHO: later, ONE: echo}) as channel:

        async def fill():
            async with channel.stream(ECHO) as call:
                while True:
                    await call.send(BytesMessage(data=bytes(1 << 20)))

        filling = [asyncio.create_task(fill()) for _ in range(8)]
        await asyncio.sleep(0.2)
        async with channel.stream(ONE) as call:
            for _ in range(50):
                await call.send(BytesMessage(data=bytes(1 << 20)))
                assert len((await call.receive()).data) == 1 << 20
        for task in filling:
            task.cancel()
        await asyncio.gather(*filling, return_exceptions=True)


async def test_a_message_beyond_the_bound_is_refused():
    async with ends({ECHO: echo}) as channel:
        async with channel.stream(ECHO) as call:
            with pytest.raises(RpcError) as raised:
                await call.send(BytesMessage(data=bytes(limits.MESSAGE + 1)))
                await call.receive()
    assert raised.value.code is Code.RESOURCE_EXHAUSTED


async def test_a_handler_that_is_done_early_stops_the_client_s_sending():
    async def first(call):
        await call.send(await call.receive())

    async with ends({ECHO: first}) as channel:
        async with channel.stream(ECHO) as call:
            await call.send(BytesMessage(data=b"1"))
            assert (await call.receive()).data == b"1"
            assert await call.receive() is None
            with pytest.raises(RpcError):
                await call.send(BytesMessage(data=bytes(1 << 20)))


async def test_health():
    near, far = socket.socketpair()
    serving = asyncio.create_task(serve(await over_socket(far), health.handlers()))
    channel = Channel.over(await over_socket(near))
    answer = await channel.unary(health.HealthService.Check, health.HealthCheckRequest())
    assert answer.status == health.HealthCheckResponse.SERVING
    await channel.close()
    await serving


async def test_a_connection_inside_a_call_of_another():
    async def inner(request, _metadata):
        return BytesMessage(data=request.data[::-1])

    async def outer(call):
        await serve(Tunnel(call, lambda data: BytesMessage(data=data)), {ONE.path: (ONE, unary(inner))})

    async with ends({ECHO: outer}) as channel:
        async with channel.stream(ECHO) as call:
            tunnelled = Channel.over(Tunnel(call, lambda data: BytesMessage(data=data)))
            data = bytes(range(256)) * 4000
            assert (await tunnelled.unary(ONE, BytesMessage(data=data))).data == data[::-1]
            await tunnelled.close()


async def test_the_end_of_a_call_breaks_the_connection_inside_of_it(caplog):
    """It is the inner connection's end, and no fault that is logged."""

    async def fail(call):
        await call.receive()
        raise RpcError(Code.ABORTED, "enough")

    async with ends({ECHO: fail}) as channel:
        async with channel.stream(ECHO) as call:
            tunnelled = Channel.over(Tunnel(call, lambda data: BytesMessage(data=data)))
            with pytest.raises(RpcError, match="enough") as raised:
                await tunnelled.unary(ONE, BytesMessage())
            assert raised.value.code is Code.UNAVAILABLE
            await asyncio.wait_for(tunnelled.closed, patient(10))
            await tunnelled.close()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_nothing_of_a_connection_is_left():
    before = asyncio.all_tasks()
    async with ends({ECHO: echo}) as channel:
        async with channel.stream(ECHO) as call:
            await call.send(BytesMessage(data=b"1"))
    assert asyncio.all_tasks() == before
