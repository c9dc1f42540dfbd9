"""Containers that end while nothing can be written, with a daemon and without: how they ended is known all the same."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess

import pytest

from tests.support.boxes.crash_box import running
from tests.support.boxes.damage import fill
from tests.support.rawapi import Api
from tests.support.waiting import until

pytestmark = pytest.mark.ketch_only
ENDS = "trap 'exit 7' TERM; echo up; while :; do usleep 10000; done"


@contextlib.contextmanager
def full(engine, root: str):
    place = getattr(engine, root)
    os.mkdir(f"{place}/first")
    os.mkdir(f"{place}/second")
    fill(f"{place}/first")
    yield lambda: fill(f"{place}/second")  # what has ended has made some room
    for name in ("first", "second"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{place}/{name}/fill")


@contextlib.contextmanager
def read_only(engine, root: str):
    """What containers have there; a whole file system with open files is not made read-only by the kernel."""
    place = os.path.join(getattr(engine, root), "run" if root == "exec_root" else "containers")
    subprocess.run(["mount", "--bind", place, place], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
    yield lambda: None
    subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def roots(own_engine):
    """An engine with small file systems of its own, and two containers."""
    places = (own_engine.data_root, own_engine.exec_root)
    with contextlib.ExitStack() as stack:
        stack.callback(setattr, own_engine, "data_root", own_engine.data_root + "2")  # what the fixture ends with
        stack.callback(setattr, own_engine, "exec_root", own_engine.exec_root + "2")  # works without them
        for place in places:
            os.mkdir(place)
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", place], check=True)
            stack.callback(subprocess.run, ["umount", "-l", place], check=True)
        stack.callback(lambda: own_engine.process and own_engine.stop())
        own_engine.start()
        own_engine.add_busybox()
        stack.callback(lambda: own_engine.process and own_engine.remove_all())
        for name in ("one", "other"):
            own_engine.client("run", "-d", "--name", name, "busybox", "sh", "-c", ENDS)
            until(lambda name=name: "up" in own_engine.client("logs", name).out, "it does not start")
        yield own_engine


def ends(engine, name: str, *, code: int = 7) -> None:
    """What is said of its end."""
    api = Api(engine.socket)
    assert api.must("POST", f"/containers/{name}/wait")["StatusCode"] == code
    state = json.loads(engine.client("inspect", name).out)[0]["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", code)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("spoil", [full, read_only])
@pytest.mark.parametrize("root", ["exec_root", "data_root"])
def test_an_end_while_nothing_can_be_written(roots, root, spoil):
    pids = {name: json.loads(roots.client("inspect", name).out)[0]["State"]["Pid"] for name in ("one", "other")}
    with spoil(roots, root) as once_more:
        os.kill(pids["one"], signal.SIGTERM)
        ends(roots, "one")
        roots.stop(signal.SIGKILL)
        once_more()
        os.kill(pids["other"], signal.SIGTERM)
        until(lambda: not running(pids["other"]), "it does not end")
        roots.start()
        ends(roots, "one")
        ends(roots, "other")
    roots.stop(signal.SIGKILL)
    roots.start()
    for name in ("one", "other"):
        ends(roots, name)
        roots.client("start", name)
        roots.client("kill", name)
        ends(roots, name, code=137)


@pytest.mark.timeout(120)
def test_room_comes_before_the_daemon(roots):
    """The monitor writes its record then, and ends."""
    pid, ident = roots.client("inspect", "-f", "{{.State.Pid}} {{.Id}}", "one").out.split()
    with full(roots, "exec_root"):
        roots.stop(signal.SIGKILL)
        os.kill(int(pid), signal.SIGTERM)
        until(lambda: not running(int(pid)), "it does not end")
    until(lambda: not os.path.exists(f"{roots.exec_root}/run/{ident}/control.sock"), "its monitor does not end")
    with open(f"{roots.exec_root}/run/{ident}/exit.json", encoding="utf-8") as f:
        assert json.load(f)["code"] == 7
    roots.start()
    ends(roots, "one")
