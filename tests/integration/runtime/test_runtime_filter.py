"""The seccomp filter binds the program and not the runtime: whatever a profile leaves out, the start goes on.

The judge is a control: the same filter and busybox's ``true`` in a bare fork that does nothing else.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from ketch.runtime import defaults
from ketch.runtime.oci_cli import filters
from ketch.runtime.security import seccomp_default
from tests.support.boxes import runtime_box, small_monitor
from tests.support.boxes.runtime_cli import Runtime
from tests.support.runtimes.supervisor import Supervisor
from tests.support.waiting import patient

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.boxes.runtime_box import Box

pytestmark = [pytest.mark.timeout(120), *runtime_box.NEEDED]

# What the runtime and the interpreter that it runs in call in a container's process, from fork to execve.
_CALLS = """
    accept4 access brk capget capset chdir chown clone clone3 close close_range connect dup dup2 dup3 epoll_create1
    epoll_ctl epoll_wait exit_group faccessat faccessat2 fchdir fchmod fchown fchownat fcntl flock fork fstat fstatfs
    futex getcwd getdents64 getegid geteuid getgid getgroups getpid getppid getrandom getresuid getrlimit getuid ioctl
    keyctl kill lseek lstat madvise mkdirat mknodat mmap mprotect mremap munmap newfstatat open openat openat2 pipe2
    poll prctl pread64 prlimit64 read readlink readlinkat recvmsg rt_sigaction rt_sigprocmask rt_sigreturn seccomp
    select sendmsg sendto setgid setgroups setpgid setregid setresgid setresuid setreuid setrlimit setsid setuid
    sigaltstack socket stat statfs statx symlinkat umask uname unlinkat vfork wait4 waitid write writev
"""
CALLS = _CALLS.split()
# A static busybox's own.
_NEEDED = """
    execve brk arch_prctl set_tid_address set_robust_list rseq prlimit64 readlink readlinkat getrandom mprotect prctl
    getuid geteuid getgid getegid setuid setgid uname newfstatat fstat exit exit_group
"""
NEEDED = _NEEDED.split()


def allow(names: list[str], action: str) -> dict[str, Any]:
    return {"defaultAction": action, "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]}


def default_names() -> list[str]:
    profile = seccomp_default.profile(list(defaults.DEFAULT_CAPS))
    return [name for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]]


def control(profile: dict[str, Any], no_new_privs: bool) -> int:
    """What `true` ends with under a filter, without any runtime."""
    reader, writer = os.pipe()
    small_monitor.fork("under_filter", runtime_box.BUSYBOX, profile, no_new_privs, fds=[writer])
    os.close(writer)
    with open(reader, encoding="ascii") as f:
        return int(f.read())


@pytest.mark.parametrize("no_new_privs", [False, True])
@pytest.mark.parametrize("action", ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"])
def test_a_profile_without_one_call(box: Box, action: str, no_new_privs: bool) -> None:
    names = default_names()
    wrong, started = [], 0
    for call in CALLS:
        profile = allow([name for name in names if name != call], action)
        expected = control(profile, no_new_privs)
        changes = {"linux.seccomp": profile, "process.noNewPrivileges": no_new_privs}
        result = box.run(["true"], changes, timeout_s=5)
        started += result.code == 0
        if result.code != expected:
            wrong.append((call, expected, result.code, result.failed.get("message")))
    assert wrong == []
    assert started >= len(CALLS) - 12


@pytest.mark.parametrize("no_new_privs", [False, True])
@pytest.mark.parametrize("action", ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"])
@pytest.mark.parametrize("user", ["", "alice", "4242:4343"])
@pytest.mark.parametrize("tty", [False, True])
def test_a_profile_with_the_programs_own_calls(box: Box, user: str, tty: bool, action: str, no_new_privs: bool) -> None:
    changes = {
        "linux.seccomp": allow(NEEDED, action),
        "process.noNewPrivileges": no_new_privs,
        "process.cwd": "/tmp",
        "process.rlimits": [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64}],
        "annotations": {"dev.ketch.user": user},
    }
    result = box.run(["true"], changes, tty=tty, timeout_s=5)
    assert (result.code, result.failed) == (0, {})


@pytest.mark.parametrize("no_new_privs", [False, True])
@pytest.mark.parametrize("user", ["", "alice"])
def test_privilege_for_the_filter_does_not_outlive_it(box: Box, user: str, no_new_privs: bool) -> None:
    annotations = {"dev.ketch.user": user}
    script = ["grep", "-E", "^(Cap|Seccomp:|NoNewPrivs)", "/proc/self/status"]
    changes: dict[str, Any] = {"annotations": annotations, "process.noNewPrivileges": no_new_privs}
    filtered = dict(line.split() for line in box.run(script, changes).out.splitlines())
    free = dict(line.split() for line in box.run(script, {**changes, "linux.seccomp": None}).out.splitlines())
    assert (filtered.pop("Seccomp:"), free.pop("Seccomp:")) == ("2", "0")
    assert filtered == free
    assert int(filtered["CapBnd:"], 16) >> 21 & 1 == 0  # CAP_SYS_ADMIN
    assert filtered["CapInh:"] == "0" * 16
    if user:
        assert filtered["CapPrm:"] == filtered["CapEff:"] == "0" * 16
    else:
        assert filtered["CapPrm:"] == filtered["CapEff:"] == filtered["CapBnd:"]


def test_a_profile_that_denies_execve_is_an_error_that_says_so(box: Box) -> None:
    names = [name for name in default_names() if name not in ("execve", "sendmsg")]
    result = box.run(["true"], {"linux.seccomp": allow(names, "SCMP_ACT_ERRNO")})
    assert result.code is None
    assert result.failed["message"] == 'exec: "true": operation not permitted'


def test_a_filter_that_the_kernel_refuses(box: Box) -> None:
    flags = ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]  # only with a listener
    result = box.run(["true"], {"linux.seccomp": {**allow(NEEDED, "SCMP_ACT_ERRNO"), "flags": flags}})
    assert (result.failed["step"], result.failed["message"]) == (
        "seccomp",
        "install the seccomp filter: invalid argument",
    )


def test_compiled_filters_are_kept(tmp_path: Path, rootfs: Path) -> None:
    """A start takes the one that an equal profile was compiled to, if it is whole; a list does not show them."""
    runtime = Runtime(tmp_path, rootfs)
    kept = runtime.root / "@seccomp"
    names = default_names()
    lenient = {"linux.seccomp": allow(names, "SCMP_ACT_ERRNO")}
    strict = {"linux.seccomp": allow([name for name in names if name != "mkdir"], "SCMP_ACT_ERRNO")}
    runtime.configure(["mkdir", "/dev/made"], strict)
    runtime("run", "one", code=1)
    [of_strict] = kept.iterdir()
    runtime.configure(["mkdir", "/dev/made"], lenient)
    runtime("run", "two")
    [of_lenient] = set(kept.iterdir()) - {of_strict}
    subject = of_lenient.read_bytes().partition(b"\n")[0] + b"\n"  # the kernel, and the profile
    own, _, filter_ = of_strict.read_bytes().partition(b"\n")
    of_lenient.write_bytes(subject + filter_)
    runtime("run", "three", code=1)
    of_lenient.write_bytes(own + b"\n" + filter_)  # another profile's, though it has the name
    runtime("run", "three")
    library, program = filter_.split(b"\n", 1)
    file, changed, size = library.split()
    assert b"libseccomp.so.2" in file
    older = b"%s %d %s" % (file, int(changed) - 1, size)
    for other in library + b"\n" + program[:-3], library, b"", b"\n" + program, b"%s\n%s" % (older, program):
        of_lenient.write_bytes(subject + other)
        runtime("run", "four")
    other = library.replace(file, b"/nowhere" + file)
    of_lenient.write_bytes(subject + other + b"\n" + program)
    runtime("run", "five")
    assert (runtime("list", "-q").stdout, kept.stat().st_mode & 0o777) == ("", 0o700)
    of_lenient.write_bytes(subject + filter_)
    kept.chmod(0o777)  # so it may be anybody's
    runtime("run", "six")
    kept.chmod(0o700)
    os.chown(kept, 1000, 1000)
    runtime("run", "seven")
    os.chown(kept, 0, 0)
    runtime("run", "eight", code=1)
    runtime.box.close()


def test_not_more_than_some_filters_are_kept(tmp_path: Path) -> None:
    for number in range(40):
        filters.prepare(str(tmp_path), allow([*NEEDED, f"call{number}"], "SCMP_ACT_ERRNO"))
    assert len(list((tmp_path / "@seccomp").iterdir())) == 32


def test_exec_and_hooks(tmp_path: Path, rootfs: Path) -> None:
    """Of the command line, with processes that have a profile of their own calls alone."""
    box = runtime_box.Box(tmp_path, rootfs)
    sleeping = [*NEEDED, "nanosleep", "clock_nanosleep", "clock_nanosleep_time64", "fcntl", "write"]
    hook = {"path": "/bin/busybox", "args": ["sleep", "0"]}
    document = box.spec(
        ["sleep", "100"],
        {
            "linux.seccomp": allow(sleeping, "SCMP_ACT_KILL_PROCESS"),
            "root": {"path": str(rootfs), "readonly": True},
            "hooks": {"startContainer": [hook]},
        },
    )
    bundle = box.bundle(document)

    def runtime(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ketch.runtime.oci_cli.main", "--root", str(tmp_path / "state"), *args]
        return subprocess.run(command, cwd=bundle, capture_output=True, text=True, timeout=patient(15), check=False)

    with open(os.devnull, "wb") as null:
        command = [
            sys.executable,
            "-m",
            "ketch.runtime.oci_cli.main",
            "--root",
            str(tmp_path / "state"),
            "run",
            "-d",
            "one",
        ]
        subprocess.run(command, cwd=bundle, stdout=null, stderr=null, timeout=patient(15), check=True)
    try:
        assert json.loads(runtime("state", "one").stdout)["status"] == "running"
        assert runtime("exec", "one", "true").returncode == 0
        assert runtime("exec", "--user", "alice", "--cwd", "/tmp", "one", "true").returncode == 0
        assert runtime("exec", "one", "ls").returncode == 128 + 31  # SIGSYS: the filter is in force
    finally:
        runtime("delete", "--force", "one")
    document["hooks"] = {"startContainer": [{"path": "/bin/busybox", "args": ["ls"]}]}
    (bundle / "config.json").write_text(json.dumps(document))
    assert "startContainer hook #0: `/bin/busybox`: signal 31 (bad system call)" in runtime("run", "two").stderr
    box.close()
    shutil.rmtree(tmp_path / "state")
    assert runtime_box.orphaned_cgroups(box.parent) == []


def test_a_supervisor_is_asked_at_start_and_exec(tmp_path: Path, rootfs: Path) -> None:
    """Only one that gets the listener lets the program run, whoever calls ``start``."""
    runtime, path = Runtime(tmp_path, rootfs), tmp_path / "supervisor.sock"
    rules = [{"names": ["execve", "mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules, "listenerPath": str(path)}
    runtime.configure(["sleep", "100"], {"linux.seccomp": profile})
    hook = {"path": "/bin/mkdir", "args": ["mkdir", "/dev/shm/of-hook"]}
    with Supervisor(path, 0) as supervisor:
        runtime.configure(["ls", "/dev/shm"], {"hooks": {"startContainer": [hook]}})
        assert runtime("run", "hooked").stdout == "of-hook\n"
        of_hook, of_program = supervisor.told
        assert supervisor.pids == [of_hook["pid"], of_hook["pid"], of_program["pid"]]
        assert of_hook["state"] == of_program["state"]
        assert of_hook["pid"] != of_hook["state"]["pid"] == of_program["pid"]
        supervisor.told.clear()
        supervisor.pids.clear()
        runtime.configure(["sleep", "100"], {"hooks": {}})
        runtime.create_detached("one", tmp_path / "out")
        runtime("start", "one")
        runtime("exec", "one", "mkdir", "/dev/shm/new")
        pid = runtime.state("one")["pid"]
        runtime("delete", "--force", "one")
    first, second = supervisor.told
    assert (first["state"]["status"], second["state"]["status"]) == ("creating", "running")
    assert (first["pid"], first["state"]["pid"], second["state"]["id"]) == (pid, pid, "one")
    assert supervisor.pids == [pid, second["pid"], second["pid"]]
    assert "connect to the seccomp listener" in runtime("run", "two", code=1).stderr
    assert runtime("list", "-q").stdout == ""
    runtime.box.close()
