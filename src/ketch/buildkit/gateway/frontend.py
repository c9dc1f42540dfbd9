"""The front end `gateway.v0`: an image whose program asks LLBBridge over its standard streams, in a container.

container's stdin  ◄── answers ──  LLBBridge of this build
container's stdout ──  calls   ──►
container's stderr ──► the build's log
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from ketch import printable
from ketch.build.llb.operations import source
from ketch.build.progress import LogLine, SolveStatus
from ketch.build.providers import BuildCommand
from ketch.build.sources.image import platform_message
from ketch.buildkit.gateway.handlers import handlers
from ketch.buildkit.gateway.served import GatewayBuild
from ketch.engine.build.frontends.errors import UnsupportedCapability
from ketch.engine.build.phases import phase
from ketch.errors import InvalidArgument, KetchError, ResourceExhausted
from ketch.notation import times
from ketch.oci import platform as platforms
from ketch.oci import reference as references
from ketch.rpc.server import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from ketch.build.llb import ops_pb2
    from ketch.build.providers import FoundImage
    from ketch.build.tree import Tree
    from ketch.buildkit.wire.control.worker_pb2 import WorkerRecord
    from ketch.engine.build.command.interactive import InteractiveProcess
    from ketch.engine.build.executor import BuildExecutor
    from ketch.engine.build.frontends.bridge import Bridge, FrontendRequest
    from ketch.engine.build.frontends.results import FrontendResult

NAME = "gateway.v0"
_DOCKERFILE, _OWN = "dockerfile.v0", "docker/dockerfile"
_SOURCE, _CAPABILITIES = "source", "frontend.caps"
_NO_NETWORK, _KNOWS = "moby.buildkit.frontend.network.none", "moby.buildkit.frontend.caps"
_PRODUCT = "ketch"
_MEMORY = 2 << 30  # bytes that a front end may take: it describes a build, and does no work
_END_S = 10.0  # for a program that has returned its result
_MOST = 16  # programs of one build at once: one may ask for another, or for itself, and so on
_STDERR = 2
_SAID = 2048  # bytes of errors that are kept for a message


class GatewayFrontend:
    """The front ends that are images; ``workers`` tells them about the machine."""

    def __init__(self, executor: BuildExecutor, workers: Callable[[], Sequence[WorkerRecord]]) -> None:
        self._executor, self._workers = executor, workers

    async def __call__(self, bridge: Bridge, request: FrontendRequest) -> FrontendResult:
        """The result of a front end (KetchError)."""
        name = request.attrs.get(_SOURCE, "")
        if not name:
            raise InvalidArgument("no source specified for gateway", hint="name an image")
        reference = references.parse(name)
        if reference.familiar_repository.removesuffix("-upstream") == _OWN:
            attrs = {**request.attrs, "cmdline": name}
            return await bridge.solve(msgspec.structs.replace(request, frontend=_DOCKERFILE, attrs=attrs))
        machine = platforms.canonical(platforms.host())
        found = await bridge.image(str(reference), machine, "", f"resolve image config for docker-image://{reference}")
        _check_capabilities(found, request.attrs.get(_CAPABILITIES, ""))
        image = source(f"docker-image://{found.reference}", {}, platform_message(machine))
        tree = await bridge.ref(image).tree()
        command = _command(found, tree, request, bridge.session.id, self._workers())
        if bridge.programs >= _MOST:
            raise ResourceExhausted(f"frontend {name}: {_MOST} of this build run", hint="does it ask for itself?")
        bridge.programs += 1
        build = GatewayBuild(bridge, self._executor, request.inputs, self._workers())
        try:
            await self._run(build, command, name)
            return await build.returned
        finally:
            bridge.programs -= 1
            await build.close()

    async def _run(self, build: GatewayBuild, command: BuildCommand, name: str) -> None:
        """Run the program until it has returned its result and ended, or has ended otherwise (KetchError)."""
        with phase(f"[frontend] {name}", build.bridge.tell) as step:
            async with self._executor.interactive(command) as container:
                stream = _ProcessStream(container.process, lambda data: _told(build, step.digest, data))

                silent: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # it asks nothing more
                serving = asyncio.create_task(_served(stream, build, silent))
                ending = asyncio.create_task(container.process.ended())
                try:
                    awaited: list[asyncio.Future[Any]] = [build.returned, ending, silent]
                    await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                    with suppress(TimeoutError):
                        await asyncio.wait_for(asyncio.shield(ending), _END_S)
                    if not build.returned.done():
                        await asyncio.wait([serving], timeout=_END_S)  # what it has still to say
                finally:
                    for task in (serving, ending):
                        task.cancel()
                    await asyncio.gather(serving, ending, return_exceptions=True)
                if not build.returned.done():
                    how = f"exit code: {ending.result()}" if not ending.cancelled() else "it has been killed"
                    raise KetchError(
                        f"frontend {name} ended without a result: {how}",
                        hint=f"its last words are: {stream.last}" if stream.last else "it has said nothing",
                    )


async def _served(stream: _ProcessStream, build: GatewayBuild, silent: asyncio.Future[None]) -> None:
    """Answer calls until the program says farewell; what it writes then is read, too, or it could not end."""

    async def find(_metadata: Mapping[str, Sequence[str]]) -> GatewayBuild:
        return build

    try:
        await serve(stream, handlers(find))
    finally:
        if not silent.done():
            silent.set_result(None)
    stream.end_input()
    while await stream.receive():
        pass


class _ProcessStream:
    """The standard streams of a process as a `ByteStream`; ``heard`` gets what it writes of errors."""

    def __init__(self, process: InteractiveProcess, heard: Callable[[bytes], None]) -> None:
        self._process, self._heard = process, heard
        self._said = b""

    @property
    def last(self) -> str:
        """The last line that it wrote of errors."""
        lines = self._said.decode("utf-8", "replace").split("\n")
        return printable.cell(next((line for line in reversed(lines) if line.strip()), ""))

    async def receive(self) -> bytes:
        """Bytes that it writes."""
        while (piece := await self._process.read()) is not None:
            stream, data = piece
            if stream != _STDERR:
                return data
            self._said = (self._said + data)[-_SAID:]
            self._heard(data)
        return b""

    async def send(self, data: bytes) -> None:
        """Write to its input."""
        await self._process.write(data)

    def end_input(self) -> None:
        """End what it reads."""
        self._process.end_input()

    async def close(self) -> None:
        """End what it reads."""
        self._process.end_input()


def _told(build: GatewayBuild, digest: str, data: bytes) -> None:
    line = LogLine(vertex=digest, stream=_STDERR, data=data, timestamp=times.rfc3339(time.time_ns()))
    build.bridge.tell(SolveStatus(logs=[line]))


def _check_capabilities(found: FoundImage, wanted: str) -> None:
    """Refuse a front end that lacks what the client requires of it (UnsupportedCapability)."""
    labels = (found.config.config.labels if found.config.config else None) or {}
    known = set(labels.get(_KNOWS, "").split(","))
    for name in wanted.split(","):
        if name and name not in known:
            raise UnsupportedCapability(name)


def _command(
    found: FoundImage, tree: Tree, request: FrontendRequest, session: str, workers: Sequence[WorkerRecord]
) -> BuildCommand:
    """The program of a front end, with what it is told in its environment (InvalidArgument: it has none)."""
    config = found.config.config
    args = [*((config.entrypoint if config else None) or ()), *((config.cmd if config else None) or ())]
    if not args:
        raise InvalidArgument(f"frontend {found.reference} has no command", hint="name an image that is a front end")
    labels = (config.labels if config else None) or {}
    options = [
        f"BUILDKIT_FRONTEND_OPT_{number}={name}={value}"
        for number, (name, value) in enumerate(sorted(request.attrs.items()))
    ]
    told = [
        *options,
        f"BUILDKIT_SESSION_ID={session}",
        f"BUILDKIT_WORKERS={msgspec.json.encode([_worker(one) for one in workers]).decode()}",
        f"BUILDKIT_EXPORTEDPRODUCT={_PRODUCT}",
    ]
    return BuildCommand(
        args=args,
        env=[*((config.env if config else None) or ()), *told],
        cwd=(config.working_dir if config else None) or "/",
        user=(config.user if config else None) or "",
        root=tree,
        network="none" if labels.get(_NO_NETWORK, "").lower() in ("1", "true") else "default",
        resources={"memory": _MEMORY, "memorySwap": _MEMORY},
    )


def _worker(record: WorkerRecord) -> dict[str, object]:
    """A worker as front ends read it (BuildKit's client.WorkerInfo in JSON)."""

    def platform(one: ops_pb2.Platform) -> dict[str, str]:
        found = {"architecture": one.Architecture, "os": one.OS, "variant": one.Variant}
        return {name: value for name, value in found.items() if value}

    return {
        "id": record.ID,
        "labels": dict(record.Labels),
        "platforms": [platform(one) for one in record.platforms],
    }
