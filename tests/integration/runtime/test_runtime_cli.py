"""ketch-runtime as containerd's shim and conmon call it: separate processes for each step of a container's life."""

from __future__ import annotations

import json
import os
import pty
import select
import socket
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from ketch import pidfd
from ketch.linux import fdpass
from ketch.runtime.security import seccomp_default
from tests.support.boxes import runtime_box
from tests.support.waiting import patient, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.boxes.runtime_cli import Runtime

pytestmark = [pytest.mark.timeout(90), *runtime_box.NEEDED]


def wait_for_end(pid: int) -> None:
    """Until the process is gone; it is not our child."""
    try:
        fd = pidfd.open_process(pid)
    except ProcessLookupError:
        return
    ready, _, _ = select.select([fd], [], [], patient(10))
    os.close(fd)
    assert ready


def test_run(runtime: Runtime) -> None:
    runtime.configure(["sh", "-c", "echo out; echo err >&2; cat; exit 9"])
    done = runtime("run", "one", code=9, input="in")
    assert (done.stdout, done.stderr) == ("out\nin", "err\n")
    assert runtime("list", "-q").stdout == ""


def test_create_start_kill_delete(runtime: Runtime, tmp_path: Path) -> None:
    runtime.configure(["sh", "-c", "echo started; trap 'echo term; exit' TERM; while :; do sleep 0.05; done"])
    output = tmp_path / "output"
    runtime.create_detached("two", output)
    created = runtime.state("two")
    assert created["status"] == "created"
    assert created["bundle"] == str(runtime.bundle)
    assert output.read_bytes() == b""
    assert stat.S_ISSOCK((runtime.root / "two/start.sock").stat().st_mode)

    runtime("start", "two")
    assert runtime.state("two")["status"] == "running"
    assert "running" in runtime("list").stdout
    assert runtime("list", "-q").stdout == "two\n"
    assert "it is running, not created" in runtime("start", "two", code=1).stderr
    assert "it is running" in runtime("delete", "two", code=1).stderr
    assert created["pid"] in json.loads(runtime("ps", "-f", "json", "two").stdout)

    runtime("kill", "two", "TERM")
    wait_for_end(created["pid"])
    assert output.read_text() == "started\nterm\n"
    stopped = runtime.state("two")
    assert (stopped["status"], stopped["pid"]) == ("stopped", 0)
    assert "container not running" in runtime("kill", "two", code=1).stderr
    runtime("delete", "two")
    assert "container does not exist" in runtime("state", "two", code=1).stderr


def test_a_created_container_can_be_deleted(runtime: Runtime, tmp_path: Path) -> None:
    runtime.configure(["true"])
    runtime.create_detached("three", tmp_path / "out")
    pid = runtime.state("three")["pid"]
    runtime("delete", "three")
    assert not os.path.exists(f"/proc/{pid}/exe")
    assert not (runtime.root / "three").exists()


def test_names(runtime: Runtime, tmp_path: Path) -> None:
    runtime.configure(["true"])
    runtime.create_detached("four", tmp_path / "out")
    assert "container with given ID already exists" in runtime("create", "four", code=1).stderr
    assert runtime.state("four")["status"] == "created"  # the first is unharmed
    for name in ("../x", "a/b", ".", ""):
        assert "invalid container id" in runtime("create", name, code=1).stderr
    runtime("delete", "--force", "never-made")


def test_exec(runtime: Runtime, tmp_path: Path) -> None:
    runtime.configure(["sleep", "60"])
    runtime.create_detached("five", tmp_path / "out")
    before = runtime("exec", "five", "sh", "-c", "echo $PPID; readlink /proc/self/ns/net", code=0).stdout.split()
    assert before == ["0", os.readlink(f"/proc/{runtime.state('five')['pid']}/ns/net")]  # before its program runs
    runtime("start", "five")
    changed = ["--env", "A=b", "--cwd", "/tmp", "--user", "alice"]
    done = runtime("exec", *changed, "five", "sh", "-c", "echo $A; pwd; id -un; exit 3", code=3)
    assert done.stdout.split() == ["b", "/tmp", "alice"]
    namespaces = runtime("exec", "five", "sh", "-c", "readlink /proc/1/ns/net; readlink /proc/self/ns/net").stdout
    assert len(set(namespaces.split())) == 1
    status = runtime("exec", "five", "grep", "-E", "Seccomp:|CapEff", "/proc/self/status").stdout
    assert "Seccomp:\t2" in status
    assert "00000000a80425fb" in status
    missing = runtime("exec", "five", "nosuch", code=255)
    assert 'exec: "nosuch": executable file not found in $PATH' in missing.stderr


def test_exec_with_a_process_file_and_pid_file(runtime: Runtime, tmp_path: Path) -> None:
    runtime.configure(["sleep", "60"])
    runtime.create_detached("six", tmp_path / "out")
    runtime("start", "six")
    process = {"args": ["sleep", "50"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 1, "gid": 1}}
    (tmp_path / "process.json").write_text(json.dumps(process))
    pid_file = tmp_path / "pid"
    command = [
        sys.executable,
        "-m",
        "ketch.runtime.oci_cli.main",
        "--root",
        str(runtime.root),
        "exec",
        "--detach",
        "--process",
        str(tmp_path / "process.json"),
        "--pid-file",
        str(pid_file),
        "six",
    ]
    subprocess.run(command, timeout=patient(15), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pid = int(pid_file.read_text())
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        assert file.read() == b"sleep\x0050\x00"
    assert sorted(json.loads(runtime("ps", "-f", "json", "six").stdout)) == sorted([runtime.state("six")["pid"], pid])
    heading, *rows = runtime("ps", "six", "-eo", "pid,args").stdout.splitlines()
    assert heading.split() == ["PID", "COMMAND"]
    assert sorted(row.split() for row in rows) == sorted(
        [[str(runtime.state("six")["pid"]), "sleep", "60"], [str(pid), "sleep", "50"]]
    )
    runtime("kill", "--all", "six", "KILL")
    wait_for_end(pid)


def test_terminal_through_a_console_socket(runtime: Runtime, tmp_path: Path) -> None:
    runtime.configure(["sh", "-c", "tty; read line; echo got $line"], {"process.terminal": True})
    path = tmp_path / "console.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(patient(10))
        runtime("create", "--console-socket", str(path), "seven")
        connection, _ = listener.accept()
        with connection:
            _, fds = fdpass.recv(connection)
    (master_fd,) = fds
    try:
        runtime("start", "seven")
        os.write(master_fd, b"hello\n")
        seen = b""
        while b"got hello" not in seen:
            assert select.select([master_fd], [], [], patient(10))[0]
            seen += os.read(master_fd, 4096)
        assert b"/dev/pts/0" in seen
    finally:
        os.close(master_fd)


def in_own_terminal(runtime: Runtime, *words: str) -> tuple[int, int]:
    """A call in a terminal of its own: its pid, the terminal's master."""
    pid, master_fd = pty.fork()
    if pid == 0:
        os.chdir(runtime.bundle)
        command = [sys.executable, "-m", "ketch.runtime.oci_cli.main", "--root", str(runtime.root), *words]
        os.execv(sys.executable, command)
    return pid, master_fd


def test_run_with_a_terminal_in_the_foreground(runtime: Runtime) -> None:
    runtime.configure(["sh", "-c", "stty size < /dev/tty; read x; echo [$x]; exit 6"], {"process.terminal": True})
    pid, master_fd = in_own_terminal(runtime, "run", "eight")
    os.write(master_fd, b"typed\r")
    seen = b""
    while True:
        assert select.select([master_fd], [], [], patient(20))[0], seen
        try:
            data = os.read(master_fd, 4096)
        except OSError:
            break
        seen += data
    os.close(master_fd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 6
    assert b"[typed]" in seen


def foreground(runtime: Runtime, *words: str, **streams: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ketch.runtime.oci_cli.main", "--root", str(runtime.root), *words]
    return subprocess.Popen(command, cwd=runtime.bundle, **streams)


def test_a_terminal_whose_program_reads_slower_than_it_is_written_to(runtime: Runtime) -> None:
    size = 1 << 20
    runtime.configure(["sh", "-c", f"stty raw -echo; echo ready; head -c {size}"], {"process.terminal": True})
    with foreground(runtime, "run", "one", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdin is not None and running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        writer = threading.Thread(target=running.stdin.write, args=[b"x" * size])
        writer.start()
        try:
            assert len(running.stdout.read(size)) == size
        finally:
            running.kill()
            writer.join()
            runtime("delete", "--force", "one")


def test_a_terminal_that_nobody_looks_at_any_more(runtime: Runtime) -> None:
    script = "trap 'exit 7' HUP; while :; do echo line; sleep 0.05; done"
    runtime.configure(["sh", "-c", script], {"process.terminal": True})
    with foreground(runtime, "run", "one", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()
        running.stdout.close()
        assert running.wait(patient(15)) == 7
    assert not (runtime.root / "one").exists()


def test_a_terminal_that_is_gone(runtime: Runtime) -> None:
    script = "trap 'exit 7' HUP; while :; do echo line; sleep 0.05; done"
    runtime.configure(["sh", "-c", script], {"process.terminal": True})
    pid, master_fd = in_own_terminal(runtime, "run", "one")
    os.read(master_fd, 4)
    os.close(master_fd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert not (runtime.root / "one").exists()


def test_what_keeps_a_terminal_open_does_not_keep_exec(runtime: Runtime, tmp_path: Path) -> None:
    runtime.configure(["sleep", "60"])
    runtime.create_detached("one", tmp_path / "out")
    runtime("start", "one")
    done = runtime("exec", "-t", "one", "sh", "-c", "trap '' HUP; sleep 60 & echo there; exit 5", code=5)
    assert done.stdout == "there\n"


@pytest.mark.parametrize("name", ["create", "run"])
def test_failures_leave_nothing(runtime: Runtime, name: str, tmp_path: Path) -> None:
    runtime.configure(["nosuch"])
    log = tmp_path / "log.json"
    command = ["--log", str(log), "--log-format", "json", name, "nine"]
    failed = runtime(*command, code=1)
    assert 'exec: "nosuch": executable file not found in $PATH' in failed.stderr
    entry = json.loads(log.read_text())
    assert (entry["level"], entry["msg"]) == ("error", 'exec: "nosuch": executable file not found in $PATH')
    assert not (runtime.root / "nine").exists()


def test_exec_format_error_at_start(runtime: Runtime, tmp_path: Path) -> None:
    runtime.configure(["garbage"])
    runtime.create_detached("ten", tmp_path / "out")
    assert 'exec: "garbage": exec format error' in runtime("start", "ten", code=1).stderr
    until(lambda: runtime.state("ten")["status"] == "stopped", "the process does not end")


def test_pause_resume_and_update(runtime: Runtime, tmp_path: Path) -> None:
    runtime.configure(["sleep", "60"])
    runtime.create_detached("eleven", tmp_path / "out")
    runtime("start", "eleven")
    runtime("pause", "eleven")
    assert runtime.state("eleven")["status"] == "paused"
    runtime("resume", "eleven")
    assert runtime.state("eleven")["status"] == "running"
    runtime(
        "update", "--resources", "-", "eleven", input=json.dumps({"memory": {"limit": 99 << 20}, "pids": {"limit": 55}})
    )
    stats = json.loads(runtime("events", "--stats", "eleven").stdout)["data"]
    assert (stats["memory"]["usage"]["limit"], stats["pids"]["limit"]) == (99 << 20, 55)
    runtime("delete", "--force", "eleven")


def test_hooks_run_where_they_should(runtime: Runtime, tmp_path: Path) -> None:
    log = tmp_path / "hooks"

    def hook(kind: str) -> list[dict[str, Any]]:
        script = f"cat > {log}.{kind}; echo {kind} $(readlink /proc/self/ns/net) >> {log}"
        return [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}]

    script = "cat > /dev/shm/state; echo $ONE >&2; [ $ONE = two ]"
    inside = [{"path": "/bin/sh", "args": ["sh", "-c", script]}]
    kinds = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    changes = {
        "hooks": {**{kind: hook(kind) for kind in kinds}, "startContainer": inside},
        "annotations": {"who": "x"},
        "process.env": ["PATH=/bin", "ONE=two"],
    }
    runtime.configure(["cat", "/dev/shm/state"], changes)
    (tmp_path / "hooks.startContainer").write_text(runtime("run", "twelve").stdout)
    seen = dict(line.split() for line in log.read_text().splitlines())
    assert list(seen) == list(kinds)
    host = os.readlink("/proc/self/ns/net")
    assert {kind for kind, net in seen.items() if net == host} == {"prestart", "createRuntime", "poststart", "poststop"}
    statuses = (("prestart", "created"), ("createRuntime", "creating"), ("createContainer", "creating"))
    pids = {}
    for kind, status in (*statuses, ("startContainer", "created"), ("poststart", "running"), ("poststop", "stopped")):
        state = json.loads((tmp_path / f"hooks.{kind}").read_text())
        assert (state["id"], state["status"], state["annotations"]) == ("twelve", status, {"who": "x"})
        pids[kind] = state["pid"]
    # As whoever reads it sees it: the hooks in the container's namespaces, those of the host's.
    assert pids.pop("createContainer") == pids.pop("startContainer") == 1
    assert pids.pop("poststop") == 0
    assert len(set(pids.values())) == 1
    assert set(pids.values()) != {1}


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"])
def test_a_failing_hook_ends_the_run(runtime: Runtime, kind: str) -> None:
    second = {"path": "/bin/sh", "args": ["sh", "-c", "echo why; echo so >&2; exit 4"]}
    runtime.configure(["sleep", "60"], {"hooks": {kind: [{"path": "/bin/true"}, second]}})
    failed = runtime("run", "thirteen", code=1)
    assert f"error running {kind} hook #1: `/bin/sh`: exit status 4: why\nso\n" in failed.stderr
    assert not (runtime.root / "thirteen").exists()


def test_failing_hooks_at_the_end_are_warned_of(runtime: Runtime, tmp_path: Path) -> None:
    late = {"path": "/bin/sh", "args": ["sh", "-c", "exec sleep 60"], "timeout": 1}
    last = {"path": "/usr/bin/touch", "args": ["touch", str(tmp_path / "last")]}
    runtime.configure(["true"], {"hooks": {"poststop": [{"path": "/nosuch"}, late, last]}})
    warned = runtime("run", "x").stderr
    assert "warning: error running poststop hook #0: `/nosuch`: no such file or directory" in warned
    assert "hook #0: `/bin/sh`: timed out" in warned
    assert (tmp_path / "last").exists()


def test_preserved_descriptors(runtime: Runtime) -> None:
    runtime.configure(["sh", "-c", "ls /proc/self/fd | tr '\\n' ' '; cat <&3"])
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b"through three")
    os.close(write_fd)
    command = f"{sys.executable} -m ketch.runtime.oci_cli.main --root {runtime.root} run --preserve-fds 1 fourteen"
    shell = ["bash", "-c", f"exec 3<&{read_fd}; exec {command}"]
    done = subprocess.run(
        shell, cwd=runtime.bundle, pass_fds=[read_fd], capture_output=True, text=True, timeout=patient(15), check=False
    )
    os.close(read_fd)
    assert done.stdout == "0 1 2 3 4 through three"  # 4 is ls's own


def test_another_containers_ipc_namespace_comes_with_its_shared_memory(runtime: Runtime, tmp_path: Path) -> None:
    runtime.configure(["sleep", "60"])
    runtime.create_detached("donor", tmp_path / "out")
    runtime("start", "donor")
    ipc = f"/proc/{runtime.state('donor')['pid']}/ns/ipc"
    namespaces = [one for one in runtime.document["linux"]["namespaces"] if one["type"] != "ipc"]
    changes = {
        "annotations": {"dev.ketch.id": "x"},
        "linux.namespaces": [*namespaces, {"type": "ipc", "path": ipc}],
        "linux.cgroupsPath": f"{runtime.box.parent}/second",
    }
    runtime.configure(["sh", "-c", "readlink /proc/self/ns/ipc; echo shared > /dev/shm/file"], changes)
    assert runtime("run", "taker").stdout.strip() == os.readlink(ipc)
    assert runtime("exec", "donor", "cat", "/dev/shm/file").stdout == "shared\n"


def test_usage_errors(runtime: Runtime) -> None:
    assert "unknown command `fly`" in runtime("fly", code=1).stderr
    assert "unknown option `--wings`" in runtime("create", "--wings", "x", code=1).stderr
    assert "config.json" in runtime("create", "x", code=1).stderr
    assert "usage:" in runtime("--help").stdout
    assert "spec: 1.2.0" in runtime("--version").stdout
    assert "unknown signal `BLAH`" in runtime("kill", "x", "BLAH", code=1).stderr
    assert "`state` takes exactly 1 argument" in runtime("state", code=1).stderr
    assert "usage: ketch-runtime state [OPTIONS] ID" in runtime("state", "-h").stdout
    assert "neither text nor json" in runtime("--log-format", "xml", "list", code=1).stderr
    assert "cannot be kept in `/`" in runtime("--root", "/", "list", code=1).stderr
    assert "checkpoints are not supported" in runtime("checkpoint", "--image-path", "i", "x", code=1).stderr


def test_features_and_spec(runtime: Runtime) -> None:
    features = json.loads(runtime("features").stdout)
    assert features["ociVersionMax"] == "1.2.0"
    assert {"rro", "rbind", "rslave"} <= set(features["mountOptions"])
    assert "CAP_BPF" in features["linux"]["capabilities"]
    assert features["linux"]["apparmor"] == features["linux"]["selinux"] == {"enabled": True}
    runtime("spec")
    example = json.loads((runtime.bundle / "config.json").read_text())
    assert example["linux"]["seccomp"] == seccomp_default.profile(example["process"]["capabilities"]["bounding"])
    assert "exists" in runtime("spec", code=1).stderr


def test_the_runtime_stays_light() -> None:
    """Every monitor is a fork of what has these modules in memory."""
    script = (
        "import sys; from ketch.runtime.process import preload; preload.prepare(); "
        "import ketch.runtime.process.children.init, ketch.runtime.process.children.exec; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "ketch.runtime.security.seccomp" in loaded
    heavy = {
        "asyncio",
        "dataclasses",
        "logging",
        "subprocess",
        "threading",
        "socket",
        "argparse",
        "msgspec",
        "traceback",
    }
    assert not heavy & loaded
