"""Answers of inspect compared with dockerd's, key by key: names and JSON types at every depth."""

from __future__ import annotations

import contextlib
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.engines import Engine

pytestmark = pytest.mark.ketch_only  # it has a dockerd beside itself
SLEEP = ("busybox", "sleep", "1000")
FULL = """
    --network back --network-alias uno -p 127.0.0.1:18765:80 -v kept:/d -v /anon --tmpfs /t -v /tmp:/h2:ro
    --mount type=bind,src=/tmp,dst=/host,readonly --mount type=volume,dst=/mv -m 64m --cpus 0.5 --pids-limit 50
    --ulimit nofile=100 --init --dns 127.0.0.1 --add-host a:10.0.0.1 -l l=m -e A=B --restart on-failure:3
    --device /dev/null:/dev/nil --sysctl net.ipv4.ip_forward=0 --shm-size 1m --cap-add SYS_ADMIN
    --security-opt no-new-privileges --health-cmd true --health-interval 200ms --stop-timeout 1 --stop-signal KILL
    --expose 90/udp
"""
# (path, ours, theirs) that differ on purpose, as patterns.
DIFFERENT = [
    r"(.*\.)?Config\.Env(\[\])? (list|str) (NoneType|absent)",  # our busybox has a PATH, the imported one has none
    r".*\.ExecIDs\[\] str absent|.*\.ExecIDs list NoneType",  # a healthcheck that runs just now
    r".*\.ExecIDs NoneType list|.*\.ExecIDs\[\] absent str",
    r"hosted\.HostConfig\.SecurityOpt(\[\])? (NoneType|absent) (list|str)",  # label=disable, of SELinux
    r"image\.Descriptor.* absent|image\.RepoDigests\[\] str absent",  # dockerd has them with containerd's store
    r"exec\.ProcessConfig\.(user|privileged) (str|bool) absent",  # dockerd leaves out what is empty
    r"stats\.(memory_stats|pids_stats|networks|blkio_stats).*",  # as the controllers of the machine have them
    r"network\.IPAM\.Config\[\]\.Gateway str absent",  # always known
]


def shape(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Each path with the type that is there; of a list the first element."""
    yield path, type(value).__name__
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from shape(inner, f"{path}.{key}")
    elif isinstance(value, list):
        if path.endswith("Mounts"):
            value = sorted(value, key=lambda mount: mount.get("Destination") or mount.get("Target"))
        if path.endswith("Ports"):
            value = sorted(value, key=lambda port: port["PrivatePort"])
        for inner in value[:1]:
            yield from shape(inner, f"{path}[]")


def scene(engine: Engine) -> dict[str, Any]:
    """Containers in every state, and what the engine tells of them."""
    run = engine.docker
    run("network", "create", "--subnet", "10.61.0.0/24", "back")
    run("create", "--name", "made", "busybox", "sh")
    run("run", "-d", "--name", "plain", *SLEEP)
    run("run", "-d", "--name", "full", *FULL.split(), *SLEEP)
    run("run", "--name", "done", "busybox", "sh", "-c", "exit 3", check=False)
    run("run", "-d", "--name", "frozen", *SLEEP)
    run("pause", "frozen")
    run("run", "-d", "--name", "hosted", "--network", "host", "--pid", "host", *SLEEP)
    run("run", "-d", "--name", "alone", "--network", "none", "--read-only", *SLEEP)
    run("create", "--name", "linker", "--link", "plain:db", "busybox", "sh")
    run("run", "-dit", "--name", "tty", "--rm", "-u", "1", "-w", "/x", "--hostname", "hh", *SLEEP)
    with contextlib.closing(engine.py()) as client:
        api = client.api
        deadline = time.monotonic() + 10
        while api.inspect_container("full")["State"]["Health"]["Status"] != "healthy":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        names = ("made", "plain", "full", "done", "frozen", "hosted", "alone", "linker", "tty")
        told = {name: api.inspect_container(name) for name in names}
        for row in api.containers(all=True, size=True):
            told["row " + max(row["Names"], key=len)] = row
        told["image"] = api.inspect_image("busybox")
        told["exec"] = api.exec_inspect(api.exec_create("plain", "true")["Id"])
        told["stats"], told["stopped"] = api.stats("plain", stream=False), api.stats("done", stream=False)
        told["top"] = api.top("plain")
        told["network"] = api.inspect_network("back")
        told["network"]["Containers"] = list(told["network"]["Containers"].values())
    engine.remove_all()
    engine.docker("volume", "rm", "kept")
    return told


def test_the_same_keys_and_types(engine, dockerd):
    ours, theirs = scene(engine), scene(dockerd)
    assert set(ours) == set(theirs)
    wrong = []
    for name in theirs:
        mine, other = dict(shape(ours[name], name)), dict(shape(theirs[name], name))
        for path in sorted(mine.keys() | other.keys()):
            pair = mine.get(path, "absent"), other.get(path, "absent")
            line = f"{path} {pair[0]} {pair[1]}"
            if pair[0] != pair[1] and not any(re.fullmatch(pattern, line) for pattern in DIFFERENT):
                wrong.append(line)
    assert not wrong, "path, ours, dockerd's:\n" + "\n".join(wrong)
