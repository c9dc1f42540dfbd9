"""Transfers of files between a client and here, over calls to the client."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from ketch.buildkit.services.files import FileSendService, FileSyncService
from ketch.buildkit.session import packets
from ketch.buildkit.session.metadata import encoded
from ketch.buildkit.session.receiving import ReceivingEnd
from ketch.buildkit.session.worker import Worker
from ketch.buildkit.wire.files.filesync_pb2 import BytesMessage
from ketch.errors import KetchError, Unavailable
from ketch.rpc.method import Method

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from typing import Any

    from ketch.build.providers import DirectoryReceiver
    from ketch.buildkit.session.sending import SendingEnd
    from ketch.rpc.client import Channel, ClientCall

    PacketStream = ClientCall[bytes, bytes]

EXPORTER_ID = "buildkit-attachable-exporter-id"
EXPORTER_METADATA = "exporter-md-"
# A thread of the transfer's own reads and writes packets: they are many.
_RECEIVE = Method(FileSyncService.DiffCopy.path, bytes, bytes)
_SEND = Method(FileSendService.DiffCopy.path, bytes, bytes)
_STALL_S = 300.0  # a walk of a client may pass over a lot that is left out
_FAREWELL_S = 1.0
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
                        await call.send_many(answers)
            except (KetchError, OSError) as e:
                await _tell(call, e)
                raise
            await call.end()
            await _ended(call)


async def send_directory(channel: Channel, exporter: int, end: SendingEnd) -> None:
    """Send a directory to a client, for one of its exporters (KetchError, OSError)."""
    async with channel.stream(_SEND, {EXPORTER_ID: [str(exporter)]}) as call:
        with Worker("send") as worker:
            try:
                await _exchange(call, end, worker)
            except (KetchError, OSError) as e:
                await _tell(call, e)
                raise
            finally:
                await worker.run(end.close)
            await call.end()
            await _ended(call)


async def _exchange(call: PacketStream, end: SendingEnd, worker: Worker) -> None:
    """Send what there is to be sent, and take what is asked for at the same time: each side may be waiting."""
    asked = asyncio.Event()
    batches: list[list[bytes]] = []

    async def listen() -> None:
        while True:
            batches.append(await _packets(call, "exported files"))
            asked.set()

    listening = asyncio.create_task(listen())
    try:
        while not end.done:
            asked.clear()
            while batches:
                end.take(batches.pop(0))
            if listening.done():
                listening.result()
            if end.idle:
                waiting = asyncio.create_task(asked.wait())
                await asyncio.wait([waiting, listening], return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
            else:
                found = await worker.run(end.more)
                await call.send_many(found)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def _packets(call: PacketStream, what: str) -> list[bytes]:
    """The packets that are here, at least one (Unavailable: the client has ended, or sends nothing)."""
    try:
        async with asyncio.timeout(_STALL_S):
            found = await call.receive_many()
    except TimeoutError as e:
        raise Unavailable(
            f"transfer of `{what}`: the client has sent nothing for {_STALL_S:.0f} s", hint="is its file system stuck?"
        ) from e
    if not found:
        raise Unavailable(f"transfer of `{what}`: the client ended it too early")
    return found


async def _tell(call: PacketStream, error: Exception) -> None:
    """Tell the client why it ends; one that does not listen is not waited for."""
    text = error.message if isinstance(error, KetchError) else str(error)
    with suppress(KetchError, OSError, TimeoutError):
        async with asyncio.timeout(_FAREWELL_S):
            await call.send(packets.failure(text), end=True)
            await _ended(call)  # else what it has not read yet may be lost


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
    try:
        async with asyncio.timeout(_STALL_S):
            await call.send(BytesMessage(data=data))
    except TimeoutError as e:
        raise Unavailable(f"export: the client has read nothing for {_STALL_S:.0f} s") from e
