"""Answers of inspect compared with dockerd's, key by key: names and JSON types at every depth."""

from __future__ import annotations

import contextlib
import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.rawapi import Api
from tests.support.waiting import patient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.engines import Engine

pytestmark = pytest.mark.ketch_only  # it has a dockerd beside itself
LIMITS = (
    "MemoryLimit",
    "SwapLimit",
    "CpuCfsPeriod",
    "CpuCfsQuota",
    "CPUShares",
    "CPUSet",
    "PidsLimit",
    "OomKillDisable",
)
OWN = json.dumps({"reference": ["busybox", "made"]})  # other tests' images are there as well
VERSIONS = ("1.24", "1.43", "1.51")
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
    r".*\.Descriptor.* absent|.*\.RepoDigests(\[\])? (str|list) (NoneType|absent)",  # as with containerd's store
    r"made/json 1\.(24|43)\.Container(Config.*)? .*",  # of the container that made it only its configuration is kept
    r"info\.(Containerd|CDISpecDirs\[\]|KernelMemoryTCP).* absent (dict|str|bool)",  # there is none
    r"info\.Runtimes\.(ketch|io\.containerd\.runc\.v2|runc\.status).*",  # ours, and what dockerd knows of others
    r"info\.Runtimes\.(crun|runsc|youki)(\.path)? (dict|str) absent",  # of the machine, without being named
    r"stats\.blkio_stats\.\w+\[\].*",  # what was read and written until now
    r"stats\.(memory_stats|pids_stats|networks).*",  # as the controllers of the machine have them
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
        deadline = time.monotonic() + patient(10)
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
        told |= others(Api(engine.socket))
        told["network"] = api.inspect_network("back")
        told["network"]["Containers"] = list(told["network"]["Containers"].values())
    engine.remove_all()
    engine.docker("volume", "rm", "kept")
    return told


def others(api: Api) -> dict[str, Any]:
    """Containers whose requests name only what they must, images that were made here, and the engine itself."""
    must = api.must
    must("POST", "/build/prune", all=1)  # what other tests have built
    brief = {"Image": "busybox", "Cmd": ["sh", "-c", "echo a > /a; rm /etc/group"]}
    must("POST", "/containers/create", brief, name="brief")
    must("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"PidsLimit": -1}}, name="free")
    must("POST", "/containers/free/update", {"PidsLimit": 7})
    limits = [must("GET", "/containers/free/json")["HostConfig"]["PidsLimit"]]
    must("POST", "/containers/free/update", {"PidsLimit": -1})
    limits.append(must("GET", "/containers/free/json")["HostConfig"]["PidsLimit"])
    told = {f"{name} {v}": must("GET", f"/v{v}/containers/{name}/json") for name in ("brief", "free") for v in VERSIONS}
    must("POST", "/containers/brief/start")
    must("POST", "/containers/brief/wait")
    parent = must("GET", "/images/busybox/json")["Id"]
    must("POST", "/commit", {"Env": ["A=b"], "Labels": {"a": "b"}}, container="brief", repo="made", comment="why")
    told |= {f"{path} {v}": must("GET", f"/v{v}/images/{path}") for path in ("made/json", "json") for v in VERSIONS}
    told["history"] = must("GET", "/images/made/history")
    told["shared"] = must("GET", "/images/json", **{"shared-size": 1, "filters": OWN})
    told["usage"], told["info"] = must("GET", "/system/df"), must("GET", "/info")
    told["changes"] = must("GET", "/containers/brief/changes")
    told["volumes"] = must("GET", "/volumes")
    for answer in (told["volumes"], told["usage"]):
        answer["Volumes"] = [volume for volume in answer["Volumes"] if volume["Name"] == "kept"]
    told["networks"] = {network["Name"]: network for network in must("GET", "/networks")}
    counted = sorted((row["Containers"], row["SharedSize"] > 0, row["ParentId"] == parent) for row in told["shared"])
    junk = [api("POST", "/images/load", junk) for junk in (b"", b"junk", b"x" * 2000)]
    told["values"] = {
        "limits": limits,
        "parent": told["made/json 1.51"]["Parent"] == parent,
        "comment": told["made/json 1.51"]["Comment"],
        "history": [row["Id"] for row in told["history"]] == [told["made/json 1.51"]["Id"], parent],
        "counted": counted,
        "limits of info": [told["info"].get(name) for name in LIMITS],
        "junk": [(status, bool(answer) and "errorDetail" in answer) for status, answer in junk],
    }
    must("DELETE", "/images/made", force=1)
    return told


def test_the_same_keys_and_types(engine, dockerd):
    ours, theirs = scene(engine), scene(dockerd)
    assert set(ours) == set(theirs)
    assert ours["values"] == theirs["values"]
    wrong = []
    for name in theirs:
        mine, other = dict(shape(ours[name], name)), dict(shape(theirs[name], name))
        for path in sorted(mine.keys() | other.keys()):
            pair = mine.get(path, "absent"), other.get(path, "absent")
            line = f"{path} {pair[0]} {pair[1]}"
            if pair[0] != pair[1] and not any(re.fullmatch(pattern, line) for pattern in DIFFERENT):
                wrong.append(line)
    assert not wrong, "path, ours, dockerd's:\n" + "\n".join(wrong)
