"""Clients that go, or stop where they are: their builds end in time and say why, and other builds go on."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import contextmanager, suppress

import pytest

from ketch.buildkit.services.gateway import LLBBridgeService
from ketch.buildkit.wire.gateway import gateway_pb2 as pb
from ketch.rpc.status import RpcError
from tests.support.building.gateway_client import GatewayClient
from tests.support.building.requests import Gate
from tests.support.leaks import descendants
from tests.support.rawapi import Api
from tests.support.waiting import patient, until

pytestmark = [pytest.mark.ketch_only, pytest.mark.usefixtures("no_images_left")]

SECRET = f"""
FROM busybox
RUN {Gate.mount} echo begun >>/gate/log; {Gate.wait}
RUN --mount=type=secret,id=token cat /run/secrets/token
"""
LARGE = "FROM busybox\nRUN dd if=/dev/zero of=/large bs=1M count=64\n"


def failed(engine):
    return [row["status"] for row in Api(engine.socket).must("GET", "/ketch/builds")].count("error")


@contextmanager
def stopped(build):
    """A client and its plugin, stopped for a while."""
    pids = {build.pid, *descendants(build.pid)}
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def unread(path):
    """A pipe that is opened and not read."""
    os.mkfifo(path)
    found = []
    opening = threading.Thread(target=lambda: found.append(os.open(path, os.O_RDONLY)))
    opening.start()
    try:
        yield found
    finally:
        with suppress(OSError):
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        opening.join()
        os.close(found[0])


def context(top, text):
    top.mkdir()
    (top / "Dockerfile").write_text(text)
    return str(top)


def test_clients_that_are_stopped(engine, tmp_path):
    """One is asked for a secret, one is to write its output; both builds end without an answer."""
    gate, before = Gate(engine), failed(engine)
    secret = ["--secret", f"id=token,src={__file__}", context(tmp_path / "secret", SECRET)]
    output = [f"--output=type=tar,dest={tmp_path}/pipe", context(tmp_path / "large", LARGE)]
    piped, words = engine.docker.piped, ("buildx", "build", "--progress=plain", "--no-cache")
    with piped(*words, *secret) as one, unread(tmp_path / "pipe") as opened, piped(*words, *output) as two:
        until(gate.log, lambda: one.text)
        until(lambda: opened, lambda: two.text)
        assert os.read(opened[0], 1000)
        with stopped(one), stopped(two):
            gate.go()
            engine.docker(*words, context(tmp_path / "other", "FROM busybox\nRUN echo other\n"), timeout=60)
            until(lambda: failed(engine) == before + 2, "builds whose clients are stopped do not end", 90)
        assert (one.wait() != 0, two.wait() != 0) == (True, True)
    for build in (one, two):
        assert "the client has not answered for" in build.text


async def test_a_front_end_whose_session_ends(engine):
    async with GatewayClient.building(engine.socket) as client:
        await client.call(LLBBridgeService.Ping, pb.PingRequest())
        await client.leave()
        with pytest.raises(RpcError, match="the client is the front end of this build, and has gone"):
            await asyncio.wait_for(asyncio.shield(client.solving), patient(30))
