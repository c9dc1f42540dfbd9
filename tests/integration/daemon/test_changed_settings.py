"""A daemon that starts with other settings while containers run: they keep what they have, new ones get the rest."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import subprocess
import urllib.request

import pytest

from tests.support.engines import BIN, Engine
from tests.support.leaks import Census
from tests.support.netns import nft
from tests.support.waiting import patient

pytestmark = pytest.mark.ketch_only
SLEEP = ("busybox", "sleep", "1000")


class Daemon(Engine):
    """A daemon whose flags are all the test's."""

    def command(self) -> list[str]:
        roots = ["--data-root", self.data_root, "--exec-root", self.exec_root, "-H", self.host]
        known = [flag.partition("=")[0] for flag in self.extra]
        wanted = {"--bridge": self.name, "--cgroup-parent": f"/{self.name}", "--dns": "127.0.0.1"}
        return [
            os.path.join(BIN, "ketchd"),
            *roots,
            *self.extra,
            *(f"{flag}={value}" for flag, value in wanted.items() if flag not in known),
        ]

    def again(self, *flags: str) -> str:
        """Start with other flags after a kill; returns what it logged."""
        self.stop(signal.SIGKILL)
        self.extra = list(flags)
        os.truncate(self.log_path, 0)
        self.start()
        return self.log()


@pytest.fixture
def daemon():
    one = Daemon("ketch", suffix="s")
    before = Census.take(one.name)
    try:
        yield one
    finally:
        if one.process is None:
            one.extra = []
            one.start()
        one.remove_all()
        one.delete()
    assert before.leaks() == []


def run(daemon: Engine, name: str, *flags: str) -> None:
    daemon.client("run", "-d", "--name", name, *flags, "busybox", "httpd", "-f", "-h", "/etc")


def show(daemon: Engine, name: str, what: str) -> str:
    return daemon.client("inspect", "-f", "{{" + what + "}}", name).out.strip()


def address(daemon: Engine, name: str) -> str:
    return show(daemon, name, ".NetworkSettings.Networks.bridge.IPAddress")


def mtu(daemon: Engine, name: str) -> str:
    return daemon.client("exec", name, "cat", "/sys/class/net/eth0/mtu").out.strip()


def answers(daemon: Engine, name: str, port: str) -> bool:
    """Whether the published port leads to the container, and the container to its gateway."""
    gateway = show(daemon, name, ".NetworkSettings.Networks.bridge.Gateway")
    reached = daemon.client("exec", name, "ping", "-c1", "-W2", gateway, check=False).code == 0
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/passwd", timeout=patient(5)) as page:
            return reached and b"root" in page.read()
    except OSError:
        return False


def port(daemon: Engine, name: str) -> str:
    return daemon.client("port", name).out.splitlines()[0].rpartition(":")[2]


def reaches(daemon: Engine, name: str, where: str) -> bool:
    return daemon.client("exec", name, "ping", "-c1", "-W1", where, check=False).code == 0


@pytest.fixture
def running(daemon):
    """The daemon with ``old`` on its default network, on a port."""
    daemon.start()
    daemon.add_busybox()
    run(daemon, "old", "-p", "127.0.0.1:0:80")
    return daemon


def test_icc(running):
    run(running, "older")
    log = running.again("--icc=false")
    assert (
        "--icc was true and is false: that is for containers that start from now on; 2 that run keep what they have"
        in log
    )
    assert log.count(" was ") == 1
    run(running, "new")
    run(running, "newer")
    assert reaches(running, "old", address(running, "older"))
    assert not reaches(running, "new", address(running, "newer"))
    assert answers(running, "old", port(running, "old"))
    assert " was " not in running.again("--icc=false")
    assert "--icc was false and is true" in running.again()


def test_mtu(running):
    before = address(running, "old")
    assert "--mtu was 1500 and is 1400" in running.again("--mtu=1400")
    run(running, "new", "-p", "127.0.0.1:0:80")
    assert (mtu(running, "old"), mtu(running, "new")) == ("1500", "1400")
    assert address(running, "old") == before
    assert answers(running, "old", port(running, "old"))
    assert answers(running, "new", port(running, "new"))
    running.again("--mtu=9000")
    run(running, "large")
    assert (mtu(running, "old"), mtu(running, "new"), mtu(running, "large")) == ("1500", "1400", "9000")
    assert reaches(running, "large", before)


def addresses_of(daemon: Engine, name: str) -> set[str]:
    listed = nft(f"list set inet ketch-{daemon.name} {name}")
    elements = listed.partition("elements = {")[2].partition("}")[0]
    return {e.strip() for e in elements.split(",") if e.strip()}


def test_masquerade(running):
    old, net = address(running, "old"), show(running, "old", ".NetworkSettings.Networks.bridge.IPPrefixLen")
    subnet = str(ipaddress.ip_network(f"{old}/{net}", strict=False))
    assert (addresses_of(running, "masqueraded4"), addresses_of(running, "unmasqueraded4")) == ({subnet}, set())
    assert "--ip-masq was true and is false" in running.again("--ip-masq=false")
    run(running, "new")
    assert (addresses_of(running, "masqueraded4"), addresses_of(running, "unmasqueraded4")) == ({old}, set())
    running.again()
    assert addresses_of(running, "masqueraded4") == {subnet}
    assert addresses_of(running, "unmasqueraded4") == {address(running, "new")}
    running.client("rm", "-f", "new")
    assert addresses_of(running, "unmasqueraded4") == set()


@pytest.mark.parametrize("other", ["none", "another"])
def test_bridge(running, other):
    name = "none" if other == "none" else f"{running.name}2"
    old, published = address(running, "old"), port(running, "old")
    pid = show(running, "old", ".State.Pid")
    log = running.again(f"--bridge={name}", "--bip=10.94.0.1/24")
    assert f'--bridge was "{running.name}" and is "{name}"' in log
    assert (address(running, "old"), show(running, "old", ".State.Pid")) == (old, pid)
    assert answers(running, "old", published)
    assert f"table inet ketch-{running.name}" not in nft("list tables").splitlines()
    assert "eth0" in running.client("exec", "old", "ls", "/sys/class/net").out
    if other == "none":
        assert running.client("network", "ls", "--format", "{{.Name}}").out.split() == ["host", "none"]
    else:
        run(running, "new", "-p", "127.0.0.1:0:80")
        assert answers(running, "new", port(running, "new"))
        shown = json.loads(running.client("network", "inspect", "bridge").out)
        assert [c["Name"] for one in shown for c in one["Containers"].values()] == ["new"]
    running.again(f"--bridge={name}")
    assert answers(running, "old", published)
    running.again()  # and back
    assert address(running, "old") == old
    assert answers(running, "old", published)
    run(running, "newest")
    assert reaches(running, "newest", old)
    running.again(f"--bridge={name}")
    running.client("rm", "-f", "old", "newest")
    assert running.name not in os.listdir("/sys/class/net")


def test_bip(running):
    old, published = address(running, "old"), port(running, "old")
    log = running.again("--bip=10.96.0.1/24")
    assert '--bip was not set and is "10.96.0.1/24"' in log
    assert address(running, "old") == old
    assert answers(running, "old", published)
    run(running, "new", "-p", "127.0.0.1:0:80")
    assert address(running, "new") == "10.96.0.2"
    assert answers(running, "new", port(running, "new"))
    assert reaches(running, "new", old)
    running.again("--bip=10.96.0.1/24")
    assert answers(running, "old", published)
    log = running.again("--bip=10.96.0.1/25")  # overlaps what is in use
    assert "has to wait until they are gone" in log
    assert answers(running, "new", port(running, "new"))
    running.client("rm", "-f", "old", "new")
    running.again("--bip=10.97.0.1/24")
    configured = json.loads(running.client("network", "inspect", "bridge").out)[0]["IPAM"]["Config"]
    assert [one["Subnet"] for one in configured] == ["10.97.0.0/24"]


def test_ipv6_goes_and_comes(daemon):
    daemon.extra = ["--ipv6"]
    daemon.start()
    daemon.add_busybox()
    run(daemon, "old")
    where = show(daemon, "old", ".NetworkSettings.Networks.bridge.GlobalIPv6Address")
    assert where
    daemon.again("--ipv6")
    assert show(daemon, "old", ".NetworkSettings.Networks.bridge.GlobalIPv6Address") == where
    assert "--ipv6 was true and is false" in daemon.again()
    run(daemon, "new")
    assert show(daemon, "new", ".NetworkSettings.Networks.bridge.GlobalIPv6Address") == ""
    assert (
        daemon.client(
            "exec",
            "old",
            "ping",
            "-6",
            "-c1",
            "-W2",
            show(daemon, "old", ".NetworkSettings.Networks.bridge.IPv6Gateway"),
        ).code
        == 0
    )
    daemon.again("--ipv6", "--fixed-cidr-v6=fd96::/64")
    run(daemon, "newer")
    assert show(daemon, "newer", ".NetworkSettings.Networks.bridge.GlobalIPv6Address").startswith("fd96::")
    assert daemon.client("exec", "newer", "ping", "-6", "-c1", "-W2", where).code == 0


def test_cgroup_parent(running):
    running.client("pause", "old")
    log = running.again(f"--cgroup-parent=/{running.name}-other")
    assert f'--cgroup-parent was "/{running.name}" and is "/{running.name}-other"' in log
    assert show(running, "old", ".State.Status") == "paused"
    running.client("unpause", "old")
    assert answers(running, "old", port(running, "old"))
    stats = json.loads(running.client("stats", "--no-stream", "--format", "{{json .}}", "old").out)
    assert stats["PIDs"] == "1"
    run(running, "new")
    pid = show(running, "new", ".State.Pid")
    with open(f"/proc/{pid}/cgroup", encoding="ascii") as f:
        assert f"/{running.name}-other/" in f.read()
    running.client("update", "--memory", "64m", "--memory-swap", "64m", "old")
    running.client("restart", "-t", "0", "old")
    with open(f"/proc/{show(running, 'old', '.State.Pid')}/cgroup", encoding="ascii") as f:
        assert f"/{running.name}-other/" in f.read()
    running.client("rm", "-f", "old", "new")
    running.again()
    assert not any(f"{running.name}-other" in names for _, names, _ in os.walk("/sys/fs/cgroup"))


def test_servers_and_the_rest(running):
    client = running.client
    client("network", "create", "back")
    client("run", "-d", "--name", "named", "--network", "back", *SLEEP)
    before = client("exec", "old", "cat", "/etc/resolv.conf").out
    log = running.again(
        "--dns=127.0.0.2",
        "--dns-search=example.test",
        "--log-driver=none",
        "--default-address-pool",
        "base=10.95.0.0/16,size=24",
        "--ip=127.0.0.1",
    )
    for flag in ("dns", "dns-search", "log-driver", "default-address-pools", "ip"):
        assert f"--{flag} was " in log
    assert client("exec", "old", "cat", "/etc/resolv.conf").out == before
    run(running, "new", "-p", "80")
    assert "127.0.0.2" in client("exec", "new", "cat", "/etc/resolv.conf").out
    assert client("port", "new").out.startswith("80/tcp -> 127.0.0.1:")
    assert show(running, "old", ".HostConfig.LogConfig.Type") != "none"
    assert show(running, "new", ".HostConfig.LogConfig.Type") == "none"
    client("exec", "named", "ping", "-c1", "-W2", "named")
    client("network", "create", "front")
    assert '"10.95.0.0/24"' in client("network", "inspect", "front").out
    client("rm", "-f", "named")


def test_another_exec_root_is_refused_while_containers_run(running):
    running.stop()
    elsewhere = os.path.join(running.root, "elsewhere")
    done = subprocess.run(
        [*running.command(), "--exec-root", elsewhere], capture_output=True, text=True, timeout=patient(20), check=False
    )
    assert done.returncode == 1
    assert f"their monitors are in `{running.exec_root}`" in done.stderr
    running.start()
    assert answers(running, "old", port(running, "old"))


def test_the_hosts_firewall_gets_its_say_back(daemon):
    chain = "{ type filter hook forward priority 0; policy drop; }"
    nft(f"add table inet kt-filter; add chain inet kt-filter forward {chain}")
    try:
        daemon.extra = ["--host-firewall=open"]
        daemon.start()
        daemon.add_busybox()
        run(daemon, "old")
        assert "let through by" in nft("list table inet kt-filter")
        daemon.again()
        assert "let through by" not in nft("list table inet kt-filter")
    finally:
        nft("delete table inet kt-filter")
