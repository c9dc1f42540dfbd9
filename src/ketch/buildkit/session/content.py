"""Blobs that a client keeps: OCI layouts that builds take images of, directories of caches.

The client reads and writes its directory by itself; what is named in its index is its work, too.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any, TypeVar

from ketch.buildkit.services.content import ContentService
from ketch.buildkit.session.worker import Worker
from ketch.buildkit.wire.files import content_pb2 as pb
from ketch.errors import DataLoss, InvalidArgument, NotFound, Unavailable
from ketch.oci import digest as digests
from ketch.oci import manifest as oci
from ketch.rpc.status import Code, RpcError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator

    from ketch.rpc.client import Channel, ClientCall

T = TypeVar("T")
_STORE = "buildkit-attachable-store-id"
_PIECE = 4 << 20  # bytes of one request to read
_WRITTEN = 1 << 20  # bytes of one message that is written
_ANSWER_S = 120.0


class ClientLayout:
    """A `BuildLayout` at the other end of a connection.  Blocking, but for its making; never in the event loop."""

    def __init__(self, channel: Channel, store: str) -> None:
        self._channel, self._store = channel, store
        self._loop = asyncio.get_running_loop()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of work in the event loop (KetchError)."""
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except RpcError as e:
            if e.code == Code.NOT_FOUND:
                raise NotFound(f"the client's layout `{self._store}`: {e.message}") from e
            raise Unavailable(f"the client's layout `{self._store}`: {e.message}") from e

    # -- read --------------------------------------------------------------------------------------

    def described(self, digest: str) -> oci.Descriptor:
        """A descriptor of a blob by what is there; its media type is not known (NotFound)."""
        size = self._wait(self._size(digests.check(digest)))
        return oci.Descriptor(media_type="", digest=digest, size=size)

    async def _size(self, digest: str) -> int:
        asked = pb.InfoRequest(digest=digest)
        answer = await self._channel.unary(ContentService.Info, asked, {_STORE: [self._store]}, _ANSWER_S)
        return answer.info.size

    def named(self, tag: str, digest: str) -> oci.Descriptor:
        """The descriptor of a manifest by its digest: names are read by the client (NotFound, InvalidArgument)."""
        if not digest:
            raise InvalidArgument(f"the client names no digest for `{tag}` in its directory")
        return self.described(digest)

    def has(self, descriptor: oci.Descriptor) -> bool:
        """Whether a blob of that name and size is there."""
        try:
            return self.described(descriptor.digest).size == descriptor.size
        except NotFound:
            return False

    def read(self, descriptor: oci.Descriptor, limit: int) -> bytes:
        """A small blob, verified (NotFound, InvalidArgument, DataLoss)."""
        if descriptor.size > limit:
            raise InvalidArgument(f"{descriptor.digest} of the client is larger than {limit} bytes")
        found = bytearray()
        self.copy(descriptor, found.extend)
        data = bytes(found)
        if not digests.matches(descriptor.digest, data):
            raise DataLoss(f"blob {descriptor.digest} of the client: its content does not match its digest")
        return data

    def copy(self, descriptor: oci.Descriptor, write: Callable[[bytes], object]) -> None:
        """Write a blob to somebody who verifies it (NotFound, InvalidArgument: it has another size)."""
        digest = digests.check(descriptor.digest)
        at = 0
        while at < descriptor.size:
            piece = self._wait(self._piece(digest, at, min(_PIECE, descriptor.size - at)))
            if not piece:
                break
            at += len(piece)
            write(piece)
        descriptor.check_size(at)

    async def _piece(self, digest: str, offset: int, size: int) -> bytes:
        asked = pb.ReadContentRequest(digest=digest, offset=offset, size=size)
        found = bytearray()
        async with self._channel.stream(ContentService.Read, {_STORE: [self._store]}, _ANSWER_S) as call:
            await call.send(asked, end=True)
            while len(found) < size and (answer := await call.receive()) is not None:
                found += answer.data
        return bytes(found[:size])

    # -- written -----------------------------------------------------------------------------------

    def put(self, descriptor: oci.Descriptor, pieces: Iterable[bytes]) -> None:
        """Write a blob, unless it is there (Unavailable)."""
        if not self.has(descriptor):
            self._wait(self._write(descriptor, iter(pieces)))

    async def _write(self, descriptor: oci.Descriptor, pieces: Iterator[bytes]) -> None:
        """Write the pieces, which a thread reads; that the client has the blob by now is no error."""
        ref = f"ketch-{secrets.token_hex(8)}"
        whole = pb.WriteContentRequest(ref=ref, total=descriptor.size, expected=descriptor.digest)
        at = 0
        try:
            with Worker("layout") as worker:
                async with self._channel.stream(ContentService.Write, {_STORE: [self._store]}) as call:
                    await _step(call, whole)
                    while piece := await worker.run(next, pieces, b""):
                        for begin in range(0, len(piece), _WRITTEN):
                            part = piece[begin : begin + _WRITTEN]
                            await _step(call, pb.WriteContentRequest(action=pb.WRITE, ref=ref, offset=at, data=part))
                            at += len(part)
                    whole.action, whole.offset = pb.COMMIT, at
                    await _step(call, whole)
        except RpcError as e:
            if e.code != Code.ALREADY_EXISTS:
                raise

    def name(self, manifest: oci.Descriptor, tag: str) -> None:
        """Leave the index to the client, who is told the manifest with the build's result."""


async def _step(
    call: ClientCall[pb.WriteContentRequest, pb.WriteContentResponse], request: pb.WriteContentRequest
) -> None:
    """Send a request, and wait for its answer (RpcError)."""
    try:
        async with asyncio.timeout(_ANSWER_S):
            await call.send(request)
            if await call.receive() is None:
                raise RpcError(Code.ABORTED, "the client ended the writing of a blob")
    except TimeoutError:
        raise RpcError(Code.DEADLINE_EXCEEDED, f"the client did not answer within {_ANSWER_S:.0f} s") from None
