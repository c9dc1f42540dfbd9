"""Engines in containers: with no more privilege than a user namespace and one option, and what that option opens."""

from __future__ import annotations

import os

import pytest

from ketch.runtime.cgroups import common
from tests.support.programs import need
from tests.support.run import daemons, unprivileged
from tests.support.run.nested import INNER, Nest

pytestmark = [
    pytest.mark.ketch_only,
    pytest.mark.skipif(os.geteuid() != 0, reason="the outer engine is root's, or the user's whom root makes"),
]
NESTING = ("--security-opt", "nesting=true")
BUILD = r"printf 'FROM busybox\nRUN echo built > /x && chown 7:8 /x\n' | ketch build -q -t built - >/dev/null"


@pytest.fixture(scope="module")
def outer():
    """An engine of root's whose containers have users of their own."""
    with daemons.one_of_its_own("n") as one:
        one.user_namespaces("--userns-default", "auto")
        one.start()
        one.add_busybox()
        yield one


@pytest.fixture(scope="module")
def nest(outer):
    """A container with the option and a volume, and an engine in it."""
    made = Nest(outer, *NESTING, "-v", "/var/lib/ketch")
    made.start()
    yield made
    made.remove()


def test_an_engine_in_a_container(nest):
    """It mounts overlays on the volume, knows all the container's users, builds, and reaches the outer engine."""
    assert nest("ketch info --format '{{.Driver}}'").out == "overlay2\n"
    inside = "cat /proc/self/uid_map; readlink /proc/self/exe; touch /f; chown 1000:1000 /f; stat -c %u /f"
    shown = nest(f"ketch run --rm busybox sh -c '{inside}'").out.split()
    assert shown == ["0", "0", "65536", "/bin/sh", "1000"]
    assert nest(f"{BUILD} && ketch run --rm built stat -c %u:%g /x").out == "7:8\n"


def test_its_network(nest):
    """Containers reach each other, are published in the outer container, and reach outside by pasta or slirp4netns."""
    nest("ketch run -d --name web -p 8080:80 busybox sh -c 'mkdir /w; echo page >/w/index.html; httpd -f -h /w'")
    fetch = "for try in 1 2 3 4 5; do ketch exec web wget -qO- {} && exit; sleep 0.3; done"
    assert nest(fetch.format("http://127.0.0.1/")).out == "page\n"
    assert nest("busybox wget -qO- http://127.0.0.1:8080/").out == "page\n"
    gateway = nest.engine.inspect(nest.id)["NetworkSettings"]["Networks"]["bridge"]["Gateway"]
    nest(f"ketch exec web ping -c 1 -W 5 {gateway}")
    nest("ketch rm -f web")


@pytest.mark.skipif(common.machine_version() != 2, reason="only a cgroup of v2 can be given: all controllers on it")
def test_limits(outer):
    """The inner engine divides the container's cgroup, and does not change what the outer one said of it."""
    made = Nest(outer, *NESTING, "--network", "none", "-m", "300m")
    assert made("echo max > /sys/fs/cgroup/memory.max", check=False).code != 0
    made.start("--bridge", "none")
    files = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max"
    shown = made(f"ketch run --rm --network none -m 32m --pids-limit 20 busybox sh -c '{files}'")
    assert shown.out == "33554432\n20\n"
    made("ketch run -d --name one --network none busybox sleep 1000; ketch pause one")
    assert "Paused" in made("ketch ps --format '{{.Status}}'").out
    made("ketch rm -f one")
    made.remove()


def test_a_killed_engine(nest):
    """The next one has its containers."""
    nest("ketch run -d --name kept busybox sleep 1000")
    nest("kill -9 $(cat /run/ketchd-0.pid); sleep 0.2")
    nest.start(load=False)
    assert nest("ketch exec kept echo here; ketch rm -f kept").out == "here\nkept\n"


def test_two_levels(nest):
    """An engine in a container of an engine in a container, which needs no `--userns`: it is in a user namespace."""
    nest("tar -c -C / bin sbin lib lib64 etc/passwd etc/group root var/run | ketch import - nest")
    words = " ".join((*INNER, "--security-opt", "nesting", "--tmpfs", "/tmp", "-v", "/var/lib/ketch", "-v", "/var/log"))
    start = "(ketchd >/tmp/log 2>&1 &); until ketch version >/dev/null 2>&1; do sleep 0.2; done"
    inner = f"mkdir -p /run; {start}; ketch load -q; ketch run --rm busybox echo deep"
    with open(f"{nest.engine.root}/busybox.tar", "rb") as f:
        shown = nest(f"ketch run -i --rm {words} nest sh -c '{inner}'", stdin=f.read()).out
    assert shown.endswith("deep\n")
    nest("ketch rmi nest >/dev/null")


CLOSED = """
echo 1 > /proc/sys/kernel/panic
echo 3 > /proc/sys/vm/drop_caches
echo h > /proc/sysrq-trigger
head -c 1 /proc/kcore
head -c 1 /proc/timer_list
cat /sys/firmware/acpi/tables/DSDT
mknod /tmp/sda b 8 0
date -s 2000-01-01
dmesg -C
reboot -f
python3 -c "import ctypes; exit(ctypes.CDLL(None).syscall(321, 0, b'', 72) < 0)"
"""


def test_what_stays_closed(nest):
    """What is the machine's: in the container, and for root of a namespace that is made there."""
    nest("unshare -Urmpf --mount-proc true")
    lines = CLOSED.replace("python3", "/opt/python/bin/python3").strip().splitlines()
    script = "\n".join(f"({line}) >/dev/null 2>&1 && echo {number}" for number, line in enumerate(lines))
    for shell in ("sh", "unshare -Urm sh"):
        found = [lines[int(number)] for number in nest(shell, stdin=f"{script}\ntrue".encode()).out.split()]
        assert found == [], shell


def test_a_file_of_the_machines_root(outer, tmp_path):
    """It is a stranger's, whoever one becomes inside."""
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0o600)
    script = "cat /s/secret || unshare -Ur cat /s/secret"
    run = ("run", "--rm", *NESTING, "-v", f"{tmp_path}:/s", "busybox", "sh", "-c", script)
    assert outer.docker(*run, check=False).code != 0


def test_refused_without_a_user_namespace(outer):
    """In the machine's, masks and the filter are what protects it."""
    refused = outer.docker("run", "--rm", "--userns", "host", *NESTING, "busybox", "true", check=False)
    assert "nesting: the container's root would be the machine's, with nothing masked" in refused.err
    wrong = outer.docker("run", "--rm", "--security-opt", "nesting=maybe", "busybox", "true", check=False)
    assert 'invalid --security-opt 2: "nesting=maybe"' in wrong.err
    off = ("--security-opt", "nesting=true", "--security-opt", "nesting=false")
    script = "unshare -U true 2>/dev/null || head -c 1 /proc/timer_list | wc -c"
    assert outer.docker("run", "--rm", *off, "busybox", "sh", "-c", script).out == "0\n"


def test_what_inspect_says(nest):
    host = nest.engine.inspect(nest.id)["HostConfig"]
    assert host["SecurityOpt"] == ["nesting=true"]
    assert not host["MaskedPaths"]
    assert not host["ReadonlyPaths"]


def test_what_is_missing(outer):
    """Each is one sentence that says what to do."""
    for options, text in (
        ((), "parts of /proc are masked or read-only"),
        (("--security-opt", "systempaths=unconfined"), "this container forbids it: Ketch allows it with"),
        ((*NESTING, "--cap-drop", "SETFCAP"), "root of this container lacks CAP_SETFCAP"),
    ):
        made = Nest(outer, *options)
        shown = made("ketchd", check=False)
        assert shown.code == 1
        assert text in shown.err
        made.remove()


def test_one_user(nest):
    """An ordinary user of the container has an engine as well; there are no subordinate ids inside."""
    nest.start(user="1000")
    assert nest("ketch run --rm busybox id -u", user="1000").out == "0\n"
    assert "containers have one user, root" in nest("ketch info", user="1000").err


def test_in_a_rootless_engine():
    """Nobody is root of the machine there, so the option needs no other."""
    need("newuidmap")
    unprivileged.user()  # before the census of what is left
    with daemons.one_of_its_own("o") as one:
        one.rootless()
        one.start()
        one.add_busybox()
        made = Nest(one, "--security-opt", "nesting=true", "-v", "/var/lib/ketch")
        made.start()
        assert made("ketch run --rm busybox id -u").out == "0\n"
        assert made("ketch info --format '{{.Driver}}'").out == "overlay2\n"
        made.remove()
