"""ketchd as a service of systemd, by the unit file that the project ships: what the manager does to the service is
nothing to its containers, although the unit leaves ``KillMode`` alone.

systemd is PID 1 of namespaces made for the test and has a part of the cgroup hierarchies for itself.
"""

from __future__ import annotations

import grp
import json
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from ketch.runtime.cgroups import common, tree
from tests.support.boxes.crash_box import read
from tests.support.engines import Engine
from tests.support.leaks import Census, cgroups
from tests.support.waiting import patient, until

pytestmark = pytest.mark.ketch_only
SYSTEMD = "/lib/systemd/systemd"
UNIT = Path(__file__).parents[3] / "contrib/systemd/system/ketch.service"

# Standard input says when to go on: until then our own process is in the cgroups, which must be free of others' then.
BOOT = """
set -e
dir=$1
mount --make-rprivate /
ip link set lo up
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
cp $dir/units/* /run/systemd/system/
umount -R /sys/fs/cgroup
grep -q '^cgroup ' $dir/mounts && mount -t tmpfs tmpfs /sys/fs/cgroup
while read -r type place options; do
  mkdir -p $place
  mount -t $type -o $options cgroup $place
done <$dir/mounts
read -r _
exec env -i "PATH=$PATH" container=test /lib/systemd/systemd --system --unit=ketch-test.target --show-status=no
"""


def hierarchies() -> dict[str, tuple[str, str]]:
    """{where each is mounted: (type, options)}."""
    found = {}
    for line in read("/proc/self/mountinfo").decode().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split()
        if kind == "cgroup":
            wanted = [o for o in options.split(",") if o not in ("rw", "ro", "xattr", "clone_children")]
            found[before.split()[4]] = (kind, ",".join(o for o in wanted if not o.startswith("release_agent")))
        elif kind == "cgroup2":
            found[before.split()[4]] = (kind, "rw")
    return found


class Machine:
    """systemd and what it runs, with one ketchd."""

    def __init__(self, directory: Path, *, socket: bool) -> None:
        self.socket = socket
        self.engine = Engine("ketch", suffix="s")
        self.cgroup = f"{self.engine.name}-machine"
        self.directory = directory
        self.process: subprocess.Popen[bytes] | None = None
        self.pid = 0

    def boot(self) -> None:
        units = self.directory / "units"
        units.mkdir()
        text = UNIT.read_text(encoding="utf-8")
        # Nothing else of a machine is here to wait for.
        text = re.sub(r"^(After|Wants|Documentation|Requires)=.*\n", "", text, flags=re.M)
        text = text.replace("[Service]", "DefaultDependencies=no\n\n[Service]")
        command, wanted = self.engine.command(), "ketch.service"
        if self.socket:
            command[command.index("-H") + 1], wanted = "fd://", "ketch.socket"
            socket = UNIT.with_name("ketch.socket").read_text(encoding="utf-8")
            socket = socket.replace("[Socket]", "DefaultDependencies=no\n\n[Socket]")
            socket = socket.replace("/run/ketch.sock", self.engine.socket).replace("=ketch\n", "=daemon\n")
            (units / "ketch.socket").write_text(socket)
        text = re.sub(r"^ExecStart=.*$", f"ExecStart={' '.join(command)}", text, flags=re.M)
        (units / "ketch.service").write_text(text)
        (units / "ketch-test.target").write_text(f"[Unit]\nDefaultDependencies=no\nWants={wanted}\n")
        mounts = hierarchies()
        lines = [f"{kind} {place} {options}\n" for place, (kind, options) in mounts.items()]
        (self.directory / "mounts").write_text("".join(lines))
        home = {place: Path(place, common.own_paths()[_name(*what)].lstrip("/")) for place, what in mounts.items()}
        for place in mounts:
            tree.make(f"{place}/{self.cgroup}")
            for name in ("cpuset.cpus", "cpuset.mems"):
                if os.path.exists(f"{place}/{name}") and "cpuset" in mounts[place][1]:
                    Path(place, self.cgroup, name).write_text(Path(place, name).read_text())
        enter = "; ".join(f"echo $$ >{place}/{self.cgroup}/cgroup.procs" for place in mounts)
        script = f'{enter}; exec unshare -m -p -f -C -n --kill-child --mount-proc sh -c "$1" sh "$2"'
        with open(self.engine.log_path, "ab") as log:
            self.process = subprocess.Popen(
                ["sh", "-c", script, "sh", BOOT, str(self.directory)], stdin=subprocess.PIPE, stdout=log, stderr=log
            )
        children = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        until(lambda: read(f"/proc/{self.process.pid}/comm") == b"unshare\n" and read(children), self.engine.log)
        self.pid = int(read(children))
        for place in mounts:  # a process beside systemd would be in the way of its controllers
            (home[place] / "cgroup.procs").write_text(str(self.process.pid))
        self.process.stdin.write(b"go on\n")
        self.process.stdin.close()
        until(self.engine.answers, lambda: f"it does not answer:\n{self.engine.log()}", 60)

    def enter(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command where systemd is."""
        # A mount namespace's own root is not systemd's where the machine itself is in a chroot.
        there = ["nsenter", "-t", str(self.pid), "-m", "-r", "-w", "-p", "-C", "-n"]
        return subprocess.run([*there, *command], capture_output=True, text=True, check=True, timeout=patient(120))

    def off(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        for place in hierarchies():
            for root, _, _ in os.walk(f"{place}/{self.cgroup}", topdown=False):
                tree.remove(root, 5)
        shutil.rmtree(self.engine.root, ignore_errors=True)


def _name(kind: str, options: str) -> str:
    return "" if kind == "cgroup2" else options.split(",")[0]


@pytest.fixture
def machine(request, tmp_path):
    """One whose daemon is started with it, or (a parameter) by who connects."""
    if not os.path.exists(SYSTEMD):
        pytest.skip("there is no systemd")
    version = int(subprocess.run([SYSTEMD, "--version"], capture_output=True, text=True, check=True).stdout.split()[1])
    if version >= 256 and common.layout().version == 1:
        pytest.skip(f"systemd {version} has no cgroup v1 any more")
    one = Machine(tmp_path, socket=getattr(request, "param", "") == "socket")
    before = Census.take(one.engine.name)
    try:
        one.boot()
        yield one
    finally:
        one.off()
    assert before.leaks() == []


def test_operations_of_the_manager(machine):
    engine = machine.engine
    engine.add_busybox()
    script = "i=0; while :; do echo n $i; i=$((i+1)); usleep 100000; done"
    engine.client("run", "-d", "--name", "one", "busybox", "sh", "-c", script)
    before = json.loads(engine.client("inspect", "one").out)[0]["State"]

    def main_pid() -> str:
        return machine.enter("systemctl", "show", "ketch.service", "-p", "MainPID", "--value").stdout.strip()

    def goes_on() -> None:
        until(engine.answers, lambda: f"it does not answer:\n{engine.log()}", 60)
        assert json.loads(engine.client("inspect", "one").out)[0]["State"] == before
        assert engine.client("exec", "one", "echo", "well").out == "well\n"

    # The service's cgroup has ketchd and nothing that would outlive it.
    tasks = machine.enter("systemctl", "show", "ketch.service", "-p", "ControlGroup", "--value").stdout.strip()
    place = next(place for place, what in hierarchies().items() if what[1] in ("name=systemd", "rw"))
    assert machine.enter("cat", f"{place}{tasks}/cgroup.procs").stdout.split() == [main_pid()]
    for action in (
        ("restart",),
        ("kill", "--signal", "KILL"),  # every process of the unit; it is started again
        ("stop",),
        ("daemon-reload",),
    ):
        old = main_pid()
        machine.enter("systemctl", *action, "ketch" if action != ("daemon-reload",) else "--no-pager")
        if action == ("stop",):
            machine.enter("systemctl", "start", "ketch")
        elif action[0] != "daemon-reload":
            until(lambda old=old: main_pid() not in (old, "0"), "it is not started again", 60)
        goes_on()
    logs = engine.client("logs", "one").out.splitlines()
    assert logs == [f"n {i}" for i in range(len(logs))]
    engine.client("rm", "-f", "one")
    # It ends in order, and leaves no cgroup but its own unit's.
    machine.enter("systemctl", "stop", "ketch")
    assert [path for path in cgroups(engine.name) if os.path.basename(path) == engine.name] == []


@pytest.mark.parametrize("machine", ["socket"], indirect=True)
def test_socket_activation(machine):
    """Who connects starts ketchd and waits for it, also while it is ended; the socket is systemd's, and its group's."""
    engine = machine.engine  # `boot` has asked for an answer, and nothing else has started it
    info = os.stat(engine.socket)
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o660, 0, grp.getgrnam("daemon").gr_gid)
    pid = machine.enter("systemctl", "show", "ketch.service", "-p", "MainPID", "--value").stdout.strip()
    (launcher,) = machine.enter("cat", f"/proc/{pid}/task/{pid}/children").stdout.split()
    passed = machine.enter("readlink", f"/proc/{pid}/fd/3").stdout.strip()
    assert passed.startswith("socket:")
    assert passed not in machine.enter("sh", "-c", f"readlink /proc/{launcher}/fd/*").stdout.split()
    machine.enter("systemctl", "stop", "ketch.service")
    assert os.stat(engine.socket).st_ino == info.st_ino
    engine.client("version")
    machine.enter("systemctl", "kill", "--signal", "KILL", "ketch.service")
    engine.client("version")
    assert os.stat(engine.socket).st_ino == info.st_ino
    machine.enter("systemctl", "stop", "ketch.service", "ketch.socket")
    assert not engine.answers()
