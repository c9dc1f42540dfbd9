"""Containers of front ends while several things happen to them at once."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from ketch.build.llb import ops_pb2 as pb
from ketch.build.providers import BuildCommand
from ketch.build.tree import EMPTY
from ketch.engine.apparmor.profiles import AppArmorProfiles
from ketch.engine.build.command.interactive import InteractiveContainer
from ketch.engine.build.frontends.containers import ContainerMount, FrontendContainer, ProcessOptions
from ketch.errors import Conflict
from ketch.runtime.rootfs import paths
from tests.support.waiting import patient

TRUE = ProcessOptions(args=["true"])


class Executor:
    """Containers whose root is that of the tests' own process."""

    def __init__(self, parent: int) -> None:
        self.parent = parent

    @asynccontextmanager
    async def interactive(self, _command):
        monitor = SimpleNamespace(
            pid=os.getpid(), process=self.parent, exited=asyncio.get_running_loop().create_future()
        )
        streams = SimpleNamespace(write=None, end_input=None, read=None, close=lambda: None, is_closed=False)
        found = InteractiveContainer(monitor, streams, AppArmorProfiles())
        found.hold_root()
        try:
            yield found
        finally:
            found.close()


def container(dest="/", parent=None):
    bridge = SimpleNamespace(session=None)
    mount = ContainerMount(mount=pb.Mount(dest=str(dest)), tree=EMPTY)
    executor = Executor(os.getppid() if parent is None else parent)
    return FrontendContainer(bridge, executor, BuildCommand(args=(), root=EMPTY), [mount])


async def test_files_are_those_of_the_container_while_it_is_released(tmp_path, monkeypatch):
    """The descriptor's number may be another directory's when a thread comes to use it."""
    place = tmp_path / "own"
    for directory in (place, elsewhere := tmp_path / "other" / str(place)[1:]):
        directory.mkdir(parents=True)
    (place / "own").touch()
    (elsewhere / "foreign").touch()
    found, loop, opened = container(place), asyncio.get_running_loop(), []
    await found.start(TRUE)
    open_in = paths.open_in

    def after_release(*arguments):
        asyncio.run_coroutine_threadsafe(found.release(), loop).result(patient(20))
        opened.append(os.open(tmp_path / "other", os.O_PATH | os.O_DIRECTORY))  # takes the number that is free now
        return open_in(*arguments)

    monkeypatch.setattr(paths, "open_in", after_release)
    try:
        assert await found.looked(0, lambda fd, _top, _owners: os.listdir(fd)) == ["own"]
    finally:
        await found.release()
        for fd in opened:
            os.close(fd)


async def test_the_root_of_another_process_is_not_held():
    """The container's first process has ended, and its number is used again."""
    found = container(parent=os.getpid())
    await found.start(TRUE)
    with pytest.raises(Conflict, match="it has ended"):
        await found.looked(0, lambda fd, _top, _owners: os.listdir(fd))
    await found.release()


async def test_a_release_before_the_start_has_begun():
    """Both messages may come with one packet."""
    found = container()
    first, second = asyncio.create_task(found.start(TRUE)), asyncio.create_task(found.start(TRUE))
    await asyncio.sleep(0)  # the container is to be started, and nothing of that has run
    await found.release()
    for one in (first, second):
        with pytest.raises(Conflict, match="it was released"):
            await asyncio.wait_for(one, patient(20))
