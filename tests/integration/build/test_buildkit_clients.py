"""What buildx and other clients of BuildKit's protocol ask about the builder, over each kind of connection."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

import pytest

from ketch.buildkit.services.control import ControlService
from ketch.buildkit.services.gateway import LLBBridgeService
from ketch.buildkit.wire.control import control_pb2 as pb
from ketch.buildkit.wire.gateway import gateway_pb2
from ketch.rpc import bytestream
from ketch.rpc.client import Channel
from ketch.rpc.health import HealthCheckRequest, HealthCheckResponse, HealthService
from ketch.rpc.status import Code, RpcError
from tests.support import tls
from tests.support.builds import classic_builds as builds
from tests.support.engines import Engine
from tests.support.waiting import patient

STEPS = {"Dockerfile": "FROM busybox\nRUN echo 1 > /one\nRUN echo 2 > /two\n"}


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    """A daemon that listens for such clients, too: on a socket, and behind TLS on a port."""
    root = tmp_path_factory.mktemp("certificates")
    tls.certificate(root, "authority")
    for name in ("server", "client"):
        tls.certificate(root, name, signed_by="authority")
    one = Engine("ketch", suffix="k")
    one.certificates = root
    one.builder = f"{one.root}/b.sock"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        one.port = free.getsockname()[1]
    one.extra += ["--builder-addr", f"unix://{one.builder}", "--builder-addr", f"tcp://127.0.0.1:{one.port}"]
    one.extra += ["--builder-tlscert", f"{root}/server.pem", "--builder-tlskey", f"{root}/server.key"]
    one.extra += ["--builder-tlscacert", f"{root}/authority.pem"]
    with one.running():
        yield one


async def upgraded(path, *, prefix="", early=b"") -> Channel:
    """A connection of the API that has become gRPC's."""
    sock = socket.socket(socket.AF_UNIX)
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    await loop.sock_connect(sock, path)
    head = f"POST {prefix}/grpc HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    await loop.sock_sendall(sock, head.encode() + early)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += await loop.sock_recv(sock, 1)
    assert answer == b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    return Channel.over(await bytestream.over_socket(sock))


@pytest.mark.parametrize("prefix", ["", "/v1.51"])
async def test_a_connection_of_the_api_becomes_one_of_grpc(builder, prefix):
    channel = await upgraded(builder.socket, prefix=prefix)
    info = await channel.unary(ControlService.Info, pb.InfoRequest())
    assert info.buildkitVersion.package == "github.com/moby/buildkit"
    health = await channel.unary(HealthService.Check, HealthCheckRequest())
    assert health.status == HealthCheckResponse.SERVING
    with pytest.raises(RpcError) as raised:
        await channel.unary(LLBBridgeService.ReadFile, gateway_pb2.ReadFileRequest())
    assert raised.value.code in (Code.UNIMPLEMENTED, Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.UNKNOWN)
    await channel.close()


async def test_a_listener_of_its_own(builder):
    channel = Channel.over(await bytestream.connect(builder.builder))
    workers = await channel.unary(ControlService.ListWorkers, pb.ListWorkersRequest())
    (record,) = workers.record
    assert record.platforms[0].OS == "linux"
    assert record.GCPolicy
    same = await channel.unary(ControlService.ListWorkers, pb.ListWorkersRequest(filter=[f"id=={record.ID}"]))
    other = await channel.unary(ControlService.ListWorkers, pb.ListWorkersRequest(filter=["id==other"]))
    assert (len(same.record), len(other.record)) == (1, 0)
    await channel.close()


async def test_behind_tls_a_certificate_is_needed(builder):
    authority = f"{builder.certificates}/authority.pem"
    trusting = tls.trusting(authority)
    trusting.set_alpn_protocols(["h2"])
    trusting.load_cert_chain(f"{builder.certificates}/client.pem", f"{builder.certificates}/client.key")
    stream = await bytestream.connect(("localhost", builder.port), trusting)
    assert stream.transport.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
    channel = Channel.over(stream)
    await channel.unary(ControlService.Info, pb.InfoRequest())
    await channel.close()

    with pytest.raises((OSError, RpcError)):
        channel = Channel.over(await bytestream.connect(("localhost", builder.port), tls.trusting(authority)))
        try:
            await channel.unary(ControlService.Info, pb.InfoRequest())
        finally:
            await channel.close()


async def test_the_cache_is_listed_and_pruned(builder):
    status, lines = builds.post(builder.socket, STEPS)
    assert status == 200, lines
    channel = Channel.over(await bytestream.connect(builder.builder))
    everything = (await channel.unary(ControlService.DiskUsage, pb.DiskUsageRequest())).record
    steps = [record for record in everything if record.RecordType == "regular"]
    assert len(steps) >= 2
    assert all(record.CreatedAt.seconds and record.UsageCount for record in steps)
    leaf = next(record for record in steps if not any(record.ID in other.Parents for other in everything))
    found = await channel.unary(ControlService.DiskUsage, pb.DiskUsageRequest(filter=[f"id=={leaf.ID},type==regular"]))
    assert list(found.record) == [leaf]
    pruned = await prune(channel, pb.PruneRequest(all=True, filter=[f"id=={leaf.ID}"]))
    assert pruned == [leaf.ID]
    assert await prune(channel, pb.PruneRequest(all=True, keepDuration=3600 * 10**9)) == []
    await prune(channel, pb.PruneRequest(all=True))
    left = (await channel.unary(ControlService.DiskUsage, pb.DiskUsageRequest())).record
    assert not [record for record in left if record.RecordType == "regular" and not record.InUse]
    await channel.close()


async def prune(channel, request):
    async with channel.stream(ControlService.Prune) as call:
        await call.send(request, end=True)
        return [record.ID async for record in call]


async def test_a_filter_that_is_none(builder):
    channel = Channel.over(await bytestream.connect(builder.builder))
    with pytest.raises(RpcError, match=r"failed to parse diskusage filters \[bad filter\]: filters: parse error"):
        await channel.unary(ControlService.DiskUsage, pb.DiskUsageRequest(filter=["bad filter"]))
    await channel.close()


def test_buildx_lists_inspects_and_prunes(builder):
    docker = builder.docker
    assert "running" in docker("buildx", "ls").out
    shown = docker("buildx", "inspect").out
    assert "Status:           running" in shown
    assert "linux/" in shown
    status, lines = builds.post(builder.socket, STEPS)
    assert status == 200, lines
    assert "Total:" in docker("buildx", "du").out
    assert "regular" in docker("buildx", "du", "--verbose").out
    freed = docker("builder", "prune", "--all", "--force").out
    assert "Total:" in freed


def test_buildx_with_the_remote_driver(builder):
    docker = builder.docker
    docker("buildx", "create", "--name", "far", "--driver", "remote", f"unix://{builder.builder}")
    try:
        assert "Status:           running" in docker("buildx", "inspect", "far").out
        docker("buildx", "du", "--builder", "far")
        docker("buildx", "prune", "--builder", "far", "--force")
    finally:
        docker("buildx", "rm", "far")


def test_a_build_with_its_session_inside_of_a_call(builder, tmp_path):
    """The remote driver has one connection: files go in, and the image comes back, through a call on it."""
    docker = builder.docker
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY random /random\n")
    data = os.urandom(3_000_000)
    (tmp_path / "random").write_bytes(data)
    docker("buildx", "create", "--name", "inside", "--driver", "remote", f"unix://{builder.builder}")
    try:
        target = f"type=local,dest={tmp_path}/out"
        docker("buildx", "build", "--builder", "inside", "--output", target, "--progress=plain", str(tmp_path))
        docker("buildx", "build", "--builder", "inside", "--load", "-t", "inside", str(tmp_path))
    finally:
        docker("buildx", "rm", "inside")
    assert (tmp_path / "out/random").read_bytes() == data
    assert "inside" in docker("images").out
    docker("rmi", "inside")


def test_buildx_with_the_remote_driver_behind_tls(builder):
    docker, place = builder.docker, builder.certificates
    options = f"cacert={place}/authority.pem,cert={place}/client.pem,key={place}/client.key,servername=localhost"
    address = f"tcp://127.0.0.1:{builder.port}"
    docker("buildx", "create", "--name", "tls", "--driver", "remote", "--driver-opt", options, address)
    try:
        assert "Status:           running" in docker("buildx", "inspect", "tls").out
    finally:
        docker("buildx", "rm", "tls")


def test_buildx_by_tcp_and_behind_the_api_s_tls(tmp_path):
    for name in ("authority", "server", "client"):
        tls.certificate(tmp_path, name, signed_by="" if name == "authority" else "authority")
    one = Engine("ketch", suffix="t")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["--tlsverify", "--tlscacert", f"{tmp_path}/authority.pem"]
    own = ["--tlscert", f"{tmp_path}/server.pem", "--tlskey", f"{tmp_path}/server.key"]
    mine = ["--tlscert", f"{tmp_path}/client.pem", "--tlskey", f"{tmp_path}/client.key"]
    one.extra = ["-H", f"tcp://127.0.0.1:{port}"]
    host = ["-H", f"tcp://localhost:{port}"]
    try:
        one.start()
        assert "running" in one.docker(*host, "buildx", "ls", DOCKER_HOST=f"tcp://localhost:{port}").out
        one.stop()
        one.extra += flags + own
        one.start()
        shown = one.docker(*flags, *mine, *host, "buildx", "inspect").out
        assert "Status:           running" in shown
    finally:
        one.delete()


async def test_connections_end_with_the_daemon(tmp_path):
    one = Engine("ketch", suffix="e")
    one.extra += ["--builder-addr", f"unix://{one.root}/b.sock"]
    try:
        one.start()
        channels = [await upgraded(one.socket), Channel.over(await bytestream.connect(f"{one.root}/b.sock"))]
        for channel in channels:
            await channel.unary(ControlService.Info, pb.InfoRequest())
        assert await asyncio.to_thread(one.stop) == 0
        for channel in channels:
            await asyncio.wait_for(channel.closed, patient(10))
            await channel.close()
    finally:
        one.delete()


def test_nothing_of_the_protocol_is_imported_before_a_client_connects():
    """Its memory and its part of the daemon's start belong to those who use it."""
    code = "import sys, ketch.daemon.wiring; print([m for m in sys.modules if m.split('.')[0] in ('hpack', 'google')])"
    code += "; print([m for m in sys.modules if m.startswith(('ketch.rpc', 'ketch.buildkit.'))])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.splitlines() == ["[]", "['ketch.buildkit.clients']"]


def test_a_daemon_that_runs_containers_has_not_loaded_it():
    """What loads it is the first connection of such a client, and nothing that other clients do."""
    one = Engine("ketch", suffix="n")

    def loaded():
        with open(f"/proc/{one.process.pid}/maps", encoding="utf-8") as f:
            return "google/_upb" in f.read()

    with one.running():
        one.client("run", "--rm", "busybox", "true")
        one.client("images")
        one.client("system", "df")
        assert not loaded()
        asyncio.run(asked_of(one))
        assert loaded()


async def asked_of(engine):
    channel = await upgraded(engine.socket)
    await channel.unary(ControlService.Info, pb.InfoRequest())
    await channel.close()
