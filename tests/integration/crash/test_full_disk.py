"""A full data root: ketchd starts, removals work, the rest fails with the reason."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.boxes.damage import fill, small
from tests.support.containers import LOOP, body
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.support.rawapi import Api

pytestmark = pytest.mark.ketch_only


def take_inodes(directory: str) -> str:
    """Use up all inodes of a file system."""
    path = os.path.join(directory, "inodes")
    os.mkdir(path)
    with contextlib.suppress(OSError):
        for n in range(1 << 20):
            os.close(os.open(f"{path}/{n}", os.O_WRONLY | os.O_CREAT))
    return path


def give_back(path: str) -> None:
    subprocess.run(["rm", "-r", path], check=True)


def furnish(engine, api: Api) -> None:
    """Things that can be removed, and two containers that run."""
    engine.client("run", "-d", "--name", "talker", "busybox", "sh", "-c", LOOP)
    engine.client("run", "-d", "--name", "sleeper", "--stop-signal", "KILL", "busybox", "sleep", "1000")
    engine.client("run", "--name", "fat", "busybox", "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=2")
    for name in ("done", "old"):
        engine.client("run", "--name", name, "busybox", "echo", "said")
    engine.client("run", "--rm", "-v", "hold:/v", "busybox", "touch", "/v/file")
    engine.client("volume", "create", "spare")
    engine.client("network", "create", "quay")
    engine.client("commit", "done", "ship:1")
    engine.client("tag", "busybox", "boat:1")


def looks(engine) -> None:
    """What only looks works."""
    assert "sleeper" in engine.client("ps", "-a").out
    assert json.loads(engine.client("inspect", "talker").out)[0]["State"]["Running"]
    assert "n 0" in engine.client("logs", "talker").out
    assert engine.client("exec", "talker", "echo", "runs").out == "runs\n"
    assert "boat" in engine.client("images").out


def refused(api: Api) -> None:
    """What needs room says so and leaves nothing."""
    for path, what in (
        ("/containers/create?name=late", body("late")),
        ("/volumes/create", {"Name": "late"}),
        ("/commit?container=fat&repo=late", None),
    ):
        status, answer = api("POST", path, what)
        assert status == 500, (path, status, answer)
        assert "no space left" in answer["message"] or "disk is full" in answer["message"], (path, answer)
    for path in ("/containers/late/json", "/volumes/late", "/images/late/json"):
        assert api("GET", path)[0] == 404


def frees(engine, api: Api) -> None:
    """What removes, renames and stops works."""
    api.must("POST", "/containers/old/rename", name="older")
    api.must("POST", "/images/busybox/tag", repo="raft", tag="1")
    api.must("POST", "/containers/sleeper/stop")
    assert api.must("POST", "/containers/sleeper/wait")["StatusCode"] == 137
    api.must("DELETE", "/volumes/hold")
    api.must("DELETE", "/networks/quay")
    api.must("DELETE", "/images/ship:1")
    api.must("DELETE", "/images/boat:1")
    api.must("DELETE", "/containers/done")
    api.must("DELETE", "/containers/sleeper")
    api.must("POST", "/volumes/prune", filters='{"all":["true"]}')
    api.must("DELETE", "/containers/fat")
    until(lambda: not engine.client("ps", "-aqf", "name=fat").out, "it is not removed")
    api.must("POST", "/containers/prune")
    assert sorted(engine.client("ps", "-a", "--format", "{{.Names}}").out.split()) == ["talker"]
    assert engine.client("volume", "ls", "-q").out == ""


def works(engine, api: Api) -> None:
    """With room again, and no restart."""
    assert engine.client("run", "--rm", "-v", "fresh:/v", "busybox", "echo", "works").out == "works\n"
    lines = len(engine.client("logs", "talker").out.splitlines())
    until(lambda: len(engine.client("logs", "talker").out.splitlines()) > lines, "it does not log again")
    engine.client("network", "create", "late")


EXHAUSTED = {
    "space": ("size=40m", fill),
    "inodes": ("size=40m,nr_inodes=3000", take_inodes),
}


@pytest.mark.parametrize("what", EXHAUSTED)
def test_freeing(own_engine, what):
    options, take = EXHAUSTED[what]
    with small(own_engine, options, own_engine.data_root) as api:
        furnish(own_engine, api)
        taken = take(own_engine.data_root)
        looks(own_engine)
        refused(api)
        frees(own_engine, api)
        give_back(taken)
        works(own_engine, api)


def test_networks_of_a_running_container(own_engine):
    """They come and go, and its hosts file is not given up for one that cannot be written."""
    with small(own_engine, EXHAUSTED["space"][0], own_engine.data_root):
        client = own_engine.client
        client("network", "create", "quay")
        client("run", "-d", "--name", "one", "--network", "quay", "busybox", "sleep", "1000")
        taken = fill(own_engine.data_root)
        client("network", "disconnect", "quay", "one")
        assert "localhost" in client("exec", "one", "cat", "/etc/hosts").out
        client("network", "connect", "quay", "one", check=False)
        shown = client("inspect", "-f", "{{len .NetworkSettings.Networks}}", "one").out.strip()
        assert client("exec", "one", "ls", "/sys/class/net").out.split().count("lo") == 1
        assert shown == str(len(client("exec", "one", "ls", "/sys/class/net").out.split()) - 1)
        assert "localhost" in client("exec", "one", "cat", "/etc/hosts").out
        give_back(taken)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=str)
@pytest.mark.parametrize("what", EXHAUSTED)
def test_start(own_engine, what, number):
    """Containers run on, and the daemon comes back on file systems without room, its own and that of its sockets."""
    options, take = EXHAUSTED[what]
    with small(own_engine, options, own_engine.data_root, own_engine.exec_root) as api:
        furnish(own_engine, api)
        own_engine.stop(number)
        taken = [take(own_engine.data_root), take(own_engine.exec_root)]
        own_engine.start()
        looks(own_engine)
        frees(own_engine, api)
        for path in taken:
            give_back(path)
        works(own_engine, api)


def test_start_without_a_reserve(own_engine):
    """Nothing can be written at all: it answers what it knows, and goes on when there is room."""
    with small(own_engine, "size=40m", own_engine.data_root) as api:
        furnish(own_engine, api)
        own_engine.stop()
        os.unlink(own_engine.data_root + "/ketch.db-reserve")
        taken = fill(own_engine.data_root)
        own_engine.start()
        looks(own_engine)
        refused(api)
        status, answer = api("DELETE", "/containers/done")
        assert status == 500
        assert "no space left" in answer["message"] or "disk is full" in answer["message"]
        give_back(taken)
        works(own_engine, api)
        frees(own_engine, api)


def test_many_removals_on_a_full_disk(own_engine):
    """More of them than the space that is kept would hold at once."""
    with small(own_engine, "size=40m", own_engine.data_root) as api:
        furnish(own_engine, api)
        taken = fill(own_engine.data_root)
        for n in range(800):
            api.must("POST", f"/containers/old/rename?name=old{n}")
            api.must("POST", f"/containers/old{n}/rename?name=old")
        give_back(taken)
        works(own_engine, api)
