"""Graphs that a client of BuildKit's protocol makes itself, and gives to the engine's front end, over a connection."""

from __future__ import annotations

import json

import pytest

from ketch.build.llb import ops_pb2 as llb
from ketch.build.llb.definition import define, load
from ketch.build.llb.operations import Action, files
from ketch.buildkit.services.gateway import LLBBridgeService
from ketch.buildkit.wire.gateway import gateway_pb2 as pb
from ketch.rpc.status import Code, RpcError
from ketch.rpc.wire.status_pb2 import Status
from tests.support.building.gateway_client import GatewayClient
from tests.support.building.session_client import SessionClient

GO_LINK = 1 << 27


def tree(**texts):
    """A graph of files, by their names (``_`` is a dot), and a link."""
    actions = [
        Action(llb.FileAction(mkfile=llb.FileActionMkFile(path=f"/{name.replace('_', '.')}", mode=0o640, data=text)))
        for name, text in texts.items()
    ]
    link = llb.FileActionSymlink(oldpath="a.txt", newpath="/link")
    return files(None, [*actions, Action(llb.FileAction(symlink=link))])


@pytest.fixture
async def build(engine):
    async with GatewayClient.building(engine.socket) as client:
        yield client


async def by_dockerfile(build, inputs, **attrs):
    request = pb.SolveRequest(
        Frontend="dockerfile.v0",
        FrontendOpt=attrs,
        FrontendInputs={name: define(edge) for name, edge in inputs.items()},
        allowResultReturn=True,
        allowResultArrayRef=True,
    )
    return (await build.call(LLBBridgeService.Solve, request)).result


async def test_a_dockerfile_upon_graphs(build):
    """File and context are inputs, and so is a named context with the configuration of an image."""
    text = b"FROM base\nCOPY *.txt /got/\nCOPY <<E /told\n$WHO\nE\n"
    image = json.dumps({"containerimage.config": "eyJjb25maWciOnsiRW52IjpbIldITz1iYXNlIl19fQ=="})  # Env: WHO=base
    inputs = {"dockerfile": tree(Dockerfile=text), "context": tree(a_txt=b"1", b_md=b"2"), "base": tree(of=b"base")}
    attrs = {"context:base": "input:base", "input-metadata:base": image}
    result = await by_dockerfile(build, inputs, **attrs, **{"frontend.caps": "moby.buildkit.frontend.contexts+forward"})
    ref = result.ref.id

    async def read(path):
        return (await build.call(LLBBridgeService.ReadFile, pb.ReadFileRequest(Ref=ref, FilePath=path))).Data

    assert [await read(path) for path in ("/got/a.txt", "/told", "/of")] == [b"1", b"base\n", b"base"]
    with pytest.raises(RpcError, match="open /got/b.md: no such file or directory"):
        await read("/got/b.md")
    config = json.loads(result.metadata["containerimage.config"])
    assert config["config"]["Env"][0] == "WHO=base"
    # The result's graph is one to go on with.
    more = files(load(getattr(result.ref, "def")), [Action(llb.FileAction(rm=llb.FileActionRm(path="/of")))])
    listed = await build.call(LLBBridgeService.ReadDir, pb.ReadDirRequest(Ref=await build.solve(more), DirPath="/"))
    assert [one.path for one in listed.entries] == [b"got", b"link", b"told"]


async def test_looking_at_files(build):
    ref = await build.solve(tree(a_txt=b"0123456789", b_txt=b"", c_md=b""))
    part = pb.ReadFileRequest(Ref=ref, FilePath="/link", Range=pb.FileRange(Offset=2, Length=3))
    assert (await build.call(LLBBridgeService.ReadFile, part)).Data == b"234"
    asked = pb.ReadDirRequest(Ref=ref, DirPath="/", IncludePattern="*.txt")
    listed = await build.call(LLBBridgeService.ReadDir, asked)
    assert [(one.path, one.size) for one in listed.entries] == [(b"a.txt", 10), (b"b.txt", 0)]
    [link] = (
        await build.call(LLBBridgeService.ReadDir, pb.ReadDirRequest(Ref=ref, DirPath="/", IncludePattern="l*"))
    ).entries
    assert link.mode & GO_LINK and link.linkname == b"a.txt"
    for path in ("/link", "/a.txt"):  # the file to which a link leads
        status = (await build.call(LLBBridgeService.StatFile, pb.StatFileRequest(Ref=ref, Path=path))).stat
        assert (status.mode & 0o777, status.size, status.mode & GO_LINK) == (0o640, 10, 0)
    with pytest.raises(RpcError, match="/none: no such file or directory"):
        await build.call(LLBBridgeService.StatFile, pb.StatFileRequest(Ref=ref, Path="/none"))


async def test_what_the_front_end_lacks(build):
    inputs = {"dockerfile": tree(Dockerfile=b"FROM scratch\n"), "context": tree()}
    with pytest.raises(RpcError, match="unsupported frontend capability some.thing") as refused:
        await by_dockerfile(build, inputs, **{"frontend.caps": "moby.buildkit.frontend.inputs,some.thing+forward"})
    [detail] = [one for one in refused.value.details if one.type_url.endswith("errdefs.FrontendCap+json")]
    assert json.loads(detail.value) == {"name": "some.thing"}
    with pytest.raises(RpcError, match=r"unsupported request frontend.convertllb") as refused:
        await by_dockerfile(build, inputs, requestid="frontend.convertllb")
    assert any(one.type_url.endswith("errdefs.Subrequest+json") for one in refused.value.details)


async def test_an_error_that_a_front_end_returns(build):
    """It is that of the build, with its code."""
    error = Status(code=int(Code.FAILED_PRECONDITION), message="not today")
    await build.call(LLBBridgeService.Return, pb.ReturnRequest(error=error))
    with pytest.raises(RpcError, match="not today") as failed:
        await build.solving
    assert failed.value.code == Code.FAILED_PRECONDITION


async def test_a_graph_as_a_whole_build(engine):
    """As `buildctl build` sends it: without a front end."""
    async with GatewayClient.building(engine.socket, Definition=define(tree(a_txt=b"1"))) as client:
        await client.solving


async def test_exporters_that_the_client_chooses_when_it_knows_the_result(engine):
    session = SessionClient()
    session.choose(("image", {"name": "chosen:1"}))
    async with GatewayClient.building(engine.socket, session, EnableSessionExporter=True) as build:
        id = await build.solve(tree(a_txt=b"1"))
        await build.returned(result={"ref": {"id": id}, "metadata": {"key": b"value"}})
    [asked] = session.asked
    assert dict(asked.metadata) == {"key": b"value"}
    assert len(asked.refs) == 1
    assert engine.docker("images", "-q", "chosen:1").out
    engine.docker("rmi", "chosen:1")


async def test_an_unknown_exporter_that_the_client_chooses(engine):
    session = SessionClient()
    session.choose(("floppy", {}))
    async with GatewayClient.building(engine.socket, session, EnableSessionExporter=True) as build:
        id = await build.solve(tree(a_txt=b"1"))
        with pytest.raises(RpcError, match='exporter "floppy" could not be found'):
            await build.returned(result={"ref": {"id": id}})
