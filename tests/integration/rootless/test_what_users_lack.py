"""What is otherwise without root's rights: devices in archives, the machine's namespaces, groups, owners."""

from __future__ import annotations

import io
import os
import signal
import tarfile

import pytest

from ketch.runtime.cgroups import common
from tests.support.programs import need
from tests.support.run import runtimes, unprivileged
from tests.support.waiting import until

pytestmark = [
    pytest.mark.ketch_only,
    pytest.mark.skipif(os.geteuid() != 0, reason="the user is made by root"),
]
LOOP = "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"


def archive() -> bytes:
    """A device, a FIFO and a file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, kind in (("null", tarfile.CHRTYPE), ("disk", tarfile.BLKTYPE), ("pipe", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.devmajor, member.devminor = kind, 1, 3
            tar.addfile(member)
        member = tarfile.TarInfo("file")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    return packed.getvalue()


def test_devices_in_archives(users_engine):
    """Are left out: images of others have some, and containers have their own."""
    users_engine.docker("create", "--name", "box", "busybox")
    users_engine.docker("cp", "-", "box:/tmp", stdin=archive())
    users_engine.docker("commit", "box", "of-files")
    shown = users_engine.docker("run", "--rm", "of-files", "ls", "/tmp").out
    users_engine.docker("rm", "box")
    users_engine.docker("import", "-", "devices", stdin=archive())
    path = f"{users_engine.root}/devices.tar"
    users_engine.docker("save", "-o", path, "devices")
    users_engine.docker("rmi", "devices")
    users_engine.docker("load", "-i", path)
    users_engine.docker("create", "--name", "box", "devices", "/file")
    with tarfile.open(fileobj=io.BytesIO(exported(users_engine, "box"))) as tar:
        names = {member.name for member in tar if "/" not in member.name}
    users_engine.docker("rm", "box")
    assert shown.split() == ["file", "pipe"]
    assert {"file", "pipe"} <= names
    assert not {"null", "disk"} & names


def exported(engine, name: str) -> bytes:
    """The files of a container, as a tar."""
    path = f"{engine.root}/{name}.tar"
    engine.docker("export", "-o", path, name)
    with open(path, "rb") as f:
        return f.read()


@pytest.mark.parametrize("kind", ["ipc", "pid", "network"])
def test_namespaces_of_the_machine(users_engine, kind):
    """Are shared, and settings of those that are not take effect."""
    file = {"network": "net"}.get(kind, kind)
    script = f"readlink /proc/self/ns/{file}; cat /proc/sys/net/ipv4/ip_unprivileged_port_start"
    shown = users_engine.docker("run", "--rm", f"--{kind}", "host", "busybox", "sh", "-c", script).out.split()
    assert shown[0] == os.readlink(f"/proc/self/ns/{file}")
    assert (shown[1] == "0") == (kind != "network")


def test_the_network_of_the_machine_in_a_build(users_engine):
    """It is shared with commands, too; how likely the kernel ends them is not lowered."""
    dockerfile = b"FROM busybox\nRUN readlink /proc/self/ns/net > /seen; cat /proc/self/oom_score_adj >> /seen\n"
    with open(f"/proc/{users_engine.process.pid}/oom_score_adj", "r+", encoding="ascii") as f:
        before = f.read()
        f.write("123")
    try:
        users_engine.docker("build", "-q", "-t", "seen", "--network", "host", "-", stdin=dockerfile)
    finally:
        with open(f"/proc/{users_engine.process.pid}/oom_score_adj", "w", encoding="ascii") as f:
            f.write(before)
    seen = users_engine.docker("run", "--rm", "seen", "cat", "/seen").out.split()
    assert seen == [os.readlink("/proc/self/ns/net"), "123"]


def test_all_groups_may_ping(users_engine):
    """All that there are: the user's own, and the subordinate ones."""
    script = "set -- $(cat /proc/sys/net/ipv4/ping_group_range); echo $*"
    assert users_engine.docker("run", "--rm", "busybox", "sh", "-c", script).out == f"0 {unprivileged.IDS}\n"


def test_whose_fault_it_is(users_engine, tmp_path):
    """What is root's, and what only root can do, is said so."""
    unprivileged.give(tmp_path)
    volume = users_engine.docker("volume", "create").out.strip()
    place = f"{users_engine.data_root}/volumes/{volume}/_data/of-root"
    os.mkdir(place)
    open(f"{place}/file", "w", encoding="utf-8").close()
    done = users_engine.docker("volume", "rm", volume, check=False)
    assert "ketchd runs as an ordinary user" in done.err
    os.unlink(f"{place}/file")
    users_engine.docker("volume", "rm", volume)
    done = users_engine.docker("run", "--rm", "-v", f"{tmp_path}:/m:idmap", "busybox", "true", check=False)
    assert "only root's engine can map owners" in done.err


@pytest.mark.parametrize("runtime", runtimes.OTHERS)
def test_other_runtimes(users_engine, runtime):
    """They make containers for users as well, without cgroups."""
    need(runtime)
    if runtime == "crun" and common.machine_version() == 1:
        pytest.skip("crun refuses machines with both versions of cgroups")
    box = users_engine.docker("run", "-d", "--runtime", runtime, "busybox", "sh", "-c", LOOP).out.strip()
    until(lambda: users_engine.docker("logs", box).out == "up\n", "it is up")
    assert users_engine.docker("exec", box, "id", "-u").out == "0\n"
    assert users_engine.docker("stop", box).code == 0
    assert users_engine.docker("wait", box).out == "7\n"
    users_engine.docker("rm", box)


def test_a_monitor_that_is_killed(users_engine):
    """Its container ends with it, as with root, and can be started again."""
    box = users_engine.docker("run", "-d", "busybox", "sleep", "1000").out.strip()
    pid = users_engine.inspect(box)["State"]["Pid"]
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        os.kill(int(f.read().rpartition(")")[2].split()[1]), signal.SIGKILL)
    until(lambda: not users_engine.inspect(box)["State"]["Running"], "it has ended")
    assert users_engine.inspect(box)["State"]["ExitCode"] == 137
    users_engine.docker("start", box)
    assert users_engine.docker("exec", box, "echo", "again").out == "again\n"
    users_engine.docker("rm", "-f", box)
