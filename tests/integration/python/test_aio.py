"""The same for tasks of asyncio, and what becomes of one that is cancelled."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ketch import TimedOut, aio
from ketch.aio import files
from tests.support.waiting import patient

pytestmark = pytest.mark.ketch_only


@pytest.fixture
async def python(engine):
    async with aio.connect(engine.host) as one:
        yield one


async def containers(python) -> list:
    return await (await python.access.http()).json("GET", "/containers/json", {"all": True})


async def test_many_at_once(python):
    results = await asyncio.gather(*(python.run("busybox", ["echo", str(n)]) for n in range(6)))
    assert [one.text for one in results] == [f"{n}\n" for n in range(6)]
    async with python.container("busybox") as box:
        results = await asyncio.gather(*(box.exec(["cat"], input=str(n)) for n in range(6)))
        assert [one.text for one in results] == [str(n) for n in range(6)]
        async with await box.popen("echo 1; read x; echo $x; exit 3") as program:
            lines = program.lines()
            assert (await anext(lines)).data == b"1\n"
            await program.write("2\n")
            assert [line.data async for line in lines] == [b"2\n"]
            assert await program.wait() == 3
        await box.put("/a", b"b")
        assert await box.get("/a") == b"b"


async def test_a_program_that_is_closed_while_a_task_reads(python):
    """The task sees the end of the output."""
    async with python.container("busybox") as box:
        async with await box.popen("echo 1; sleep 1000") as program:
            lines = program.lines()
            assert (await anext(lines)).data == b"1\n"
            reader = asyncio.ensure_future(lines.next())
            await asyncio.sleep(0.05)
        async with asyncio.timeout(patient(30)):
            assert await reader is None
        assert (await box.exec(["echo", "2"])).text == "2\n"


async def test_archives_are_read_beside_the_loop(python, monkeypatch):
    threads = []
    for name in ("content", "tree"):
        original = getattr(files.Received, name)

        def seen(self, *given, original=original):
            threads.append(threading.current_thread())
            return original(self, *given)

        monkeypatch.setattr(files.Received, name, seen)
    async with python.container("busybox") as box:
        await box.put("/d/f", "x")
        assert await box.get("/d/f") == b"x"
        assert await box.get_tree("/d") == {"f": b"x"}
    assert len(threads) == 2
    assert threading.main_thread() not in threads


async def several_steps(python) -> None:
    async with python.container("busybox") as box:
        await box.exec(["sleep", "1000"])


async def test_a_cancelled_program_is_ended_with_its_family(python):
    async with python.container("busybox", ["sleep", "2000"]) as box:
        task = asyncio.create_task(box.exec("(setsid sleep 1001 &); sleep 1002"))
        while "sleep 1001" not in (await box.exec(["ps", "-o", "args"])).text:
            pass
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert "sleep 100" not in (await box.exec(["ps", "-o", "args"])).text


async def test_a_cancelled_task_leaves_nothing(python):
    for script in ("sleep 1000", "yes"):
        task = asyncio.create_task(python.run("busybox", script))
        while not any(one["State"] == "running" for one in await containers(python)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await containers(python) == []
    for pause in (0, 0.001, 0.003, 0.01, 0.03):  # in the midst of creation, start, exec
        task = asyncio.create_task(several_steps(python))
        await asyncio.sleep(pause)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await containers(python) == []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await python.run("busybox", ["sleep", "1000"])
    with pytest.raises(TimedOut):
        await python.run("busybox", ["sleep", "1000"], timeout=0.5)
    assert await containers(python) == []
