"""The ends of sessions: those of clients that go at once, and of containers that others remove already."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from ketch.api.routes import system
from ketch.engine.live.containers import LiveContainers
from ketch.engine.sessions import ProgramSessions
from ketch.errors import Conflict, NotFound, Unavailable

if TYPE_CHECKING:
    from ketch.api.call import Call


class Containers:
    """One container of a session that is over."""

    def __init__(self) -> None:
        self.live = LiveContainers()
        self.left = [SimpleNamespace(id="one", session="over")]

    def list(self) -> list[Any]:
        return list(self.left)

    def get(self, _ref: str) -> Any:
        if not self.left:
            raise NotFound("no such container")
        return self.left[0]

    async def remove(self, ref: str, **_options: bool) -> None:
        if self.live.of(self.get(ref).id).removing:
            raise Conflict("already in progress")
        async with self.live.of("one").removal:
            self.left.clear()


def sessions(containers: Containers) -> ProgramSessions:
    nothing = cast("Any", None)
    return ProgramSessions(cast("Any", containers), nothing, nothing, nothing)


@pytest.mark.parametrize("fails", [False, True])
def test_a_removal_that_is_under_way(fails: bool) -> None:
    """It is waited for; if it fails, there is another one."""

    async def scenario() -> None:
        containers = Containers()
        async with containers.live.of("one").removal:
            clearing = asyncio.ensure_future(sessions(containers).clear())
            for _ in range(5):
                await asyncio.sleep(0)
            assert not clearing.done()
            if not fails:
                containers.left.clear()
        await clearing
        assert containers.left == []

    asyncio.run(scenario())


def test_a_client_that_goes_at_once() -> None:
    """Its session has not begun: a daemon that lives for sessions does not wait for it."""

    async def scenario() -> None:
        there = sessions(Containers())
        request = SimpleNamespace(headers={"Upgrade": "tcp"}, transport=None)
        call = cast("Call", SimpleNamespace(request=request, engine=SimpleNamespace(sessions=there)))
        with pytest.raises(Unavailable, match="the client is gone"):
            await system.session(call)
        assert there._open == set()

    asyncio.run(scenario())
