"""A daemon that is made to die at one place after the other, beside containers that must not notice; and what has to
be true afterwards: the API, the database, the disk and the kernel agree, and nothing is left over.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ketch.linux import ns
from ketch.linux.netlink import client as netlink
from ketch.linux.netlink import links
from ketch.runtime.cgroups import common
from tests.support.containers import fetch
from tests.support.engines import Engine
from tests.support.leaks import Census
from tests.support.rawapi import Api
from tests.support.registries import made_images
from tests.support.registries.nasty_registry import NastyRegistry
from tests.support.run import session, unprivileged
from tests.support.waiting import until

COUNT = (
    "mkdir /w; echo moored >/w/index.html; httpd -p 80 -h /w; "
    "i=0; while :; do echo n $i; i=$((i+1)); usleep 50000; done"
)
_LINE = re.compile(rb"n (\d+)\n")


class Box:
    """One engine and its bystanders: ``watch`` counts into its log and serves a port, ``ally`` asks it by name."""

    def __init__(self, *, rootless: bool = False) -> None:
        self.engine = Engine("ketch", suffix="x")
        if rootless:
            self.engine.rootless()
        self.bare = Census.take(self.engine.name)
        self._given = contextlib.ExitStack()
        if rootless:
            self.engine.prefix = self._given.enter_context(unprivileged.own_cgroup(self.engine.name))
        self.api = Api(self.engine.socket)
        self.trace = os.path.join(self.engine.root, "trace")
        self.fault = os.path.join(self.engine.root, "fault")
        heavy = made_images.busybox({"crate": os.urandom(2 << 20)}, compression="none")
        self.cargo = made_images.docker_archive(heavy, "cargo:1")
        self.registry = NastyRegistry().__enter__()
        self.registry.add("wreck", "1", made_images.busybox({"found": b"gold\n"}))
        self.engine.settings = {"KETCH_FAULT": f"@{self.fault}", "KETCH_FAULT_TRACE": self.trace}
        self.clean = True
        self.made: set[str] = set()  # ids of all containers ever
        self.engine.start()
        self.engine.add_busybox()
        self.api.must("POST", "/networks/create", {"Name": "quay"})
        port = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "0"}]}
        self.run("watch", ["sh", "-c", COUNT], NetworkMode="quay", PortBindings=port)
        self.run("ally", ["sleep", "100000"], NetworkMode="quay")
        self.bystanders = {name: self.pid(name) for name in ("watch", "ally")}
        self.port = int(self.inspect("watch")["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"])
        assert fetch(self.port) == "moored\n"
        self.archive = self._archive()
        self.before = Census.take(self.engine.name)
        self.networks = set(self.names("networks"))
        self.images = {i["Id"] for i in self.api.must("GET", "/images/json")}

    def _archive(self) -> bytes:
        """An image of one layer as ``docker save`` writes it; it is not here any more."""
        tar = self.engine.docker("run", "--rm", "busybox", "sh", "-c", "mkdir /r; echo x >/r/f; tar c -C /r f").out
        self.api.must("POST", "/images/create", tar.encode(), fromSrc="-", repo="raft", tag="1")
        status, saved = self.api("GET", "/images/raft:1/get")
        assert status == 200
        self.api.must("DELETE", "/images/raft:1")
        self.raft_tar = tar.encode()
        return saved

    # -- daemon --------------------------------------------------------------------------------

    def arm(self, fault: str) -> None:
        """From now on somebody dies at this point; empty: nobody."""
        with open(self.fault + ".new", "w", encoding="ascii") as f:
            f.write(fault)
        os.rename(self.fault + ".new", self.fault)
        if fault:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.trace)

    def restart(self) -> None:
        """End the daemon, unless that has happened, and start it."""
        if self.engine.process is not None:
            self.engine.stop(signal.SIGKILL)
        self.engine.start()

    def died(self, point: str) -> str:
        """Wait until a process has died at ``point``; returns its pid."""
        until(
            lambda: os.path.exists(self.trace) and os.path.getsize(self.trace),
            f"nobody died at {point}\n{self.engine.log()}",
        )
        with open(self.trace, encoding="utf-8") as f:
            name, pid = f.read().split()[:2]
        assert name == point
        if pid != "1":  # in a pid namespace of its own
            until(lambda: not running(int(pid)), f"process {pid} passed {point} and lives")
        return pid

    def recover(self) -> None:
        """Start with nothing armed."""
        self.arm("")
        self.restart()

    # -- objects -------------------------------------------------------------------------------

    def create(self, name: str, cmd: list[str], *, body: dict[str, Any] | None = None, **host: Any) -> tuple[int, Any]:
        """Create a container of busybox; what the daemon answers."""
        wanted = {"Image": "busybox", "Cmd": cmd, "StopSignal": "SIGKILL", "HostConfig": host, **(body or {})}
        status, answer = self.api("POST", "/containers/create", wanted, name=name)
        if status == 201:
            self.made.add(answer["Id"])
        return status, answer

    def run(self, name: str, cmd: list[str], **host: Any) -> None:
        """Create and start."""
        status, answer = self.create(name, cmd, **host)
        assert status == 201, answer
        self.api.must("POST", f"/containers/{name}/start")

    def inspect(self, name: str) -> Any:
        """The container; None when there is none."""
        status, answer = self.api("GET", f"/containers/{name}/json")
        assert status in (200, 404), answer
        return answer if status == 200 else None

    def status(self, name: str) -> str:
        """Docker's word for its state; empty when there is no such container."""
        found = self.inspect(name)
        return found["State"]["Status"] if found else ""

    def pid(self, name: str) -> int:
        """Its PID 1."""
        return int(self.inspect(name)["State"]["Pid"])

    def names(self, kind: str) -> list[str]:
        """Names of all networks or volumes."""
        answer = self.api.must("GET", f"/{kind}")
        return sorted(one["Name"] for one in (answer["Volumes"] if kind == "volumes" else answer))

    def exec(self, name: str, *cmd: str) -> bytes:
        """Run a command in a container; its output."""
        made = self.api.must("POST", f"/containers/{name}/exec", {"Cmd": cmd, "AttachStdout": True, "Tty": False})
        return self.api.must("POST", f"/exec/{made['Id']}/start", {"Detach": False, "Tty": False})[8:]

    def ended(self, name: str) -> None:
        """Kill its PID 1 from outside and wait until the kernel has done so."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        until(lambda: not running(pid), "PID 1 does not die")

    # -- what must be true ---------------------------------------------------------------------

    def check(self) -> None:
        """Wait until everything agrees; what still does not after some seconds is a failure."""
        found: list[str] = []

        def agreed() -> bool:
            found[:] = [*self._against_kernel(), *self._on_disk()]
            return not found

        until(agreed, lambda: "\n".join(found) + "\n" + self.engine.log())
        for name, pid in self.bystanders.items():
            assert (self.status(name), self.pid(name)) == ("running", pid), name
        assert self.exec("ally", "wget", "-qO-", "http://watch/") == b"moored\n"
        assert fetch(self.port) == "moored\n"
        numbers = [int(n) for n in _LINE.findall(self.api.must("GET", "/containers/watch/logs", stdout=1, tail=100))]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))

    def tidy(self) -> None:
        """Remove what a case made; then nothing may be left of it, and the engine works."""
        self.run("last", ["sleep", "1000"], NetworkMode="quay")
        self.sweep()
        self.check()
        left = self.before.leaks(but=("process ",)) + self._launchers()
        assert left == [], left

    def sweep(self) -> None:
        """Remove all but the bystanders, through the API."""
        for one in self.api.must("GET", "/containers/json", all=1):
            if one["Names"][0][1:] not in self.bystanders:
                self.api.must("DELETE", f"/containers/{one['Id']}", force=1, v=1)
        for kind, kept in (("networks", self.networks), ("volumes", set())):
            for name in set(self.names(kind)) - kept:
                self.api.must("DELETE", f"/{kind}/{name}")
        for image in self.api.must("GET", "/images/json"):
            if image["Id"] not in self.images:
                self.api.must("DELETE", f"/images/{image['Id']}", force=1)

    def _launchers(self) -> list[str]:
        """Launchers of daemons that are gone: they have to end with them."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if read(f"/proc/{pid}/cmdline").rstrip(b"\0") == b"ketch-launcher":
                    found += [pid] if self.trace.encode() in read(f"/proc/{pid}/environ") else []
        return found if len(found) > 1 else []

    def _against_kernel(self) -> list[str]:
        """The API's word against cgroups, processes, links and mounts."""
        wrong, up, veths = [], set(), 0
        for one in self.api.must("GET", "/containers/json", all=1):
            state = self.inspect(one["Id"])
            if state is None:
                return [f"container {one['Id']} vanished"]
            name, state, networks = state["Name"], state["State"], state["NetworkSettings"]["Networks"]
            run_dir = f"{self.engine.exec_root}/run/{one['Id']}"
            inside = pids_of(self.cgroup(one["Id"]))
            if state["Running"] and not state["Restarting"]:
                up.add(one["Id"])
                veths += len(networks)
                if state["Pid"] not in inside:
                    wrong.append(f"{name} runs as {state['Pid']}, its cgroup has {inside}")
                if state["Paused"] != frozen(self.cgroup(one["Id"])):
                    wrong.append(f"{name}: paused is {state['Paused']}, its cgroup says otherwise")
                if not all(n["IPAddress"] for n in networks.values()):
                    wrong.append(f"{name} has no address: {networks}")
                if not os.path.exists(f"{run_dir}/control.sock"):
                    wrong.append(f"{name} runs without a monitor")
            elif os.path.exists(self.cgroup(one["Id"])) or os.path.exists(f"{run_dir}/control.sock"):
                wrong.append(f"{name} is {state['Status']} and has a cgroup or a monitor")
        monitors = monitored() & self.made
        cgroups = {d for d in os.listdir(self.cgroup("")) if len(d) == 64}
        ports = self._ports()
        if monitors != up or cgroups != up or len(ports) != veths:
            wrong.append(f"{len(up)} run with {veths} links: {monitors}, cgroups {cgroups}, links {ports}")
        return wrong

    def cgroup(self, container_id: str) -> str:
        """A container's directory in one of the hierarchies."""
        root = "/sys/fs/cgroup/freezer" if os.path.isdir("/sys/fs/cgroup/freezer") else "/sys/fs/cgroup"
        if self.engine.user is not None:
            root = f"{common.layout().unified}/{self.engine.name}"
        return os.path.join(root, self.engine.name, container_id)

    def _ports(self) -> list[str]:
        """The links of bridges of the engine's, in the network that has them."""
        with ThreadPoolExecutor(1) as thread:  # which alone goes there
            return thread.submit(self._ports_here).result()

    def _ports_here(self) -> list[str]:
        if self.engine.user is not None:
            with open(f"{self.engine.exec_root}/namespaces.json", encoding="utf-8") as f:
                keeper = json.load(f)["pid"]
            with open(f"/proc/{keeper}/ns/net", "rb") as namespace:
                ns.setns(namespace.fileno(), ns.CLONE_NEWNET)
        with netlink.Netlink() as rtnl:
            found = links.list_links(rtnl)
        ours = {one.index for one in found if one.name == self.engine.name or one.name.startswith("br-")}
        return [one.name for one in found if one.name.startswith("veth") and one.master in ours]

    def _on_disk(self) -> list[str]:
        """The database against directories, blobs and layers."""
        data, wrong = self.engine.data_root, []
        with contextlib.closing(sqlite3.connect(f"file:{data}/ketch.db?mode=ro", uri=True)) as db:
            if (verdict := db.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
                wrong.append(f"database: {verdict}")
            rows = {
                table: dict(db.execute(f"SELECT {key}, record FROM {table}"))
                for table, key in (("containers", "id"), ("volumes", "name"), ("images", "id"))
            }
            endpoints = {row[0] for row in db.execute("SELECT container_id FROM network_endpoints")}
            named = {row[0] for row in db.execute("SELECT id FROM image_names")}
            targets = {row[0] for row in db.execute("SELECT target FROM image_names WHERE target != ''")}
        parts: set[str] = set()
        layers = listed(f"{data}/layers")
        built = {n for n in layers if n.startswith("built-")}
        links = {
            f"sha256:{n}": os.readlink(f"{data}/layers/{n}") for n in layers if os.path.islink(f"{data}/layers/{n}")
        }
        made = set()  # layers that need no blob
        for record in map(json.loads, rows["images"].values()):
            parts |= {record["id"], record["manifest"], *record["blobs"], *record["chain_ids"]}
            made |= {d for d, chain in zip(record["diff_ids"], record["chain_ids"], strict=True) if chain in links}
        parts |= targets
        stored = {f"sha256:{n}" for n in (*listed(f"{data}/content/blobs/sha256"), *(layers - built))}
        for what, there, wanted in (
            ("containers", listed(f"{data}/containers"), set(rows["containers"])),
            ("run directories", listed(f"{self.engine.exec_root}/run") - set(rows["containers"]), set()),
            ("volumes", listed(f"{data}/volumes"), set(rows["volumes"])),
            ("blobs and layers", stored | (made & parts), parts),
            ("layers made here", built, set(links.values())),
            ("temporary blobs", {n for n in listed(f"{data}/content/ingest") if not n.endswith(".part")}, set()),
            ("named images", named - set(rows["images"]), set()),
            ("endpoints", endpoints, set(filter(lambda i: os.path.exists(self.cgroup(i)), rows["containers"]))),
        ):
            if there != wanted:
                wrong.append(f"{what}: too much {there - wanted}, missing {wanted - there}")
        return wrong

    def whole_log(self) -> list[int]:
        """Every number that ``watch`` has logged."""
        return [int(n) for n in _LINE.findall(self.api.must("GET", "/containers/watch/logs", stdout=1))]

    def delete(self) -> list[str]:
        """Remove everything; returns what is left on the machine."""
        self.registry.__exit__()
        self.recover()
        self.engine.remove_all()
        self.engine.delete()
        self._given.close()
        left = self.bare.leaks() + sorted(monitored() & self.made)
        if left:
            session.clear(self.engine.name)
        return left


def read(path: str) -> bytes:
    """A whole file."""
    with open(path, "rb") as f:
        return f.read()


def running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            return f.read().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def monitored() -> set[str]:
    """Ids of the containers on this machine that have a monitor."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            title, _, container = read(f"/proc/{pid}/cmdline").rstrip(b"\0").decode(errors="replace").partition(" ")
            if title == "ketch-monitor":
                found.add(container)
    return found


def listed(path: str) -> set[str]:
    """Names in a directory; none when it is missing."""
    return set(os.listdir(path)) if os.path.isdir(path) else set()


def pids_of(cgroup: str) -> list[int]:
    """The processes in a cgroup."""
    with contextlib.suppress(OSError), open(f"{cgroup}/cgroup.procs", encoding="ascii") as f:
        return [int(line) for line in f]
    return []


def frozen(cgroup: str) -> bool:
    """Whether it is."""
    for name, word in (("freezer.state", "FROZEN"), ("cgroup.freeze", "1")):
        with contextlib.suppress(OSError), open(f"{cgroup}/{name}", encoding="ascii") as f:
            return f.read().strip() == word
    return False
