"""AppArmor: every container is confined by the default profile, or by the one that it names.

Needs a kernel with AppArmor; on others `containers/test_security_options.py` has what is refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.run import apparmor
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.engines import Engine

pytestmark = [apparmor.NEEDED, pytest.mark.timeout(120)]
DEFAULTS = {"ketch": "ketch-default", "dockerd": "docker-default"}
LABEL = ("cat", "/proc/self/attr/apparmor/current")
UNCONFINED = ("--security-opt", "apparmor=unconfined")


@pytest.fixture
def default(engine: Engine) -> str:
    """The name of the engine's own profile."""
    return DEFAULTS[engine.kind]


@contextlib.contextmanager
def running(engine: Engine, *flags: str) -> Iterator[None]:
    """A container ``box`` with an endless command that ends at SIGTERM, with 7."""
    program = "trap 'exit 7' TERM; echo ready; sleep 9999 & wait"
    engine.client("run", "-d", "--name", "box", *flags, "busybox", "sh", "-c", program)
    until(lambda: engine.client("logs", "box").out, "the container's program has begun")
    yield
    engine.client("rm", "-f", "box")


def confinement(engine: Engine, *flags: str) -> list[str]:
    """The label of a container's program, of a process that is added to it, and what inspect shows."""
    with running(engine, *flags):
        engine.client("exec", "box", "sh", "-c", "cat /proc/1/attr/apparmor/current >/tmp/label")
        own = engine.client("exec", "box", "cat", "/tmp/label").out
        added = engine.client("exec", "--privileged", "box", *LABEL).out
        return [own.strip(), added.strip(), engine.inspect("box")["AppArmorProfile"]]


def test_containers_are_confined(engine: Engine, default: str) -> None:
    confined = [f"{default} (enforce)", f"{default} (enforce)", default]
    assert confinement(engine) == confined
    assert confinement(engine, "--security-opt", f"apparmor={default}") == confined
    assert confinement(engine, "--security-opt", "apparmor:docker-default")[2] in DEFAULTS.values()
    for flags in (UNCONFINED, ("--privileged",)):
        assert confinement(engine, *flags) == ["unconfined", "unconfined", "unconfined"]
    assert "name=apparmor" in json.loads(engine.client("info", "--format", "{{json .SecurityOptions}}").out)


def test_a_profile_of_ones_own(engine: Engine) -> None:
    with apparmor.profile("deny /etc/passwd r,") as name:
        option = ("--security-opt", f"apparmor={name}")
        assert confinement(engine, *option) == [f"{name} (enforce)", f"{name} (enforce)", name]
        done = engine.client("run", "--rm", *option, "busybox", "cat", "/etc/passwd", check=False)
        assert (done.code, done.out) == (1, "")
        assert "Permission denied" in done.err
        # Without one that is named, inspect shows nothing before the first start.
        engine.client("create", "--name", "box", *option, "busybox", "true")
        assert engine.client("start", "-a", "box").code == 0
        assert engine.inspect("box")["AppArmorProfile"] == name


def test_a_profile_that_is_not_loaded(engine: Engine) -> None:
    done = engine.client("run", "--name", "box", "--security-opt", "apparmor=nope", "busybox", "true", check=False)
    assert done.code == 128 if engine.client.name == "ketch" else 127
    assert "unable to apply apparmor profile: apparmor failed to apply profile: write " in done.err
    assert "attr/apparmor/exec: no such file or directory" in done.err
    found = engine.inspect("box")
    assert found["State"]["Status"] == "created"
    assert found["AppArmorProfile"] == "nope"


# What masks and read-only mounts would keep from it is not masked, and the capabilities for it are there.
LOOSE = ("--security-opt", "systempaths=unconfined", "--security-opt", "seccomp=unconfined", "--cap-add", "ALL")
# One line for each attempt that succeeds.
ATTEMPTS = """
attempt() { name=$1; shift; "$@" >/dev/null 2>&1 && echo "$name"; }
set_() { v=$(cat $1) && echo "$v" > $1; }
mkdir -p /tmp/m
attempt core_pattern set_ /proc/sys/kernel/core_pattern
attempt panic_on_oom set_ /proc/sys/vm/panic_on_oom
attempt sysrq-trigger sh -c '> /proc/sysrq-trigger'
attempt kcore sh -c '< /proc/kcore'
attempt firmware sh -c 'f=$(find /sys/firmware -type f | head -1); test -n "$f" && cat $f'
attempt rcu_normal set_ /sys/kernel/rcu_normal
attempt tmpfs mount -t tmpfs none /tmp/m
attempt bind mount -o bind /etc /tmp/m
attempt proc mount -t proc none /tmp/m
attempt remount mount -o remount,ro /
attempt propagation mount --make-shared /
attempt sem set_ /proc/sys/kernel/sem
attempt own sh -c 'echo 0 > /proc/self/oom_score_adj'
attempt cgroup mkdir /sys/fs/cgroup/x
attempt network ip link set lo up
attempt umount umount /dev/mqueue
true
"""
HARMLESS = {"sem", "own", "network", "umount", "cgroup"}


def test_what_masks_do_not_hide_is_refused_nevertheless(engine: Engine) -> None:
    """A second wall: without it all of this succeeds, for the first one is away."""
    flags = (*LOOSE, "--security-opt", "writable-cgroups=true") if engine.kind == "ketch" else LOOSE
    run = ("run", "--rm", *flags)
    reached = set(engine.client(*run, *UNCONFINED, "busybox", "sh", "-c", ATTEMPTS).out.split())
    dangerous = reached - HARMLESS
    assert {"core_pattern", "sysrq-trigger", "kcore", "tmpfs", "bind", "proc", "remount", "propagation"} <= dangerous
    assert set(engine.client(*run, "busybox", "sh", "-c", ATTEMPTS).out.split()) == reached - dangerous
    # What has been mounted by the engine is not the container's to change either.
    for mount in ("--tmpfs", "/mnt"), ("-v", "/etc:/mnt:ro"):
        done = engine.client(*run, *mount, "busybox", "mount", "-o", "remount,rw,bind", "/mnt", check=False)
        assert done.code != 0
        assert "ermission denied" in done.err


def test_signals_and_traces_between_containers_and_the_host(engine: Engine) -> None:
    """They come in from the engine and go round inside; out of the container none goes."""
    with contextlib.ExitStack() as undo:
        other = undo.enter_context(subprocess.Popen(["sleep", "9999"]))
        undo.callback(other.kill)
        flags = ("--pid", "host", "--cap-add", "KILL", "--cap-add", "SYS_PTRACE")
        for how, allowed in (((), False), (UNCONFINED, True)):
            with running(engine, *flags, *how):
                read = engine.client("exec", "box", "cat", f"/proc/{other.pid}/environ", check=False)
                assert (read.code == 0) is allowed
                sent = engine.client("exec", "box", "kill", "-0", str(other.pid), check=False)
                assert (sent.code == 0) is allowed, sent.err
                me = str(engine.inspect("box")["State"]["Pid"])
                assert engine.client("exec", "box", "cat", f"/proc/{me}/environ").code == 0
        assert other.poll() is None
    for verb, code in (("stop", 7), ("kill", 137)):
        with running(engine):
            engine.client(verb, "box")
            assert engine.client("wait", "box").out.strip() == str(code)
    with running(engine):
        engine.client("exec", "box", "kill", "-TERM", "1")
        assert engine.client("wait", "box").out.strip() == "7"
    with running(engine):
        os.kill(engine.inspect("box")["State"]["Pid"], signal.SIGTERM)
        assert engine.client("wait", "box").out.strip() == "7"
    with running(engine):
        engine.client("pause", "box")
        engine.client("unpause", "box")
        assert "sleep 9999" in engine.client("top", "box").out
        engine.client("restart", "box")
        until(lambda: engine.inspect("box")["State"]["Running"], "the container runs again")


@pytest.mark.ketch_only
def test_commands_of_builds_are_confined(engine: Engine, default: str, tmp_path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "# syntax=docker/dockerfile:1-labs\nFROM busybox\n"
        "RUN cat /proc/self/attr/apparmor/current > /one\n"
        "RUN --security=insecure cat /proc/self/attr/apparmor/current > /two\n"
    )
    engine.ketch("build", "--allow", "security.insecure", "-t", "made", str(tmp_path), timeout=60)
    assert engine.client("run", "--rm", "made", "cat", "/one", "/two").out.split("\n")[:2] == [
        f"{default} (enforce)",
        "unconfined",
    ]
    engine.client("rmi", "made")
