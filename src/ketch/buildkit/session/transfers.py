"""Transfers of files between a client and here, over calls to the client."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from ketch.buildkit.services.files import FileSendService, FileSyncService
from ketch.buildkit.session import packets
from ketch.buildkit.session.metadata import encoded
from ketch.buildkit.session.receiving import ReceivingEnd
from ketch.buildkit.session.sending import ReceiverFailed
from ketch.buildkit.session.worker import Worker
from ketch.buildkit.wire.files.filesync_pb2 import BytesMessage
from ketch.errors import KetchError, Unavailable
from ketch.rpc.method import Method
from ketch.rpc.status import Code, RpcError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
    from typing import Any

    from ketch.build.providers import DirectoryReceiver
    from ketch.buildkit.session.sending import SendingEnd
    from ketch.rpc.client import Channel, ClientCall

    PacketStream = ClientCall[bytes, bytes]

T = TypeVar("T")
EXPORTER_ID = "buildkit-attachable-exporter-id"
EXPORTER_METADATA = "exporter-md-"
# A thread of the transfer's own reads and writes packets: they are many.
_RECEIVE = Method(FileSyncService.DiffCopy.path, bytes, bytes)
_SEND = Method(FileSendService.DiffCopy.path, bytes, bytes)
_STALL_S = 300.0  # a walk of a client may pass over a lot that is left out
_FAREWELL_S = 1.0
_EXPORTED = "exported files"
_PIECE = 1 << 20  # bytes of a message; clients take up to four


async def receive_directory(
    channel: Channel, name: str, patterns: Mapping[str, Sequence[str]], receiver: DirectoryReceiver
) -> None:
    """Let a client send a directory; ``patterns`` by the keys of metadata (KetchError)."""
    metadata = encoded({"dir-name": [name], **patterns})
    end = ReceivingEnd(receiver)
    async with channel.stream(_RECEIVE, metadata) as call:
        with Worker("receive") as worker:
            try:
                await worker.run(receiver.open)
                while not end.done:
                    answers = await worker.run(end.take, await _packets(call, name))
                    if answers:
                        await _timely(call.send_many(answers), f"transfer of `{name}`: the client has read nothing")
            except (KetchError, OSError) as e:
                await _tell(call, e)
                raise
            await _finish(call, name)


async def send_directory(channel: Channel, exporter: int, end: SendingEnd) -> None:
    """Send a directory to a client, for one of its exporters (KetchError, OSError)."""
    async with channel.stream(_SEND, {EXPORTER_ID: [str(exporter)]}) as call:
        with Worker("send") as worker:
            try:
                await _exchange(call, end, worker)
            except ReceiverFailed as e:
                raise await _cause(call, e) from e
            except (KetchError, OSError) as e:
                await _tell(call, e)
                raise
            finally:
                await worker.run(end.close)
            await _finish(call, _EXPORTED)


async def _exchange(call: PacketStream, end: SendingEnd, worker: Worker) -> None:
    """Send what there is to be sent, and take what is asked for at the same time: each side may be waiting.

    The client asks for each file once, at any time; while a long one is sent it says nothing.
    """
    news = asyncio.Event()

    async def listen() -> None:
        while not end.ending:
            end.take(await _heard(call, _EXPORTED))
            news.set()

    listening = asyncio.create_task(listen())
    try:
        while not end.done:
            news.clear()
            if end.idle:
                await _beside(listening, news.wait(), "the client has asked for nothing")
            else:
                found = await worker.run(end.more)
                await _beside(listening, call.send_many(found), "the client has read nothing")
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def _beside(listening: asyncio.Task[None], step: Coroutine[Any, Any, Any], stalled: str) -> None:
    """Take a step while somebody listens, whose error is this one's, too (Unavailable: it does not end)."""
    task = asyncio.create_task(step)
    try:
        while not task.done():
            if listening.done():
                listening.result()
            waiting = {task} if listening.done() else {task, listening}
            ended, _ = await asyncio.wait(waiting, timeout=_STALL_S, return_when=asyncio.FIRST_COMPLETED)
            if not ended:
                raise _stalled(f"transfer of `{_EXPORTED}`: {stalled}")
        task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _packets(call: PacketStream, what: str) -> list[bytes]:
    """The packets that are here, at least one (Unavailable: the client has ended, or sends nothing)."""
    return await _timely(_heard(call, what), f"transfer of `{what}`: the client has sent nothing")


async def _heard(call: PacketStream, what: str) -> list[bytes]:
    """The same of a client that has time."""
    found = await call.receive_many()
    if not found:
        raise Unavailable(f"transfer of `{what}`: the client ended it too early")
    return found


async def _finish(call: ClientCall[Any, Any], what: str) -> None:
    """End a transfer of which both sides have all; what a client still sends is no part of it (KetchError)."""

    async def finish() -> None:
        await call.end()
        await _ended(call)

    await _timely(finish(), f"transfer of `{what}`: the client has all, and has not ended it")


async def _timely(step: Coroutine[Any, Any, T], stalled: str) -> T:
    """The result of a step of a transfer (Unavailable: it does not end)."""
    try:
        async with asyncio.timeout(_STALL_S):
            return await step
    except TimeoutError as e:
        raise _stalled(stalled) from e


def _stalled(what: str) -> Unavailable:
    return Unavailable(f"{what} for {_STALL_S:.0f} s", hint="is its file system stuck?")


async def _tell(call: PacketStream, error: Exception) -> None:
    """Tell the client why it ends; one that does not listen is not waited for."""
    text = error.message if isinstance(error, KetchError) else str(error)
    with suppress(KetchError, OSError, TimeoutError):
        async with asyncio.timeout(_FAREWELL_S):
            await call.send(packets.failure(text), end=True)
            await _ended(call)  # else what it has not read yet may be lost


async def _cause(call: PacketStream, said: ReceiverFailed) -> ReceiverFailed:
    """The reason of a client that failed: what its call ends with, if it ends soon.

    Its packet may name a consequence only: a full disk cancels the client's other half, which says that it was
    cancelled.
    """
    try:
        async with asyncio.timeout(_FAREWELL_S):
            await call.end()
            await _ended(call)
    except RpcError as e:
        told = e.message and e.code not in (Code.CANCELLED, Code.UNAVAILABLE)
        return ReceiverFailed(e.message) if told else said
    except (OSError, TimeoutError):
        return said
    return said


async def _ended(call: ClientCall[Any, Any]) -> None:
    """Wait for the end of a call: its status tells whether the client has all (RpcError)."""
    while await call.receive() is not None:
        pass


async def send_bytes(
    channel: Channel, exporter: int, metadata: Mapping[str, str], pieces: AsyncIterator[bytes]
) -> None:
    """Send an archive to a client, for one of its exporters (KetchError); ``metadata`` tells what it is of."""
    told = {EXPORTER_ID: [str(exporter)]} | {f"{EXPORTER_METADATA}{key}": [value] for key, value in metadata.items()}
    async with channel.stream(FileSendService.DiffCopy, told) as call:
        waiting = bytearray()
        async for piece in pieces:
            waiting += piece
            while len(waiting) >= _PIECE:
                await _send(call, bytes(waiting[:_PIECE]))
                del waiting[:_PIECE]
        if waiting:
            await _send(call, bytes(waiting))
        await call.end()
        await _ended(call)


async def _send(call: ClientCall[BytesMessage, BytesMessage], data: bytes) -> None:
    """Send a piece (Unavailable: the client does not read)."""
    await _timely(call.send(BytesMessage(data=data)), "export: the client has read nothing")
