"""Engines for programs that wait in their threads: one of the program's own, or a daemon's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, Unpack

from ketch.aio import access as ways
from ketch.aio import containers
from ketch.aio import images as aio
from ketch.aio.access import Access
from ketch.aio.waiting import Blocking, finished
from ketch.blocking.containers import Container
from ketch.blocking.images import Images

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from typing import Any

    from ketch.aio.options import BoxOptions, RunOptions
    from ketch.aio.results import Image, Result


class Engine:
    """An engine, which begins at its first use; threads may share it, and forked children may use it.

    Without a ``url`` it is the program's own: a ketchd that runs as long as programs use its state directory, and ends
    with the last of them, however that ends.  With one it is the daemon there.  What the program has made ends with it
    in both cases (on Docker's daemon, what it removes itself).
    """

    def __init__(self, state: str | os.PathLike[str] | None = None, *, url: str = "") -> None:
        self._use(Access(state, url=url, waiter=Blocking()))

    def _use(self, access: Access) -> None:
        self.access = access
        self.images = Images(aio.Images(access))

    def __repr__(self) -> str:
        return f"<Engine {self.access.state or self.access.url}>"

    def __enter__(self) -> Self:
        finished(self.access.http())
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The address at which other clients of the API reach it, as long as it runs."""
        return self.access.url

    def run(self, image: str | Image, argv: Sequence[str] | str | None = None, **given: Unpack[RunOptions]) -> Result:
        """Run a program in a container of its own, and return what it said (TimedOut, CommandFailed with ``check``)."""
        return finished(containers.run(self, image, argv, given))

    def container(
        self, image: str | Image, argv: Sequence[str] | str | None = None, **given: Unpack[BoxOptions]
    ) -> Container:
        """A container of this engine, for ``with``."""
        return Container(image, argv, engine=self, **given)

    def info(self) -> dict[str, Any]:
        """The engine's account of itself and the machine, as the API has it."""
        return finished(finished(self.access.http()).json("GET", "/info"))

    def remove_volume(self, name: str) -> None:
        """Remove a volume (NotFound; Conflict: a container has it)."""
        finished(finished(self.access.http()).request("DELETE", f"/volumes/{name}"))

    def close(self) -> None:
        """End what this program has made; an engine of its own ends if no other program uses it."""
        finished(self.access.close())


def run(image: str | Image, argv: Sequence[str] | str | None = None, **given: Unpack[RunOptions]) -> Result:
    """Run a program in a container of its own, and return what it said (TimedOut, CommandFailed with ``check``)."""
    return finished(containers.run(ways.default(Blocking()), image, argv, given))


def connect(url: str = "", *, context: str = "") -> Engine:
    """The engine of a daemon: at ``url``, of a ``context`` of the command line's, else as the environment has it.

    Where the environment names none it is this user's daemon, or root's.  The context that is in use is not asked: a
    program runs where it says.
    """
    return Engine(url=ways.daemon_url(url, context))


def default() -> Engine:
    """The engine that is used where none is named: a daemon, if one is named or answers, else the program's own."""
    engine = Engine()
    engine._use(ways.default(Blocking()))
    return engine
