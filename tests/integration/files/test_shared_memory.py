"""IPC modes (whose shared memory a container has, and who may join it) and what ``--read-only`` covers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.engines import Engine


SLEEP = ("busybox", "sleep", "1000")
FILES = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
MOUNTS = "cut -d' ' -f5,6 /proc/self/mountinfo | sort"


def mounts(text: str) -> dict[str, list[str]]:
    """Options by place."""
    return {place: options.split(",") for place, options in (line.split() for line in text.splitlines())}


@pytest.mark.parametrize("mode", ["private", "none", ""])
def test_a_private_namespace_cannot_be_joined(engine: Engine, mode: str) -> None:
    flags = ["--ipc", mode] if mode else []
    donor = engine.docker("run", "-d", "--name", "donor", *flags, *SLEEP).out.strip()
    refused = engine.docker("run", "--name", "taker", "--ipc", "container:donor", "busybox", "true", check=False)
    message = f"failed to join IPC namespace: container {donor}: non-shareable IPC"
    assert (refused.code, message in refused.err) == (125, True), refused.err
    state = engine.docker("inspect", "-f", "{{.State.Status}} {{.State.Running}}", "taker").out.split()
    assert state == ["created", "false"]


def test_a_stopped_donor(engine: Engine) -> None:
    donor = engine.docker("create", "--name", "donor", "--ipc", "shareable", *SLEEP).out.strip()
    refused = engine.docker("run", "--rm", "--ipc", "container:donor", "busybox", "true", check=False)
    assert f"failed to join IPC namespace: container {donor} is not running" in refused.err


@pytest.mark.parametrize("mode", ["shareable", "host"])
def test_a_shareable_namespace_is_joined(engine: Engine, mode: str) -> None:
    """Also through another one that has joined."""
    engine.docker("run", "-d", "--name", "donor", "--ipc", mode, *SLEEP)
    engine.docker("run", "-d", "--name", "taker", "--ipc", "container:donor", *SLEEP)
    engine.docker("run", "-d", "--name", "third", "--ipc", "container:taker", *SLEEP)
    name = "/dev/shm/kt-of-a-test"
    try:
        engine.docker("exec", "taker", "sh", "-c", f"echo shared > {name}")
        for one in ("donor", "third"):
            assert engine.docker("exec", one, "cat", name).out == "shared\n"
        spaces = {
            engine.docker("exec", one, "readlink", "/proc/self/ns/ipc").out for one in ("donor", "taker", "third")
        }
        assert len(spaces) == 1
    finally:
        engine.docker("exec", "donor", "rm", "-f", name)


def test_no_shared_memory(engine: Engine) -> None:
    look = f"ls -d /dev/shm; ls /dev/mqueue && {MOUNTS}"
    found = engine.docker("run", "--rm", "--ipc", "none", "busybox", "sh", "-c", look)
    assert "/dev/shm: No such file or directory" in found.err
    assert "/dev/shm" not in mounts(found.out)
    assert "/dev/mqueue" in mounts(found.out)
    own = ("--tmpfs", "/dev/shm:size=2m")
    assert "2048" in engine.docker("run", "--rm", "--ipc", "none", *own, "busybox", "df", "-k", "/dev/shm").out


def test_the_hosts_shared_memory(engine: Engine) -> None:
    """As it is, with its own options; messages of the host's namespace are there, too."""
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        host = [line.split()[5] for line in f if line.split()[4] == "/dev/shm"][-1]
    found = mounts(engine.docker("run", "--rm", "--ipc", "host", "busybox", "sh", "-c", MOUNTS).out)
    assert sorted(found["/dev/shm"]) == sorted(host.split(","))
    assert "/dev/mqueue" in found


@pytest.mark.parametrize("network", ["bridge", "none", "host"])
def test_read_only_covers_the_networks_files(engine: Engine, network: str) -> None:
    script = f"{MOUNTS}; for f in {' '.join(FILES)}; do echo more >> $f && echo wrote $f >&2; done; cat /etc/hosts >&2"
    done = engine.docker("run", "--rm", "--read-only", "--network", network, "busybox", "sh", "-c", script)
    found = mounts(done.out)
    assert all("ro" in found[place] for place in ("/", *FILES))
    assert done.err.count("Read-only file system") == 3
    assert "localhost" in done.err
    free = mounts(engine.docker("run", "--rm", "--network", network, "busybox", "sh", "-c", MOUNTS).out)
    assert all("rw" in free[place] for place in ("/", *FILES))


def test_read_only_leaves_the_users_own_mounts(engine: Engine) -> None:
    with open(f"{engine.root}/hosts", "w", encoding="utf-8") as f:
        f.write("127.0.0.1 mine\n")
    places = ("-v", f"{engine.root}/hosts:/etc/hosts", "-v", "/data", "--tmpfs", "/run")
    script = "touch /data/x /run/x && echo 1.1.1.1 other >> /etc/hosts && cat /etc/hosts"
    done = engine.docker("run", "--rm", "--read-only", *places, "busybox", "sh", "-c", script)
    assert done.out == "127.0.0.1 mine\n1.1.1.1 other\n"


def test_a_mount_on_etc_does_not_hide_the_networks_files(engine: Engine) -> None:
    for flags in (("--tmpfs", "/etc"), ("-v", "/etc"), ("--tmpfs", "/etc", "--read-only")):
        found = engine.docker(
            "run", "--rm", "--network", "none", *flags, "busybox", "sh", "-c", "cat /etc/hosts; ls /etc"
        )
        assert "localhost" in found.out
        assert {"hostname", "hosts", "resolv.conf"} <= set(found.out.split())


@pytest.mark.ketch_only
def test_read_only_files_still_follow_the_network(engine: Engine) -> None:
    """The engine goes on writing them: its own directory is not the container's."""
    engine.docker("network", "create", "later")
    engine.docker("run", "-d", "--name", "one", "--read-only", *SLEEP)
    before = engine.docker("exec", "one", "cat", "/etc/hosts").out
    engine.docker("network", "connect", "later", "one")
    after = engine.docker("exec", "one", "cat", "/etc/hosts").out
    assert len(after.splitlines()) == len(before.splitlines()) + 1
