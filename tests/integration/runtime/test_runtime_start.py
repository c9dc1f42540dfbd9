"""The runtime library starts real containers: what PID 1 sees, is, and may do."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from ketch.linux import caps, fdpass
from ketch.runtime import defaults
from ketch.runtime.cgroups import common
from ketch.runtime.process.children import init
from ketch.runtime.process.children.parent import Parent
from tests.support.boxes import runtime_box
from tests.support.waiting import patient

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.boxes.runtime_box import Box

pytestmark = [pytest.mark.timeout(60), *runtime_box.NEEDED]


def test_every_namespace_is_new(box: Box) -> None:
    kinds = ("mnt", "pid", "net", "ipc", "uts", "cgroup")
    result = box.run(["sh", "-c", "; ".join(f"readlink /proc/self/ns/{kind}" for kind in kinds)])
    inside = result.out.split()
    outside = [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]
    assert len(inside) == 6
    assert not set(inside) & set(outside)
    assert result.seen["ready"] == {"netns": True, "tty": False}
    assert result.seen["fds"] == 2


def test_namespaces_that_are_not_listed_stay_the_hosts(box: Box) -> None:
    kept = [{"type": kind} for kind in ("mount", "pid")]
    changes = {"linux.namespaces": kept, "hostname": "", "linux.readonlyPaths": []}
    result = box.run(["sh", "-c", "readlink /proc/self/ns/net; readlink /proc/self/ns/uts"], changes)
    assert result.out.split() == [os.readlink("/proc/self/ns/net"), os.readlink("/proc/self/ns/uts")]
    assert result.seen["ready"]["netns"] is False


def test_a_namespace_is_joined_by_path(box: Box) -> None:
    namespaces = [{"type": "mount"}, {"type": "uts", "path": "/proc/self/ns/uts"}, {"type": "pid"}]
    result = box.run(["readlink", "/proc/self/ns/uts"], {"linux.namespaces": namespaces, "hostname": ""})
    assert result.out.strip() == os.readlink("/proc/self/ns/uts")


def test_a_missing_namespace_path_is_named(box: Box) -> None:
    namespaces = [{"type": "mount"}, {"type": "network", "path": "/proc/nothing/ns/net"}]
    result = box.run(["true"], {"linux.namespaces": namespaces, "hostname": ""})
    assert result.code is None
    assert result.failed["message"] == "open network namespace `/proc/nothing/ns/net`: no such file or directory"


def test_a_pipe_in_the_place_of_a_namespace_is_not_waited_for(box: Box, tmp_path: Path) -> None:
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    for kind in "network", "ipc":
        namespaces = [{"type": "mount"}, {"type": kind, "path": pipe}]
        result = box.run(["true"], {"linux.namespaces": namespaces, "hostname": ""})
        assert result.code is None
        assert f"{kind} namespace `{pipe}`: invalid argument" in result.failed["message"]


def test_pid_one_names_and_descriptors(box: Box) -> None:
    script = "echo $$; hostname; cat /proc/sys/kernel/domainname; ls /proc/self/fd"
    result = box.run(["sh", "-c", script], {"domainname": "example.org"})
    # 3 is the directory that ls itself reads
    assert result.out.split() == ["1", "box", "example.org", "0", "1", "2", "3"]


def test_the_mounts_are_exactly_these(box: Box) -> None:
    result = box.run(["cat", "/proc/self/mountinfo"], {"linux.maskedPaths": [], "linux.readonlyPaths": []})
    lines = result.out.splitlines()
    points = [line.split()[4] for line in lines]
    expected = {"/", "/proc", "/dev", "/dev/pts", "/dev/mqueue", "/dev/shm", "/sys"}
    assert {point for point in points if not point.startswith("/sys/fs/cgroup")} == expected
    assert len([point for point in points if point == "/"]) == 1
    assert str(box.directory) not in " ".join(line.split(" - ")[0] for line in lines)
    assert all(line.split()[3] == "/" for line in lines)  # nothing shows a part of the host


def test_writes_go_to_the_upper_layer(box: Box) -> None:
    assert box.run(["sh", "-c", "echo hi > /file; rm /etc/group"]).code == 0
    upper = box.directory / "c1/upper"
    assert (upper / "file").read_text() == "hi\n"
    assert (box.rootfs / "etc/group").exists()
    assert not (box.rootfs / "file").exists()


def test_dev_is_fresh(box: Box) -> None:
    script = (
        "cd /dev; for f in *; do stat -c '%n %a %F %t:%T %N' $f; done; head -c 3 /dev/zero | wc -c; echo x >/dev/full"
    )
    result = box.run(["sh", "-c", script])
    found = {line.split()[0]: line for line in result.out.splitlines() if " " in line}
    for name, numbers in (("null", "1:3"), ("zero", "1:5"), ("full", "1:7"), ("random", "1:8"), ("urandom", "1:9")):
        assert found[name].startswith(f"{name} 666 character special file {numbers}")
    assert "'ptmx' -> 'pts/ptmx'" in found["ptmx"]
    assert "'fd' -> '/proc/self/fd'" in found["fd"]
    assert set(found) == {
        "fd",
        "full",
        "mqueue",
        "null",
        "ptmx",
        "pts",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
        "tty",
        "urandom",
        "zero",
        *(["core"] if os.path.exists("/proc/kcore") else []),
    }
    assert "3" in result.out.splitlines()
    assert "No space left on device" in result.err


def test_masked_and_readonly_paths(box: Box) -> None:
    script = """
        wc -c < /proc/keys; ls /sys/firmware | wc -l; ls /proc/acpi 2>/dev/null | wc -l
        echo 1 > /proc/sys/kernel/printk; mkdir /sys/x; echo 1 > /proc/sys/net/ipv4/ip_forward
    """
    result = box.run(["sh", "-c", script])
    assert result.out.split() == ["0", "0", "0"]
    assert result.err.count("Read-only file system") == 3


def test_cgroups_are_seen_but_not_written(box: Box) -> None:
    result = box.run(
        ["sh", "-c", "cat /proc/self/cgroup; find /sys/fs/cgroup -name cgroup.procs; mkdir /sys/fs/cgroup/a"]
    )
    assert all(line.endswith(":/") for line in result.out.splitlines() if ":" in line)
    assert result.out.count("cgroup.procs") >= 1
    assert "Read-only file system" in result.err


def test_capabilities(box: Box) -> None:
    result = box.run(["sh", "-c", "grep -E 'Cap|NoNew|Seccomp:' /proc/self/status"], {"process.noNewPrivileges": True})
    status = dict(line.split(":\t") for line in result.out.splitlines())
    wanted = f"{caps.mask(defaults.DEFAULT_CAPS):016x}"
    assert status["CapBnd"] == status["CapEff"] == status["CapPrm"] == wanted
    assert status["CapInh"] == status["CapAmb"] == "0" * 16
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


def test_ambient_capabilities_reach_an_ordinary_user(box: Box) -> None:
    names = ["CAP_NET_BIND_SERVICE"]
    sets = dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), names)
    changes = {"process.capabilities": sets, "process.user": {"uid": 1000, "gid": 1000}}
    result = box.run(["sh", "-c", "grep -E 'CapEff|CapAmb' /proc/self/status"], changes)
    assert re.findall(r"\w{16}", result.out) == [f"{1 << 10:016x}"] * 2


def test_an_ordinary_user_has_no_capabilities_and_does_not_get_them_back(box: Box) -> None:
    result = box.run(["sh", "-c", "grep CapEff /proc/self/status; chown 0 /tmp"], {"process.user": {"uid": 1000}})
    assert "0" * 16 in result.out
    assert result.code != 0


def test_seccomp_forbids_what_capabilities_would_allow(box: Box) -> None:
    everything = dict.fromkeys(("bounding", "effective", "permitted"), [*defaults.DEFAULT_CAPS, "CAP_SYS_ADMIN"])
    command = ["unshare", "-u", "true"]
    confined = box.run(command, {"process.capabilities": everything})
    assert confined.code != 0
    assert "Operation not permitted" in confined.err
    assert box.run(command, {"process.capabilities": everything, "linux.seccomp": None}).code == 0


def test_a_custom_seccomp_profile(box: Box) -> None:
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    result = box.run(["mkdir", "/x"], {"linux.seccomp": profile})
    assert "No space left on device" in result.err


def test_a_wrong_seccomp_profile_is_refused(box: Box) -> None:
    result = box.run(["true"], {"linux.seccomp": {"defaultAction": "SCMP_ACT_NONSENSE"}})
    assert result.failed["step"] == "seccomp"
    assert "SCMP_ACT_NONSENSE" in result.failed["message"]


def test_exit_codes_and_streams(box: Box) -> None:
    result = box.run(["sh", "-c", "cat; echo err >&2; exit 42"], stdin=b"some input")
    assert (result.code, result.out, result.err) == (42, "some input", "err\n")
    assert (
        box.run(
            ["sh", "-c", "kill -TERM $$; sleep 5"],
            {"linux.namespaces": [{"type": "mount"}], "hostname": "", "linux.readonlyPaths": []},
        ).code
        == 143
    )


def test_signals_and_umask_are_as_a_program_expects(box: Box) -> None:
    result = box.run(["sh", "-c", "grep -E 'SigBlk|SigIgn' /proc/self/status; umask"])
    # 32 and 33 are glibc's own: a make above us ignores them, and signal(2) would not let us say otherwise.
    ours = ~(0b11 << 31)
    assert [int(mask, 16) & ours for mask in re.findall(r"\w{16}", result.out)] == [0, 0]
    assert "0022" in result.out


def test_terminal(box: Box) -> None:
    script = "tty; stty size </dev/tty; ls -l /dev/console | cut -c1; echo console > /dev/console; cat /proc/self/stat"
    changes = {"process.terminal": True, "process.consoleSize": {"height": 33, "width": 99}}
    result = box.run(["sh", "-c", script], changes, tty=True)
    lines = result.out.replace("\r\n", "\n").splitlines()
    assert lines[:4] == ["/dev/pts/0", "33 99", "c", "console"]
    assert lines[4].split()[6] != "0"  # a controlling terminal
    assert result.seen["fds"] == 3


def test_a_terminal_belongs_to_the_user(box: Box) -> None:
    result = box.run(["stat", "-c", "%u %g %a", "/dev/pts/0"], {"process.user": {"uid": 1000, "gid": 1000}}, tty=True)
    assert result.out.split() == ["1000", "5", "620"]


def test_stdio_can_be_reopened_by_the_user(box: Box) -> None:
    result = box.run(["sh", "-c", "echo again > /dev/stdout"], {"process.user": {"uid": 1000}})
    assert (result.code, result.out) == (0, "again\n")


def test_rlimits(box: Box) -> None:
    limits = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
    result = box.run(["sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c"], {"process.rlimits": limits})
    assert result.out.split() == ["100", "200", "0"]
    unknown = box.run(["true"], {"process.rlimits": [{"type": "RLIMIT_FUN", "soft": 1, "hard": 1}]})
    assert unknown.failed["message"] == "wrong rlimit value: RLIMIT_FUN"
    wrong = box.run(["true"], {"process.rlimits": [{"type": "RLIMIT_NOFILE", "soft": 9, "hard": 3}]})
    assert wrong.failed["step"] == "rlimits"
    assert "`RLIMIT_NOFILE` to 9:3" in wrong.failed["message"]


def test_oom_score(box: Box) -> None:
    result = box.run(["cat", "/proc/self/oom_score_adj"], {"process.oomScoreAdj": 321})
    assert result.out.strip() == "321"


def test_sysctls(box: Box) -> None:
    values = {"net.ipv4.ip_forward": "1", "kernel.shmmax": "123456789"}
    result = box.run(["cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/shmmax"], {"linux.sysctl": values})
    assert result.out.split() == ["1", "123456789"]
    refused = box.run(["true"], {"linux.sysctl": {"kernel.panic": "1"}})
    assert refused.failed["message"] == 'sysctl "kernel.panic" is not in a separate kernel namespace'
    shared = {"linux.namespaces": [{"type": "mount"}], "linux.sysctl": {"net.ipv4.ip_forward": "1"}, "hostname": ""}
    assert "not allowed in host network namespace" in box.run(["true"], shared).failed["message"]


def test_readonly_root(box: Box) -> None:
    result = box.run(["sh", "-c", "touch /x; touch /dev/shm/y && echo ok"], {"root.readonly": True})
    assert "Read-only file system" in result.err
    assert result.out == "ok\n"


def test_confinement_that_the_kernel_lacks_is_an_error(box: Box) -> None:
    for key, what in (
        ("apparmorProfile", "unable to apply apparmor profile: apparmor"),
        ("selinuxLabel", "set SELinux label `no-such-thing`: "),
    ):
        result = box.run(["true"], {f"process.{key}": "no-such-thing"})
        assert result.failed["step"] == "lsm"
        assert result.failed["message"].startswith(what)
        assert "`no-such-thing`" in result.failed["message"]
    assert box.run(["true"], {"process.apparmorProfile": "unconfined"}).code == 0


def test_a_broken_config_is_explained(box: Box) -> None:
    assert box.run(["true"], {"ociVersion": "2.0"}).failed["message"] == "read config.json: ociVersion `2.0` is not 1.x"
    assert box.run([]).failed["message"] == "read config.json: process.args is not a list of at least one string"
    assert "process.cwd is `rel`" in box.run(["true"], {"process.cwd": "rel"}).failed["message"]


def test_a_container_ends_with_its_monitor(box: Box) -> None:
    if box.users:
        pytest.skip("the monitor of this test knows no user namespaces; test_monitor_user_namespaces has one that does")
    place = box.bundle(box.spec(["sleep", "100"]))
    root = [
        {"type": "overlay", "options": [f"lowerdir={box.rootfs}", f"upperdir={place}/upper", f"workdir={place}/work"]}
    ]
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    monitor = os.fork()
    if monitor == 0:
        inner, child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = init.fork_child()
        if pid == 0:
            init.child_main(str(place), root, Parent(child_end.fileno()), tty=False)
        child_end.close()
        fdpass.recv(inner)
        fdpass.send(inner, b"go")
        fdpass.recv(inner)  # end of file: the program runs
        far.send(str(pid).encode())
        signal.pause()
    far.close()
    pid = int(near.recv(16))
    pidfd = os.pidfd_open(pid)
    os.kill(monitor, signal.SIGKILL)
    os.waitpid(monitor, 0)
    try:
        assert select.select([pidfd], [], [], patient(5))[0]
    finally:
        os.close(pidfd)
        near.close()
        cgroup = common.at(f"{box.parent}/{box.count - 1}")
        cgroup.kill()
        cgroup.remove()


def test_nothing_is_left_behind(box: Box) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    box.run(["true"])
    before = descriptors()
    for args in (["true"], ["nosuch"], ["sh", "-c", "sleep 100 & exit 3"]):
        box.run(args)
    assert descriptors() == before
    assert common_pids(box) == []


def common_pids(box: Box) -> list[int]:
    """Processes whose cgroup is one of the box's."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cgroup") as file:
                if f"{box.parent}/" in file.read():
                    found.append(int(pid))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
