"""Engines, and the functions that need none to be named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, Unpack

from ketch.aio import access as ways
from ketch.aio import containers
from ketch.aio.access import Access
from ketch.aio.containers import Container
from ketch.aio.images import Images
from ketch.aio.waiting import Asyncio

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from typing import Any

    from ketch.aio.options import BoxOptions, RunOptions
    from ketch.aio.results import Image, Result
    from ketch.aio.waiting import Waiter


class Engine:
    """An engine, which begins at its first use.

    Without a ``url`` it is the program's own: a ketchd that runs as long as programs use its state directory, and ends
    with the last of them, however that ends.  With one it is the daemon there.  What the program has made ends with it
    in both cases (on Docker's daemon, what it removes itself).
    """

    def __init__(
        self, state: str | os.PathLike[str] | None = None, *, url: str = "", waiter: Waiter | None = None
    ) -> None:
        self._use(Access(state, url=url, waiter=waiter))

    def _use(self, access: Access) -> None:
        self.access = access
        self.images = Images(access)

    def __repr__(self) -> str:
        return f"<Engine {self.access.state or self.access.url}>"

    async def __aenter__(self) -> Self:
        await self.access.http()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    @property
    def url(self) -> str:
        """The address at which other clients of the API reach it, as long as it runs."""
        return self.access.url

    async def run(
        self, image: str | Image, argv: Sequence[str] | str | None = None, **given: Unpack[RunOptions]
    ) -> Result:
        """Run a program in a container of its own, and return what it said (TimedOut, CommandFailed with ``check``)."""
        return await containers.run(self, image, argv, given)

    def container(
        self, image: str | Image, argv: Sequence[str] | str | None = None, **given: Unpack[BoxOptions]
    ) -> Container:
        """A container of this engine, for ``async with``."""
        return Container(image, argv, engine=self, **given)

    async def info(self) -> dict[str, Any]:
        """The engine's account of itself and the machine, as the API has it."""
        return await (await self.access.http()).json("GET", "/info")  # type: ignore[no-any-return]

    async def remove_volume(self, name: str) -> None:
        """Remove a volume (NotFound; Conflict: a container has it)."""
        await (await self.access.http()).request("DELETE", f"/volumes/{name}")

    async def close(self) -> None:
        """End what this program has made; an engine of its own ends if no other program uses it."""
        await self.access.close()


async def run(image: str | Image, argv: Sequence[str] | str | None = None, **given: Unpack[RunOptions]) -> Result:
    """Run a program in a container of its own, and return what it said (TimedOut, CommandFailed with ``check``)."""
    return await containers.run(ways.default(Asyncio()), image, argv, given)


def connect(url: str = "", *, context: str = "") -> Engine:
    """The engine of a daemon: at ``url``, of a ``context`` of the command line's, else as the environment has it.

    Where the environment names none it is this user's daemon, or root's.  The context that is in use is not asked: a
    program runs where it says.
    """
    return Engine(url=ways.daemon_url(url, context))


def default() -> Engine:
    """The engine that is used where none is named: a daemon, if one is named or answers, else the program's own."""
    engine = Engine()
    engine._use(ways.default(Asyncio()))
    return engine
