"""The history of builds, asked for by the real buildx and by calls of BuildKit's protocol."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import sqlite3
import uuid

import pytest

from ketch.buildkit.services.content import ContentService
from ketch.buildkit.services.control import ControlService
from ketch.buildkit.wire.control import control_pb2 as pb
from ketch.buildkit.wire.files import content_pb2
from ketch.rpc import bytestream
from ketch.rpc.client import Channel
from ketch.rpc.status import Code, RpcError
from tests.support.builds import classic_builds as builds
from tests.support.engines import Engine
from tests.support.rawapi import Api
from tests.support.waiting import patient

BAD = {"Dockerfile": "FROM busybox\nRUN echo oh no && false\n"}


def good_build():
    """One that is not cached."""
    return {"Dockerfile": f"FROM busybox\nRUN echo said by a step # {uuid.uuid4()}\n"}


@pytest.fixture(scope="module")
def builder():
    one = Engine("ketch", suffix="h")
    one.path = f"{one.root}/b.sock"
    one.extra += ["--builder-addr", f"unix://{one.path}"]
    with one.running():
        yield one


@pytest.fixture
def two_builds(builder):
    """The refs of a build that succeeded and of one that failed; the history has no others."""
    api = Api(builder.socket)
    for record in api.must("GET", "/ketch/builds"):
        api("DELETE", f"/ketch/builds/{record['ref']}")
    builds.post(builder.socket, good_build())
    builds.post(builder.socket, BAD)
    second, first = api.must("GET", "/ketch/builds")
    return first["ref"], second["ref"]


async def events(channel, **fields):
    async with channel.stream(ControlService.ListenBuildHistory) as call:
        await call.send(pb.BuildHistoryRequest(EarlyExit=True, **fields), end=True)
        return [event async for event in call]


async def test_records(builder, two_builds):
    good, bad = two_builds
    channel = Channel.over(await bytestream.connect(builder.path))
    first, second = await events(channel)
    assert [first.record.Ref, second.record.Ref] == [good, bad]
    assert {first.type, second.type} == {pb.COMPLETE}
    assert not first.record.HasField("error")
    assert (second.record.error.code, "exit code: 1" in second.record.error.message) == (2, True)
    assert first.record.numTotalSteps >= first.record.numCompletedSteps > 0
    assert first.record.CompletedAt.seconds >= first.record.CreatedAt.seconds > 0
    assert [event.record.Ref for event in await events(channel, Ref=bad)] == [bad]
    assert [event.record.Ref for event in await events(channel, Limit=1)] == [bad]
    assert [event.record.Ref for event in await events(channel, Filter=["status==completed"])] == [good]
    assert await events(channel, ActiveOnly=True) == []
    await channel.close()


async def test_the_log_of_a_build_that_has_ended(builder, two_builds):
    good, _ = two_builds
    channel = Channel.over(await bytestream.connect(builder.path))
    async with channel.stream(ControlService.Status) as call:
        await call.send(pb.StatusRequest(Ref=good), end=True)
        changes = [change async for change in call]
    assert b"said by a step\n" in b"".join(line.msg for change in changes for line in change.logs)
    assert any(vertex.HasField("completed") for change in changes for vertex in change.vertexes)
    await channel.close()


async def test_a_log_is_a_blob(builder, two_builds):
    good, _ = two_builds
    channel = Channel.over(await bytestream.connect(builder.path))
    assert not (await events(channel))[0].record.HasField("logs")
    (event,) = await events(channel, Ref=good)
    log = event.record.logs
    info = await channel.unary(ContentService.Info, content_pb2.InfoRequest(digest=log.digest))
    assert info.info.size == log.size
    data = await read(channel, log.digest)
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" == log.digest
    assert await read(channel, log.digest, offset=5, size=10) == data[5:15]
    messages, at = [], 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        messages.append(pb.StatusResponse.FromString(data[at + 4 : end]))
        at = end
    assert b"said by a step\n" in b"".join(line.msg for message in messages for line in message.logs)
    await channel.close()


@pytest.mark.parametrize("digest", ["sha256:" + "0" * 64, "sha256:../../ketch.db", "", "x"])
async def test_a_blob_that_is_not_there(builder, digest):
    channel = Channel.over(await bytestream.connect(builder.path))
    with pytest.raises(RpcError) as raised:
        await read(channel, digest)
    assert raised.value.code in (Code.NOT_FOUND, Code.INVALID_ARGUMENT)
    await channel.close()


async def read(channel, digest, **part):
    async with channel.stream(ContentService.Read) as call:
        await call.send(content_pb2.ReadContentRequest(digest=digest, **part), end=True)
        return b"".join([piece.data async for piece in call])


async def test_a_build_that_ends_is_told_with_its_results(builder, context):
    channel = Channel.over(await bytestream.connect(builder.path))
    async with channel.stream(ControlService.ListenBuildHistory) as call:
        await call.send(pb.BuildHistoryRequest(), end=True)
        await asyncio.to_thread(builder.docker, "buildx", "build", "-q", "-t", "heard:1", str(context))
        while not (event := await asyncio.wait_for(call.receive(), patient(10))).record.Result.Results:
            pass
        assert event.type == pb.COMPLETE
        assert event.record.Result.ResultDeprecated.digest == event.record.Result.Results[0].digest
    await channel.close()


async def test_changes_are_heard(builder, two_builds):
    good, bad = two_builds
    channel = Channel.over(await bytestream.connect(builder.path))
    async with channel.stream(ControlService.ListenBuildHistory) as call:
        await call.send(pb.BuildHistoryRequest(), end=True)
        assert [(await call.receive()).record.Ref for _ in range(2)] == [good, bad]
        await channel.unary(ControlService.UpdateBuildHistory, pb.UpdateBuildHistoryRequest(Ref=good, Pinned=True))
        changed = await asyncio.wait_for(call.receive(), patient(10))
        assert (changed.record.Ref, changed.record.pinned) == (good, True)
        await channel.unary(ControlService.UpdateBuildHistory, pb.UpdateBuildHistoryRequest(Ref=bad, Delete=True))
        gone = await asyncio.wait_for(call.receive(), patient(10))
        assert (gone.type, gone.record.Ref) == (pb.DELETED, bad)
        await asyncio.to_thread(builds.post, builder.socket, good_build())
        begun, ended = [await asyncio.wait_for(call.receive(), patient(10)) for _ in range(2)]
        assert (begun.type, ended.type, begun.record.Ref) == (pb.STARTED, pb.COMPLETE, ended.record.Ref)
    with pytest.raises(RpcError) as raised:
        await channel.unary(ControlService.UpdateBuildHistory, pb.UpdateBuildHistoryRequest(Ref=bad, Delete=True))
    assert raised.value.code is Code.NOT_FOUND
    await channel.close()


@pytest.fixture
def context(tmp_path):
    (tmp_path / "Dockerfile").write_text(good_build()["Dockerfile"] + "\nARG WORD\n")
    return tmp_path


def test_what_belongs_to_a_build_that_buildx_made(builder, context):
    """Its provenance is kept with it, also where the image is to have none; what the image store has goes with that."""
    docker = builder.docker
    docker("buildx", "build", "-t", "told:1", "--sbom=true", "--build-arg=WORD=x", str(context), timeout=60)

    def attachment(kind: str, *words: str) -> dict:
        return json.loads(docker("buildx", "history", "inspect", "attachment", "--type", kind, *words).out)

    provenance = attachment("provenance")
    assert provenance["buildDefinition"]["externalParameters"]["configSource"] == {"path": "Dockerfile"}
    assert attachment("application/vnd.oci.image.manifest.v1+json", "--platform", "linux/amd64")["layers"]
    shown = docker("buildx", "history", "inspect").out
    assert "pkg:docker/busybox@latest" in shown
    assert "application/vnd.oci.image.index.v1+json" in shown
    docker("rmi", "told:1")
    assert "application/vnd.oci.image.index.v1+json" not in docker("buildx", "history", "inspect").out

    docker("buildx", "build", "-t", "told:1", "--provenance=false", "--build-arg=WORD=x", str(context), timeout=60)
    args = attachment("provenance")["buildDefinition"]["externalParameters"]["request"]["args"]
    assert args == {"build-arg:WORD": "x"}
    docker("rmi", "told:1")
    docker("buildx", "history", "rm", "--all")
    with sqlite3.connect(f"file:{builder.data_root}/ketch.db?mode=ro", uri=True) as db:
        assert db.execute("SELECT count(*) FROM build_blobs").fetchone() == (0,)


def test_why_a_build_failed(builder, context):
    """Its error has the lines and the last words of the step, as when it was built."""
    (context / "Dockerfile").write_text(BAD["Dockerfile"])
    assert builder.docker("buildx", "build", str(context), check=False, timeout=60).code
    shown = builder.docker("buildx", "history", "inspect").out
    assert "Dockerfile:2\n" in shown
    assert ">>> RUN echo oh no && false" in shown
    assert "> oh no" in shown

    def listed(*filters: str) -> int:
        words = [word for one in filters for word in ("--filter", one)]
        return len(builder.docker("buildx", "history", "ls", *words).out.splitlines()) - 1

    assert listed("status=error", "duration<1h") > 0
    assert listed("status=error", "duration>1h") == listed("startedAt<24h") == 0


def test_passwords_are_not_kept(builder):
    """That of a context's address: neither in its record nor in its error, where clients put their command lines."""
    words = ["buildx", "build", "https://me:the-password@127.0.0.1:1/x.git"]
    assert builder.docker(*words, check=False, timeout=60).code
    with sqlite3.connect(f"file:{builder.data_root}/ketch.db?mode=ro", uri=True) as db:
        (record,) = db.execute("SELECT record FROM builds ORDER BY created DESC LIMIT 1").fetchone()
        assert b"https://xxxxx:xxxxx@127.0.0.1:1/x.git" in record
        (kept,) = db.execute("SELECT data FROM build_blobs ORDER BY rowid DESC LIMIT 1").fetchone()
        assert b"127.0.0.1:1/x.git" in kept
        assert b"the-password" not in record + kept


def test_buildx_lists_shows_and_removes(builder, two_builds):
    good, bad = two_builds
    docker = builder.docker
    listed = docker("buildx", "history", "ls").out
    assert good[:10] in listed
    assert "Error" in next(line for line in listed.splitlines() if bad[:10] in line)
    assert "said by a step" in docker("buildx", "history", "logs", "--progress=plain", good).err
    docker("buildx", "history", "export", "--output", f"{builder.root}/exported", good)
    with open(f"{builder.root}/exported", "rb") as f:
        assert b"said by a step" in gzip.decompress(f.read())
    shown = docker("buildx", "history", "inspect", good).out
    assert "Build Steps:" in shown
    docker("buildx", "history", "rm", good)
    assert good[:10] not in docker("buildx", "history", "ls").out
