"""Blobs that clients read (containerd's content service): those of images, and of builds in the history.

A log is no blob of the store: it is made of what the history keeps when its record is asked for, and again when its
bytes are.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

from ketch.buildkit.control.statuses import responses_of_log
from ketch.buildkit.services.content import ContentService
from ketch.buildkit.wire.control.control_pb2 import Descriptor
from ketch.buildkit.wire.files import content_pb2 as pb
from ketch.errors import InvalidArgument, NotFound
from ketch.oci import digest as digests
from ketch.rpc.server import unary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.engine.build.service import BuildService
    from ketch.rpc.server import Handlers, ServerCall
    from ketch.storage.content.store import ContentStore

LOG = "application/vnd.buildkit.status.v0"
_PIECE = 1 << 20
_KNOWN = 1000  # logs whose digests are remembered


class BuildContents:
    """The blobs of one daemon."""

    def __init__(self, builds: BuildService, store: ContentStore) -> None:
        self._builds, self._store = builds, store
        self._logs: dict[str, str] = {}  # refs of builds by the digests of their logs

    def log(self, ref: str) -> Descriptor | None:
        """The log of a build as a blob; None where none is kept.  Blocking."""
        data = self._log(ref)
        if data is None:
            return None
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if len(self._logs) >= _KNOWN:
            self._logs.pop(next(iter(self._logs)))
        self._logs[digest] = ref
        return Descriptor(media_type=LOG, digest=digest, size=len(data))

    def _log(self, ref: str) -> bytes | None:
        """The log: messages of progress, each behind its length."""
        try:
            lines = self._builds.logged(ref)
        except NotFound:
            return None
        messages = [one.SerializeToString() for one in responses_of_log(lines)]
        return b"".join(part for one in messages for part in (len(one).to_bytes(4, "little"), one))

    def exists(self, digest: str) -> bool:
        """Whether the image store has a blob.  Blocking."""
        return self._store.exists(digest)

    def size(self, digest: str) -> int:
        """The size of a blob (NotFound).  Blocking."""
        data = self._kept(digest)
        return self._store.size(digests.check(digest)) if data is None else len(data)

    def read(self, digest: str, offset: int, size: int) -> bytes:
        """A part of a blob (NotFound).  Blocking."""
        data = self._kept(digest)
        if data is not None:
            return data[offset : offset + size]
        with self._store.open(digests.check(digest)) as f:
            f.seek(offset)
            return f.read(size)

    def _kept(self, digest: str) -> bytes | None:
        ref = self._logs.get(digest)
        return self._log(ref) if ref is not None else self._builds.history.blob(digest)

    def handlers(self) -> Handlers:
        """The handlers of the service."""
        return {
            ContentService.Info.path: (ContentService.Info, unary(self._answer_info)),
            ContentService.Read.path: (ContentService.Read, self._answer_read),
        }

    async def _answer_info(self, request: pb.InfoRequest, _metadata: Mapping[str, Sequence[str]]) -> pb.InfoResponse:
        size = await asyncio.to_thread(self.size, request.digest)
        return pb.InfoResponse(info=pb.Info(digest=request.digest, size=size))

    async def _answer_read(self, call: ServerCall[pb.ReadContentRequest, pb.ReadContentResponse]) -> None:
        request = await call.receive() or pb.ReadContentRequest()
        size = await asyncio.to_thread(self.size, request.digest)
        if request.offset < 0 or request.size < 0 or request.offset > size:
            raise InvalidArgument(f"read {request.digest} from {request.offset}: it has {size} bytes")
        end = min(size, request.offset + request.size) if request.size else size
        for at in range(request.offset, end, _PIECE):
            data = await asyncio.to_thread(self.read, request.digest, at, min(_PIECE, end - at))
            await call.send(pb.ReadContentResponse(offset=at, data=data))
