"""Actions and checks of the crash matrix; docs/crash-safety.md describes the half-done states.

A case: ``before`` prepares (nothing is armed), ``do`` leads to the point and returns the last answer's status,
``then`` looks at what came of it after the next start.  ``dies`` names who: ketchd, launcher, monitor or child.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.boxes.crash_box import running
from tests.support.containers import fetch
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.boxes.crash_box import Box

SLEEP = ["sleep", "100000"]


def nothing(_box: Box) -> None:
    """No preparation, no further look."""


@dataclass
class Case:
    """One point; ``passage`` when it is not the first, ``at_start``: the daemon dies before it listens."""

    point: str
    do: Callable[[Box], int]
    then: Callable[[Box], None] = nothing
    before: Callable[[Box], None] = nothing
    dies: str = "ketchd"
    passage: int = 0
    at_start: bool = False

    def __str__(self) -> str:
        return self.point + (f":{self.passage}" if self.passage else "")


# -- create and start ------------------------------------------------------------------------------


def create(box: Box) -> int:
    host = {"Mounts": [{"Type": "volume", "Source": "hold", "Target": "/etc"}]}
    return box.create("made", SLEEP, body={"Volumes": {"/root": {}}}, **host)[0]


def whole_or_gone(box: Box) -> None:
    """A container that was never acknowledged is usable, or it and its volumes are gone."""
    if box.inspect("made") is None:
        assert box.names("volumes") == []
        assert create(box) == 201
    assert "hold" in box.names("volumes")
    box.api.must("POST", "/containers/made/start")
    assert b"root" in box.exec("made", "cat", "/etc/passwd")


def created(box: Box, **more: object) -> None:
    """A container with all that a start can do for it, not started."""
    box.api.must("POST", "/volumes/create", {"Name": "sea", "DriverOpts": {"type": "tmpfs", "device": "tmpfs"}})
    port = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "0"}]}
    serve = ["sh", "-c", "echo moored >/w/index.html; httpd -p 80 -h /w; sleep 100000"]
    status, answer = box.create("new", serve, NetworkMode="quay", PortBindings=port, Binds=["sea:/w"], **more)
    assert status == 201, answer


def start(box: Box) -> int:
    return box.api("POST", "/containers/new/start")[0]


def startable(box: Box) -> None:
    """It runs, or it can be started, and serves its port and answers to its name."""
    assert box.status("new") in ("created", "exited", "running")
    if box.status("new") != "running":
        assert start(box) == 204
    port = box.inspect("new")["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
    assert fetch(int(port)) == "moored\n"
    assert box.exec("ally", "wget", "-qO-", "http://new/") == b"moored\n"


def runs(box: Box) -> None:
    """The daemon died behind the point of no return: the container goes on."""
    assert box.status("new") == "running"
    startable(box)


def failed(box: Box) -> None:
    """The start was answered with an error and undone."""
    assert box.status("new") == "created"
    assert box.inspect("new")["State"]["Error"]
    startable(box)


# -- exit ------------------------------------------------------------------------------------------


def up(box: Box, **more: object) -> None:
    created(box, **more)
    assert start(box) == 204


def end(box: Box) -> int:
    box.ended("new")
    return 0


def ended(box: Box) -> None:
    """The exit is known, whoever lived to tell."""
    until(lambda: box.status("new") == "exited", "its end is not noticed")
    assert box.inspect("new")["State"]["ExitCode"] == 137
    assert box.api.must("POST", "/containers/new/wait")["StatusCode"] == 137
    startable(box)


def up_rm(box: Box) -> None:
    box.create("new", SLEEP, body={"Volumes": {"/data": {}}}, AutoRemove=True)
    assert start(box) == 204


def removed(box: Box) -> None:
    until(lambda: box.inspect("new") is None, "--rm does not remove it")
    assert box.names("volumes") == []


def up_always(box: Box) -> None:
    up(box, RestartPolicy={"Name": "always"})


def back(box: Box) -> None:
    """Its policy has brought it back, and the count is kept."""
    until(lambda: box.status("new") == "running", "its policy does not bring it back")
    assert box.inspect("new")["RestartCount"] >= 1
    startable(box)


# -- stop and the like -----------------------------------------------------------------------------


def post(what: str, **query: object) -> Callable[[Box], int]:
    return lambda box: box.api("POST", f"/containers/new/{what}", **query)[0]


def stoppable(box: Box) -> None:
    """Running or not, a stop leaves it exited, and a policy does not bring it back."""
    box.api.must("POST", "/containers/new/stop", t=1)
    assert box.status("new") == "exited"
    startable(box)


def unpaused(box: Box) -> None:
    if box.status("new") == "paused":
        box.api.must("POST", "/containers/new/unpause")
    runs(box)


def paused(box: Box) -> None:
    up(box)
    box.api.must("POST", "/containers/new/pause")


def renamed(box: Box) -> None:
    """One of the two names is taken, the other one free."""
    there, free = ("newer", "new") if box.inspect("newer") else ("new", "newer")
    assert box.create(there, SLEEP)[0] == 409
    assert box.create(free, SLEEP)[0] == 201
    assert box.exec("ally", "wget", "-qO-", f"http://{there}/") == b"moored\n"


def limit(box: Box) -> int:
    return box.api("POST", "/containers/new/update", {"PidsLimit": 77})[0]


def limited(box: Box) -> None:
    """The record and the cgroup say the same."""
    known = box.inspect("new")
    path = box.cgroup(known["Id"]).replace("/freezer/", "/pids/")
    with open(f"{path}/pids.max", encoding="ascii") as f:
        assert f.read().strip() == str(known["HostConfig"]["PidsLimit"] or "max")


def stopped_with_volume(box: Box) -> None:
    assert create(box) == 201
    box.api.must("POST", "/containers/made/start")
    box.api.must("POST", "/containers/made/kill")


def remove(box: Box) -> int:
    return box.api("DELETE", "/containers/made", v=1)[0]


def gone(box: Box) -> None:
    """Wholly: its row, its anonymous volume; the named one stays."""
    assert box.inspect("made") is None
    assert box.names("volumes") == ["hold"]


def many(box: Box) -> None:
    for name in ("one", "two", "three"):
        assert box.create(name, SLEEP)[0] == 201


def prune(what: str) -> Callable[[Box], int]:
    return lambda box: box.api("POST", f"/{what}/prune", filters='{"all":["true"]}' if what == "volumes" else "{}")[0]


# -- exec ------------------------------------------------------------------------------------------


def exec_start(box: Box) -> int:
    made = box.api.must("POST", "/containers/new/exec", {"Cmd": ["sh", "-c", "echo out; exit 4"], "AttachStdout": True})
    return box.api("POST", f"/exec/{made['Id']}/start", {"Detach": False})[0]


def monitor_gone(box: Box) -> None:
    """Nothing of the container is left, though it had left its session and its parent."""
    until(lambda: box.status("new") == "exited", "its end is not noticed")
    assert box.inspect("new")["State"]["ExitCode"] == 137
    startable(box)


# -- networks, volumes -----------------------------------------------------------------------------


def network_create(box: Box) -> int:
    return box.api("POST", "/networks/create", {"Name": "bay"})[0]


def network_whole_or_gone(box: Box) -> None:
    if "bay" not in box.names("networks"):
        assert network_create(box) == 201
    box.run("swimmer", SLEEP, NetworkMode="bay")
    box.api.must("DELETE", "/containers/swimmer", force=1)


def bay(box: Box) -> None:
    assert network_create(box) == 201


def bay_remove(box: Box) -> int:
    return box.api("DELETE", "/networks/bay")[0]


def up_beside_bay(box: Box) -> None:
    bay(box)
    up(box)


def up_in_bay(box: Box) -> None:
    up_beside_bay(box)
    assert connect(box) == 200


def connect(box: Box) -> int:
    return box.api("POST", "/networks/bay/connect", {"Container": "new"})[0]


def disconnect(box: Box) -> int:
    return box.api("POST", "/networks/bay/disconnect", {"Container": "new"})[0]


def joined_or_not(box: Box) -> None:
    """Interfaces, addresses in /etc/hosts and the record agree, and it can join or leave."""
    networks = box.inspect("new")["NetworkSettings"]["Networks"]
    interfaces = box.exec("new", "ls", "/sys/class/net").split()
    assert len(interfaces) == len(networks) + 1, (interfaces, networks)
    hosts = box.exec("new", "cat", "/etc/hosts").decode()
    own = [line for line in hosts.splitlines() if line.endswith(box.inspect("new")["Config"]["Hostname"])]
    assert {line.split()[0] for line in own} == {n["IPAddress"] for n in networks.values()}, hosts
    assert (disconnect if "bay" in networks else connect)(box) == 200
    runs(box)


def volume_create(box: Box) -> int:
    return box.api("POST", "/volumes/create", {"Name": "hold"})[0]


def hold(box: Box) -> None:
    assert volume_create(box) == 201
    box.run("made", ["sh", "-c", "echo x >/v/x"], Binds=["hold:/v"])
    box.api.must("POST", "/containers/made/wait")
    box.api.must("DELETE", "/containers/made")


def volume_remove(box: Box) -> int:
    return box.api("DELETE", "/volumes/hold")[0]


def no_hold(box: Box) -> None:
    assert box.names("volumes") == []
    assert volume_create(box) == 201


def volume_restore(box: Box) -> int:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("new"))
    return box.api("PUT", "/ketch/volumes/hold/archive", data.getvalue(), force=1)[0]


def in_hold(box: Box) -> list[str]:
    """The names in the volume, for which a container starts."""
    box.run("made", SLEEP, Binds=["hold:/v"])
    found = box.exec("made", "ls", "-A", "/v").decode().split()
    box.api.must("DELETE", "/containers/made", force=1)
    return found


def hold_as_before(box: Box) -> None:
    """What was unpacked counts as nothing; the next restore removes it."""
    first, *others = sorted(in_hold(box))
    assert first.startswith(".ketch-restore-") and others == ["x"]
    hold_restored_again(box)


def hold_restored(box: Box) -> None:
    assert in_hold(box) == ["new"]
    hold_restored_again(box)


def hold_restored_again(box: Box) -> None:
    assert volume_restore(box) == 200
    assert in_hold(box) == ["new"]


def two_holds(box: Box) -> None:
    for name in ("hold", "hold2", "hold3"):
        box.api.must("POST", "/volumes/create", {"Name": name})


# -- images ----------------------------------------------------------------------------------------


def load(box: Box) -> int:
    return box.api("POST", "/images/load", box.archive)[0]


def loadable(box: Box) -> None:
    """The image is there or not; loading it makes one that works."""
    assert load(box) == 200
    assert "raft:1" in {t for i in box.api.must("GET", "/images/json") for t in i["RepoTags"] or ()}
    status, answer = box.create("sailor", ["/f"], body={"Image": "raft:1"})
    assert status == 201, answer


def load_cargo(box: Box) -> int:
    return box.api("POST", "/images/load", box.cargo)[0]


def cargo(box: Box) -> None:
    """The image is there or not; loading it makes one whose files are whole."""
    assert load_cargo(box) == 200
    status, answer = box.create("stevedore", ["/bin/sh", "-c", "wc -c </crate"], body={"Image": "cargo:1"})
    assert status == 201, answer
    box.api.must("POST", "/containers/stevedore/start")
    assert box.api.must("POST", "/containers/stevedore/wait")["StatusCode"] == 0
    assert b"2097152" in box.api.must("GET", "/containers/stevedore/logs", stdout=1)


def pull(box: Box) -> int:
    return box.api("POST", "/images/create", fromImage=f"{box.registry.host}/wreck", tag="1")[0]


def pullable(box: Box) -> None:
    """The image is there or not; pulling it makes one that runs, and nothing of the download is left."""
    assert pull(box) == 200
    status, answer = box.create("diver", ["/bin/cat", "/found"], body={"Image": f"{box.registry.host}/wreck:1"})
    assert status == 201, answer
    box.api.must("POST", "/containers/diver/start")
    assert box.api.must("POST", "/containers/diver/wait")["StatusCode"] == 0
    assert b"gold" in box.api.must("GET", "/containers/diver/logs", stdout=1)


def import_(box: Box) -> int:
    return box.api("POST", "/images/create", box.raft_tar, fromSrc="-", repo="raft", tag="2")[0]


def raft(box: Box) -> None:
    assert load(box) == 200


def tag(box: Box) -> int:
    return box.api("POST", "/images/raft:1/tag", repo="ship", tag="2")[0]


def tagged_or_not(box: Box) -> None:
    assert tag(box) == 201
    loadable(box)


def image_remove(box: Box) -> int:
    return box.api("DELETE", "/images/raft:1")[0]


def up_with_chest(box: Box) -> None:
    up(box)
    assert box.exec("new", "sh", "-c", "echo gold >/chest; rm /etc/passwd; cat /chest") == b"gold\n"


def commit(box: Box) -> int:
    return box.api("POST", "/commit", container="new", repo="hulk", tag="1")[0]


def committed(box: Box) -> None:
    """The image is there or not; committing makes one with the container's files."""
    until(lambda: box.status("new") == "running", "the container stays paused")
    assert commit(box) == 201
    status, answer = box.create("diver", ["/bin/sh", "-c", "ls /etc/passwd; cat /chest"], body={"Image": "hulk:1"})
    assert status == 201, answer
    box.api.must("POST", "/containers/diver/start")
    assert box.api.must("POST", "/containers/diver/wait")["StatusCode"] == 0
    assert b"gold" in box.api.must("GET", "/containers/diver/logs", stdout=1)


def hulk(box: Box) -> None:
    up_with_chest(box)
    assert commit(box) == 201


def hulk_remove(box: Box) -> int:
    return box.api("DELETE", "/images/hulk:1")[0]


# -- the daemon's own start and end ----------------------------------------------------------------


def ended_unseen(box: Box) -> None:
    """Work for the next start: an exit, a --rm, a policy, while no daemon is there."""
    up(box)
    box.run("brief", SLEEP, AutoRemove=True)
    box.run("again", SLEEP, RestartPolicy={"Name": "on-failure", "MaximumRetryCount": 3})
    pids = [box.pid(name) for name in ("new", "brief", "again")]
    box.engine.stop(signal.SIGKILL)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(running, pids)), "they do not die")


def ended_seen(box: Box) -> None:
    until(lambda: box.status("again") == "running", "its policy does not bring it back")
    assert box.inspect("again")["RestartCount"] == 1
    assert box.inspect("brief") is None
    ended(box)


def terminate(box: Box) -> int:
    assert box.engine.process is not None
    with contextlib.suppress(ProcessLookupError):
        box.engine.process.send_signal(signal.SIGTERM)
    return 0
