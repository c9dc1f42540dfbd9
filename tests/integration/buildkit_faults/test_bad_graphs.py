"""Graphs that no client should send, through a real connection, beside dockerd: the errors that clients expect."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import uuid

import pytest

from ketch.build.llb import ops_pb2 as llb
from ketch.build.llb.definition import define
from ketch.build.llb.operations import Action, files, source
from ketch.buildkit.services.control import ControlService
from ketch.buildkit.wire.control import control_pb2 as pb
from ketch.rpc.client import Channel
from ketch.rpc.server import serve
from ketch.rpc.status import Code, RpcError
from tests.support.building.gateway_client import upgraded
from tests.support.building.session_client import SessionClient
from tests.support.waiting import patient

PLATFORM = llb.Platform(OS="linux", Architecture={"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, ""))
ROOT = llb.Mount(dest="/", input=-1)
META = llb.Meta(args=["true"], cwd="/")
MKDIR = llb.FileActionMkDir(path="/a", mode=0o755, timestamp=-1)


def graph(*ops, ends=True, metadata=None, index=0):
    """A definition of operations as they are; the last one's output is the result."""
    found = llb.Definition()
    for op in ops:
        getattr(found, "def").append(op if isinstance(op, bytes) else op.SerializeToString())
    if ends:
        last = llb.Op(inputs=[llb.Input(digest=digest(ops[-1]), index=index)])
        getattr(found, "def").append(last.SerializeToString())
    for key, value in (metadata or {}).items():
        found.metadata[key].CopyFrom(value)
    return found


def digest(op):
    return "sha256:" + hashlib.sha256(op if isinstance(op, bytes) else op.SerializeToString()).hexdigest()


def of(*inputs, **op):
    return llb.Op(inputs=[llb.Input(digest=one if isinstance(one, str) else digest(one)) for one in inputs], **op)


def action(**more):
    return {"input": -1, "secondaryInput": -1, "output": 0, **more}


MADE = of(file=llb.FileOp(actions=[llb.FileAction(**action(mkdir=MKDIR))]))


def one_action(*inputs, **more):
    return graph(
        *[one for one in inputs if not isinstance(one, str)],
        of(*inputs, file=llb.FileOp(actions=[llb.FileAction(**action(**more))])),
    )


def copy(src, dest="/x", **more):
    return one_action(
        MADE, secondaryInput=0, copy=llb.FileActionCopy(src=src, dest=dest, mode=-1, timestamp=-1, **more)
    )


def command(*inputs, mounts=(ROOT,), meta=META, **more):
    return graph(*inputs, of(*inputs, exec=llb.ExecOp(meta=meta, mounts=mounts, **more), platform=PLATFORM))


BASE = of(source=llb.SourceOp(identifier="docker-image://docker.io/library/busybox:latest"), platform=PLATFORM)
CYCLE = of("sha256:" + "1" * 64, file=llb.FileOp(actions=[llb.FileAction(**action(mkdir=MKDIR))]))

CASES = {
    "one vertex": graph(MADE, ends=False),
    "an end alone": graph(llb.Op(inputs=[llb.Input(digest=digest(MADE))]), ends=False),
    "no bytes": graph(b"", b"", ends=False),
    "no message": graph(b"\xff\xff", MADE),
    "missing digest": graph(CYCLE),
    "bad digest": graph(of("nonsense", file=llb.FileOp(actions=[llb.FileAction(**action(mkdir=MKDIR))]))),
    "empty digest": graph(of("", file=llb.FileOp(actions=[llb.FileAction(**action(mkdir=MKDIR))]))),
    "unknown op": graph(b"\xa2\x06\x03new"),
    "unknown op of a known field": graph(llb.Op(platform=PLATFORM)),
    "two ends": graph(MADE, of(MADE, MADE), ends=False),
    "an end of an end": graph(MADE, of(MADE), of(of(MADE)), ends=False),
    "no inputs at the end": graph(MADE, of(), ends=False),
    "output index beyond": graph(MADE, index=7),
    "negative output index": graph(MADE, index=-1),
    "lowest output index": graph(MADE, index=-(2**63)),
    "exec without mounts": command(mounts=()),
    "exec without root": command(mounts=[llb.Mount(dest="/x", input=-1)]),
    "exec without meta": graph(of(exec=llb.ExecOp(mounts=[ROOT]))),
    "exec without args": command(meta=llb.Meta(cwd="/")),
    "exec on nothing": command(),
    "mount input beyond": command(mounts=[llb.Mount(dest="/", input=3)]),
    "mount input below": command(mounts=[llb.Mount(dest="/", input=-7)]),
    "mount kind": command(BASE, mounts=[llb.Mount(dest="/", input=0), llb.Mount(dest="/x", input=-1, mountType=99)]),
    "mounts that lead out": command(
        BASE,
        mounts=[
            llb.Mount(dest="/", input=0),
            llb.Mount(dest="/../../x", input=0, selector="../../..", readonly=True, output=-1),
        ],
    ),
    "selector that is not there": command(
        BASE,
        mounts=[
            llb.Mount(dest="/", input=0),
            llb.Mount(dest="/x", input=0, selector="/none", readonly=True, output=-1),
        ],
    ),
    "cache without options": command(
        BASE, mounts=[llb.Mount(dest="/", input=0), llb.Mount(dest="/x", input=-1, output=-1, mountType=llb.CACHE)]
    ),
    "cache with an empty id": command(
        BASE,
        mounts=[
            llb.Mount(dest="/", input=0),
            llb.Mount(dest="/x", input=-1, output=-1, mountType=llb.CACHE, cacheOpt=llb.CacheOpt()),
        ],
    ),
    "secret without options": command(
        BASE, mounts=[llb.Mount(dest="/", input=0), llb.Mount(dest="/x", input=-1, output=-1, mountType=llb.SECRET)]
    ),
    "ssh without options": command(
        BASE, mounts=[llb.Mount(dest="/", input=0), llb.Mount(dest="/x", input=-1, output=-1, mountType=llb.SSH)]
    ),
    "network mode": command(BASE, mounts=[llb.Mount(dest="/", input=0)], network=77),
    "security mode": command(BASE, mounts=[llb.Mount(dest="/", input=0)], security=77),
    "root twice": command(BASE, mounts=[llb.Mount(dest="/", input=0), llb.Mount(dest="/", input=0, output=1)]),
    "a user that is not there": command(
        BASE, mounts=[llb.Mount(dest="/", input=0)], meta=llb.Meta(args=["true"], cwd="/", user="nobody-here")
    ),
    "no actions": graph(of(file=llb.FileOp())),
    "no action": one_action(),
    "action input beyond": one_action(input=4, mkdir=MKDIR),
    "action input below": one_action(input=-5, mkdir=MKDIR),
    "action output beyond": one_action(output=9, mkdir=MKDIR),
    "action without output": one_action(output=-1, mkdir=MKDIR),
    "action of itself": one_action(MADE, input=1, mkdir=MKDIR),
    "mkdir that leads out": one_action(
        mkdir=llb.FileActionMkDir(path="/../../../x", mode=0o755, makeParents=True, timestamp=-1)
    ),
    "mkdir of nothing": one_action(mkdir=llb.FileActionMkDir(path="", mode=0o755, timestamp=-1)),
    "mkdir without parents": one_action(mkdir=llb.FileActionMkDir(path="/a/b/c", mode=0o755, timestamp=-1)),
    "mkfile that leads out": one_action(
        mkfile=llb.FileActionMkFile(path="../../x", data=b"x", mode=0o644, timestamp=-1)
    ),
    "mkfile on a directory": one_action(
        MADE, input=0, mkfile=llb.FileActionMkFile(path="/a", data=b"x", mode=0o644, timestamp=-1)
    ),
    "rm of nothing": one_action(MADE, input=0, rm=llb.FileActionRm(path="/none")),
    "rm that leads out": one_action(MADE, input=0, rm=llb.FileActionRm(path="/../../../a")),
    "rm of all": one_action(MADE, input=0, rm=llb.FileActionRm(path="/")),
    "copy that leads out": copy("/../../../../etc/passwd"),
    "copy to where leads out": copy("/a", "/../../../../x"),
    "copy of nothing": copy("/none"),
    "copy from no input": one_action(copy=llb.FileActionCopy(src="/a", dest="/b", mode=-1, timestamp=-1)),
    "copy with a bad pattern": copy("/[", allowWildcard=True),
    "copy with a bad exclude": copy("/", exclude_patterns=["["]),
    "owner by input beyond": one_action(
        mkdir=llb.FileActionMkDir(
            path="/a",
            mode=0o755,
            timestamp=-1,
            owner=llb.ChownOpt(user=llb.UserOpt(byName=llb.NamedUserOpt(name="x", input=5))),
        )
    ),
    "merge of nothing": graph(of(merge=llb.MergeOp())),
    "merge of one": graph(MADE, of(MADE, merge=llb.MergeOp(inputs=[llb.MergeInput(input=0)]))),
    "merge of scratch": graph(of(merge=llb.MergeOp(inputs=[llb.MergeInput(input=-1), llb.MergeInput(input=-1)]))),
    "merge beyond": graph(MADE, of(MADE, merge=llb.MergeOp(inputs=[llb.MergeInput(input=0), llb.MergeInput(input=1)]))),
    "diff of scratch": graph(
        of(diff=llb.DiffOp(lower=llb.LowerDiffInput(input=-1), upper=llb.UpperDiffInput(input=-1)))
    ),
    "diff of itself": graph(
        MADE, of(MADE, diff=llb.DiffOp(lower=llb.LowerDiffInput(input=0), upper=llb.UpperDiffInput(input=0)))
    ),
    "diff of one from scratch": graph(
        MADE, of(MADE, diff=llb.DiffOp(lower=llb.LowerDiffInput(input=0), upper=llb.UpperDiffInput(input=-1)))
    ),
    "diff beyond": graph(
        MADE, of(MADE, diff=llb.DiffOp(lower=llb.LowerDiffInput(input=3), upper=llb.UpperDiffInput(input=0)))
    ),
    "diff without sides": graph(MADE, of(MADE, diff=llb.DiffOp())),
    "source of nothing": graph(of(source=llb.SourceOp())),
    "source scheme": graph(of(source=llb.SourceOp(identifier="ftp2://x"))),
    "source without scheme": graph(of(source=llb.SourceOp(identifier="x"))),
    "image without name": graph(of(source=llb.SourceOp(identifier="docker-image://"))),
    "image with a bad mode": graph(
        of(
            source=llb.SourceOp(
                identifier="docker-image://docker.io/library/busybox:latest", attrs={"image.resolvemode": "x"}
            )
        )
    ),
    "local without name": graph(of(source=llb.SourceOp(identifier="local://"))),
    "local not shared": graph(of(source=llb.SourceOp(identifier="local://none"))),
    "local with bad patterns": graph(
        of(source=llb.SourceOp(identifier="local://context", attrs={"local.includepattern": "{"}))
    ),
    "http with a bad checksum": graph(
        of(source=llb.SourceOp(identifier="http://127.0.0.1:1/x", attrs={"http.checksum": "x"}))
    ),
    "layout without store": graph(of(source=llb.SourceOp(identifier="oci-layout://x@sha256:" + "0" * 64))),
    "build without an input": graph(of(build=llb.BuildOp(builder=-1))),
    "build of another builder": graph(
        MADE, of(MADE, build=llb.BuildOp(builder=0, inputs={"buildkit.llb.definition": llb.BuildInput(input=0)}))
    ),
    "platform nonsense": graph(
        of(
            source=llb.SourceOp(identifier="docker-image://docker.io/library/busybox:latest"),
            platform=llb.Platform(OS="/", Architecture="\n"),
        )
    ),
    "constraints": graph(
        of(
            file=llb.FileOp(actions=[llb.FileAction(**action(mkdir=MKDIR))]),
            constraints=llb.WorkerConstraints(filter=["nonsense==="]),
        )
    ),
    "unknown capability": graph(MADE, metadata={digest(MADE): llb.OpMetadata(caps={"file.from.tomorrow": True})}),
    "capability that is not needed": graph(
        MADE, metadata={digest(MADE): llb.OpMetadata(caps={"file.from.tomorrow": False})}
    ),
    "metadata of others": graph(MADE, metadata={"nonsense": llb.OpMetadata(ignore_cache=True)}),
    "the same twice": graph(MADE, MADE),
    "the end before": graph(of(MADE), MADE, of(MADE), ends=False),
}

# Where dockerd says something else, or ends itself (as at a negative output index): Ketch's words.
LOADING = "failed to load LLB: "
OURS = {
    "no message": LOADING + "failed to parse llb proto op: ",
    "unknown op": LOADING + "invalid nil op: ",
    "unknown op of a known field": LOADING + "invalid nil op: ",
    "an end of an end": LOADING + "invalid nil op: ",
    "two ends": LOADING + "invalid LLB with 2 inputs on last vertex",
    "output index beyond": "there is no output 7 of `mkdir /a`: it has 1",
    "negative output index": LOADING + "invalid input index below 0",
    "lowest output index": LOADING + "invalid input index below 0",
    "mount input beyond": LOADING + "invalid input 3 of mount /: the operation has 0",
    "mount input below": LOADING + "invalid input -7 of mount /: the operation has 0",
    "mount kind": LOADING + "mount type 99 not implemented",
    "selector that is not there": 'process "true" did not complete successfully: ',
    "cache without options": LOADING + "missing cache mount options",
    "secret without options": LOADING + "invalid secret mount options",
    "ssh without options": "unset ssh forward key default",
    "network mode": LOADING + "unknown network mode 77",
    "no action": LOADING + "invalid nil action 0 of file op",
    "action input beyond": LOADING + "invalid input 4 of action 0: there are 0",
    "action input below": LOADING + "invalid input -5 of action 0: there are 0",
    "action output beyond": "missing or duplicate output index",
    "action of itself": LOADING + "invalid input 1 of action 0: there are 1",
    "copy with a bad pattern": "failed to compute cache key: failed to calculate checksum of ref ",
    "copy with a bad exclude": "failed to compute cache key: failed to calculate checksum of ref ",
    "owner by input beyond": "failed to load cache key: invalid input index 5 in file op with 0 inputs",
    "merge of nothing": LOADING + "invalid merge op with no inputs",
    "merge of scratch": LOADING + "invalid input -1 of merge: the operation has 0",
    "merge beyond": LOADING + "invalid input 1 of merge: the operation has 1",
    "diff of itself": "built",
    "diff without sides": "built",
    "diff beyond": LOADING + "invalid input 3 of diff's lower side: the operation has 1",
    "source of nothing": LOADING + "invalid source op with no source",
    "source scheme": "failed to load cache key: failed to parse source 'ftp2://x': unknown scheme",
    "source without scheme": "failed to load cache key: failed to parse source 'x': unknown scheme",
    "image without name": "failed to load cache key: invalid reference format",
    "image with a bad mode": "failed to load cache key: invalid value for resolvemode: x",
    "local without name": 'no access allowed to dir ""',
    "local not shared": 'no access allowed to dir "none"',
    "local with bad patterns": "failed to load cache key: invalid value for local.includepattern '{'",
    "http with a bad checksum": "failed to load cache key: invalid checksum 'x'",
    "layout without store": "failed to load cache key: the client keeps no layouts",
    "build without an input": "failed to load cache key: build a graph within a graph",
    "build of another builder": "failed to load cache key: build a graph within a graph",
    "platform nonsense": "failed to load cache key: ",
    "capability that is not needed": LOADING + "unknown API capability file.from.tomorrow",
    "unknown capability": LOADING + "unknown API capability file.from.tomorrow",
}


async def asked(path, **request):
    """What comes of a build that is asked for: the error, or None."""
    session, name = SessionClient(directories={}), uuid.uuid4().hex
    stream = await upgraded(path, "/session", session.headers(name))
    serving = asyncio.create_task(serve(stream, session.handlers))
    channel = Channel.over(await upgraded(path, "/grpc"))
    try:
        request = pb.SolveRequest(Ref=uuid.uuid4().hex, Session=name, **request)
        await channel.unary(ControlService.Solve, request, timeout=patient(60))
        return None
    except RpcError as e:
        return e
    finally:
        await channel.close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await stream.close()


def told(error):
    """An error's words, without names that each engine makes."""
    if error is None:
        return "built"
    return re.sub(r"(checksum of ref) [^ ]+:", r"\1 REF:", error.message)


@pytest.mark.parametrize("name", [name for name in CASES if name not in OURS])
async def test_the_same_words(engine, dockerd, name):
    ours, theirs = [told(await asked(one.socket, Definition=CASES[name])) for one in (engine, dockerd)]
    assert ours == theirs


@pytest.mark.ketch_only
@pytest.mark.parametrize("name", OURS)
async def test_our_words(engine, name):
    error = await asked(engine.socket, Definition=CASES[name])
    assert (error.message if error else "built").startswith(OURS[name])
    assert error is None or (error.code is Code.UNKNOWN and "Error: " not in error.message)


@pytest.mark.ketch_only
async def test_deep_graphs(engine):
    """A chain is as long as it likes, since nothing recurses; its end is told to whoever asked."""
    edge = source("local://none")
    for number in range(20_000):
        made = llb.FileActionMkDir(path=f"/{number}", mode=0o755, timestamp=-1)
        edge = files(edge, [Action(llb.FileAction(mkdir=made))], PLATFORM)
    error = await asked(engine.socket, Definition=define(edge))
    assert error.message == 'no access allowed to dir "none"'


@pytest.mark.ketch_only
async def test_huge_graphs(engine):
    """More operations than are taken are refused by name, and so is more than a message holds."""
    many = llb.Definition()
    getattr(many, "def").extend(
        llb.Op(source=llb.SourceOp(identifier=str(n))).SerializeToString() for n in range(100_001)
    )
    error = await asked(engine.socket, Definition=many)
    assert error.message == "failed to load LLB: definition of 100001 vertices: at most 100000 are solved"
    error = await asked(engine.socket, Definition=graph(MADE, b"\0" * (16 << 20)))
    assert error.code is Code.RESOURCE_EXHAUSTED
    assert (
        error.message
        == f"a message of {error.message.split()[3]} bytes was received, and at most {16 << 20} are allowed"
    )


@pytest.mark.ketch_only
async def test_the_daemon_goes_on(engine):
    """After all of these, and while some are under way, another build is as it should be."""
    bad = [asked(engine.socket, Definition=CASES[name]) for name in list(OURS)[:20]]
    good = asked(engine.socket, Definition=CASES["the same twice"])
    *_, error = await asyncio.gather(*bad, good)
    assert error is None
