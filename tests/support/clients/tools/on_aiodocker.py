"""aiodocker: containers, execs, images, networks and volumes, as a program with an event loop has them."""

import asyncio
import io
import tarfile
import time

import aiodocker

SCRIPT = "echo out; echo err >&2; read line; echo got $line; sleep 1000"


def archive(name, data, mode="w"):
    """A tar with one file."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    file.seek(0)
    return file


async def refused(status, call):
    """The text of an error, which has this status."""
    try:
        await call
    except aiodocker.DockerError as e:
        assert e.status == status, e
        return e.message
    raise AssertionError("it was not refused")


async def listen(docker, seen):
    """Keep the actions of the container's events, to the one that says that it is gone."""
    subscriber = docker.events.subscribe(since=int(time.time()), filters='{"label": ["of=aiodocker"]}')
    while "destroy" not in seen:
        seen.append((await subscriber.get())["Action"])


async def streams(docker):
    """Attached before the start, over a WebSocket, and as logs."""
    settings = {"Image": "busybox", "Cmd": ["sh", "-c", SCRIPT], "OpenStdin": True, "StopSignal": "SIGKILL"}
    box = await docker.containers.create_or_replace("box", {**settings, "Labels": {"of": "aiodocker"}})
    async with box.attach(stdin=True, stdout=True, stderr=True) as stream:
        await box.start()
        await stream.write_in(b"word\n")
        got = {1: b"", 2: b""}
        while got != {1: b"out\ngot word\n", 2: b"err\n"}:
            message = await stream.read_out()
            got[message.stream] += message.data
    socket = await box.websocket(stdin=True, stdout=True, stderr=True, stream=True, logs=True)
    text = b""
    while not {b"out", b"err", b"got word"} <= set(text.splitlines()):
        text += (await socket.receive(5)).data
    await socket.close()
    assert sorted(await box.log(stdout=True, stderr=True)) == ["err\n", "got word\n", "out\n"]
    assert await first(2, box.log(stdout=True, follow=True)) == ["out\n", "got word\n"]
    return box


async def first(count, lines):
    """The first lines of an output that does not end."""
    got = []
    async for line in lines:
        got.append(line)
        if len(got) == count:
            break
    return got


async def execs(box):
    """With input; and on terminals, which get their size as soon as the client is told that they begin."""
    run = await box.exec(["sh", "-c", "read x; echo $x $A; exit 3"], stdin=True, environment={"A": "b"})
    async with run.start() as stream:
        await stream.write_in(b"in\n")
        assert await stream.read_out() == (1, b"in b\n")
        assert await stream.read_out() is None
    assert (await run.inspect())["ExitCode"] == 3
    await asyncio.gather(*(sized(box) for _ in range(5)))


async def sized(box):
    """An exec that waits until its terminal has a size."""
    script = "until [ '30 90' = \"$(stty size)\" ]; do sleep 0.01; done 2> /dev/null; echo as told"
    run = await box.exec(["sh", "-c", script], tty=True)
    async with run.start() as stream:
        await run.resize(h=30, w=90)
        assert (await stream.read_out()).data == b"as told\r\n"


async def life(docker, box):
    """Files, counters, names, states, ends."""
    await box.put_archive("/tmp", archive("file", b"hello").read())
    assert (await box.get_archive("/tmp/file")).extractfile("file").read() == b"hello"
    (counters,) = await box.stats(stream=False)
    assert counters["pids_stats"]["current"] == 1
    (counters,) = await first(1, box.stats())
    assert counters["name"] == "/box"
    await box.rename("crate")
    await box.pause()
    await box.unpause()
    assert [c["Names"] for c in await docker.containers.list(filters={"label": ["of=aiodocker"]})] == [["/crate"]]
    made = await box.commit(repository="made", tag="1", changes=["CMD echo made"])
    assert made["Id"].startswith("sha256:")
    await box.restart(timeout=0)
    end = asyncio.ensure_future(box.wait())
    await box.kill()
    assert (await end)["StatusCode"] == 137
    await box.delete(v=True)


async def images(docker):
    """Saved, loaded, built, run, missed."""
    async with docker.images.export_image("made:1") as answer:
        saved = await answer.read()
    assert await docker.images.delete("made:1")
    loaded = [line async for line in docker.images.import_image(io.BytesIO(saved), stream=True)]
    assert loaded[-1]["stream"] == "Loaded image: made:1\n"
    context = archive("Dockerfile", b"FROM made:1\nRUN echo of the build > /x\nCMD cat /x\n", "w:gz")
    built = [line async for line in docker.images.build(fileobj=context, encoding="gzip", tag="built", stream=True)]
    assert built[-1]["stream"] == "Successfully tagged built:latest\n"
    box = await docker.containers.run({"Image": "built"}, name="of-built")
    assert await box.wait() == {"StatusCode": 0}
    assert await box.log(stdout=True) == ["of the build\n"]
    await box.delete()
    for name in ("built", "made:1"):
        await docker.images.delete(name)
    assert "No such image: nope" in await refused(404, docker.images.inspect("nope"))


async def networks(docker):
    """A network, a volume, a published port."""
    network = await docker.networks.create({"Name": "lan", "Labels": {"a": "b"}})
    volume = await docker.volumes.create({"Name": "vol", "Labels": {"a": "b"}})
    host = {"Binds": ["vol:/v"], "PortBindings": {"80/tcp": [{"HostPort": ""}]}}
    settings = {"Image": "busybox", "Cmd": ["sleep", "1000"], "ExposedPorts": {"80/tcp": {}}, "HostConfig": host}
    box = await docker.containers.run(settings, name="on-lan")
    await network.connect({"Container": "on-lan", "EndpointConfig": {"Aliases": ["web"]}})
    assert (await network.show())["Containers"][box.id]["Name"] == "on-lan"
    assert int((await box.port(80))[0]["HostPort"]) > 0
    await network.disconnect({"Container": "on-lan", "Force": True})
    await box.delete(force=True)
    await network.delete()
    await volume.delete()


async def main():
    """All of it; then what only a swarm has."""
    async with aiodocker.Docker() as docker:
        version = (await docker.version())["ApiVersion"]
        assert docker.api_version == f"v{version}"
        seen = []
        listener = asyncio.ensure_future(listen(docker, seen))
        box = await streams(docker)
        await execs(box)
        await life(docker, box)
        await asyncio.wait_for(listener, 60)
        order = [action for action in seen if action in ("start", "rename", "commit", "restart", "destroy")]
        assert order == ["start", "rename", "commit", "start", "restart", "destroy"], seen
        await images(docker)
        await networks(docker)
        for call in (docker.swarm.inspect, docker.services.list, docker.nodes.list, docker.tasks.list):
            assert "This node is not a swarm manager" in await refused(503, call())


asyncio.run(main())
