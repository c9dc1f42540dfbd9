"""Containers of a client that is the front end of its own build, over a real connection: BuildKit's LLBBridge."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

import pytest
from google.protobuf import json_format

from ketch.build.llb import ops_pb2 as llb
from ketch.build.llb.operations import MountInput, execute, output_at, source
from ketch.buildkit.services.gateway import LLBBridgeService
from ketch.buildkit.wire.errors import errdefs_pb2
from ketch.buildkit.wire.gateway import gateway_pb2 as pb
from ketch.rpc.status import Code, RpcError
from tests.support.building.gateway_client import STDERR, STDOUT, GatewayClient
from tests.support.building.session_client import SessionClient
from tests.support.leaks import Census, descendants
from tests.support.waiting import patient, until

PLATFORM = llb.Platform(OS="linux", Architecture={"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, ""))
BASE = source("docker-image://docker.io/library/busybox:latest", {}, PLATFORM)
SHELL = ("/bin/sh", "-c")


@pytest.fixture
def census(engine):
    """Nothing of a test's containers may be left behind it."""
    before = Census.take(engine.name)
    open_before = descriptors(engine)
    yield before
    if engine.kind == "ketch":
        nothing_left(engine, before)
        until(lambda: descriptors(engine) <= open_before, lambda: f"it had {open_before} open: {descriptors(engine)}")


def descriptors(engine):
    """How many descriptors of containers the daemon has open: sockets, mounts, directories, pidfds."""
    place = f"/proc/{engine.process.pid}/fd"
    found = 0
    for name in os.listdir(place):
        with contextlib.suppress(FileNotFoundError):
            found += not os.readlink(f"{place}/{name}").endswith((".db", "-wal", "-shm", ".jsonl"))
    return found


def nothing_left(engine, before):
    """Neither processes and their monitors, nor mounts, cgroups, interfaces."""
    own = {"ketch-launcher", "ketch-spare"}
    until(lambda: set(descendants(engine.process.pid).values()) <= own, "nothing of containers runs", 30)
    assert before.leaks() == []


@pytest.fixture
async def build(engine, census):
    async with GatewayClient.building(engine.socket) as client:
        yield client


def root(id, **more):
    return llb.Mount(dest="/", resultID=id, **more)


def command(*args, mounts=(), **more):
    """The result of a command on busybox."""
    meta = llb.Meta(args=args, env=["PATH=/bin"], cwd="/")
    inputs = [MountInput(llb.Mount(dest="/"), BASE), *mounts]
    return output_at(execute(llb.ExecOp(meta=meta, **more), inputs, PLATFORM), "/")


def step_of(error):
    """The failed step of an error."""
    (detail,) = (one for one in error.details if "errdefs.Solve" in one.type_url)
    return json_format.Parse(detail.value.decode(), errdefs_pb2.Solve())


async def test_a_process_with_its_streams(build):
    await build.container("one", root(await build.solve(BASE)))
    async with build.processes() as processes:
        code, out, err = await processes.run("one", *SHELL, "cat; echo done >&2; exit 7", given=b"what goes in\n")
    assert (code, out, err) == (7, b"what goes in\n", b"done\n")


async def test_the_order_of_what_is_told(build):
    await build.container("one", root(await build.solve(BASE)))
    async with build.processes() as processes:
        process = await processes.start("one", *SHELL, "echo out", fds=(1, 2))
        exit = await process.wait()
    assert not exit.Code
    assert process.order[0] == "Started"
    assert process.order[-1] == "Done"
    assert sorted(process.order) == ["Done", "Exit", "File", "File", "File", "Started"]
    assert sorted(process.ends) == [STDOUT, STDERR]


@pytest.mark.ketch_only  # dockerd 28.5.2 tells the end of a process late, or never, when others have run beside it
async def test_more_processes_in_one_container(build):
    """They see the same files, which nobody else does."""
    id = await build.solve(BASE)
    await build.container("one", root(id))
    async with build.processes() as processes:
        first = await processes.start("one", *SHELL, "echo here > /file; echo ready; read x; exit 3")
        await first.until(b"ready\n")
        assert (await processes.run("one", "cat", "/file"))[:2] == (0, b"here\n")
        assert (await processes.run("one", *SHELL, "id -u; pwd; echo $A", user="65534", cwd="/tmp", env=["A=b"]))[
            1
        ] == b"65534\n/tmp\nb\n"
        await build.container("two", root(id))
        assert (await processes.run("two", "ls", "/file"))[0] == 1
        await first.write(b"on\n")
        assert (await first.wait()).Code == 3
        after = await processes.start("one", "true", fds=(1,))
        assert (await after.wait()).Code == 255  # the container has ended


@pytest.mark.ketch_only  # BuildKit waits for those that were added
async def test_all_end_with_the_first(build):
    await build.container("one", root(await build.solve(BASE)))
    async with build.processes() as processes:
        first = await processes.start("one", *SHELL, "echo ready; read x; exit 3")
        await first.until(b"ready\n")
        added = await processes.start("one", "sleep", "1000", fds=(1,))
        await first.write(b"on\n")
        assert (await first.wait()).Code == 3
        assert (await added.wait()).Code == 137


async def test_a_terminal(build):
    await build.container("one", root(await build.solve(BASE)))
    async with build.processes() as processes:
        process = await processes.start("one", "/bin/sh", "-i", tty=True)
        await process.resize(33, 77)
        await process.write(b"stty size; echo =$TERM=\r")
        await process.until(b"33 77")
        await process.until(b"=xterm=")
        await process.write(b"exit 5\r")
        assert (await process.wait()).Code == 5


@pytest.mark.ketch_only  # for the same reason
@pytest.mark.parametrize(("name", "number"), [("KILL", signal.SIGKILL), ("SIGTERM", signal.SIGTERM)])
async def test_signals(build, name, number):
    await build.container("one", root(await build.solve(BASE)))
    async with build.processes() as processes:
        first = await processes.start("one", *SHELL, "echo ready; read x")
        await first.until(b"ready\n")
        other = await processes.start("one", *SHELL, "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done")
        await other.until(b"ready\n")
        await other.signal(name)
        await other.end_input()
        code = (await other.wait()).Code
        assert code == (9 if number == signal.SIGTERM else 137)
        assert not first.exited.done()


@pytest.mark.parametrize("how", ["first", "added"])
async def test_a_program_that_is_not_there(build, how):
    await build.container("one", root(await build.solve(BASE)))
    async with build.processes() as processes:
        if how == "added":
            first = await processes.start("one", *SHELL, "echo ready; read x")
            await first.until(b"ready\n")
        code, _, err = await processes.run("one", "no-such-program")
        assert code in (1, 255)  # BuildKit: 255 when it is added
        assert b'"no-such-program": executable file not found in $PATH' in err


async def test_what_a_failed_command_left(build):
    """An error names the step, and what its mounts had in them before and after it."""
    scratch = MountInput(llb.Mount(dest="/kept", output=1))
    edge = command(*SHELL, "echo left > /left; echo kept > /kept/file; exit 3", mounts=[scratch])
    with pytest.raises(RpcError) as raised:
        await build.solve(edge, Evaluate=True)
    step = step_of(raised.value)
    assert step.op.exec.meta.args[2].endswith("exit 3")
    assert len(step.inputIDs) == len(step.mountIDs) == 2
    assert step.inputIDs[1] == ""
    mounts = [root(step.mountIDs[0]), llb.Mount(dest="/kept", resultID=step.mountIDs[1])]
    await build.container("after", *mounts)
    await build.container("before", root(step.inputIDs[0]))
    async with build.processes() as processes:
        assert (await processes.run("after", "cat", "/left", "/kept/file"))[:2] == (0, b"left\nkept\n")
        assert (await processes.run("before", "ls", "/left"))[0] == 1
    with pytest.raises(RpcError):
        await build.solve(edge, Evaluate=True)  # again, and it has changed nothing


@pytest.mark.ketch_only  # BuildKit's commands that fail leave the same, but it does not say so of writable mounts
async def test_what_a_failed_command_left_in_a_mount_that_is_not_kept(build):
    lost = MountInput(llb.Mount(dest="/lost", output=-1), BASE)
    with pytest.raises(RpcError) as raised:
        await build.solve(command(*SHELL, "echo lost > /lost/file; exit 3", mounts=[lost]), Evaluate=True)
    step = step_of(raised.value)
    await build.container("after", root(step.inputIDs[0]), llb.Mount(dest="/lost", resultID=step.mountIDs[1]))
    async with build.processes() as processes:
        assert (await processes.run("after", "cat", "/lost/file"))[:2] == (0, b"lost\n")


async def test_mounts(engine, census):
    session = SessionClient(secrets={"mine": b"hidden"})
    async with GatewayClient.building(engine.socket, session) as build:
        id = await build.solve(BASE)
        made = await build.solve(command("mkdir", "-p", "/d/e"))
        mounts = [
            root(id),
            llb.Mount(dest="/part", resultID=made, selector="/d", readonly=True),
            llb.Mount(dest="/memory", mountType=llb.TMPFS),
            llb.Mount(dest="/cache", mountType=llb.CACHE, cacheOpt={"ID": "gateway-test"}),
            llb.Mount(dest="/run/secret", mountType=llb.SECRET, secretOpt={"ID": "mine", "mode": 0o400}),
            llb.Mount(dest="/run/none", mountType=llb.SECRET, secretOpt={"ID": "none", "optional": True}),
            llb.Mount(dest="/empty"),
        ]
        await build.container("one", *mounts, hostname="named", extraHosts=[{"Host": "other", "IP": "192.0.2.7"}])
        script = (
            "ls /part; touch /part/x 2>&1 | grep -o Read-only; cat /run/secret; echo; ls /run; "
            "hostname; grep other /etc/hosts; echo kept > /cache/file; echo =$(ls /empty)=; "
            "grep ' /memory ' /proc/mounts | cut -d' ' -f3"
        )
        async with build.processes() as processes:
            code, out, err = await processes.run("one", *SHELL, script)
            lines = b"e\nRead-only\nhidden\nsecret\nnamed\n192.0.2.7\tother\n==\ntmpfs\n"
            assert (code, out, err) == (0, lines, b"")
            await build.release("one")
            await build.container("two", root(id), mounts[3])
            assert (await processes.run("two", "cat", "/cache/file"))[1] == b"kept\n"
            await build.container("secret", root(id))
            secret = [{"ID": "mine", "name": "TOKEN"}]
            assert (await processes.run("secret", *SHELL, "echo $TOKEN; read x", secretenv=secret))[1] == b"hidden\n"
            missing = [{"ID": "none", "name": "TOKEN"}]
        with pytest.raises(RpcError, match="none"):
            await build.container("three", root(id), llb.Mount(dest="/s", mountType=1, secretOpt={"ID": "none"}))
        if engine.kind == "ketch":  # BuildKit ends the call without a word
            async with build.processes() as processes:
                process = await processes.start("two", "true", secretenv=missing)
                assert "secret none: not found" in (await process.wait()).Error.message


async def test_an_added_process_has_secrets_too(engine, census):
    async with GatewayClient.building(engine.socket, SessionClient(secrets={"mine": b"hidden"})) as build:
        await build.container("one", root(await build.solve(BASE)))
        async with build.processes() as processes:
            first = await processes.start("one", *SHELL, "echo ready; read x")
            await first.until(b"ready\n")
            secret = [{"ID": "mine", "name": "TOKEN"}]
            assert (await processes.run("one", *SHELL, "echo $TOKEN", secretenv=secret))[1] == b"hidden\n"


async def test_what_is_not_allowed(build, engine):
    """Without the entitlements there are neither the host's network nor privileges."""
    id = await build.solve(BASE)
    async with build.processes() as processes:
        await build.container("one", root(id))
        process = await processes.start("one", "true", Security=llb.INSECURE, fds=(1, 2))
        exit = await process.wait()
        assert exit.Code == 255
        assert "security.insecure is not allowed" in exit.Error.message
        if engine.kind == "ketch":
            with pytest.raises(RpcError, match=r"network\.host is not allowed"):
                await build.container("two", root(id), Network=llb.HOST)
        else:
            await build.container("two", root(id), Network=llb.HOST)
            exit = await (await processes.start("two", "true", fds=(1, 2))).wait()
            assert "network.host is not allowed" in exit.Error.message


@pytest.mark.parametrize("network", ["host", "none"])
async def test_networks(engine, census, network):
    async with GatewayClient.building(engine.socket, Entitlements=["network.host"]) as build:
        mode = {"host": llb.HOST, "none": llb.NONE}[network]
        await build.container("one", root(await build.solve(BASE)), Network=mode)
        async with build.processes() as processes:
            _, out, _ = await processes.run("one", "ls", "/sys/class/net")
    assert (out == b"lo\n") is (network == "none")


async def test_unknown_names(build, engine):
    id = await build.solve(BASE)
    await build.container("one", root(id))
    with pytest.raises(RpcError, match="Container one already exists") as raised:
        await build.container("one", root(id))
    assert raised.value.code == Code.ALREADY_EXISTS
    with pytest.raises(RpcError, match="container details for none not found"):
        await build.release("none")
    await build.release("one")
    with pytest.raises(RpcError, match="container details for one not found"):
        await build.release("one")
    if engine.kind == "dockerd":  # its calls do not end as long as the client sends nothing
        return
    for message, code in [
        ({"Init": {"ContainerID": "one"}}, Code.NOT_FOUND),
        ({"File": {"Data": b"x"}}, Code.NOT_FOUND),
        ({"Signal": {"Name": "TERM"}}, Code.NOT_FOUND),
        ({"Resize": {"Rows": 1}}, Code.NOT_FOUND),
    ]:
        async with build.processes() as processes:
            await processes.send("process", **message)
            failure = await asyncio.wait_for(processes.failure, patient(20))
            assert failure.code == code, message
    with pytest.raises(RpcError, match="has no root"):
        await build.container("two")
    with pytest.raises(RpcError, match="no such ref"):
        await build.container("two", root("nothing"))
    with pytest.raises(RpcError, match="invalid mount type TMPFS for /"):
        await build.container("two", llb.Mount(dest="/", mountType=llb.TMPFS))


@pytest.mark.ketch_only
async def test_containers_that_cannot_be(build):
    id = await build.solve(BASE)
    cache = {"mountType": llb.CACHE, "cacheOpt": {"sharing": 9}}
    for mount, network, why in [
        ({"mountType": 77}, llb.UNSET, "mount type 77 not implemented"),
        ({"mountType": llb.CACHE}, llb.UNSET, "missing cache mount options"),
        (cache, llb.UNSET, "unknown sharing 9 of cache mount /x"),
        ({}, 77, "unknown network mode 77"),
    ]:
        with pytest.raises(RpcError, match=why):
            await build.container("one", root(id), llb.Mount(dest="/x", **mount), Network=network)


@pytest.mark.ketch_only
async def test_messages_that_nobody_should_send(build):
    await build.container("one", root(await build.solve(BASE)))
    for message, code in [
        ({"Signal": {"Name": "NONSENSE"}}, Code.INVALID_ARGUMENT),
        ({"File": {"Fd": 7, "Data": b"x"}}, Code.OUT_OF_RANGE),
        ({"Init": {"ContainerID": "one"}}, Code.ALREADY_EXISTS),
        ({"Exit": {"Code": 1}}, Code.INVALID_ARGUMENT),
        ({}, Code.INVALID_ARGUMENT),
    ]:
        await build.container("held", root(await build.solve(BASE)))
        async with build.processes() as processes:
            process = await processes.start("held", "sleep", "1000")
            await processes.send(process.name, **message)
            failure = await asyncio.wait_for(processes.failure, patient(20))
            assert failure.code == code, message
        await build.release("held")


@pytest.mark.ketch_only  # BuildKit of these versions has no such calls
async def test_files_of_containers(engine, census):
    async with GatewayClient.building(engine.socket, SessionClient(secrets={"mine": b"hidden"})) as build:
        await look_at_files(build)


async def look_at_files(build):
    made = await build.solve(command(*SHELL, "mkdir /d; echo text > /d/file; ln -s file /d/link"))
    part = llb.Mount(dest="/part", resultID=made, selector="/d")
    secret = llb.Mount(dest="/secret", mountType=llb.SECRET, secretOpt={"ID": "mine"})
    await build.container("one", root(made), part, secret)

    async def read(path, mount=0, **part):
        request = pb.ReadFileRequest(Ref="one", FilePath=path, MountIndex=mount, Range=part or None)
        return (await build.call(LLBBridgeService.ReadFileContainer, request)).Data

    async def listed(path, mount=0):
        request = pb.ReadDirRequest(Ref="one", DirPath=path, MountIndex=mount)
        return [one.path for one in (await build.call(LLBBridgeService.ReadDirContainer, request)).entries]

    async def status(path, mount=0):
        request = pb.StatFileRequest(Ref="one", Path=path, MountIndex=mount)
        return (await build.call(LLBBridgeService.StatFileContainer, request)).stat

    for begun in (False, True):
        assert await read("/d/file") == await read("/file", 1) == b"text\n"
        assert await read("d/link", Offset=1, Length=2) == b"ex"
        assert await listed("/d") == await listed("/", 1) == [b"file", b"link"]
        assert (await status("/d/file")).size == 5
        assert (await status("/link", 1)).path == b"file"
        failing_paths = (read("/none"), listed("/none"), status("/none"), read("/d", 0))
        for failing in (*failing_paths, read("/d/file", 3), read("/", 2), listed("/", 2)):
            with pytest.raises(RpcError):
                await failing
        if not begun:
            processes = await (held := build.processes()).__aenter__()
            process = await processes.start("one", *SHELL, "echo new > /d/new; echo ready; read x")
            await process.until(b"ready\n")
            assert await read("/d/new") == b"new\n"
            await (await processes.start("one", "rm", "/d/new", fds=(1,))).wait()
    await process.end_input()
    await process.wait()
    with pytest.raises(RpcError, match="has ended"):
        await read("/d/file")
    await held.__aexit__(None, None, None)


@pytest.mark.ketch_only
async def test_output_that_nobody_reads_stops_the_process(build, engine):
    """What a process writes waits in it, not in the daemon's memory; nor does the call's other process wait."""
    await build.container("one", root(await build.solve(BASE)))
    await build.container("two", root(await build.solve(BASE)))
    async with build.processes() as processes, build.processes() as others:
        reading = processes.pause()
        loud = await processes.begin("one", "head", "-c", "30000000", "/dev/zero", fds=(1,))
        await asyncio.to_thread(until, lambda: running(engine, "head"), "it runs")
        await asyncio.sleep(1)  # it has written what there was room for
        assert running(engine, "head")
        assert (await others.run("two", "echo", "hello"))[1] == b"hello\n"
        reading()
        assert not (await loud.wait()).Code
        assert len(loud.output[STDOUT]) == 30_000_000


@pytest.mark.ketch_only
async def test_input_that_nobody_reads_waits_with_the_client(build, engine):
    """A client that sends more than its process reads is stopped, and goes on when the process is killed."""
    await build.container("one", root(await build.solve(BASE)))
    async with build.processes() as processes:
        process = await processes.start("one", *SHELL, "echo ready; sleep 1000")
        await process.until(b"ready\n")

        async def write():
            for _ in range(100):
                await process.write(bytes(1 << 20))

        writing = asyncio.create_task(write())
        await asyncio.wait([writing], timeout=1)
        assert not writing.done()
        await build.release("one")
        await asyncio.wait_for(writing, patient(30))
        assert (await process.wait()).Code == 137


@pytest.mark.ketch_only
async def test_how_many_containers(build):
    id = await build.solve(BASE)
    for number in range(64):
        await build.container(f"c{number}", root(id))
    with pytest.raises(RpcError, match="at most 64 containers") as raised:
        await build.container("more", root(id))
    assert raised.value.code == Code.RESOURCE_EXHAUSTED
    await build.release("c7")
    await build.container("more", root(id))


async def test_files_of_results(build):
    """A status is that of the file to which links lead, under its name; entries of directories are what they are."""
    script = "mkdir /d; echo text > /d/file; ln -s d/file /link; ln -s /d /way; ln -s none /dangling"
    id = await build.solve(command(*SHELL, script))

    async def status(path):
        return (await build.call(LLBBridgeService.StatFile, pb.StatFileRequest(Ref=id, Path=path))).stat

    for path in ("/link", "/way/file", "way/../d/file"):
        found = await status(path)
        assert (found.path, found.size, found.linkname, found.mode) == (b"file", 5, b"", 0o644), path
    assert (await status("/way")).path == b"d"
    for path in ("/none", "/dangling"):
        with pytest.raises(RpcError, match=f"lstat .*{path[1:2]}.*: no such file or directory"):
            await status(path)
    listed = await build.call(LLBBridgeService.ReadDir, pb.ReadDirRequest(Ref=id, DirPath="/", IncludePattern="link"))
    assert [(one.path, one.linkname) for one in listed.entries] == [(b"link", b"d/file")]
    with pytest.raises(RpcError, match=r"/none: no such file or directory"):
        await build.call(LLBBridgeService.ReadFile, pb.ReadFileRequest(Ref=id, FilePath="/none"))


async def test_a_build_with_its_result(engine, census):
    """What is done in containers is no part of the result."""
    async with GatewayClient.building(engine.socket) as build:
        edge = command(*SHELL, "echo made > /made")
        id = await build.solve(edge)
        await build.container("one", root(id))
        async with build.processes() as processes:
            assert (await processes.run("one", *SHELL, "cat /made; echo lost > /lost"))[1] == b"made\n"
        await build.release("one")
        answer = await build.call(LLBBridgeService.ReadDir, pb.ReadDirRequest(Ref=id, DirPath="/"))
        names = [one.path for one in answer.entries]
        assert b"made" in names
        assert b"lost" not in names
        await build.returned(result={"ref": {"id": id}})


# -- the end ---------------------------------------------------------------------------------------


async def begun(build):
    """A build with two running containers, one with two processes, and a container that has not begun."""
    id = await build.solve(BASE)
    for name in ("one", "two", "three"):
        await build.container(name, root(id), llb.Mount(dest="/cache", mountType=llb.CACHE, cacheOpt={"ID": "end"}))
    held = build.processes()
    processes = await held.__aenter__()
    for name in ("one", "two", "one"):
        process = await processes.start(name, *SHELL, "echo ready; exec sleep 1000")
        await process.until(b"ready\n")
    return held, processes


def running(engine, program="sleep"):
    """The processes of an engine's containers with that program."""
    return [pid for pid, line in descendants(engine.process.pid).items() if line.partition(" ")[0] == program]


@pytest.mark.ketch_only
@pytest.mark.parametrize("how", ["released", "returned", "failed", "cancelled", "the call ends", "the client vanishes"])
async def test_nothing_is_left(engine, census, how):
    async with GatewayClient.building(engine.socket) as build:
        held, _ = await begun(build)
        assert running(engine)
        if how == "released":
            for name in ("one", "two", "three"):
                await build.release(name)
        elif how == "returned":
            await build.returned(result={})
        elif how == "failed":
            with pytest.raises(RpcError, match="it is not to be"):
                await build.returned(error={"code": 2, "message": "it is not to be"})
        elif how == "cancelled":
            build.solving.cancel()
        elif how == "the call ends":
            await held.__aexit__(None, None, None)
        else:
            build.channel._stream.transport.abort()
        await asyncio.to_thread(until, lambda: not running(engine), "processes are ended", 30)
        if how != "the call ends":
            await asyncio.to_thread(nothing_left, engine, census)


@pytest.mark.ketch_only
@pytest.mark.parametrize("milliseconds", [0, 2, 5, 10, 20, 40])
@pytest.mark.parametrize("how", ["the call ends", "the client vanishes"])
async def test_nothing_is_left_of_what_begins(engine, census, how, milliseconds):
    """Neither of a container that starts, nor of a process that is added to one."""
    async with GatewayClient.building(engine.socket) as build:
        id = await build.solve(BASE)
        for name in ("one", "two"):
            await build.container(name, root(id))
        holding = build.processes()
        held = await holding.__aenter__()
        first = await held.start("one", "sleep", "1000")
        async with build.processes() as processes:
            await processes.begin("one", "sleep", "1001")
            await processes.begin("two", "sleep", "1002")
            await asyncio.sleep(milliseconds / 1000)
            if how == "the client vanishes":
                build.channel._stream.transport.abort()
        if how == "the call ends":
            await asyncio.to_thread(until, lambda: len(running(engine)) == 1, "what began is ended", 30)
            assert not first.exited.done()
        await holding.__aexit__(None, None, None)
        await asyncio.to_thread(until, lambda: not running(engine), "processes are ended", 30)


@pytest.mark.ketch_only
async def test_a_start_that_waits_for_a_cache_is_released(build):
    id = await build.solve(BASE)
    locked = llb.Mount(dest="/cache", mountType=llb.CACHE, cacheOpt={"ID": "locked", "sharing": llb.LOCKED})
    for name in ("one", "two", "three"):
        await build.container(name, root(id), locked)
    async with build.processes() as processes:
        await processes.start("one", "sleep", "1000")
        waiting, patient_one = [await processes.begin(name, "true", fds=(1,)) for name in ("two", "three")]
        await asyncio.sleep(0.3)
        assert not waiting.started.done()
        await build.release("two")
        exit = await waiting.wait()
        assert (exit.Code, "released" in exit.Error.message) == (255, True)
        await build.release("one")
        assert not (await patient_one.wait()).Code


@pytest.mark.ketch_only
async def test_what_does_no_harm_to_others(build):
    """A size without a terminal; messages for a process that has ended; results that cannot be made."""
    await build.container("one", root(await build.solve(BASE)))
    failing = await build.solve(command("false"))
    with pytest.raises(RpcError, match="did not complete successfully: exit code: 1"):
        await build.container("two", root(failing))
    async with build.processes() as processes:
        first = await processes.start("one", *SHELL, "echo ready; cat")
        await first.until(b"ready\n")
        await first.resize(10, 10)
        ended = await processes.start("one", "true")
        await ended.wait()
        await ended.resize(10, 10)
        await ended.signal("TERM")
        await ended.write(b"too late")
        await first.write(b"still here\n")
        await first.until(b"still here\n")


@pytest.mark.ketch_only
async def test_a_killed_daemon(own_engine):
    """The next start ends the processes, and removes all that was made for them."""
    own_engine.start()
    own_engine.add_busybox()
    before = Census.take(own_engine.name)
    with pytest.raises((RpcError, ConnectionError, AssertionError)):
        async with GatewayClient.building(own_engine.socket) as build:
            await begun(build)
            left = running(own_engine)
            assert len(left) == 3
            own_engine.stop(signal.SIGKILL)
            await build.solve(BASE)
    own_engine.start()
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in left), "processes are ended", 30)
    until(lambda: before.leaks(but=("process",)) == [], "nothing else is left", 30)
