"""Calls of Control that name what is not there, come twice, or come at a bad moment; messages that are none."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from ketch.buildkit.services.control import ControlService
from ketch.buildkit.wire.control import control_pb2 as pb
from ketch.rpc.client import Channel
from ketch.rpc.method import Method
from ketch.rpc.status import Code, RpcError
from tests.support.building.gateway_client import GatewayClient, upgraded
from tests.support.waiting import patient

RAW = "/moby.buildkit.v1.Control/"


@pytest.fixture
async def channel(engine):
    one = Channel.over(await upgraded(engine.socket, "/grpc"))
    yield one
    await one.close()


async def refused(call):
    with pytest.raises(RpcError) as raised:
        await asyncio.wait_for(call, patient(30))
    return raised.value


async def told(channel, ref):
    async with channel.stream(ControlService.Status) as call:
        await call.send(pb.StatusRequest(Ref=ref), end=True)
        return [change async for change in call]


async def test_the_progress_of_an_unknown_build(channel):
    error = await refused(told(channel, "nothing"))
    assert (error.code, error.message) == (Code.NOT_FOUND, "no such job nothing")


@pytest.mark.parametrize("change", [{"Delete": True}, {"Pinned": True}])
async def test_a_change_of_an_unknown_record(channel, change):
    request = pb.UpdateBuildHistoryRequest(Ref="nothing", **change)
    error = await refused(channel.unary(ControlService.UpdateBuildHistory, request))
    assert error.code is Code.NOT_FOUND
    assert "nothing" in error.message


async def test_a_build_without_a_session(channel):
    error = await refused(channel.unary(ControlService.Solve, pb.SolveRequest(Ref="x", Frontend="dockerfile.v0")))
    assert "a build needs a session" in error.message
    request = pb.SolveRequest(Ref="x", Session="gone", Frontend="dockerfile.v0")
    error = await refused(channel.unary(ControlService.Solve, request))
    assert "no active session for gone: context deadline exceeded" in error.message


async def test_a_build_with_the_ref_of_another_that_runs(engine, channel):
    """The second one is refused, the first goes on; the history keeps the ref for that one."""
    async with GatewayClient.building(engine.socket) as client:
        await client.call(Method("/moby.buildkit.v1.frontend.LLBBridge/Ping", bytes, bytes), b"")
        again = pb.SolveRequest(Ref=client.ref, Session=client.session, Frontend="dockerfile.v0")
        error = await refused(channel.unary(ControlService.Solve, again))
        assert error.message.startswith(f"job ID {client.ref} exists")
        assert not client.solving.done()
        await client.returned()
    async with GatewayClient.building(engine.socket, ref=client.ref) as client:
        error = await refused(asyncio.shield(client.solving))
        assert error.message == f"a build has the ref {client.ref} already"


@pytest.mark.parametrize("name", ["Solve", "Status", "DiskUsage", "Prune", "ListWorkers", "ListenBuildHistory"])
async def test_bytes_that_are_no_message(channel, name):
    error = await refused(channel.unary(Method(RAW + name, bytes, bytes), b"\xff\xff\xff"))
    assert error.code is Code.INTERNAL
    assert "what was received is no " in error.message


async def test_methods_that_are_not_there(channel):
    error = await refused(channel.unary(Method(RAW + "Dance", bytes, bytes), b""))
    assert (error.code, error.message) == (
        Code.UNIMPLEMENTED,
        "unknown method Dance for service moby.buildkit.v1.Control",
    )
    error = await refused(channel.unary(Method("/a.b/C", bytes, bytes), b""))
    assert (error.code, error.message) == (Code.UNIMPLEMENTED, "unknown service a.b")


@pytest.mark.parametrize("ref", ["", "x" * 100_000, "../../x", "\n\0"])
async def test_refs_of_any_kind(engine, channel, ref):
    """A ref is a name in the history, and no path."""
    async with GatewayClient.building(engine.socket, ref=ref) as client:
        client.solving.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.wait([client.solving], timeout=0.5)
    error = None
    try:
        await told(channel, ref)
    except RpcError as e:
        error = e
    assert error is None or error.code in (Code.NOT_FOUND, Code.INVALID_ARGUMENT)


async def test_a_record_whose_ref_begins_a_newer_one(engine, channel):
    """It is found by its own ref, which is no prefix then."""
    name = uuid.uuid4().hex
    for ref in (name, name + "0"):
        async with GatewayClient.building(engine.socket, ref=ref) as client:
            await client.returned()
    await channel.unary(ControlService.UpdateBuildHistory, pb.UpdateBuildHistoryRequest(Ref=name, Delete=True))
    await told(channel, name + "0")
