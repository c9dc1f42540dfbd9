"""Made-up requests for every endpoint: none is answered with an internal error, none hangs, nothing is left behind.

A longer run by hand, with other seeds: ``KETCH_FUZZ_EXAMPLES=200 KETCH_FUZZ_SEED=7 pytest …/test_fuzz.py``.
"""

from __future__ import annotations

import contextlib
import os

import docker
import pytest

from tests.integration.contract import find_description, load_description
from tests.integration.fuzz import Fuzzer

pytestmark = [
    pytest.mark.ketch_only,
    pytest.mark.skipif(find_description() is None, reason="the Engine API's description is not here: KETCH_API_SPEC"),
]
EXAMPLES = int(os.environ.get("KETCH_FUZZ_EXAMPLES", "6"))
SEED = int(os.environ.get("KETCH_FUZZ_SEED", "1"))
GROWTH = 60 << 20  # of the daemon's memory, by all that it was asked


class World:
    """What the requests are about: containers that run, are paused, ended or new, an exec, a network, a volume."""

    def __init__(self, client: docker.DockerClient) -> None:
        self._client = client
        self._exec = ""

    def settle(self) -> dict[str, list[str]]:
        """Make what is missing; remove the containers and networks that requests have made."""
        api = self._client.api
        there = {name: row for row in api.containers(all=True) for name in row["Names"]}
        for name, wanted in (("running", "running"), ("frozen", "paused"), ("ended", "exited"), ("new", "created")):
            row = there.pop(f"/{name}", None)
            if row is None or row["State"] != wanted:
                if row is not None:
                    api.remove_container(row["Id"], force=True)
                self._make(name)
        for row in there.values():
            with contextlib.suppress(docker.errors.NotFound):
                api.remove_container(row["Id"], force=True, v=True)
        nets = {row["Name"]: row["Id"] for row in api.networks()}
        if "net" not in nets:
            api.create_network("net")
        for name in set(nets) - {"net", "bridge", "host", "none"}:
            api.remove_network(nets[name])
        if "vol" not in (v["Name"] for v in api.volumes()["Volumes"] or ()):
            api.create_volume("vol")
        return {
            "containers": ["running", "frozen", "ended", "new"], "exec": [self._exec], "networks": ["net", "bridge"],
            "volumes": ["vol"], "images": ["busybox"],
        }  # fmt: skip

    def _make(self, name: str) -> None:
        api = self._client.api
        command = ["true"] if name == "ended" else ["sleep", "1000"]
        made = api.create_container(
            "busybox", command, name=name, tty=name == "running", stdin_open=True, stop_signal="KILL"
        )["Id"]
        if name != "new":
            api.start(made)
        if name == "ended":
            api.wait(made)
        if name == "frozen":
            api.pause(made)
        if name == "running":
            self._exec = api.exec_create(made, ["sleep", "1000"])["Id"]


def _resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.timeout(3600)
def test_made_up_requests(own_engine):
    own_engine.start()
    own_engine.add_busybox()
    with contextlib.closing(own_engine.py()) as client:
        world = World(client)
        fuzzer = Fuzzer(own_engine, load_description(), world.settle)
        with contextlib.closing(fuzzer):
            world.settle()
            pid = own_engine.process.pid
            memory, descriptors = _resident(pid), _descriptors(pid)
            for operation in fuzzer.operations:
                fuzzer.drive(operation, EXAMPLES, SEED)
                assert own_engine.process.poll() is None, own_engine.log()
        assert not fuzzer.failures, "\n\n".join(f"{why}\n    {what}" for why, what in fuzzer.failures.items())
        assert {200, 201, 204, 400, 404, 409} <= set(fuzzer.statuses), fuzzer.statuses
        world.settle()
        assert _descriptors(pid) < descriptors + 20
        assert _resident(pid) < memory + GROWTH
        print(fuzzer.statuses)
        for volume in client.volumes.list():
            volume.remove(force=True)
    # (and the fixture: no process, mount, link, cgroup or table is left)
