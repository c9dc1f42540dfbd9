"""A client of BuildKit's protocol that is the front end of its own build: containers, their processes, their files."""

from __future__ import annotations

import asyncio
import socket
import uuid
from contextlib import asynccontextmanager

from ketch.build.llb.definition import define
from ketch.buildkit.services.control import ControlService
from ketch.buildkit.services.gateway import LLBBridgeService
from ketch.buildkit.wire.control import control_pb2
from ketch.buildkit.wire.gateway import gateway_pb2 as pb
from ketch.rpc import bytestream
from ketch.rpc.client import Channel
from ketch.rpc.server import serve
from ketch.rpc.status import RpcError
from tests.support.building.session_client import SessionClient
from tests.support.waiting import patient

STDIN, STDOUT, STDERR = 0, 1, 2


async def upgraded(path, route, headers=None):
    """A connection of the API that has become a stream of bytes."""
    sock = socket.socket(socket.AF_UNIX)
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    await loop.sock_connect(sock, path)
    lines = [f"POST {route} HTTP/1.1", "Host: d", "Connection: Upgrade", "Upgrade: h2c"]
    lines += [f"{name}: {value}" for name, values in (headers or {}).items() for value in values]
    await loop.sock_sendall(sock, "\r\n".join([*lines, "", ""]).encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        piece = await loop.sock_recv(sock, 1)
        assert piece, answer
        answer += piece
    assert b" 101 " in answer.partition(b"\r\n")[0], answer
    return await bytestream.over_socket(sock)


class GatewayClient:
    """One build; use `building`."""

    def __init__(self, channel, ref, session):
        self.channel, self.ref, self.session = channel, ref, session
        self.metadata = {"buildkit-controlapi-buildid": [ref]}
        self.solving = None  # the task of Control.Solve
        self.leave = None  # ends the session

    @classmethod
    @asynccontextmanager
    async def building(cls, path, session=None, ref=None, **request):
        """A build of the engine at a socket, which lasts as long as the context."""
        session = session or SessionClient()
        name = uuid.uuid4().hex
        stream = await upgraded(path, "/session", session.headers(name))
        serving = asyncio.create_task(serve(stream, session.handlers))
        channel = Channel.over(await upgraded(path, "/grpc"))
        client = cls(channel, uuid.uuid4().hex if ref is None else ref, name)
        client.leave = stream.close
        asked = control_pb2.SolveRequest(Ref=client.ref, Session=name, **request)
        client.solving = asyncio.create_task(channel.unary(ControlService.Solve, asked))
        try:
            yield client
        finally:
            client.solving.cancel()
            await asyncio.gather(client.solving, return_exceptions=True)
            await channel.close()
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            await stream.close()

    async def call(self, method, request, seconds=60):
        """Call a method of LLBBridge."""
        return await self.channel.unary(method, request, self.metadata, timeout=patient(seconds))

    async def solve(self, edge, **more):
        """The id of a graph's result."""
        request = pb.SolveRequest(Definition=define(edge), allowResultReturn=True, allowResultArrayRef=True, **more)
        return (await self.call(LLBBridgeService.Solve, request)).result.ref.id

    async def container(self, name, *mounts, **more):
        """Make a container."""
        request = pb.NewContainerRequest(ContainerID=name, Mounts=mounts, **more)
        await self.call(LLBBridgeService.NewContainer, request)

    async def release(self, name):
        """Release a container."""
        await self.call(LLBBridgeService.ReleaseContainer, pb.ReleaseContainerRequest(ContainerID=name))

    async def returned(self, **result):
        """Return a result, and what comes of the build."""
        await self.call(LLBBridgeService.Return, pb.ReturnRequest(**result))
        return await asyncio.wait_for(asyncio.shield(self.solving), patient(60))

    @asynccontextmanager
    async def processes(self):
        """The call through which processes are held."""
        async with self.channel.stream(LLBBridgeService.ExecProcess, self.metadata) as call:
            processes = Processes(call)
            try:
                yield processes
            finally:
                await processes.close()


class Processes:
    """The processes of one call."""

    def __init__(self, call):
        self.call, self._all = call, {}
        self._reads = asyncio.Event()
        self._reads.set()
        self._reading = asyncio.create_task(self._read())
        self.failure = asyncio.get_running_loop().create_future()

    def pause(self):
        """Read nothing until what this returns is called."""
        self._reads.clear()
        return self._reads.set

    async def _read(self):
        try:
            while True:
                await self._reads.wait()
                message = await self.call.receive()
                if message is None:
                    break
                self._all[message.ProcessID].take(message)
        except RpcError as e:
            self.failure.set_result(e)
            for one in self._all.values():
                one.fail(e)

    async def close(self):
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def send(self, name, **message):
        await self.call.send(pb.ExecMessage(ProcessID=name, **message))

    async def begin(self, container, *args, name="", fds=(0, 1, 2), tty=False, **more):
        """Begin a process, without waiting for anything."""
        name = name or uuid.uuid4().hex
        fields = {one: more.pop(one) for one in ("Security", "secretenv") if one in more}
        meta = {"args": args, "cwd": "/", "env": ["PATH=/bin"], **more}
        found = self._all[name] = Process(self, name, fds)
        await self.send(name, Init=pb.InitMessage(ContainerID=container, Meta=meta, Fds=fds, Tty=tty, **fields))
        return found

    async def start(self, container, *args, **more):
        """Start a process, and wait until it is."""
        found = await self.begin(container, *args, **more)
        await asyncio.wait_for(asyncio.shield(found.started), patient(30))
        return found

    async def run(self, container, *args, given=b"", **more):
        """Run a process to its end: its exit code, output, errors."""
        found = await self.start(container, *args, **more)
        if given:
            await found.write(given)
        await found.end_input()
        exit = await found.wait()
        return exit.Code, found.output[STDOUT], found.output[STDERR]


class Process:
    """A process: what it has written, how it ended."""

    def __init__(self, processes, name, fds):
        loop = asyncio.get_running_loop()
        self.processes, self.name, self._reads = processes, name, STDIN in fds
        self.started, self.exited, self.done = (loop.create_future() for _ in range(3))
        self.output, self.ends, self.order = {STDOUT: bytearray(), STDERR: bytearray()}, [], []
        self.written = asyncio.Event()

    def take(self, message):
        kind = message.WhichOneof("Input")
        self.order.append(kind)
        if kind == "Started":
            self.started.set_result(None)
        elif kind == "Exit":
            self.exited.set_result(message.Exit)
        elif kind == "Done":
            self.done.set_result(None)
        else:
            self.output[message.File.Fd] += message.File.Data
            if message.File.EOF:
                self.ends.append(message.File.Fd)
        self.written.set()

    def fail(self, error):
        for one in (self.started, self.exited, self.done):
            if not one.done():
                one.set_exception(error)
                one.exception()
        self.written.set()

    async def write(self, data):
        await self.processes.send(self.name, File=pb.FdMessage(Fd=STDIN, Data=data))

    async def end_input(self):
        if self._reads:
            self._reads = False
            await self.processes.send(self.name, File=pb.FdMessage(Fd=STDIN, EOF=True))

    async def signal(self, name):
        await self.processes.send(self.name, Signal=pb.SignalMessage(Name=name))

    async def resize(self, rows, columns):
        await self.processes.send(self.name, Resize=pb.ResizeMessage(Rows=rows, Cols=columns))

    async def until(self, text, fd=STDOUT):
        """Wait until it has written a text, which is taken away with what is before it."""
        while text not in self.output[fd]:
            self.written.clear()
            assert not self.done.done(), (self.output, self.exited)
            await asyncio.wait_for(self.written.wait(), patient(30))
        self.output[fd] = self.output[fd].partition(text)[2]

    async def wait(self):
        """Its exit, when all of its output is here; its input ends with it, for which BuildKit waits."""
        exit = await asyncio.wait_for(asyncio.shield(self.exited), patient(30))
        await self.end_input()
        await asyncio.wait_for(asyncio.shield(self.done), patient(30))
        return exit
