"""The objects that generated requests refer to, and the state of their daemon."""

from __future__ import annotations

import contextlib
import os

import docker


class World:
    """What the requests are about: containers that run, are paused, ended or new, an exec, a network, a volume."""

    def __init__(self, client: docker.DockerClient) -> None:
        self._client = client
        self._exec = ""

    def restore(self) -> dict[str, list[str]]:
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
            "containers": ["running", "frozen", "ended", "new"],
            "exec": [self._exec],
            "networks": ["net", "bridge"],
            "volumes": ["vol"],
            "images": ["busybox"],
        }

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


def resident(pid: int) -> int:
    """Bytes of a process's memory."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def descriptors(pid: int) -> int:
    """How many files a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))
