"""Containers for programs that wait in their threads: made and started by ``with``, removed at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, Unpack

from ketch.aio import access, files
from ketch.aio import containers as aio
from ketch.aio.waiting import Blocking, finished
from ketch.blocking.processes import Output, Process

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from typing import Any

    from ketch.aio.access import HasAccess
    from ketch.aio.files import Content
    from ketch.aio.options import BoxOptions, ProgramOptions, StartOptions
    from ketch.aio.results import Image, Logs, Result, Usage


class Container:
    """A container of one image, with whatever `BoxOptions` say.

    Without a command the image's own program runs; its input stays open, so a shell waits.  In ``with`` it is started,
    and removed with all that it holds; one that is used without must be started and removed.
    """

    def __init__(
        self,
        image: str | Image,
        argv: Sequence[str] | str | None = None,
        *,
        engine: HasAccess | None = None,
        **given: Unpack[BoxOptions],
    ) -> None:
        self._inner = aio.Container(image, argv, engine=engine or access.default(Blocking()), **given)

    def __repr__(self) -> str:
        return repr(self._inner)

    @property
    def id(self) -> str:
        """Its id; an empty text before it is made."""
        return self._inner.id

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        finished(self._inner.__aexit__(*exc))

    def create(self) -> Self:
        """Make the container, without a process in it (a missing image is pulled)."""
        finished(self._inner.create())
        return self

    def start(self) -> Self:
        """Start the container's program, in a new container if there is none yet."""
        finished(self._inner.start())
        return self

    def exec(self, argv: Sequence[str] | str, **given: Unpack[ProgramOptions]) -> Result:
        """Run a program to its end, and return what it said (TimedOut, CommandFailed with ``check``)."""
        return finished(self._inner.exec(argv, **given))

    def popen(self, argv: Sequence[str] | str, **given: Unpack[StartOptions]) -> Process:
        """Start a program that goes on beside the caller, with its input and output."""
        return Process(finished(self._inner.popen(argv, **given)))

    def attach(self, timeout: float | None = None) -> Process:
        """The container's own program: its output from now on, its input."""
        return Process(finished(self._inner.attach(timeout)))

    def put(self, path: str, content: Content, *, mode: int = 0o644, owner: tuple[int, int] = (0, 0)) -> None:
        """Write files: ``content`` is that of a file at ``path``, or a mapping of such below it.

        A path of this machine (`pathlib.Path`) is copied to ``path``, as a file or as a whole tree.
        """
        finished(self._inner.put(path, content, mode=mode, owner=owner))

    def get(self, path: str, *, limit: int | None = files.LIMIT) -> bytes:
        """The content of a file (ResourceExhausted: of more than ``limit`` bytes)."""
        return finished(self._inner.get(path, limit=limit))

    def get_tree(self, path: str, *, limit: int | None = files.LIMIT) -> dict[str, bytes]:
        """The files of a directory by their paths in it; links, devices and empty directories are left out."""
        return finished(self._inner.get_tree(path, limit=limit))

    def copy_to(self, path: str, directory: str | os.PathLike[str], *, limit: int | None = None) -> None:
        """Copy a directory of the container into one of this machine, which is made; all of it is the caller's."""
        finished(self._inner.copy_to(path, directory, limit=limit))

    def logs(self, *, tail: int | None = None) -> Logs:
        """The output of the container's own program until now."""
        return finished(self._inner.logs(tail=tail))

    def follow(self, *, tail: int | None = None) -> Output:
        """The output of the container's own program until its end."""
        return Output(finished(self._inner.follow(tail=tail)))

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the container's own program ends, and return its exit code (TimeoutError; it goes on)."""
        return finished(self._inner.wait(timeout))

    def kill(self, signal: str | int = "KILL") -> None:
        """Send a signal to the container's own program; KILL ends all that is in the container."""
        finished(self._inner.kill(signal))

    def stop(self, timeout: int = 10) -> None:
        """Ask the container's own program to end, and kill it after so many seconds."""
        finished(self._inner.stop(timeout))

    def pause(self) -> None:
        """Freeze all processes."""
        finished(self._inner.pause())

    def unpause(self) -> None:
        """Let frozen processes go on."""
        finished(self._inner.unpause())

    def usage(self) -> Usage:
        """The resources that it takes now."""
        return finished(self._inner.usage())

    def commit(self, tag: str = "", *, pause: bool = True) -> Image:
        """Make an image of the container's files; ``pause``: nothing in it writes meanwhile."""
        return finished(self._inner.commit(tag, pause=pause))

    def address(self, port: int | str) -> tuple[str, int]:
        """The address and port of this machine that lead to a port of the container (NotFound: it is not published)."""
        return finished(self._inner.address(port))

    def inspect(self) -> dict[str, Any]:
        """All that is known of it, as the API says it."""
        return finished(self._inner.inspect())

    def remove(self) -> None:
        """End all that is in it, and remove it with its volumes without a name; nothing is left to do if it is gone."""
        finished(self._inner.remove())
