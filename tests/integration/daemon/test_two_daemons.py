"""Two daemons that differ in their roots alone: what they would share is refused by name, the rest stays apart."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import uuid

import pytest

from tests.support.engines import BIN, Engine
from tests.support.leaks import Census, cgroups
from tests.support.netns import nft
from tests.support.run.session import SESSION
from tests.support.waiting import patient, until

pytestmark = pytest.mark.ketch_only
SLEEP = ("busybox", "sleep", "1000")


class Plain(Engine):
    """A daemon with default settings apart from its roots, its socket and what a test gives it in ``flags``."""

    flags: tuple[str, ...] = ()

    def command(self) -> list[str]:
        roots = ["--data-root", self.data_root, "--exec-root", self.exec_root, "-H", self.host]
        return [os.path.join(BIN, "ketchd"), *roots, "--dns", "127.0.0.1", *self.flags]

    def refused(self, *flags: str) -> str:
        """What a start says that ends at once."""
        done = subprocess.run(
            [*self.command(), *flags], capture_output=True, text=True, timeout=patient(20), check=False, env=os.environ
        )
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        return next(line for line in done.stderr.splitlines() if line.startswith("ketchd: "))


@pytest.fixture
def pair():
    """Two of them; the second has a bridge of its own, and the default cgroup parent is both's."""
    first, second = Plain("ketch", suffix="x"), Plain("ketch", suffix="y")
    second.flags = ("--bridge", second.name)
    before, others = Census.take(first.name), Census.take(second.name)
    with contextlib.ExitStack() as undo:
        undo.callback(second.delete)
        undo.callback(first.delete)
        yield first, second
        for one, then in ((first, before), (second, others)):
            if one.process is None and (one.has_containers() or Census.take(one.name).things - then.things):
                one.start()
            if one.process is not None:
                one.remove_all()
    assert before.leaks() == []


def everything(engine: Engine) -> list[str]:
    """What must be there afterwards as it was: containers with their pids and addresses, ports, networks."""
    ids = engine.client("ps", "-q", "--no-trunc").out.split()
    shape = "{{.Id}} {{.State.Status}} {{.State.Pid}} {{.State.StartedAt}} {{json .NetworkSettings.Ports}}"
    shown = engine.client("inspect", "-f", shape, *ids).out.splitlines() if ids else []
    return sorted(shown) + sorted(engine.client("network", "ls", "--no-trunc").out.splitlines())


def populate(engine: Engine, octet: int) -> None:
    client = engine.client
    client("network", "create", "--subnet", f"10.{octet}.0.0/24", "back")
    client("run", "-d", "--name", "db", "--network", "back", *SLEEP)
    client(
        *shlex.split("run -d --name web --network back -p 127.0.0.1:0:80 busybox httpd -f -h /etc"),
    )
    client("run", "-d", "--name", "plain", *SLEEP)
    client("create", "--name", "never", *SLEEP)
    client("run", "--name", "over", "busybox", "true")


def works(engine: Engine) -> None:
    client = engine.client
    client("exec", "web", "ping", "-c1", "-W2", "db")
    where = client("port", "web").out.split(" -> ")[1].strip()
    answer = subprocess.run(
        ["busybox", "wget", "-qO-", f"http://{where}/passwd"],
        capture_output=True,
        text=True,
        check=False,
        timeout=patient(10),
    )
    assert "root" in answer.stdout, answer.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["term", "kill"])
def test_each_may_be_restarted_beside_the_other(pair, number):
    for octet, one in zip((94, 95), pair, strict=True):
        one.start()
        one.add_busybox()
        populate(one, octet)
    before = [everything(one) for one in pair]
    for one in pair:
        one.stop(number)
        one.start()
        assert [everything(each) for each in pair] == before
        works(pair[0])
        works(pair[1])
    for one in pair:
        one.stop(number)
    for one in reversed(pair):
        one.start()
    assert [everything(one) for one in pair] == before
    pair[0].remove_all()
    pair[0].stop()
    works(pair[1])
    assert everything(pair[1]) == before[1]


def hierarchies() -> list[str]:
    """Where a cgroup can be made."""
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        mounts = [line.split() for line in f]
    return [m[4] for m in mounts if "cgroup" in m[m.index("-") + 1]]


def _inherit(directory: str, name: str) -> None:
    # In v2 an empty one means the parent's; elsewhere it is another controller's hierarchy.
    if os.path.exists(f"{directory}/cgroup.controllers") or not os.path.exists(f"{directory}/{name}"):
        return
    with open(f"{os.path.dirname(directory)}/{name}", encoding="ascii") as f:
        value = f.read()
    with open(f"{directory}/{name}", "w", encoding="ascii") as mine:
        mine.write(value)


def _made(directory: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        os.makedirs(directory, exist_ok=True)
    return os.path.isdir(directory)


@contextlib.contextmanager
def strangers_cgroup(parent: str):
    """A cgroup of another program, named as a container's is, with a process inside."""
    container_id = uuid.uuid4().hex * 2
    made = [f"{place}/{parent}/{container_id}" for place in hierarchies()]
    process = subprocess.Popen(["sleep", "1000"])
    try:
        for directory in made:
            until(
                lambda d=directory: _made(d),
                "its parent, which daemons beside us remove when it is empty, does not stay",
            )
            for name in ("cpuset.cpus", "cpuset.mems"):  # empty ones take no process (v1)
                _inherit(os.path.dirname(directory), name)
                _inherit(directory, name)
            with open(f"{directory}/cgroup.procs", "w", encoding="ascii") as f:
                f.write(str(process.pid))
        yield process, made
    finally:
        process.kill()
        process.wait()
        for directory in made:
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(directory)


def test_a_strangers_cgroup_is_left_alone(pair):
    one = pair[0]
    with strangers_cgroup("ketch") as (process, made):
        one.start()
        one.add_busybox()
        one.client("run", "-d", "--name", "here", *SLEEP)
        one.stop(signal.SIGKILL)
        one.start()
        assert process.poll() is None
        assert all(map(os.path.isdir, made))
        left_alone = re.findall(r"left alone in cgroup /ketch, as not of this data root: (.*)", one.log())
        assert os.path.basename(made[0])[:12] in left_alone[-1].split(", ")  # among other processes' containers
        one.remove_all()
        one.stop()
        assert process.poll() is None
        assert all(map(os.path.isdir, made))


def cgroups_of(container_id: str) -> list[str]:
    return [path for path in cgroups(SESSION) if os.path.basename(path) == container_id]


def lives(pid: str) -> bool:
    """Whether a process is there and not just waiting to be reaped."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            return f.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def pids_of(container_id: str) -> set[str]:
    found = set()
    for directory in cgroups_of(container_id):
        with contextlib.suppress(FileNotFoundError), open(f"{directory}/cgroup.procs", encoding="ascii") as f:
            found |= set(f.read().split())
    return found


@pytest.mark.parametrize("parent", ["", "mine"])
def test_orphans_of_a_removal_are_found_by_their_directory(pair, parent):
    """A removal that was killed, and a process that outlived its container; also under a parent cgroup of its own."""
    one = pair[0]
    one.start()
    one.add_busybox()
    one.client("run", "-d", "--name", "stays", *SLEEP)
    flags = ("--cgroup-parent", f"{one.name}-mine") if parent else ()
    script = "setsid sleep 1000 & exec sleep 1000"
    container_id = one.client("run", "-d", "--pid", "host", *flags, "busybox", "sh", "-c", script).out.strip()
    pid = int(one.client("inspect", "-f", "{{.State.Pid}}", container_id).out)
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        monitor = int(f.read().rpartition(")")[2].split()[1])
    one.stop(signal.SIGKILL)
    os.kill(monitor, signal.SIGKILL)
    with contextlib.closing(sqlite3.connect(f"{one.data_root}/ketch.db")) as db, db:
        db.execute("DELETE FROM containers WHERE id = ?", (container_id,))
        db.execute("INSERT INTO removals VALUES (?)", (f"containers/{container_id}",))
    until(lambda: len(pids_of(container_id)) == 1, "its first process lives")
    left = pids_of(container_id)
    one.start()
    assert cgroups_of(container_id) == []
    assert not any(map(lives, left))
    until(lambda: container_id not in os.listdir(f"{one.data_root}/containers"), "its directory is removed")
    assert one.client("inspect", "-f", "{{.State.Status}}", "stays").out == "running\n"
    for place in hierarchies():
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(f"{place}/{one.name}-mine")


def test_shared_resources_are_refused_by_name(pair):
    first, second = pair
    first.flags = ("--pidfile", first.pidfile)
    first.start()
    first.add_busybox()
    populate(first, 94)
    before = everything(first)
    second.flags = ("--bridge", second.name)
    with open(first.pidfile, encoding="ascii") as f:
        pid = f.read().strip()
    said = second.refused("--pidfile", first.pidfile)
    assert said == f"ketchd: write pid file `{first.pidfile}`: another ketchd (pid {pid}) uses it"
    said = second.refused("-H", first.host)
    assert said == f"ketchd: listen on {first.host}: another ketchd (pid {pid}) uses it"
    said = second.refused("--exec-root", first.exec_root)
    assert said == f"ketchd: exec root `{first.exec_root}` is in use by another ketchd (pid {pid})"
    for flag, root in (
        ("--data-root", first.data_root),
        ("--exec-root", first.data_root),
        ("--data-root", first.exec_root),
    ):
        said = second.refused(flag, f"{root}/some/where")
        assert said == f"ketchd: use directory `{root}/some/where`: it is inside `{root}`, which is another daemon's"
        assert not os.path.exists(f"{root}/some")
    second.flags = ()
    assert second.refused() == (
        f"ketchd: use firewall table `ketch`: another ketchd (pid {pid}) uses it, and the bridge that it is for"
    )
    with open(first.pidfile, encoding="ascii") as f:
        assert f.read().strip() == pid
    assert everything(first) == before
    works(first)
    second.flags = ("--bridge", second.name)


def test_running_containers_are_not_taken_by_another_daemon(pair):
    """The first is down, its containers run: its bridges and its table are still its own."""
    first, second = pair
    first.flags = ("--bridge", f"{first.name}b")
    first.start()
    first.add_busybox()
    populate(first, 94)
    first.client("network", "create", "-o", "com.docker.network.bridge.name=kt-shared", "shared")
    before = everything(first)
    plain, rules = first.client("inspect", "-f", "{{.Id}}", "plain").out.strip(), nft("list ruleset")
    first.stop(signal.SIGKILL)
    second.flags = first.flags
    said = second.refused()
    assert said == f"ketchd: use bridge `{first.name}b`: it belongs to another data root"
    assert nft("list ruleset") == rules
    second.flags = ("--bridge", second.name)
    second.start()
    done = second.client("network", "create", "-o", "com.docker.network.bridge.name=kt-shared", "mine", check=False)
    assert "use bridge `kt-shared`: it belongs to another data root" in done.err
    second.stop()
    first.start()
    assert everything(first) == before
    works(first)
    assert first.client("network", "inspect", "-f", "{{len .Containers}}", "back").out == "2\n"
    first.client("rm", "-f", "plain", "db", "web")
    assert cgroups_of(plain) == []


@pytest.mark.parametrize("comment", ['{ comment "ketch:another"; }', ""], ids=["another", "unmarked"])
def test_a_table_of_another_data_root_is_refused(pair, comment):
    one = pair[0]
    one.flags = ("--bridge", f"{one.name}b")
    table = f"ketch-{one.name}b"
    nft(f"add table inet {table} {comment}")
    try:
        assert one.refused() == (
            f"ketchd: use firewall table `{table}`: it belongs to another data root, or to another program"
        )
        assert "chain" not in nft(f"list table inet {table}")
        assert f"{one.name}b" not in os.listdir("/sys/class/net")
    finally:
        nft(f"delete table inet {table}")


def test_an_administrators_parent_cgroup_stays(pair):
    one = pair[0]
    made = [f"{place}/{one.name}-admin" for place in hierarchies()]
    for directory in made:
        os.makedirs(directory, exist_ok=True)
    try:
        one.flags = ("--cgroup-parent", f"/{one.name}-admin", "--bridge", "none")
        one.start()
        one.stop()
        assert all(map(os.path.isdir, made))
    finally:
        for directory in made:
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(directory)
    one.start()  # now it makes it, and a kill does not make it forget that
    one.stop(signal.SIGKILL)
    one.start()
    one.stop()
    assert not any(map(os.path.exists, made))


def test_a_copy_of_a_data_root_does_not_touch_the_containers_of_the_other(pair):
    first, second = pair
    first.start()
    first.add_busybox()
    populate(first, 94)
    before = everything(first)
    shutil.copytree(first.data_root, second.data_root, symlinks=True, dirs_exist_ok=True)
    copy = f"ketchd: use data root `{second.data_root}`: it is a copy of one that another ketchd (pid "
    assert second.refused().startswith(copy)
    first.stop(signal.SIGKILL)
    assert f"their monitors are in `{first.exec_root}`" in second.refused()
    os.unlink(f"{second.data_root}/settings.json")  # earlier versions wrote none
    assert f"it is a copy of `{first.data_root}`, whose containers run" in second.refused()
    first.start()
    assert everything(first) == before
    works(first)
    shutil.rmtree(second.data_root)


@pytest.mark.parametrize("first_is", ["up", "down"])
def test_a_copy_of_a_data_root_from_before_its_containers_started(pair, first_is):
    """The copy's record says that they are down; what runs in cgroups of their ids is the other's all the same."""
    first, second = pair
    first.start()
    first.add_busybox()
    first.client("create", "--name", "one", "busybox", "sleep", "12345")
    first.stop()
    shutil.copytree(first.data_root, second.data_root, symlinks=True, dirs_exist_ok=True)
    first.start()
    first.client("start", "one")
    pid = first.client("inspect", "-f", "{{.State.Pid}}", "one").out
    if first_is == "down":
        first.stop(signal.SIGKILL)
    said = second.refused()
    assert ("it is a copy of one that" if first_is == "up" else "their monitors are in") in said
    if first_is == "down":
        first.start()
    assert first.client("inspect", "-f", "{{.State.Running}} {{.State.Pid}}", "one").out == f"true {pid}"
    assert first.client("exec", "one", "echo", "well").out == "well\n"
    first.client("rm", "-f", "one")
    first.stop()
    second.start()  # nobody uses the original: the copy is as good
    second.client("start", "one")
    second.client("rm", "-f", "one")
    second.stop()
    shutil.rmtree(second.data_root)


@pytest.mark.parametrize("how", ["copied", "moved"])
def test_a_copied_or_moved_data_root_mounts_its_own_files(pair, how):
    """Volumes, and images that are mounted, are those beside its database, and never those of where it was."""
    first, second = pair
    first.start()
    first.add_busybox()
    words = ("--mount", "type=volume,source=data,target=/v", "--mount", "type=image,source=busybox,target=/i")
    first.client(
        "create", "--name", "one", *words, "busybox", "sh", "-c", "cat /v/*; echo from $0 >>/v/log; ls /i", "x"
    )
    first.client("start", "-a", "one")
    first.client("create", "--name", "later", "busybox", "sh", "-c", "cat /v/*")
    first.ketch("update", "--volume", "data:/v", "later")
    first.stop()
    log = f"{first.data_root}/volumes/data/_data/log"
    shutil.rmtree(second.data_root, ignore_errors=True)
    if how == "moved":
        os.rename(first.data_root, second.data_root)
        os.mkdir(first.data_root)
    else:
        shutil.copytree(first.data_root, second.data_root, symlinks=True)
    second.start()
    place = f"{second.data_root}/volumes/data/_data"
    assert second.client("volume", "inspect", "-f", "{{.Mountpoint}}", "data").out.strip() == place
    sources = "{{range .Mounts}}{{.Type}} {{.Source}}\n{{end}}"
    assert f"volume {place}\n" in second.client("inspect", "-f", sources, "one").out
    assert second.client("start", "-a", "one").out.splitlines()[:2] == ["from x", "bin"]
    assert second.client("start", "-a", "later").out == "from x\n" * 2
    second.client("rm", "one", "later")
    second.client("volume", "rm", "data")
    assert not os.path.exists(place)
    assert os.path.exists(log) == (how == "copied")
    second.stop()
    shutil.rmtree(second.data_root)
    first.start()
    if how == "copied":
        assert first.client("start", "-a", "one").out.splitlines()[0] == "from x"


def test_a_subnet_belongs_to_one(pair):
    """Of the default network and of others, also in part; what a daemon has already stays its own."""
    first, second = pair
    first.flags = ("--bip", "10.213.5.1/24")
    first.start()
    for subnet, taken in (("10.213.5.1/24", "10.213.5.0/24"), ("10.213.0.1/16", "10.213.0.0/16")):
        assert second.refused("--bip", subnet) == (
            f"ketchd: use subnet {taken}: bridge `ketch0` of another data root has 10.213.5.0/24"
        )
    second.start()
    result = second.client("network", "create", "--subnet", "10.213.5.128/25", "part", check=False)
    assert result.code == 1
    assert "bridge `ketch0` of another data root has 10.213.5.0/24 (choose another subnet" in result.err
    assert second.client("network", "ls", "-q", "--filter", "name=part").out == ""
    first.stop()
    first.start()
