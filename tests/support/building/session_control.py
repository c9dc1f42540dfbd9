"""A builder for the real buildx that builds nothing: it has the client's session, and a test does something with it."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager

from ketch.buildkit.services.control import ControlService
from ketch.buildkit.services.gateway import LLBBridgeService
from ketch.buildkit.session.sessions import Sessions
from ketch.buildkit.wire.control import control_pb2 as pb
from ketch.buildkit.wire.control import worker_pb2
from ketch.buildkit.wire.gateway import gateway_pb2
from ketch.rpc import health
from ketch.rpc.bytestream import TransportStream
from ketch.rpc.server import serve, unary
from ketch.rpc.status import Code, RpcError
from ketch.rpc.tunnel import Tunnel
from tests.support import peers
from tests.support.waiting import patient

DONE = "the test has seen all that it wanted"


class SessionControl:
    """What buildx asks before and while it builds, as far as it must be answered."""

    def __init__(self, root):
        self.root, self.sessions, self.work = root, Sessions(str(root / "sockets")), None
        self.socket = str(root / "control.sock")
        self.failure = None
        self._ends = {}
        self._connections = set()
        self._handlers = dict(health.handlers())
        for method, handler in (
            (ControlService.Info, unary(self._info)),
            (ControlService.ListWorkers, unary(self._workers)),
            (ControlService.Session, self._session),
            (ControlService.Status, self._status),
            (ControlService.Solve, unary(self._solve)),
            (LLBBridgeService.Ping, unary(self._ping)),
        ):
            self._handlers[method.path] = (method, handler)

    @asynccontextmanager
    async def listening(self):
        """Listen on the socket."""
        server = await asyncio.get_running_loop().create_unix_server(self._connected, self.socket)
        try:
            yield self
        finally:
            server.close()
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    def _connected(self):
        stream = TransportStream()
        made = stream.connection_made

        def begin(transport):
            made(transport)
            task = asyncio.create_task(serve(stream, self._handlers))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

        stream.connection_made = begin
        return stream

    async def build(self, work, *words, env=None, stdin=b""):
        """Let buildx build, call ``work`` with its session and the request, and return what buildx wrote."""
        self.work, self.failure = work, None
        program = os.path.join(peers.plugins(), "docker-buildx")
        places = {"HOME": str(self.root), "DOCKER_CONFIG": str(self.root), "BUILDX_CONFIG": str(self.root / "buildx")}
        environment = {"PATH": peers.path(), **places, **(env or {})}

        async def run(*arguments):
            process = await asyncio.create_subprocess_exec(
                program, *arguments, stdin=-1, stdout=-1, stderr=-2, env=environment
            )
            out, _ = await asyncio.wait_for(process.communicate(stdin), patient(60))
            return out.decode()

        if not (self.root / "buildx/instances/far").exists():
            await run("create", "--name", "far", "--driver", "remote", f"unix://{self.socket}")
        out = await run("build", "--builder", "far", "--progress=plain", "--provenance=false", *words)
        if self.failure is not None:
            raise self.failure
        assert DONE in out, out
        return out

    async def _info(self, _request, _metadata):
        return pb.InfoResponse()

    async def _workers(self, _request, _metadata):
        return pb.ListWorkersResponse(record=[worker_pb2.WorkerRecord(ID="worker")])

    async def _ping(self, _request, _metadata):
        return gateway_pb2.PongResponse()

    async def _session(self, call):
        await self.sessions.serve(Tunnel(call, lambda data: pb.BytesMessage(data=data)), call.metadata)

    async def _status(self, call):
        request = await call.receive()
        await self._ends.setdefault(request.Ref, asyncio.Event()).wait()

    async def _solve(self, request, _metadata):
        try:
            session = await self.sessions.get(request.Session)
            if not any("filesync" in method for method in session.methods):
                await asyncio.sleep(0.2)  # buildx only wants to know what there is
                return pb.SolveResponse()
            try:
                await self.work(session, request)
            except Exception as e:
                self.failure = e
                raise
            raise RpcError(Code.UNKNOWN, DONE)
        finally:
            self._ends.setdefault(request.Ref, asyncio.Event()).set()
