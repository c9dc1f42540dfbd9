"""Programs that run in a container: their input, their output as it comes, their end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.aio.waiting import finished

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.aio import processes as aio
    from ketch.aio.results import Result
    from ketch.aio.streams import Chunk


class Output:
    """The output of a program, in pieces as they come; what is not read is not kept, but makes the program wait."""

    def __init__(self, inner: aio.Output) -> None:
        self._output = inner

    def read(self) -> Chunk | None:
        """The next piece; None at the end."""
        return finished(self._output.read())

    def __iter__(self) -> Iterator[Chunk]:
        while (chunk := self.read()) is not None:
            yield chunk

    def lines(self) -> Iterator[Chunk]:
        """The rest of the output, a line a piece."""
        lines = self._output.lines()
        while (line := finished(lines.next())) is not None:
            yield line

    def close(self) -> None:
        """Read no more of it."""
        self._output.close()


class Process(Output):
    """A program that runs beside its caller.

    It is ended at the end of a ``with``, or with the program that holds it.
    """

    def __init__(self, inner: aio.Process) -> None:
        super().__init__(inner)
        self._inner = inner

    @property
    def argv(self) -> tuple[str, ...]:
        return self._inner.argv

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_exc: object) -> None:
        finished(self._inner.close_and_kill())

    def write(self, data: bytes | str) -> None:
        """Write to the program's standard input (Conflict: it reads no more)."""
        finished(self._inner.write(data))

    def end_input(self) -> None:
        """Let the program see the end of its input."""
        self._inner.end_input()

    def wait(self) -> int:
        """Wait for the end, and return the exit code; output that nobody has read is dropped (TimedOut)."""
        return finished(self._inner.wait())

    def communicate(self, data: bytes | str | None = None, *, max_output: int | None = None) -> Result:
        """Write input, read all output, wait for the end (TimedOut, TooMuchOutput: with what came until then)."""
        return finished(self._inner.communicate(data, max_output=max_output))

    def kill(self, signal: str | int = "KILL") -> None:
        """Send a signal; KILL goes to all that the program has started, too."""
        finished(self._inner.kill(signal))
