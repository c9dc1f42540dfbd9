"""Processes in containers of front ends, as LLBBridge.ExecProcess holds them: many of them in one call.

client                           this call                             process
Init      ──────────────────────► container.start ───────────────────► begins
          ◄────────────── Started
File 0    ──────────────────────► Input, so many bytes ──────────────► reads
Resize, Signal ───────────────────────────────────────────────────────►
          ◄──────── File 1, File 2 ◄── while the client reads ───────── writes
          ◄────────────────── Exit ◄─────────────────────────────────── ends
          ◄─── File with EOF, Done

Who neither reads nor lets its process read is waited for: nothing piles up here.  A call that ends kills what it holds.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec
from google.protobuf.any_pb2 import Any as Detail

from ketch.build.llb import ops_pb2
from ketch.build.solver.flight import ended
from ketch.buildkit.gateway.failures import EXIT, told
from ketch.buildkit.gateway.process_input import ProcessInput
from ketch.buildkit.wire.gateway import gateway_pb2 as pb
from ketch.engine.build.command.interactive import TerminalSize
from ketch.engine.build.frontends.containers import ProcessOptions
from ketch.engine.os_errors import explained
from ketch.errors import AlreadyExists, InvalidArgument, KetchError, NotFound, ResourceExhausted, RuntimeFailure
from ketch.notation import signals
from ketch.rpc.status import Code, RpcError
from ketch.rpc.wire.status_pb2 import Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ketch.buildkit.gateway.served import GatewayBuild
    from ketch.engine.build.command.interactive import InteractiveProcess
    from ketch.engine.build.frontends.containers import FrontendContainer
    from ketch.rpc.server import ServerCall

    Call = ServerCall[pb.ExecMessage, pb.ExecMessage]

log = logging.getLogger(__name__)
_STDIN, _STDOUT, _STDERR = 0, 1, 2
_MOST = 10_000  # processes of one call
_QUIET_S = 10.0  # after its end, for what still holds its output and writes nothing
_NOT_BEGUN = 1
_UNKNOWN = 255  # an exit code of clients', which look at the error then


async def serve(build: GatewayBuild, call: Call) -> None:
    """Answer a call to its end (KetchError); nothing that it holds is left then."""
    processes = _Processes(build, call)
    try:
        await processes.run()
    finally:
        await processes.close()


class _Processes:
    """The processes of one call."""

    def __init__(self, build: GatewayBuild, call: Call) -> None:
        self._build, self._call = build, call
        self._all: dict[str, _Process | None] = {}  # those that have ended are known, and no more than that
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Take messages until the client sends no more, and then wait for the processes."""
        async for message in self._call:
            id = message.ProcessID
            if not id:
                raise InvalidArgument("ProcessID required")
            if message.WhichOneof("Input") == "Init":
                self._begin(id, message.Init)
            elif id not in self._all:
                raise NotFound(f'IO for process "{id}" not found')
            elif (process := self._all[id]) is not None:
                await process.take(message)
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _begin(self, id: str, message: pb.InitMessage) -> None:
        if id in self._all:
            raise AlreadyExists(f"Process {id} already exists")
        if len(self._all) >= _MOST:
            raise ResourceExhausted(f"a call holds at most {_MOST} processes")
        container = self._build.containers.find(message.ContainerID)
        process = self._all[id] = _Process(self._call, id, message.Fds)
        task = asyncio.create_task(process.run(container, _options(message)))
        self._tasks.add(task)
        task.add_done_callback(lambda _task: self._ended(id, task))

    def _ended(self, id: str, task: asyncio.Task[None]) -> None:
        self._all[id] = None
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, RpcError | ConnectionError):  # with these the client has gone
            log.error("process %s in a build's container", id, exc_info=error)

    async def close(self) -> None:
        """End all, however often this is cancelled: each has a process to kill."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await ended(tasks)


def _options(message: pb.InitMessage) -> ProcessOptions:
    meta = message.Meta
    return ProcessOptions(
        args=list(meta.args),
        env=list(meta.env),
        cwd=meta.cwd,
        user=meta.user,
        tty=message.Tty,
        insecure=message.Security == ops_pb2.INSECURE,
        secret_env=list(message.secretenv),
    )


class _Process:
    """One process, from its first message to its last."""

    def __init__(self, call: Call, id: str, fds: Sequence[int]) -> None:
        self._call, self._id, self._fds = call, id, frozenset(fds)
        self._input = ProcessInput()
        self._process: InteractiveProcess | None = None
        self._begun = asyncio.Event()  # or it will not begin
        self._told = 0  # pieces of output that the client was sent
        self._telling = False

    # -- what the client says ----------------------------------------------------------------------

    async def take(self, message: pb.ExecMessage) -> None:
        """Take a message (InvalidArgument, RpcError); what comes for a process that has ended is dropped."""
        match message.WhichOneof("Input"):
            case "File":
                if message.File.Fd != _STDIN or _STDIN not in self._fds:
                    raise RpcError(Code.OUT_OF_RANGE, f"fd {message.File.Fd} unavailable to write")
                await self._input.put(message.File.Data, end=message.File.EOF)
            case "Resize":
                size = TerminalSize(message.Resize.Rows, message.Resize.Cols)
                await self._pass_on(lambda process: process.resize(size))
            case "Signal":
                number = signals.parse(message.Signal.Name)
                if number is None:
                    raise InvalidArgument(f"Unknown signal {message.Signal.Name[:100]}")
                await self._pass_on(lambda process: process.signal(number))
            case kind:
                raise InvalidArgument(f"a client sends no message {kind}")

    async def _pass_on(self, tell: Callable[[InteractiveProcess], Awaitable[None]]) -> None:
        """Tell the process something, once it has begun."""
        await self._begun.wait()
        if self._process is None:
            return
        try:
            await tell(self._process)
        except KetchError as e:  # it has ended just now, or has no terminal: no matter to other processes
            log.info("pass on what a client tells a process: %s", e)

    # -- what it does ------------------------------------------------------------------------------

    async def run(self, container: FrontendContainer, options: ProcessOptions) -> None:
        """Run it to its end, and tell the client of it; cancelled, it is killed."""
        try:
            self._process = process = await container.start(options)
        except (KetchError, OSError) as e:
            self._let_messages_pass()
            await self._tell_failure(
                e if isinstance(e, KetchError) else explained(e, "start a process in a build's container")
            )
            return
        except BaseException:
            self._let_messages_pass()
            raise
        try:
            self._begun.set()
            await self._send(Started=pb.StartedMessage())
            await self._follow(process)
        finally:
            self._input.drop()
            await container.let_go(process)

    def _let_messages_pass(self) -> None:
        """Drop what is for a process that did not begin: messages for others of this call come behind it."""
        self._begun.set()
        self._input.drop()

    async def _follow(self, process: InteractiveProcess) -> None:
        feeding = asyncio.create_task(self._feed(process))
        reading = asyncio.create_task(self._tell_output(process))
        try:
            code = await process.ended()
            self._input.drop()
            await self._send(Exit=_exit(code))
            while not reading.done():
                told = self._told
                await asyncio.wait([reading], timeout=_QUIET_S)
                if self._told == told and not self._telling:
                    break
            await self._tell_done()
        finally:
            feeding.cancel()
            reading.cancel()
            await asyncio.gather(feeding, reading, return_exceptions=True)

    async def _feed(self, process: InteractiveProcess) -> None:
        """Give it its input."""
        while _STDIN in self._fds and (data := await self._input.get()) is not None:
            await process.write(data)
        process.end_input()

    async def _tell_output(self, process: InteractiveProcess) -> None:
        """Pass on what it writes, as fast as the client takes it."""
        while (piece := await process.read()) is not None:
            stream, data = piece
            if stream in self._fds:
                self._telling = True
                await self._send(File=pb.FdMessage(Fd=stream, Data=data))
                self._telling = False
            self._told += 1

    async def _tell_failure(self, error: KetchError) -> None:
        """Tell of a process that could not be started: mostly in its output, as BuildKit does."""
        await self._send(Started=pb.StartedMessage())
        if isinstance(error, RuntimeFailure) and _STDERR in self._fds:
            await self._send(File=pb.FdMessage(Fd=_STDERR, Data=f"{error.message}\n".encode()))
            await self._send(Exit=_exit(_NOT_BEGUN))
        else:
            status = told(error)
            failure = Status(code=status.code, message=status.message, details=status.details)
            await self._send(Exit=pb.ExitMessage(Code=_UNKNOWN, Error=failure))
        await self._tell_done()

    async def _tell_done(self) -> None:
        for fd in sorted(self._fds - {_STDIN}):
            await self._send(File=pb.FdMessage(Fd=fd, EOF=True))
        await self._send(Done=pb.DoneMessage())

    async def _send(
        self,
        *,
        Started: pb.StartedMessage | None = None,
        File: pb.FdMessage | None = None,
        Exit: pb.ExitMessage | None = None,
        Done: pb.DoneMessage | None = None,
    ) -> None:
        await self._call.send(pb.ExecMessage(ProcessID=self._id, Started=Started, File=File, Exit=Exit, Done=Done))


def _exit(code: int) -> pb.ExitMessage:
    """The message of an end; clients take an error with each code but 0."""
    if not code:
        return pb.ExitMessage()
    detail = Detail(type_url=f"{EXIT}+json", value=msgspec.json.encode({"Code": code}))
    return pb.ExitMessage(Code=code, Error=Status(code=Code.UNKNOWN, message=f"exit code: {code}", details=[detail]))
