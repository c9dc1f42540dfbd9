"""Containers, as programs in Python hold them: made and started by ``async with``, removed at its end."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Self, Unpack

from ketch.aio import access, files, options, results
from ketch.aio.images import Images
from ketch.aio.options import BoxOptions, ProgramOptions, StartOptions
from ketch.aio.processes import LogBody, Output, Process, told
from ketch.aio.waiting import Asyncio, after
from ketch.errors import Conflict, ImageNotFound, KetchError, NotFound, Unimplemented

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Any, TypeVar

    from ketch.aio.access import Access, HasAccess
    from ketch.aio.files import Content
    from ketch.aio.http import Http
    from ketch.aio.results import Image, Result, Usage
    from ketch.client.http import Query

    _T = TypeVar("_T")

_REMOVAL_S = 30.0  # for a removal that is under way


class Container:
    """A container of one image, with whatever `BoxOptions` say.

    Without a command the image's own program runs; its input stays open, so a shell waits.  In ``async with`` it is
    started, and removed with all that it holds; one that is used without must be started and removed.
    """

    def __init__(
        self,
        image: str | Image,
        argv: Sequence[str] | str | None = None,
        *,
        engine: HasAccess | None = None,
        **given: Unpack[BoxOptions],
    ) -> None:
        options.known(given, BoxOptions)
        self._access = access.default(Asyncio()) if engine is None else engine.access
        self.image = str(image)
        self.argv = None if argv is None else options.argv_of(argv)
        self.id = ""
        self._options = given
        self._made_in = os.getpid()

    def __repr__(self) -> str:
        return f"<Container {self.id[:12] or 'not started'} of {self.image}>"

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_exc: object) -> None:
        if self._made_in == os.getpid():  # a forked child leaves its parent's with-block, too
            await self.remove()

    async def create(self, *, one_input: bool | None = False) -> Self:
        """Make the container, without a process in it (a missing image is pulled).

        ``one_input``: the input ends with the first who writes to it; None: there is none.
        """
        await self._make(await self._access.http(), "/containers/create", one_input=one_input)
        return self

    async def start(self) -> Self:
        """Start the container's program, in a new container if there is none yet."""
        http = await self._access.http()
        if self.id:
            await self._post("start")
        elif self._access.is_ketch:
            await self._make(http, "/ketch/start", one_input=False)
        else:
            await self.create()
            try:
                await self._post("start")
            except BaseException:
                await self._give_up()
                raise
        return self

    async def _make(self, http: Http, path: str, *, one_input: bool | None) -> None:
        """Have it made by a request, to the end of which a cancellation waits; then it is undone."""
        body = await self._body(one_input)

        async def made() -> str:
            return str((await http.json("POST", path, self._name(), body))["Id"])

        async def undone(ident: str) -> None:
            self.id = ident
            await self._give_up()

        self.id = await self._with_image(lambda: self._access.waiter.whole(made(), undone))
        self._made_in = os.getpid()

    async def run(self, timeout: float | None, *, stdin: bool) -> Process:
        """Start the container's program, whose end is the container's."""
        http = await self._access.http()
        if not self._access.is_ketch:
            await self.create(one_input=stdin or None)
            process = await self.attach(timeout, stdin=stdin)
            await self.start()
            return process
        body = await self._body(stdin or None)
        body["HostConfig"]["AutoRemove"] = True
        answer = await self._with_image(lambda: http.upgrade("POST", "/ketch/run", self._name(), body))
        self.id, self._made_in = answer.headers["ketch-container"], os.getpid()
        return Process(answer, _BoxEnding(self), timeout)

    async def _body(self, one_input: bool | None) -> dict[str, Any]:
        if options.wants_default_network(self._options):
            self._options["network"] = await self._access.default_network()
        body = options.box_body(self.image, self.argv, self._options, one_input=one_input)
        await self._access.check_limits(options.limits(self._options))
        return body

    def _name(self) -> dict[str, str | None]:
        return {"name": self._options.get("name")}

    async def _with_image(self, request: Callable[[], Awaitable[_T]]) -> _T:
        """The answer of a request that needs the image, which is pulled if it is missing."""
        try:
            return await request()
        except ImageNotFound:
            if not self._options.get("pull", True):
                raise
            await Images(self._access).pull(self.image)
            return await request()

    async def exec(self, argv: Sequence[str] | str, **given: Unpack[ProgramOptions]) -> Result:
        """Run a program to its end, and return what it said (TimedOut, CommandFailed with ``check``)."""
        options.known(given, ProgramOptions)
        data = given.get("input")
        process = await self._exec(argv, given, stdin=data is not None)
        result = await process.communicate(data, max_output=given.get("max_output"))
        return result.check() if given.get("check") else result

    async def popen(self, argv: Sequence[str] | str, **given: Unpack[StartOptions]) -> Process:
        """Start a program that goes on beside the caller, with its input and output."""
        options.known(given, StartOptions)
        return await self._exec(argv, given, stdin=True)

    async def _exec(self, argv: Sequence[str] | str, given: ProgramOptions | StartOptions, *, stdin: bool) -> Process:
        command = options.argv_of(argv)
        http = await self._access.http()
        body = options.exec_body(command, given, stdin=stdin)
        if self._access.is_ketch:
            answer = await http.upgrade("POST", f"/ketch/containers/{self._known()}/exec", None, body)
            ending = _ExecEnding(self._access, answer.headers["ketch-exec"], tuple(command))
            return Process(answer, ending, given.get("timeout"))
        if given.get("timeout") is not None or "max_output" in given:
            raise Unimplemented("timeout and max_output of exec: Docker's daemon kills no exec", hint="use run()")
        made = await http.json("POST", f"/containers/{self._known()}/exec", None, body)
        answer = await http.upgrade("POST", f"/exec/{made['Id']}/start", None, {"Detach": False, "Tty": False})
        return Process(answer, _ExecEnding(self._access, made["Id"], tuple(command)), given.get("timeout"))

    async def attach(self, timeout: float | None = None, *, stdin: bool = True) -> Process:
        """The container's own program: its output from now on, its input."""
        http = await self._access.http()
        query = {"stream": True, "stdin": stdin or None, "stdout": True, "stderr": True}
        answer = await http.upgrade("POST", f"/containers/{self._known()}/attach", query)
        return Process(answer, _BoxEnding(self), timeout)

    async def put(self, path: str, content: Content, *, mode: int = 0o644, owner: tuple[int, int] = (0, 0)) -> None:
        """Write files: ``content`` is that of a file at ``path``, or a mapping of such below it.

        A path of this machine (`pathlib.Path`) is copied to ``path``, as a file or as a whole tree.
        """
        http = await self._access.http()
        archive = files.packed(path, content, mode, owner)
        await http.request("PUT", f"/containers/{self._known()}/archive", {"path": "/"}, archive)

    async def get(self, path: str, *, limit: int | None = files.LIMIT) -> bytes:
        """The content of a file (ResourceExhausted: of more than ``limit`` bytes)."""
        async with contextlib.aclosing(_Archive(self, path, limit)) as archive:
            received = await archive.received()
            return await self._access.waiter.called(lambda: received.content(path))

    async def get_tree(self, path: str, *, limit: int | None = files.LIMIT) -> dict[str, bytes]:
        """The files of a directory by their paths in it; links, devices and empty directories are left out."""
        async with contextlib.aclosing(_Archive(self, path, limit)) as archive:
            return await self._access.waiter.called((await archive.received()).tree)

    async def copy_to(self, path: str, directory: str | os.PathLike[str], *, limit: int | None = None) -> None:
        """Copy a directory of the container into one of this machine, which is made; all of it is the caller's."""
        async with contextlib.aclosing(_Archive(self, path, limit)) as archive:
            received = await archive.received()
            await self._access.waiter.called(lambda: received.unpack(os.fspath(directory)))

    async def logs(self, *, tail: int | None = None) -> results.Logs:
        """The output of the container's own program until now."""
        output = await self.follow(tail=tail, ends=True)
        pieces: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        try:
            while (chunk := await output.read()) is not None:
                pieces[chunk.stream].append(chunk.data)
        finally:
            output.close()
        return results.Logs(b"".join(pieces["stdout"]), b"".join(pieces["stderr"]))

    async def follow(self, *, tail: int | None = None, ends: bool = False) -> Output:
        """The output of the container's own program until its end; ``ends``: until now alone."""
        http = await self._access.http()
        query = {"stdout": True, "stderr": True, "follow": not ends, "tail": "all" if tail is None else str(tail)}
        return Output(LogBody(await http.open("GET", f"/containers/{self._known()}/logs", query)))

    async def wait(self, timeout: float | None = None) -> int:
        """Wait until the container's own program ends, and return its exit code (TimeoutError; it goes on)."""
        http = await self._access.http()
        path = f"/containers/{self._known()}/wait"
        answer = await http.json("POST", path, {"condition": "not-running"}, deadline=after(timeout))
        if message := (answer.get("Error") or {}).get("Message"):
            raise KetchError(message)
        return int(answer["StatusCode"])

    async def kill(self, signal: str | int = "KILL") -> None:
        """Send a signal to the container's own program; KILL ends all that is in the container."""
        await self._post("kill", {"signal": str(signal)})

    async def stop(self, timeout: int = 10) -> None:
        """Ask the container's own program to end, and kill it after so many seconds."""
        await self._post("stop", {"t": timeout})

    async def pause(self) -> None:
        """Freeze all processes."""
        await self._post("pause")

    async def unpause(self) -> None:
        """Let frozen processes go on."""
        await self._post("unpause")

    async def usage(self) -> Usage:
        """The resources that it takes now."""
        http = await self._access.http()
        query = {"stream": False, "one-shot": True}
        return results.usage(await http.json("GET", f"/containers/{self._known()}/stats", query))

    async def commit(self, tag: str = "", *, pause: bool = True) -> Image:
        """Make an image of the container's files; ``pause``: nothing in it writes meanwhile."""
        http = await self._access.http()
        repo, colon, version = tag.rpartition(":") if ":" in tag.rpartition("/")[2] else (tag, "", "")
        query: Query = {
            "pause": pause,
            "container": self._known(),
            "repo": repo or None,
            "tag": version if colon else None,
        }
        answer = await http.json("POST", "/commit", query, {})
        return await Images(self._access).get(answer["Id"])

    async def address(self, port: int | str) -> tuple[str, int]:
        """The address and port of this machine that lead to a port of the container (NotFound: it is not published)."""
        wanted = str(port) if "/" in str(port) else f"{port}/tcp"
        known = await self.inspect()
        if not known["State"]["Running"]:
            raise Conflict(f"container {self.id[:12]}: it does not run", hint="logs() may say why")
        found = (known["NetworkSettings"]["Ports"] or {}).get(wanted)
        if not found:
            raise NotFound(
                f"container {self.id[:12]} publishes no port {port}", hint=f"make it with ports={{{port}: None}}"
            )
        return found[0]["HostIp"], int(found[0]["HostPort"])

    async def inspect(self) -> dict[str, Any]:
        """All that is known of it, as the API says it."""
        http = await self._access.http()
        return await http.json("GET", f"/containers/{self._known()}/json")  # type: ignore[no-any-return]

    async def remove(self) -> None:
        """End all that is in it, and remove it with its volumes without a name; nothing is left to do if it is gone."""
        if not self.id:
            return
        http = await self._access.http()
        deadline = time.monotonic() + _REMOVAL_S
        with contextlib.suppress(NotFound):
            while True:
                try:
                    await http.request("DELETE", f"/containers/{self.id}", {"force": True, "v": True})
                    break
                except Conflict:  # the engine removes it already, as its program has ended
                    if time.monotonic() > deadline:
                        raise
                await self._access.waiter.sleep(0.01)
        self.id = ""

    async def _give_up(self) -> None:
        """Remove it after something else went wrong, which is told instead of what goes wrong here."""
        with contextlib.suppress(KetchError, TimeoutError):
            await self.remove()

    async def _post(self, verb: str, query: dict[str, Any] | None = None) -> None:
        http = await self._access.http()
        await http.request("POST", f"/containers/{self._known()}/{verb}", query)

    def _known(self) -> str:
        """Its id (Conflict: it has none)."""
        if not self.id:
            raise Conflict(f"container of {self.image}: it is not started", hint="use it in `with`, or call start()")
        return self.id


async def run(
    engine: HasAccess, image: str | Image, argv: Sequence[str] | str | None, given: options.RunOptions
) -> Result:
    """Run a container to its end and remove it."""
    options.known(given, options.RunOptions)
    program, box = options.split(given)
    data = program.get("input")
    container = Container(image, argv, engine=engine, **box)
    try:
        process = await container.run(program.get("timeout"), stdin=data is not None)
        result = await process.communicate(data, max_output=program.get("max_output"))
        if process.has_told_its_end:  # at whose end the container is gone
            container.id = ""
    finally:
        await container.remove()
    return result.check() if program.get("check") else result


class _Archive:
    """Files of a container, as an archive."""

    def __init__(self, container: Container, path: str, limit: int | None) -> None:
        self._container, self._path, self._limit = container, path, limit
        self._received = files.Received()

    async def received(self) -> files.Received:
        """All of it."""
        http = await self._container._access.http()
        answer = await http.open("GET", f"/containers/{self._container._known()}/archive", {"path": self._path})
        try:
            await self._received.fill(answer, self._path, self._limit)
        finally:
            answer.stream.close()
        return self._received

    async def aclose(self) -> None:
        """Drop it."""
        self._received.close()


class _ExecEnding:
    """The end of a program in a running container."""

    def __init__(self, access: Access, exec_id: str, argv: tuple[str, ...]) -> None:
        self._access, self._id = access, exec_id
        self.argv = argv

    async def result(self, stdout: bytes, stderr: bytes, said: bytes) -> Result:
        state = told(said)
        while not state:
            http = await self._access.http()
            found = await http.json("GET", f"/exec/{self._id}/json")
            if found["Running"]:  # its output has ended before it
                await self._access.waiter.sleep(0.01)
                continue
            state = {"ExitCode": found["ExitCode"]}
        return results.told(state, stdout, stderr, self.argv)

    async def kill(self, signal: str) -> None:
        http = await self._access.http()
        if not self._access.is_ketch:
            raise Unimplemented(f"kill {' '.join(self.argv)}: Docker's daemon kills no exec", hint="kill the container")
        await http.request("POST", f"/ketch/exec/{self._id}/kill", {"signal": signal})


class _BoxEnding:
    """The end of a container's own program."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self.argv = tuple(container.argv or (container.image,))

    async def result(self, stdout: bytes, stderr: bytes, said: bytes) -> Result:
        state = told(said)
        if not state:
            await self._container.wait()
            state = (await self._container.inspect())["State"]
        return results.told(state, stdout, stderr, self.argv)

    async def kill(self, signal: str) -> None:
        await self._container.kill(signal)
