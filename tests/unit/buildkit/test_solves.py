"""Builds whose clients are their front ends, found by those clients' calls."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from ketch.buildkit.control import solves
from ketch.buildkit.control.solves import Solves
from ketch.buildkit.wire.control import control_pb2 as pb
from ketch.engine.build.frontends.results import FrontendResult
from ketch.errors import NotFound

if TYPE_CHECKING:
    from ketch.buildkit.gateway.served import GatewayBuild

OF = {"buildkit-controlapi-buildid": ["r"]}


@pytest.fixture
def builds(monkeypatch):
    monkeypatch.setattr(solves.workers, "worker", lambda _engine: None)
    engine = SimpleNamespace(builds=SimpleNamespace(executor=None))
    return Solves(cast("Any", engine), cast("Any", None), cast("Any", None))


def serve(builds: Solves) -> asyncio.Task[FrontendResult]:
    channel = SimpleNamespace(closed=asyncio.get_running_loop().create_future(), why="")
    session = cast("Any", SimpleNamespace(channel=channel))
    return asyncio.create_task(builds.served(pb.SolveRequest(Ref="r"), cast("Any", None), session))


async def end(serving: asyncio.Task[FrontendResult], build: GatewayBuild) -> None:
    build.returned.set_result(FrontendResult())
    await serving


async def test_calls_that_come_early_or_late_find_it(builds):
    early = asyncio.create_task(builds.find(OF))
    await asyncio.sleep(0)
    serving = serve(builds)
    found = await early
    assert await builds.find(OF) is found
    await end(serving, found)


async def test_a_call_that_gives_up_takes_nothing_from_others(builds):
    first = asyncio.create_task(builds.find(OF))
    await asyncio.sleep(0)
    second = asyncio.create_task(builds.find(OF))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    serving = serve(builds)
    await end(serving, await second)


async def test_none_comes(builds, monkeypatch):
    monkeypatch.setattr(solves, "_WAIT_S", 0.01)
    with pytest.raises(NotFound, match="no such job r"):
        await builds.find(OF)
