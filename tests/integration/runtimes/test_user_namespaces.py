"""Containers of other runtimes with users of their own: what they see is what it is with the built-in runtime."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support.waiting import until

SLEEP = ("busybox", "sleep", "1000")


@pytest.fixture(scope="module")
def auto(file_engine):
    """A daemon whose containers have users of their own unless they ask otherwise."""
    file_engine.user_namespaces("--userns-default", "auto")
    file_engine.start()
    file_engine.add_busybox()
    return file_engine


@pytest.fixture(autouse=True)
def _no_containers(auto):
    yield
    auto.remove_all()


@pytest.fixture
def run(auto, other):
    """Run a container with the runtime; returns what it wrote."""

    def call(*args: str, check: bool = True):
        return auto.ketch("run", "--runtime", other, *args, check=check)

    return call


INSIDE = """
tr -s ' ' < /proc/self/uid_map
id -u; id -g
stat -c '%u:%g' / /bin/busybox /etc/passwd /etc/hosts /etc/resolv.conf /dev/shm /.dockerenv | sort -u
echo out > /dev/stdout
touch /new && chown 1000:1001 /new && stat -c '%u:%g' /new
chown 65536 /new 2>&1
mknod /node c 1 3 2>&1
su nobody -s /bin/sh -c id\\ -u
ip link | grep -c eth0
"""
SEEN = """0
0
0:0
out
1000:1001
chown: /new: Invalid argument
mknod: /node: Operation not permitted
65534
1
"""


def test_a_container_has_its_own_users(auto, run):
    """The container's own program, execs, and a terminal's owner; the image's ids are those on the disk."""
    for name in ("one", "two"):
        run("-d", "--name", name, "busybox", "sh", "-c", f"{INSIDE}\nexec sleep 1000")
    until(lambda: auto.ketch("logs", "two").out.endswith("\n1\n"), "it has written")
    firsts = set()
    for name in ("one", "two"):
        found = auto.inspect(name)
        first = int(found["HostConfig"]["IDMappings"]["UidMap"][0].split(":")[1])
        firsts.add(first)
        assert os.stat(f"/proc/{found['State']['Pid']}").st_uid == first
        upper = f"{auto.data_root}/containers/{found['Id']}/upper"
        assert {os.stat(f"{upper}/{path}").st_uid for path in ("", "etc", ".dockerenv")} == {0}
        assert os.stat(f"{upper}/new").st_uid == 1000
        for output in (auto.ketch("logs", name).out, auto.ketch("exec", name, "sh", "-c", INSIDE).out):
            assert output.split("\n", 1) == [f" 0 {first} 65536", SEEN]
    assert len(firsts) == 2
    failed = auto.ketch("exec", "-u", "70000", "one", "id", check=False)
    assert (failed.code, "OCI runtime exec failed" in failed.out + failed.err) == (128, True)
    assert auto.ketch("exec", "-u", "nobody", "one", "sh", "-c", "echo in > /dev/stdout; id -u").out == "in\n65534\n"
    with auto.ketch.terminal("exec", "-it", "one", "sh") as terminal:
        terminal.send("stat -c '%u:%g' $(tty)\n")
        terminal.expect("0:5")
        terminal.send("exit\n")
        assert terminal.wait() == 0


def test_mounts(auto, run, tmp_path):
    """Volumes are the container's; binds are the machine's, also out of directories that are closed to its root."""
    closed = tmp_path / "closed"
    (closed / "open").mkdir(parents=True)
    (closed / "file").write_text("from a file\n")
    closed.chmod(0o700)
    (closed / "open").chmod(0o777)
    os.chown(closed / "open", 1234, 1235)
    (tmp_path / "pass").write_text("sesame\n")
    run("--rm", "-v", "data:/d", "busybox", "sh", "-c", "mkdir /d/part; echo deep > /d/part/f; chown 7:8 /d/part/f")
    script = """
    stat -c %u:%g /d/part/f /part/f /raw/part /bind /mapped /owned /run/secrets/pass /t /here
    cat /part/f /file /run/secrets/pass; ls /image/bin/busybox
    touch /mapped/new; touch /owned/own; touch /bind/no; touch /here/no; umount /here; echo x > /file; true
    """
    binds = ["-v", f"{closed}/open:/bind", "-v", f"{closed}/open:/mapped:idmap"]
    mounts = [
        *("-v", "data:/d", "--mount", "type=volume,src=data,dst=/part,volume-subpath=part"),
        *("-v", "data:/raw:idmap=none", *binds, "-v", f"{closed}/open:/here:ro"),
        *("-v", f"{closed}/open:/owned:idmap=container", "-v", f"{closed}/file:/file:ro"),
        *("--mount", "type=image,src=busybox,dst=/image", "--secret", f"id=pass,src={tmp_path}/pass,uid=12,gid=13"),
        *("--tmpfs", "/t:uid=4,gid=5,mode=700"),
    ]
    out = run("--rm", *mounts, "busybox", "sh", "-c", script, check=False)
    owners = ["7:8", "7:8", "65534:65534", "65534:65534", "0:0", "1234:1235", "12:13", "4:5", "65534:65534"]
    assert out.out.splitlines() == [*owners, "deep", "from a file", "sesame", "/image/bin/busybox"]
    assert [line for line in out.err.splitlines() if not line.startswith("WARNING")] == [
        "touch: /here/no: Read-only file system",
        "umount: can't unmount /here: Operation not permitted",
        "sh: can't create /file: Read-only file system",
    ]
    found = {name: os.stat(closed / "open" / name).st_uid for name in os.listdir(closed / "open")}
    first = found.pop("no")
    assert found == {"new": 1234, "own": 0}
    assert first >= 1 << 31
    plain = run("--rm", "--userns", "host", *binds, "busybox", "stat", "-c", "%u", "/bind", "/mapped")
    assert plain.out.split() == ["1234", "0"]
    auto.ketch("volume", "rm", "data")


def test_namespaces_that_are_shared(auto, run, other):
    """The user namespace is that of the container whose namespaces they are, whichever runtime made that."""
    for runtime, mine in ((other, "same"), ("ketch", "built-in")):
        auto.ketch("run", "-d", "--name", mine, "--runtime", runtime, "--ipc", "shareable", *SLEEP)
        auto.ketch("exec", mine, "sh", "-c", "echo shared > /dev/shm/x")
        shared = [option for kind in ("network", "pid", "ipc") for option in (f"--{kind}", f"container:{mine}")]
        script = "readlink /proc/self/ns/user; cat /dev/shm/x; kill -0 1; ip link | grep -c eth0"
        out = run("--rm", *shared, "busybox", "sh", "-c", script).out.splitlines()
        assert out == [auto.ketch("exec", mine, "readlink", "/proc/self/ns/user").out.strip(), "shared", "1"]


def test_its_whole_life(auto, run):
    run("-d", "--name", "box", "-m", "64m", "--restart", "always", *SLEEP)
    for words in (("pause", "box"), ("unpause", "box"), ("update", "-m", "48m", "--memory-swap", "48m", "box")):
        auto.ketch(*words)
    assert "/ 48MiB" in auto.ketch("stats", "--no-stream", "--format", "{{.MemUsage}}", "box").out
    before = auto.inspect("box")
    os.kill(before["State"]["Pid"], signal.SIGKILL)
    until(lambda: (now := auto.inspect("box"))["RestartCount"] == 1 and now["State"]["Pid"], "a restart")
    auto.stop(signal.SIGKILL)
    auto.start()
    after = auto.inspect("box")
    assert after["HostConfig"]["IDMappings"] == before["HostConfig"]["IDMappings"]
    assert auto.ketch("exec", "box", "id", "-u").out == "0\n"
    auto.ketch("stop", "-t", "0", "box")
    assert auto.inspect("box")["State"]["ExitCode"] == 137


def test_a_closed_exec_root_is_named(auto, run):
    """Root of a user namespace, as whom the runtime mounts, must come to the container's root."""
    os.chmod(auto.root, 0o700)
    failed = run("--rm", "busybox", "true", check=False)
    os.chmod(auto.root, 0o711)
    assert failed.code == 125
    assert f"root of its user namespace cannot pass through `{auto.root}`" in failed.err
    assert run("--rm", "busybox", "true").code == 0
