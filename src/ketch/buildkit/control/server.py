"""The services that BuildKit's clients call."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ketch.buildkit.control import histories, jobs, usage, workers
from ketch.buildkit.control.contents import BuildContents
from ketch.buildkit.control.solves import Solves
from ketch.buildkit.gateway import handlers as gateway
from ketch.buildkit.services.control import ControlService
from ketch.buildkit.session.sessions import Sessions
from ketch.buildkit.wire.control.control_pb2 import BytesMessage
from ketch.rpc import health
from ketch.rpc.server import serve
from ketch.rpc.tunnel import Tunnel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.engine.engine import Engine
    from ketch.rpc.bytestream import ByteStream
    from ketch.rpc.server import ServerCall


class BuildKitServer:
    """One for the daemon: what all connections share."""

    def __init__(self, engine: Engine) -> None:
        self.sessions = Sessions(os.path.join(engine.parts.paths.exec_root, "sessions"))
        self.jobs = jobs.BuildJobs()
        contents = BuildContents(engine.builds, engine.images.store.content)
        self.solves = Solves(engine, self.sessions, self.jobs)
        self._handlers = {
            **health.handlers(),
            **workers.handlers(engine),
            **usage.handlers(engine.builds),
            **jobs.handlers(self.jobs, engine.builds),
            **histories.handlers(engine.builds.history, contents),
            **contents.handlers(),
            **self.solves.handlers(),
            **gateway.handlers(self.solves.find),
            ControlService.Session.path: (ControlService.Session, self._session),
        }

    async def serve(self, stream: ByteStream) -> None:
        """Serve calls on a connection to its end."""
        await serve(stream, self._handlers)

    def check_session(self, headers: Mapping[str, Sequence[str]]) -> None:
        """Check the headers of a session before it begins (KetchError)."""
        self.sessions.check(headers)

    async def serve_session(self, stream: ByteStream, headers: Mapping[str, Sequence[str]]) -> None:
        """Serve a session to its end; the headers' names are in lower case."""
        try:
            await self.sessions.serve(stream, headers)
        finally:
            await stream.close()

    async def _session(self, call: ServerCall[BytesMessage, BytesMessage]) -> None:
        """A session inside of a call, for clients whose connection is not the API's."""
        self.check_session(call.metadata)
        call.begin()
        await self.serve_session(Tunnel(call, _message), call.metadata)

    async def close(self) -> None:
        """End what connections share."""
        await self.sessions.close()


def _message(data: bytes) -> BytesMessage:
    return BytesMessage(data=data)
