"""ketch-runtime's commands and options, which are runc's; what engines call most is in test_runtime_cli."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from ketch.linux import fdpass
from ketch.runtime.cgroups import common, files
from tests.support.boxes import runtime_box
from tests.support.waiting import patient, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ketch.runtime.cgroups.common import Cgroup
    from tests.support.boxes.runtime_cli import Runtime

pytestmark = [pytest.mark.timeout(90), *runtime_box.NEEDED]

RUNTIME = [sys.executable, "-m", "ketch.runtime.oci_cli.main"]
SLEEP = ["sleep", "60"]


def start(runtime: Runtime, name: str, args: list[str], changes: dict[str, Any] | None = None) -> Cgroup:
    """A running container; its cgroup."""
    runtime.configure(args, changes)
    runtime.create_detached(name, runtime.directory / f"{name}.out")
    runtime("start", name)
    return common.at(runtime.document["linux"]["cgroupsPath"])


def test_an_execd_process_is_ended_when_the_container_would_be(runtime: Runtime, tmp_path: Path) -> None:
    """Its oom_score_adj is the container's, or its own, and not that of whoever calls the runtime."""

    def score(value: int) -> Callable[[], object]:
        return lambda: files.write("/proc/self", "oom_score_adj", value)

    start(runtime, "one", SLEEP, {"process.oomScoreAdj": 100})
    read = ["cat", "/proc/self/oom_score_adj"]
    assert runtime("exec", "one", *read, preexec_fn=score(300)).stdout == "100\n"
    own = tmp_path / "process.json"
    own.write_text(json.dumps({"args": read, "cwd": "/", "env": ["PATH=/bin"], "oomScoreAdj": 150}))
    assert runtime("exec", "--process", str(own), "one", preexec_fn=score(300)).stdout == "150\n"
    own.write_text(json.dumps({"args": read, "cwd": "/", "env": ["PATH=/bin"]}))
    assert runtime("exec", "--process", str(own), "one", preexec_fn=score(300)).stdout == "100\n"


def ended(pid: int) -> bool:
    """Whether a process is gone, or waits to be reaped."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def receive_fd(path: Path, call: Callable[[], object]) -> int:
    """The descriptor that comes to a unix socket during a call."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(patient(10))
        call()
        connection, _ = listener.accept()
        with connection:
            _, (fd,) = fdpass.recv(connection)
    return fd


EXEC = [
    (["--cap", "CAP_NET_ADMIN", "--cap", "CAP_SYS_TIME"], "grep CapEff /proc/self/status", "CapEff: 00000000aa0435fb"),
    (["--additional-gids", "100", "-g", "101"], "id -G", "0 100 101"),
    (["--user", "7:8"], "id -u; id -g", "7 8"),
    (["--user", "1000"], "id -u; id -g", "1000 0"),
    (["--user", "alice"], "id -u; id -g", "1000 1000"),
    (["--no-new-privs"], "grep NoNewPrivs /proc/self/status", "NoNewPrivs: 1"),
    (["--no-new-privs=false"], "grep NoNewPrivs /proc/self/status", "NoNewPrivs: 0"),
    (["--cgroup", "/"], "true", ""),
]
REFUSED = [
    (["--cgroup", ".."], ["true"], ".. is not a sub cgroup path"),
    (["--cgroup", "none"], ["true"], "/none`: no such cgroup"),
    (["--cgroup", "nosuch:/"], ["true"], "nosuch"),
    (["--additional-gids", "-1"], ["true"], "is not a number"),
    (["--preserve-fds", "9"], ["true"], "preserve descriptor 3 (of 3 to 11): bad file descriptor"),
    (["--console-socket", "x"], ["true"], "process.terminal is false"),
    (["--tty", "--detach"], ["true"], "nobody would have it"),
    (["--process", "/none"], [], "read `/none`: no such file"),
    ([], [], "exec args cannot be empty"),
]


def test_options_of_exec(runtime: Runtime) -> None:
    cgroup = start(runtime, "one", SLEEP)
    (runtime.bundle / "config.json").write_text("{}")  # what create read of it counts
    kept = {path.name: path.stat().st_mode & 0o777 for path in (runtime.root / "one").iterdir()}
    assert kept == {"config.json": 0o600, "state.json": 0o600}
    for options, script, expected in EXEC:
        done = runtime("exec", *options, "one", "sh", "-c", script)
        assert " ".join(done.stdout.split()) == expected, options
    for options, words, why in REFUSED:
        assert why in runtime("exec", *options, "one", *words, code=255).stderr, options
    assert runtime("exec", "--tty", "one", "echo", "line").stdout == "line\n"  # no carriage return of ours

    described = cgroup.describe()
    below = described["dir"] if described["version"] == 2 else described["dirs"]["memory"]
    os.mkdir(f"{below}/sub")
    path = "sub" if described["version"] == 2 else "memory:sub"
    # Its cgroup namespace's root is the container's cgroup, so that this is a path in it.
    line = "0::/sub" if described["version"] == 2 else ":memory:/sub"
    assert line in runtime("exec", "--cgroup", path, "one", "cat", "/proc/self/cgroup").stdout


def test_labels_come_from_the_container(runtime: Runtime, tmp_path: Path) -> None:
    """A process file without any is no less confined; this kernel may have no AppArmor, which says so."""
    start(runtime, "one", SLEEP)
    kept = runtime.root / "one/config.json"
    document = json.loads(kept.read_text())
    document["process"]["apparmorProfile"] = "nosuch"
    kept.write_text(json.dumps(document))
    process = tmp_path / "process.json"
    process.write_text(json.dumps({"args": ["true"], "cwd": "/"}))
    by_file = runtime("exec", "--process", str(process), "one", code=255).stderr
    assert "pparmor" in by_file.lower()
    assert by_file == runtime("exec", "one", "true", code=255).stderr
    document["process"]["apparmorProfile"] = ""
    kept.write_text(json.dumps(document))
    assert "pparmor" in runtime("exec", "--apparmor", "nosuch", "one", "true", code=255).stderr.lower()


UPDATES = [  # options; controller of v1, its file, value; file of v2, value
    (["--memory", "64M"], ("memory", "memory.limit_in_bytes", 64 << 20), ("memory.max", 64 << 20)),
    (["--memory-swap", "80M"], ("memory", "memory.memsw.limit_in_bytes", 80 << 20), None),
    (["--memory", "32M", "--memory-swap", "48M"], None, ("memory.swap.max", 16 << 20)),
    (["--memory", "-1"], ("memory", "memory.memsw.limit_in_bytes", (1 << 63) - 4096), ("memory.swap.max", "max")),
    (["--memory-reservation", "1024k"], ("memory", "memory.soft_limit_in_bytes", 1 << 20), ("memory.low", 1 << 20)),
    (["--pids-limit", "42"], ("pids", "pids.max", 42), ("pids.max", 42)),
    (["--pids-limit", "-1"], ("pids", "pids.max", "max"), ("pids.max", "max")),
    (["--cpu-share", "512"], ("cpu", "cpu.shares", 512), None),
    (["--cpu-quota", "50000"], ("cpu", "cpu.cfs_quota_us", 50000), ("cpu.max", "50000 100000")),
    (["--cpu-period", "200000"], ("cpu", "cpu.cfs_period_us", 200000), ("cpu.max", "50000 200000")),
    (["--cpu-quota", "-1"], ("cpu", "cpu.cfs_quota_us", -1), ("cpu.max", "max 200000")),
    (["--cpuset-cpus", "0"], ("cpuset", "cpuset.cpus", 0), ("cpuset.cpus", 0)),
]


def test_options_of_update(runtime: Runtime) -> None:
    described = start(runtime, "one", SLEEP).describe()
    for options, divided, unified in UPDATES:
        if described["version"] == 1:
            controller, name, value = divided or ("", "", "")
            directory = described["dirs"].get(controller)
        else:
            directory = described["dir"]
            name, value = unified or ("", "")
        if directory and name and files.exists(directory, name):
            runtime("update", *options, "one")
            assert files.read(directory, name) == str(value), options
    if described["version"] == 1:  # the parent's share is less than what either of the two alone would be
        cpu = described["dirs"]["cpu"]
        files.write(os.path.dirname(cpu), "cpu.cfs_quota_us", 60000)
        runtime("update", "--cpu-period", "100000", "--cpu-quota", "50000", "one")
        runtime("update", "--cpu-period", "10000", "--cpu-quota", "3000", "one")
        assert files.read(cpu, "cpu.cfs_period_us") == "10000"
        files.write(cpu, "cpu.cfs_quota_us", -1)
        files.write(os.path.dirname(cpu), "cpu.cfs_quota_us", -1)
    for options, why in (
        (["--memory", "x"], "invalid value for memory: `x`"),
        (["--cpu-share", "1.5"], "invalid value for cpu-share"),
        (["--l3-cache-schema", "L3"], "Intel RDT is not supported"),
        (["--resources", "/none"], "read `/none`"),
        (["--cpuset-cpus", "4000"], "update container `one`: set `"),
    ):
        assert why in runtime("update", *options, "one", code=1).stderr, options
    assert "no such limit" in runtime("update", "--kernel-memory", "1m", "one").stderr


def test_paused_containers(runtime: Runtime) -> None:
    start(runtime, "one", SLEEP)
    assert "container not paused" in runtime("resume", "one", code=1).stderr
    runtime("pause", "one")
    assert "already paused" in runtime("pause", "one", code=1).stderr
    assert "cannot exec in a paused container" in runtime("exec", "one", "true", code=255).stderr
    assert "cannot delete container `one` that is not stopped: it is paused" in runtime("delete", "one", code=1).stderr
    command = [*RUNTIME, "--root", str(runtime.root)]
    waiting = subprocess.Popen(
        [*command, "exec", "--ignore-paused", "one", "echo", "went on"], cwd=runtime.bundle, stdout=subprocess.PIPE
    )
    runtime("resume", "one")
    assert waiting.communicate(timeout=patient(15)) == (b"went on\n", None)
    runtime("pause", "one")
    runtime("delete", "--force", "one")


def test_created_containers(runtime: Runtime) -> None:
    """One that is paused is not started, which would never end; a signal ends it as it ends other programs."""
    runtime.configure(["true"])
    runtime.create_detached("one", runtime.directory / "out")
    runtime("pause", "one")
    assert "it is paused, not created" in runtime("start", "one", code=1).stderr
    runtime("resume", "one")
    assert runtime.state("one")["status"] == "created"
    runtime("kill", "one", "0")
    runtime("kill", "one", "TERM")
    until(lambda: runtime.state("one")["status"] == "stopped", "the created process ends")
    for command in ("start", "pause", "resume", "kill", "update"):
        assert "one" in runtime(command, "one", code=1).stderr
    runtime("kill", "--all", "one")
    assert "cannot exec in a stopped container" in runtime("exec", "one", "true", code=255).stderr


def test_cgroups_of_others_are_refused(runtime: Runtime) -> None:
    cgroup = start(runtime, "one", SLEEP)
    assert "container's cgroup is not empty: 1 process(es) found" in runtime("run", "two", code=1).stderr
    runtime("delete", "--force", "one")
    cgroup.make()
    cgroup.freeze(True)
    try:
        assert "container's cgroup unexpectedly frozen" in runtime("create", "two", code=1).stderr
    finally:
        cgroup.freeze(False)
        cgroup.remove()
    assert json.loads(runtime("list", "-f", "json").stdout) == []


def test_a_cgroup_without_a_path(runtime: Runtime) -> None:
    name = os.path.basename(runtime.box.parent) + "-own"  # it is the root's child, and has no parent to be found by
    start_changes = {"linux.cgroupsPath": "", "linux.resources.pids": {"limit": 77}}
    runtime.configure(SLEEP, start_changes)
    runtime.create_detached(name, runtime.directory / "out")
    described = common.at(f"/{name}").describe()
    directory = described["dir"] if described["version"] == 2 else described["dirs"]["pids"]
    assert files.read(directory, "pids.max") == "77"
    runtime("delete", name)
    assert not common.exists(f"/{name}")


def test_a_container_without_a_pid_namespace(runtime: Runtime) -> None:
    """SIGKILL and delete mean all of its processes, also when the first has ended."""
    namespaces = [one for one in runtime.document["linux"]["namespaces"] if one["type"] != "pid"]
    changes = {"linux.namespaces": namespaces}
    for command in (["kill", "one", "KILL"], ["delete", "--force", "one"], ["delete", "one"]):
        start(runtime, "one", ["sh", "-c", "sleep 60 & sleep 60 & wait"], changes)
        until(lambda: len(json.loads(runtime("ps", "-f", "json", "one").stdout)) == 3, "its processes start")
        pids = json.loads(runtime("ps", "-f", "json", "one").stdout)
        first = runtime.state("one")["pid"]
        if command[1] == "one":
            os.kill(first, signal.SIGKILL)
            until(lambda pid=first: ended(pid), "the first ends")
            assert runtime.state("one")["status"] == "stopped"
        runtime(*command)
        until(lambda pids=pids: all(ended(pid) for pid in pids), "all end")
        if command[0] == "kill":
            assert "container not running" in runtime("kill", "one", "KILL", code=1).stderr
            runtime("delete", "one")


def test_descriptors_are_handed_over(runtime: Runtime, tmp_path: Path) -> None:
    runtime.configure(["sh", "-c", "echo $LISTEN_FDS $LISTEN_PID $$; cat <&3; cat <&4"])
    first, second = os.pipe(), os.pipe()
    for (_, write_fd), text in ((first, b"three "), (second, b"four")):
        os.write(write_fd, text)
        os.close(write_fd)
    command = f"{' '.join(RUNTIME)} --root {runtime.root} run --preserve-fds 1 one"
    script = f"exec 3<&{first[0]} 4<&{second[0]}; LISTEN_FDS=1 LISTEN_PID=$$ exec {command}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=runtime.bundle,
        pass_fds=[first[0], second[0]],
        capture_output=True,
        text=True,
        timeout=patient(15),
        check=False,
    )
    os.close(first[0])
    os.close(second[0])
    assert (done.stdout, done.returncode) == ("1 1 1\nthree four", 0), done.stderr

    runtime.configure(SLEEP)
    path = tmp_path / "pidfd.sock"
    words = [*RUNTIME, "--root", str(runtime.root), "run", "-d", "--pidfd-socket", str(path), "two"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "timeout": patient(15), "check": True}
    pidfd = receive_fd(path, lambda: subprocess.run(words, cwd=runtime.bundle, **quiet))
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert select.select([pidfd], [], [], patient(10))[0]
    os.close(pidfd)
    assert runtime.state("two")["status"] == "stopped"


def test_a_root_that_is_not_pivoted(runtime: Runtime) -> None:
    script = "echo *; pwd; grep -c . /proc/self/mounts; ls -A /proc/1/root"
    runtime.configure(["sh", "-c", script], {"root.readonly": False})
    pivoted, covered = (runtime("run", *options, "one").stdout for options in ([], ["--no-pivot"]))
    assert "bin" in covered.split()
    assert covered.splitlines()[:2] == pivoted.splitlines()[:2]


def test_events_until_the_end(runtime: Runtime) -> None:
    start(runtime, "one", ["sh", "-c", "read x < /nothing; sleep 60"], {"linux.resources.memory": {"limit": 16 << 20}})
    command = [*RUNTIME, "--root", str(runtime.root)]
    with subprocess.Popen(
        [*command, "events", "--interval", "20ms", "one"], stdout=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        event = json.loads(watching.stdout.readline())
        assert (event["type"], event["id"]) == ("stats", "one")
        assert event["data"]["memory"]["usage"]["limit"] == 16 << 20
        assert event["data"]["pids"]["current"] == 1
        runtime("exec", "one", "sh", "-c", "x=$(head -c 64m /dev/zero | tr '\\0' x)", code=137)
        assert any(json.loads(line) == {"type": "oom", "id": "one"} for line in watching.stdout)
        runtime("kill", "one", "KILL")
        watching.stdout.read()
        assert watching.wait(patient(15)) == 0
    for options, why in (["--interval", "0"], "greater than 0"), (["--stats"], "container not running"):
        assert why in runtime("events", *options, "one", code=1).stderr


def test_what_a_killed_create_leaves(runtime: Runtime) -> None:
    """Its state says which cgroup there may be; the container is never shown as one that could be started."""
    hook = [{"path": "/bin/sh", "args": ["sh", "-c", "exec sleep 60"]}]
    runtime.configure(["true"], {"hooks": {"createRuntime": hook}})
    command = [*RUNTIME, "--root", str(runtime.root), "create", "one"]
    creating = subprocess.Popen(command, cwd=runtime.bundle, stderr=subprocess.DEVNULL)
    path = runtime.document["linux"]["cgroupsPath"]
    until(lambda: common.exists(path) and common.at(path).pids(), "the child is in its cgroup")
    assert runtime.state("one")["status"] == "creating"
    creating.kill()
    creating.wait()
    assert "it is creating, not created" in runtime("start", "one", code=1).stderr
    assert "it is creating" in runtime("delete", "one", code=1).stderr
    runtime("delete", "--force", "one")
    assert not common.exists(path)


def test_a_create_that_is_interrupted_leaves_nothing(runtime: Runtime, tmp_path: Path) -> None:
    script = f"echo $$ > {tmp_path}/new && mv {tmp_path}/new {tmp_path}/hook; exec sleep 60"
    runtime.configure(["true"], {"hooks": {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}})
    command = [*RUNTIME, "--root", str(runtime.root), "run", "one"]
    for number in (signal.SIGTERM, signal.SIGINT):
        running = subprocess.Popen(command, cwd=runtime.bundle, stderr=subprocess.PIPE, text=True)
        until((tmp_path / "hook").exists, "the hook runs")
        running.send_signal(number)
        _, errors = running.communicate(timeout=patient(15))
        assert (running.returncode, errors.count("\n")) == (128 + number, 1), errors
        assert "interrupted: " in errors
        assert ended(int((tmp_path / "hook").read_text()))
        assert not common.exists(runtime.document["linux"]["cgroupsPath"])
        assert not (runtime.root / "one").exists()
        (tmp_path / "hook").unlink()


# Two signals: one while a process has been forked and nothing is known of it, one while all is unmade.
INTERRUPTED = """
import os, signal, sys, time
from ketch.runtime.cgroups import common
from ketch.runtime.oci_cli import creation, main
remove = creation._remove
def interrupt():
    while not (common.exists(sys.argv[1]) and common.at(sys.argv[1]).pids()):
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGTERM)
def unmake(*arguments):
    os.kill(os.getpid(), signal.SIGINT)
    remove(*arguments)
creation._import_meanwhile, creation._remove = interrupt, unmake
sys.exit(main.main(sys.argv[2:]))
"""


@pytest.mark.parametrize("namespaces", [[], ["user"]])
def test_unmaking_is_not_interrupted(runtime: Runtime, namespaces: list[str]) -> None:
    linux = runtime.document["linux"]
    linux["namespaces"] += [{"type": kind} for kind in namespaces]
    if namespaces:
        linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 0, "size": 65536}]
    runtime.configure(["true"])
    path = linux["cgroupsPath"]
    command = [sys.executable, "-c", INTERRUPTED, path, "--root", str(runtime.root), "create", "one"]
    done = subprocess.run(command, cwd=runtime.bundle, capture_output=True, text=True, timeout=patient(15), check=False)
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "ketch-runtime: interrupted: terminated\n")
    assert not common.exists(path)
    assert not (runtime.root / "one").exists()


def test_a_create_that_was_killed_before_it_had_a_state(runtime: Runtime) -> None:
    runtime.configure(SLEEP)
    (runtime.root / "one").mkdir(parents=True)
    assert "`delete --force` removes what has no state" in runtime("create", "one", code=1).stderr
    assert "container does not exist" in runtime("delete", "one", code=1).stderr
    assert (runtime.root / "one").exists()  # by somebody who is just making it, perhaps
    runtime("delete", "--force", "one")
    start(runtime, "one", SLEEP)


def test_a_pid_file_that_cannot_be_written_leaves_nothing(runtime: Runtime, tmp_path: Path) -> None:
    runtime.configure(["true"])
    (tmp_path / "pids" / "taken").mkdir(parents=True)
    assert "write pid file" in runtime("create", "--pid-file", f"{tmp_path}/pids/taken", "one", code=1).stderr
    assert os.listdir(tmp_path / "pids") == ["taken"]
    assert not (runtime.root / "one").exists()


# The first process of namespaces of its own, where a pid can be given again: just before the namespaces are opened.
REUSED = """
import json, os, signal, subprocess, sys
from ketch.runtime import namespaces
from ketch.runtime.oci_cli import main
from ketch.runtime.process import interpreter
interpreter.protect()
root = ["--root", sys.argv[1]]
command = [sys.executable, "-m", "ketch.runtime.oci_cli.main", *root, "run", "--detach", "one"]
subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
with open(f"{sys.argv[1]}/one/state.json") as file:
    pid = json.load(file)["pid"]
enter = namespaces.enter_pid
def reuse(mode):
    os.kill(pid, signal.SIGKILL)
    while os.waitpid(-1, 0)[0] != pid:
        continue
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(pid - 1))
    other = os.fork()
    if other == 0:
        signal.pause()
    assert other == pid
    enter(mode)
namespaces.enter_pid = reuse
sys.exit(main.main([*root, "exec", "one", "true"]))
"""


@pytest.mark.skipif(not os.path.exists("/proc/sys/kernel/ns_last_pid"), reason="a kernel that cannot give pids")
def test_an_exec_does_not_join_who_has_the_pid_by_now(runtime: Runtime) -> None:
    runtime.configure(SLEEP)
    command = ["unshare", "--pid", "--kill-child", "--mount-proc", sys.executable, "-c", REUSED, str(runtime.root)]
    done = subprocess.run(command, cwd=runtime.bundle, capture_output=True, text=True, timeout=patient(20), check=False)
    assert (done.returncode, done.stderr) == (255, "ketch-runtime: cannot exec in a stopped container: `one`\n")


def test_a_damaged_state(runtime: Runtime) -> None:
    start(runtime, "one", SLEEP)
    path = runtime.root / "one/state.json"
    text = path.read_text()
    for damaged in ("{", "null", "[]", "{}", '{"id": "two", "bundle": "/x"}', '{"id": "one"}'):
        path.write_text(damaged)
        listed = runtime("list", "-q")
        assert (listed.stdout, "warning: read state of container `one`: " in listed.stderr) == ("", True)
    assert f"remove `{runtime.root}/one`" in runtime("delete", "--force", "one", code=1).stderr
    path.write_text(text)
