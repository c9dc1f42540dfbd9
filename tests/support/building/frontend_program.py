"""A front end of our own: the program of an image that BuildKit's gateway.v0 runs.

It asks LLBBridge over its standard streams, and does what the option ``do`` says.  Run in a container; see
`frontend_image`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from ketch.build.llb import ops_pb2
from ketch.build.llb.definition import define, load
from ketch.build.llb.operations import Action, MountInput, execute, files, output_at, source
from ketch.buildkit.services.gateway import LLBBridgeService
from ketch.buildkit.wire.gateway import gateway_pb2 as pb
from ketch.rpc.client import Channel
from ketch.rpc.status import RpcError
from ketch.rpc.wire.status_pb2 import Status


class StdioStream:
    """This process's standard streams, which the builder answers on."""

    closed = False

    async def receive(self) -> bytes:
        return await asyncio.to_thread(os.read, 0, 1 << 16)

    async def send(self, data: bytes) -> None:
        while data:
            data = data[await asyncio.to_thread(os.write, 1, data) :]

    async def close(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(1)


def options() -> dict[str, str]:
    found = {}
    for name, text in os.environ.items():
        if name.startswith("BUILDKIT_FRONTEND_OPT_"):
            key, _, value = text.partition("=")
            found[key] = value
    return found


class Program:
    def __init__(self, channel: Channel) -> None:
        self.channel, self.options = channel, options()

    async def call(self, method, request):
        return await self.channel.unary(method, request, timeout=120)  # sixteen wait for each other

    async def solve(self, edge, **more) -> pb.Ref:
        request = pb.SolveRequest(Definition=define(edge), allowResultReturn=True, allowResultArrayRef=True, **more)
        answer = await self.call(LLBBridgeService.Solve, request)
        return answer.result.ref

    async def returns(self, ref: pb.Ref | None, metadata=None, error: Status | None = None) -> None:
        result = pb.Result(metadata=metadata or {})
        if ref is not None:
            result.ref.CopyFrom(ref)
        await self.call(LLBBridgeService.Return, pb.ReturnRequest(result=result, error=error))

    # -- what it may be told to do -----------------------------------------------------------------

    async def image(self) -> None:
        """An image of a base, a command and a file, after all sorts of questions."""
        pong = await self.call(LLBBridgeService.Ping, pb.PingRequest())
        assert {"solve.base", "readfile"} <= {one.ID for one in pong.FrontendAPICaps}
        assert any(one.ID == "source.image" for one in pong.LLBCaps)
        workers = json.loads(os.environ["BUILDKIT_WORKERS"])
        assert [one["id"] for one in workers] == [one.ID for one in pong.Workers]
        asked = pb.ResolveImageConfigRequest(Ref=self.options["base"], LogName="looking for the base")
        found = await self.call(LLBBridgeService.ResolveImageConfig, asked)
        config = json.loads(found.Config)
        base = source(f"docker-image://{found.Ref}", {}, ops_pb2.Platform(OS="linux", Architecture="amd64"))
        meta = ops_pb2.Meta(args=["/bin/sh", "-c", "mkdir /made && echo by a front end > /made/file"], cwd="/")
        meta.env.append("PATH=/bin")
        platform = ops_pb2.Platform(OS="linux", Architecture=config["architecture"])
        run = execute(ops_pb2.ExecOp(meta=meta), [MountInput(ops_pb2.Mount(dest="/"), base)], platform)
        ref = await self.solve(output_at(run, "/"), Evaluate=True)
        read = await self.call(LLBBridgeService.ReadFile, pb.ReadFileRequest(Ref=ref.id, FilePath="/made/file"))
        assert read.Data == b"by a front end\n", read
        part = pb.ReadFileRequest(Ref=ref.id, FilePath="/made/file", Range=pb.FileRange(Offset=3, Length=1))
        assert (await self.call(LLBBridgeService.ReadFile, part)).Data == b"a"
        listed = await self.call(LLBBridgeService.ReadDir, pb.ReadDirRequest(Ref=ref.id, DirPath="/made"))
        assert [one.path for one in listed.entries] == [b"file"]
        status = await self.call(LLBBridgeService.StatFile, pb.StatFileRequest(Ref=ref.id, Path="/made"))
        assert status.stat.mode & 1 << 31  # Go's directory
        text = ops_pb2.FileActionMkFile(path="/told", mode=0o644, data=self.options["text"].encode(), timestamp=-1)
        more = files(load(getattr(ref, "def")), [Action(ops_pb2.FileAction(mkfile=text))])
        await self.call(LLBBridgeService.Warn, pb.WarnRequest(digest=more.vertex.digest, level=1, short=b"beware"))
        print("on its way", file=sys.stderr, flush=True)
        config["config"]["Labels"] = {"made": "by a front end"}
        metadata = {"containerimage.config": json.dumps(config).encode()}
        await self.returns(await self.solve(more), metadata)

    async def inputs(self) -> None:
        """The result that is its input of the name ``given``."""
        found = await self.call(LLBBridgeService.Inputs, pb.InputsRequest())
        await self.returns(await self.solve(load(found.Definitions["given"])))

    async def recipe(self) -> None:
        """The context with what the Dockerfile says, or what a call asks; a second line `fail` copies what is not."""
        name = self.options.get("filename", "Dockerfile")
        written = await self.solve(source("local://dockerfile", {"local.followpaths": json.dumps([name])}))
        text = (await self.call(LLBBridgeService.ReadFile, pb.ReadFileRequest(Ref=written.id, FilePath=name))).Data
        if call := self.options.get("requestid"):
            await self.returns(None, {"result.json": json.dumps({"asked": call}).encode(), "result.txt": call.encode()})
            return
        wanted = "/none" if text.split(b"\n")[1] == b"fail" else "/"
        context = source("local://context")
        copy = ops_pb2.FileActionCopy(src=wanted, dest="/", dirCopyContents=True, mode=-1, timestamp=-1)
        recipe = ops_pb2.FileActionMkFile(path="/recipe", mode=0o644, data=text, timestamp=-1)
        made = files(
            None,
            [Action(ops_pb2.FileAction(copy=copy), context), Action(ops_pb2.FileAction(mkfile=recipe))],
        )
        lines = ops_pb2.Source(infos=[ops_pb2.SourceInfo(filename=name, data=text, language="recipe")])
        second = ops_pb2.Range(start=ops_pb2.Position(line=2), end=ops_pb2.Position(line=2))
        lines.locations[made.vertex.digest].locations.add(sourceIndex=0, ranges=[second])
        request = pb.SolveRequest(Definition=define(made, lines), allowResultReturn=True, allowResultArrayRef=True)
        ref = (await self.call(LLBBridgeService.Solve, request)).result.ref
        labels = {"cmdline": self.options["cmdline"], "options": " ".join(sorted(self.options))}
        config = {"architecture": "amd64", "os": "linux", "config": {"Labels": labels}}
        await self.returns(ref, {"containerimage.config": json.dumps(config).encode()})

    async def attest(self) -> None:
        """A file and statements about it: one in a file of its own, and two as a bundle."""

        def written(files_: dict[str, str]):
            edge = None
            for path, text in files_.items():
                make = ops_pb2.FileActionMkFile(path=path, mode=0o644, data=text.encode(), timestamp=-1)
                edge = files(edge, [Action(ops_pb2.FileAction(mkfile=make))])
            return edge

        said = await self.solve(written({"/said.json": self.options["said"]}))
        statement = {"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://x/bundled"}
        of = [{"name": "it", "digest": {"sha256": "0" * 64}}]
        rows = {
            "/a.json": {**statement, "predicate": {"n": 1}},
            "/b.json": {**statement, "subject": of, "predicate": 2},
        }
        bundle = await self.solve(written({path: json.dumps(row) for path, row in rows.items()}))
        result = pb.Result()
        result.ref.CopyFrom(await self.solve(written({"/file": "made"})))
        name = next(iter(json.loads(os.environ["BUILDKIT_WORKERS"])))["platforms"][0]
        found = result.attestations[f"{name['os']}/{name['architecture']}"].attestation
        one = found.add(path="/said.json", inTotoPredicateType="https://x/said", metadata={"inline-only": b"true"})
        one.ref.CopyFrom(said)
        one.inTotoSubjects.add(kind=0)
        one.inTotoSubjects.add(kind=1, name="other", digest=["sha256:" + "1" * 64])
        found.add(kind=1, path="/").ref.CopyFrom(bundle)
        await self.call(LLBBridgeService.Return, pb.ReturnRequest(result=result))

    async def container(self) -> None:
        """A result that says what a process in a container upon the base, and one added to it, have written."""
        wanted = ops_pb2.Platform(OS="linux", Architecture="amd64")
        ref = await self.solve(source(f"docker-image://{self.options['base']}", {}, wanted))
        new = pb.NewContainerRequest(ContainerID="mine", Mounts=[ops_pb2.Mount(dest="/", resultID=ref.id)])
        await self.call(LLBBridgeService.NewContainer, new)
        said, done = {"first": b"", "added": b""}, set()

        def begins(name: str, *args: str) -> pb.ExecMessage:
            init = pb.InitMessage(ContainerID="mine", Meta={"args": args, "env": ["PATH=/bin"]}, Fds=[0, 1, 2])
            return pb.ExecMessage(ProcessID=name, Init=init)

        async with self.channel.stream(LLBBridgeService.ExecProcess) as call:
            await call.send(begins("first", "/bin/sh", "-c", "echo first > /file; cat"))
            await call.send(pb.ExecMessage(ProcessID="first", File=pb.FdMessage(Data=b"and its input ")))
            while len(done) < 2:
                message = await call.receive()
                assert message is not None
                kind = message.WhichOneof("Input")
                if kind == "File":
                    said[message.ProcessID] += message.File.Data
                    if message.ProcessID == "first" and message.File.Data:
                        await call.send(begins("added", "cat", "/file"))
                elif kind == "Done":
                    done.add(message.ProcessID)
                    await call.send(pb.ExecMessage(ProcessID="first", File=pb.FdMessage(EOF=True)))
        if self.options.get("released"):
            await self.call(LLBBridgeService.ReleaseContainer, pb.ReleaseContainerRequest(ContainerID="mine"))
        text = ops_pb2.FileActionMkFile(path="/said", mode=0o644, data=said["first"] + said["added"], timestamp=-1)
        await self.returns(await self.solve(files(None, [Action(ops_pb2.FileAction(mkfile=text))])))

    async def hold(self) -> None:
        """Run a process in a container, and wait for it without an end."""
        ref = await self.solve(source(f"docker-image://{self.options['base']}", {}, ops_pb2.Platform(OS="linux")))
        new = pb.NewContainerRequest(ContainerID="mine", Mounts=[ops_pb2.Mount(dest="/", resultID=ref.id)])
        await self.call(LLBBridgeService.NewContainer, new)
        init = pb.InitMessage(ContainerID="mine", Meta={"args": ["/bin/sleep", "1000"]}, Fds=[1])
        async with self.channel.stream(LLBBridgeService.ExecProcess) as call:
            await call.send(pb.ExecMessage(ProcessID="one", Init=init))
            while await call.receive() is not None:
                print("it runs", file=sys.stderr, flush=True)

    async def twice(self) -> None:
        """Return a second time, which is refused; the first result stays."""
        text = ops_pb2.FileActionMkFile(path="/first", mode=0o644, data=b"1", timestamp=-1)
        await self.returns(await self.solve(files(None, [Action(ops_pb2.FileAction(mkfile=text))])))
        await self.refused(self.returns(None), "return called twice")

    async def strangers(self) -> None:
        """Ask for results that are not its own, with messages that are none or too large; say what it was told."""
        ref = self.options["stranger"]
        asked = LLBBridgeService
        told = [
            await self.refused(self.call(asked.ReadFile, pb.ReadFileRequest(Ref=ref, FilePath="/x")), ""),
            await self.refused(self.call(asked.Evaluate, pb.EvaluateRequest(Ref=ref)), ""),
            await self.refused(self.call(asked.StatFile, pb.StatFileRequest(Path="/x")), ""),
            await self.refused(self.returns(pb.Ref(id=ref)), ""),
            await self.refused(self.call(asked.Warn, pb.WarnRequest(short=b"x" * (100 << 20))), ""),
        ]
        text = ops_pb2.FileActionMkFile(path="/told", mode=0o644, data=json.dumps(told).encode(), timestamp=-1)
        await self.returns(await self.solve(files(None, [Action(ops_pb2.FileAction(mkfile=text))])))

    async def refused(self, call, words: str) -> str:
        try:
            await call
        except RpcError as e:
            assert words in e.message
            return f"{e.code.name}: {e.message}"
        raise AssertionError(f"it is not refused: {words}")

    async def again(self) -> None:
        """Ask for itself, and return what comes of it."""
        request = pb.SolveRequest(Frontend="gateway.v0", FrontendOpt=self.options, allowResultReturn=True)
        try:
            await self.call(LLBBridgeService.Solve, request)
        except RpcError as e:
            await self.returns(None, error=Status(code=e.code, message=e.message))

    async def error(self) -> None:
        await self.returns(None, error=Status(code=3, message="it cannot be done"))

    async def silence(self) -> None:
        """End without a result."""
        print("nothing to say", file=sys.stderr, flush=True)

    async def crash(self) -> None:
        os._exit(9)

    async def loop(self) -> None:
        while True:
            pass

    async def fill(self) -> None:
        kept = []
        while True:
            kept.append(bytearray(b"x" * (64 << 20)))

    async def nonsense(self) -> None:
        """What is no HTTP/2 at all."""
        os.write(1, b"this is no protocol\n" * 1000)

    async def stray(self) -> None:
        """Nonsense, and then no end."""
        await self.nonsense()
        await self.loop()

    async def network(self) -> None:
        text = ops_pb2.FileActionMkFile(
            path="/links", mode=0o644, data=" ".join(sorted(os.listdir("/sys/class/net"))).encode()
        )
        await self.returns(await self.solve(files(None, [Action(ops_pb2.FileAction(mkfile=text))])))


async def main() -> None:
    given = options()
    wanted = given.get("do") or given["build-arg:do"]
    channel = Channel.over(StdioStream())
    program = Program(channel)
    await getattr(program, wanted)()
    await channel.close()
    os._exit(0)  # a thread still reads


if __name__ == "__main__":
    asyncio.run(main())
