"""Programs that run in a container: their input, their output as it comes, their end."""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from ketch.aio import results
from ketch.aio.streams import Chunk, Frames, Lines
from ketch.aio.waiting import after
from ketch.client.errors import error_of
from ketch.errors import Conflict, KetchError, NotFound, Unavailable, Unimplemented

if TYPE_CHECKING:
    from typing import Any

    from ketch.aio.http import Answer
    from ketch.aio.results import Result
    from ketch.aio.waiting import Deadline


class _Source(Protocol):
    """Bytes with frames in them."""

    async def receive(self, deadline: Deadline = None) -> bytes: ...

    def close(self) -> None: ...


class Output:
    """The output of a program, in pieces as they come; what is not read is not kept, but makes the program wait."""

    def __init__(self, source: _Source, initial: bytes = b"", deadline: Deadline = None) -> None:
        self._source = source
        self._frames = Frames()
        self._found: deque[Chunk] = deque(self._frames.fed(initial))
        self._deadline = deadline
        self._ended = False

    async def read(self) -> Chunk | None:
        """The next piece; None at the end."""
        while not self._found:
            if self._ended:
                return None
            data = await self._source.receive(self._deadline)
            if not data:
                self._ended = True
            self._found.extend(self._frames.fed(data))
        return self._found.popleft()

    def __aiter__(self) -> Output:
        return self

    async def __anext__(self) -> Chunk:
        chunk = await self.read()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    def lines(self) -> OutputLines:
        """The rest of the output, a line a piece."""
        return OutputLines(self)

    def close(self) -> None:
        """Read no more of it."""
        self._source.close()


class OutputLines:
    """Lines of both streams, as they come."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._lines = Lines()
        self._found: deque[Chunk] = deque()
        self._ended = False

    def __aiter__(self) -> OutputLines:
        return self

    async def __anext__(self) -> Chunk:
        line = await self.next()
        if line is None:
            raise StopAsyncIteration
        return line

    async def next(self) -> Chunk | None:
        """The next line; None at the end."""
        while not self._found:
            if self._ended:
                return None
            chunk = await self._output.read()
            self._ended = chunk is None
            self._found.extend(self._lines.ended() if chunk is None else self._lines.fed(chunk))
        return self._found.popleft()


class LogBody:
    """An answer's body as a source of output."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def receive(self, deadline: Deadline = None) -> bytes:
        """The next piece of the body."""
        return await self._answer.next(deadline)

    def close(self) -> None:
        """Close the connection."""
        self._answer.stream.close()


class Ending(Protocol):
    """Knowledge of how one process ends, and the way to end it."""

    argv: tuple[str, ...]

    async def result(self, stdout: bytes, stderr: bytes, told: bytes) -> Result:
        """The way it ended, asked after the end of its output; ``told``: the engine's account there, in JSON."""

    async def kill(self, signal: str) -> None:
        """Send a signal: KILL to all that it has started, others to itself."""


class Process(Output):
    """A program that runs beside its caller.

    It is ended when its connection is: by `close`, at the end of a ``with``, or with the program that holds it.
    """

    def __init__(self, answer: Answer, ending: Ending, timeout_s: float | None = None) -> None:
        super().__init__(answer.stream, answer.rest, after(timeout_s))
        self._stream = answer.stream
        self._ending = ending
        self._began = time.monotonic()
        self._timeout_s = timeout_s
        self._result: Result | None = None

    @property
    def argv(self) -> tuple[str, ...]:
        return self._ending.argv

    @property
    def has_told_its_end(self) -> bool:
        """Whether the engine has said, behind all output, how it ended."""
        return self._ended and bool(self._frames.result)

    async def read(self) -> Chunk | None:
        """The next piece of output; None at the end (TimedOut)."""
        try:
            return await super().read()
        except TimeoutError:
            raise await self._overdue(b"", b"") from None

    async def write(self, data: bytes | str) -> None:
        """Write to the program's standard input (Conflict: it reads no more)."""
        try:
            await self._stream.send(data.encode() if isinstance(data, str) else data, self._deadline)
        except (BrokenPipeError, ConnectionResetError) as e:
            raise Conflict(f"write to {' '.join(self.argv)}: it has ended") from e
        except TimeoutError:
            raise await self._overdue(b"", b"") from None

    def end_input(self) -> None:
        """Let the program see the end of its input."""
        self._stream.end()

    async def wait(self) -> int:
        """Wait for the end, and return the exit code; output that nobody has read is dropped (TimedOut)."""
        while await self.read() is not None:
            pass
        return (await self._ended_with(b"", b"")).exit_code

    async def communicate(self, data: bytes | str | None = None, *, max_output: int | None = None) -> Result:
        """Write input, read all output, wait for the end (TimedOut, TooMuchOutput: with what came until then)."""
        if data is not None:
            self._stream.queue(data.encode() if isinstance(data, str) else data, end=True)
        pieces: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        size = 0
        try:
            while (chunk := await super().read()) is not None:
                pieces[chunk.stream].append(chunk.data)
                size += len(chunk.data)
                if max_output is not None and size > max_output:
                    await self.close_and_kill()
                    self._result = self._killed(*map(b"".join, pieces.values()))
                    raise results.TooMuchOutput(self._result, max_output)
            return await self._ended_with(*map(b"".join, pieces.values()))
        except TimeoutError:
            raise await self._overdue(*map(b"".join, pieces.values())) from None
        except BaseException:
            with contextlib.suppress(Unimplemented):  # what happened is told, and not that
                await self.close_and_kill()
            raise

    async def kill(self, signal: str | int = "KILL") -> None:
        """Send a signal; KILL goes to all that the program has started, too."""
        await self._ending.kill(str(signal))

    async def close_and_kill(self) -> None:
        """Kill what still runs, and close the connection."""
        if self._result is None and not self.has_told_its_end:
            try:
                await self._ending.kill("KILL")
            except (NotFound, Conflict, Unavailable):
                pass  # it has ended by itself, or its engine has, which leaves nothing
            except KetchError:
                self.close()
                raise
        self.close()

    async def __aenter__(self) -> Process:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close_and_kill()

    async def _ended_with(self, stdout: bytes, stderr: bytes) -> Result:
        if self._result is None:
            self._result = await self._ending.result(stdout, stderr, self._frames.result)
            self.close()
        return self._result

    async def _overdue(self, stdout: bytes, stderr: bytes) -> results.TimedOut:
        await self.close_and_kill()
        self._result = self._killed(stdout, stderr)
        return results.TimedOut(self._result, self._timeout_s or 0.0)

    def _killed(self, stdout: bytes, stderr: bytes) -> Result:
        return results.killed(stdout, stderr, self.argv, time.monotonic() - self._began)


def told(text: bytes) -> dict[str, Any]:
    """The engine's account of a process's end, from its last frame (KetchError: it has not begun)."""
    state: dict[str, Any] = json.loads(text) if text else {}
    if error := state.get("Error"):
        raise error_of(str(error.get("message")), str(error.get("kind") or ""))
    return state
