"""ketch-runtime under Podman: what it shows is what it shows with runc."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import pytest

from tests.support.boxes import runtime_box
from tests.support.runtimes.peer_place import PeerPlace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.runtimes.peer_place import Done

pytestmark = [pytest.mark.timeout(120), *runtime_box.NEEDED]
Answer = TypeVar("Answer")
RUNC = "/usr/sbin/runc"
# The owner of the ranges of --userns=auto.
RANGES = {
    "/etc/passwd": "containers:x:999:999::/:/bin/false",
    "/etc/subuid": "containers:1000000:1000000",
    "/etc/subgid": "containers:1000000:1000000",
}


class Podman:
    """The podman program, with a store of its own."""

    def __init__(self, place: PeerPlace) -> None:
        self.place = place
        top = place.directory
        place("mount", "-t", "tmpfs", "none", "/var/cache")
        for path, line in RANGES.items():
            place(
                "sh",
                "-c",
                f"cat {path} >$0; echo {line} >>$0; mount --bind $0 {path}",
                f"/var/cache/{os.path.basename(path)}",
            )
        self._options = ["--root", f"{top}/store", "--runroot", f"{top}/run", "--tmpdir", f"{top}/tmp"]
        self._options += ["--cgroup-manager", "cgroupfs", "--events-backend", "file", "--storage-driver", "overlay"]

    def __call__(self, *words: str, runtime: str = RUNC, stdin: str = "") -> Done:
        """Run it; its warning of cgroup v1 is not told."""
        options = [*self._options, "--runtime", runtime]
        return self.place("podman", *options, *words, stdin=stdin, PODMAN_IGNORE_CGROUPSV1_WARNING="1")

    def must(self, *words: str, runtime: str = RUNC) -> str:
        done = self(*words, runtime=runtime)
        assert done.code == 0, done.err
        return done.out


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    image = runtime_box.make_rootfs(tmp_path_factory.mktemp("image"))
    place = PeerPlace(tmp_path_factory.mktemp("podman"), ["libpod_parent"])
    try:
        podman = Podman(place)
        subprocess.run(["tar", "-C", image, "-cf", place.directory / "image.tar", "."], check=True)
        podman.must("import", f"{place.directory}/image.tar", "box")
        yield podman
        podman.must("rm", "--all", "--force", "--time", "0")
        assert podman.must("ps", "--all", "--quiet") == ""
    finally:
        place.close()


STATUS = "grep -E '^(Cap|Seccomp:|NoNewPrivs|Uid|Gid)' /proc/self/status"
MAPPED = f"""
    awk '{{print $1, $3}}' /proc/self/uid_map /proc/self/gid_map
    {STATUS}; ls -ld / /etc; touch /root/x; mount -t proc p /tmp
"""
IDS = "cat /proc/self/uid_map /proc/self/gid_map"
SURROUNDINGS = """
    hostname; sysctl -n net.ipv4.ip_forward; ulimit -n; ulimit -Hn; df -k /t /dev/shm | awk '{print $2}'
    ls -l /dev/other /dev/null /dev/ptmx /dev/fd; grep -E ' /(proc|sys|dev)' /proc/mounts | cut -d' ' -f2,3 | sort
    cat /proc/kcore /proc/keys | wc -c; ls /proc/acpi /sys/firmware; echo x >/work/x && cat /work/x
"""
CASES = {
    "streams": ["box", "sh", "-c", "echo out; echo err >&2; exit 7"],
    "identity": ["-u", "alice", "-w", "/work", "box", "sh", "-c", f"id -un; pwd; {STATUS}"],
    "confined": [
        *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("box", "sh", "-c", STATUS),
    ],
    "privileged": ["--privileged", "box", "sh", "-c", f"{STATUS}; ls /dev | wc -l"],
    "surroundings": [
        *("--hostname", "inside", "--sysctl", "net.ipv4.ip_forward=1", "--ulimit", "nofile=64:64", "-v", "/work"),
        *("--tmpfs", "/t:size=1m", "--shm-size", "2m", "--device", "/dev/null:/dev/other:r"),
        *("box", "sh", "-c", SURROUNDINGS),
    ],
    "the host's": ["--pid", "host", "--ipc", "host", "--uts", "host", "box", "sh", "-c", "test $$ != 1 && hostname"],
    "mapped": ["--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536", "box", "sh", "-c", IDS],
    "mapped user": ["--uidmap", "0:100000:65536", "--user", "alice", "box", "sh", "-c", MAPPED],
    "mapped automatically": ["--userns", "auto", "--pid", "host", "box", "sh", "-c", MAPPED],
    "mapped and privileged": ["--userns", "auto", "--privileged", "box", "sh", "-c", MAPPED],
    "mapped with volumes": [
        *("--userns", "auto", "-v", "named:/vol:U", "-v", "/work:/work:idmap", "--read-only", "--tmpfs", "/t"),
        *("box", "sh", "-c", "touch /vol/n /t/n /work/n; ls -ln /vol/n /t/n /work/n; touch /x"),
    ],
    "not found": ["box", "nosuch"],
    "not executable": ["box", "/etc/passwd"],
}


def both(podman: Podman, ask: Callable[[str], Answer]) -> list[Answer]:
    """What a question about a runtime is answered by ketch-runtime and by runc, at the same time."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(ask, (podman.place.ketch_runtime, RUNC)))


@pytest.mark.parametrize("name", CASES)
def test_a_run(podman: Podman, name: str) -> None:
    ours, theirs = both(
        podman, lambda runtime: podman("run", "--rm", "--network", "none", *CASES[name], runtime=runtime)
    )
    assert (ours.code, ours.out) == (theirs.code, theirs.out), ours.err


LIFE = [
    "exec -e A=1 ONE sh -c 'echo $A; exit 3'",
    "exec -u alice -w /work ONE sh -c 'id -un; pwd'",
    "exec ONE nosuch",
    "exec -d ONE sh -c 'echo later >/dev/shm/said'",
    "exec --privileged ONE grep CapEff /proc/self/status",
    "pause ONE",
    "ps --all --filter name=ONE --format {{.Names}}:{{.State}}",
    "exec ONE true",
    "unpause ONE",
    "top ONE comm",
    "update --pids-limit 33 --memory 64m ONE",
    "exec ONE cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/memory/memory.limit_in_bytes",
    "stats --no-stream --format {{.Name}}:{{.PIDs}} ONE",
    "diff ONE",
    "stop --time 0 ONE",
    "wait ONE",
    "logs ONE",
    "inspect --format {{.State.Status}}:{{.State.ExitCode}}:{{.State.OOMKilled}} ONE",
    "start ONE",
    "exec ONE cat /dev/shm/said",
    "container checkpoint ONE",
    "rm --force --time 0 ONE",
]


def told(podman: Podman, runtime: str) -> list[tuple[str, int, str]]:
    """What the commands of a container's life answer."""
    name = f"one-{os.path.basename(runtime)}"
    script = "echo begun; while :; do sleep 1; done"
    done = podman("run", "-d", "--name", name, "--network", "none", "box", "sh", "-c", script, runtime=runtime)
    assert done.code == 0, done.err
    found = []
    for line in LIFE:
        answer = podman(*shlex.split(line.replace("ONE", name)), runtime=runtime)
        output = answer.out.replace(name, "ONE")
        found.append((line, answer.code, re.sub("[0-9a-f]{64}|^total.*", "ID", output)))
    return found


def test_a_life(podman: Podman) -> None:
    ours, theirs = both(podman, lambda runtime: told(podman, runtime))
    for one, other in zip(ours, theirs, strict=True):
        assert one == other
