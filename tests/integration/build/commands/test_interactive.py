"""Containers of builds whose streams somebody holds: input, output, terminals, signals, further processes."""

from __future__ import annotations

import asyncio
import signal

import pytest

from ketch.build.providers import BuildCommand
from ketch.engine.build.command.interactive import TerminalSize
from ketch.errors import Conflict, RuntimeFailure
from tests.support.boxes.build_box import PATH
from tests.support.waiting import patient

pytestmark = pytest.mark.ketch_only


def command(build_box, *args: str, **more) -> BuildCommand:
    words = list(args) if len(args) > 1 else ["/bin/sh", "-c", *args]
    return BuildCommand(args=words, **{"root": build_box.base, "env": [PATH], "network": "none", **more})


async def output(process) -> dict[int, bytes]:
    """All output of a process, by its streams."""
    found = {1: b"", 2: b""}
    while (piece := await process.read()) is not None:
        found[piece[0]] += piece[1]
    return found


def in_container(build_box, first: BuildCommand, work):
    """Run a coroutine with a container; nothing of it is left."""

    async def run():
        async with build_box.executor.interactive(first) as container:
            return await asyncio.wait_for(work(container), patient(20))

    try:
        return build_box.call(run())
    finally:
        build_box.until_gone()


def test_input_and_output(build_box):
    """What goes in comes out, both outputs apart, megabytes of it; the end of the input is one for the process."""
    data = bytes(range(256)) * 8192

    async def work(container):
        reading = asyncio.create_task(output(container.process))
        for at in range(0, len(data), 100_000):
            await container.process.write(data[at : at + 100_000])
        container.process.end_input()
        return await reading, await container.process.ended()

    found, code = in_container(build_box, command(build_box, "cat; echo done >&2; exit 7"), work)
    assert found == {1: data, 2: b"done\n"}
    assert code == 7


def test_a_process_waits_while_nobody_reads(build_box):
    async def work(container):
        await asyncio.sleep(0.3)  # it has filled what there is to fill
        assert not container.process._ended.done()
        found = await output(container.process)
        return len(found[1]), await container.process.ended()

    assert in_container(build_box, command(build_box, "head -c 9000000 /dev/zero"), work) == (9_000_000, 0)


def test_a_terminal(build_box):
    async def work(container):
        process = container.process
        await process.resize(TerminalSize(33, 44))
        await process.write(b"stty size; exit 3\n")
        found = await output(process)
        return found, await process.ended()

    found, code = in_container(build_box, command(build_box, "/bin/sh", "-i", tty=True), work)
    assert b"33 44\r\n" in found[1]
    assert found[2] == b""
    assert code == 3


def test_signals_and_further_processes(build_box):
    """They see the same files, end each for itself, and all with the first."""

    async def work(container):
        first = container.process
        assert (await first.read()) == (1, b"ready\n")
        other = await container.add(command(build_box, "echo here > /tmp/file; cat; exit 5"))
        await other.write(b"typed\n")
        other.end_input()
        assert await output(other) == {1: b"typed\n", 2: b""}
        assert await other.ended() == 5
        user = await container.add(command(build_box, "id -u; cat /tmp/file", user="alice"))
        assert (await output(user))[1] == b"1000\nhere\n"
        with pytest.raises(RuntimeFailure):
            await container.add(command(build_box, "/no/such", "program"))
        sleeping = await container.add(command(build_box, "sleep 1000"))
        await sleeping.signal(signal.SIGKILL)
        assert await sleeping.ended() == 137
        last = await container.add(command(build_box, "sleep 1000"))
        await first.signal(signal.SIGUSR1)
        assert (await output(first))[1] == b"told\n"
        assert await first.ended() == 4
        assert await last.ended() == 137
        with pytest.raises(Conflict):
            await container.add(command(build_box, "true"))

    in_container(
        build_box, command(build_box, "trap 'echo told; exit 4' USR1; echo ready; while :; do sleep 0.05; done"), work
    )


def test_who_leaves_ends_it(build_box):
    async def work(container):
        assert (await container.process.read()) == (1, b"ready\n")
        raise KeyError

    with pytest.raises(KeyError):
        in_container(build_box, command(build_box, "echo ready; sleep 1000"), work)
    with pytest.raises(RuntimeFailure):
        in_container(build_box, command(build_box, "/no/such", "program"), work)
