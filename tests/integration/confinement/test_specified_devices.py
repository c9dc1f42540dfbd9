"""Devices that specifications (CDI) describe: what containers get of them, beside dockerd; GPUs; what is wrong."""

from __future__ import annotations

import json
import os
import re

import pytest

from tests.support import peers
from tests.support.engines import Engine

YAML = """
cdiVersion: "0.5.0"
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits: {deviceNodes: [{path: /dev/nvidia0, hostPath: /dev/null}]}
- name: "1"
  containerEdits: {deviceNodes: [{path: /dev/nvidia1, hostPath: /dev/zero}]}
- name: all
  containerEdits: {deviceNodes: [{path: /dev/nvidia0, hostPath: /dev/null}, {path: /dev/nvidia1, hostPath: /dev/zero}]}
containerEdits: {env: [GPUS=yes]}
"""


def edits(**given) -> dict[str, object]:
    return {"containerEdits": given}


@pytest.fixture
def directory(tmp_path):
    """A directory of specifications: of one vendor, whose devices have nodes, mounts, variables, groups and a hook."""
    (tmp_path / "library").write_text("a library\n")
    vendor = {
        "cdiVersion": "0.7.0",
        "kind": "vendor.com/unit",
        "devices": [
            {"name": "one", **edits(deviceNodes=[{"path": "/dev/unit1", "hostPath": "/dev/zero"}], env=["WHICH=one"])},
            {
                "name": "two",
                **edits(
                    deviceNodes=[{"path": "/dev/unit2", "type": "c", "major": 1, "minor": 3, "permissions": "r"}],
                    additionalGIDs=[4321],
                ),
            },
            {"name": "char", **edits(deviceNodes=[{"path": "/dev/unit3", "type": "u", "major": 1, "minor": 3}])},
            {"name": "gone", **edits(deviceNodes=[{"path": "/dev/not-there"}])},
        ],
        **edits(
            env=["ALL=yes", "PATH=/vendor:/bin"],
            mounts=[
                {
                    "hostPath": f"{tmp_path}/library",
                    "containerPath": "/usr/lib/vendor/library",
                    "options": ["ro", "nosuid", "nodev", "bind"],
                }
            ],
            hooks=[
                {
                    "hookName": "createContainer",
                    "path": "/bin/sh",
                    "args": ["sh", "-c", f"cat >{tmp_path}/hooked; echo $A >>{tmp_path}/hooked"],
                    "env": ["A=from the hook"],
                }
            ],
        ),
    }
    folder = tmp_path / "cdi"
    folder.mkdir()
    (folder / "vendor.json").write_text(json.dumps(vendor))
    return folder


SEEN = """
ls -ln /dev/unit* | awk '{print $1, $3, $4, $5, $6, $NF}'; head -c 2 /dev/unit1 | wc -c; echo x 2>&1 >/dev/unit2
echo x 2>&1 >/dev/unit3
cat /usr/lib/vendor/library; touch /usr/lib/vendor/library 2>&1; echo $ALL $WHICH $PATH; id -G | grep -wo 4321; true
"""


def answers(engine, tmp_path) -> list[object]:
    found: list[object] = []
    for words in (
        ["--device", "vendor.com/unit=one"],
        ["--device", "vendor.com/unit=one", "--device", "vendor.com/unit=two", "-e", "ALL=mine"],
        ["--device", "vendor.com/unit=one", "--device", "vendor.com/unit=two", "-u", "1000:1001"],
        ["--device", "vendor.com/unit=char"],
        ["--device", "vendor.com/unit=none", "--device", "vendor.com/unit=one"],
        ["--device", "vendor.com/unit=gone"],
    ):
        done = engine.docker("run", "--name", "one", *words, "busybox", "sh", "-c", SEEN, check=False)
        host = json.loads(engine.docker("inspect", "one").out)[0]["HostConfig"]
        engine.docker("rm", "-f", "one")
        said = re.search(r"unresolvable CDI devices [\w./=]*", done.err)
        found.append((done.code, done.out, said[0] if said else "not-there" in done.err, host["DeviceRequests"]))
    hooked = (tmp_path / "hooked").read_text()
    state, end = json.JSONDecoder().raw_decode(hooked)
    found.append((state["status"], hooked[end:].strip()))
    os.unlink(tmp_path / "hooked")
    info = json.loads(engine.docker("info", "-f", "{{json .}}").out)
    return [*found, info["CDISpecDirs"], sorted(one["ID"] for one in info["DiscoveredDevices"])]


def test_devices_are_dockerds(own_engine, directory, tmp_path):
    if peers.MISSING:
        pytest.skip(peers.MISSING)
    own_engine.extra += ["--cdi-spec-dir", str(directory)]
    own_engine.start()
    own_engine.add_busybox()
    ours = answers(own_engine, tmp_path)
    assert ours[0][0] == 0
    assert "a library" in ours[0][1]
    theirs = Engine("dockerd", suffix="d")
    theirs.own_network = True
    theirs.extra += ["--cdi-spec-dir", str(directory)]
    with theirs.running():
        theirs.add_busybox()
        assert ours == answers(theirs, tmp_path)


def test_gpus(own_engine, directory):
    (directory / "nvidia.yaml").write_text(YAML)
    own_engine.extra += ["--cdi-spec-dir", str(directory)]
    own_engine.start()
    own_engine.add_busybox()
    show = ("busybox", "sh", "-c", "echo $GPUS; ls /dev | grep nvidia")

    def run(*words: str) -> str:
        done = own_engine.ketch("run", "--rm", *words, *show, check=False)
        return " ".join(done.out.split()) if done.code == 0 else f"{done.code} {done.err}"

    assert run("--gpus", "all") == "yes nvidia0 nvidia1"
    assert run("--gpus", "1") == "yes nvidia0"
    assert run("--gpus", "device=1") == "yes nvidia1"
    assert run("--gpus", "all", "--device", "vendor.com/unit=one") == "yes nvidia0 nvidia1"
    assert run("--gpus", "3").startswith("125 ketch: 3 GPUs are wanted, and there are 2: 0, 1")
    assert "unresolvable CDI devices nvidia.com/gpu=7" in run("--gpus", "device=7")
    assert 'could not select device driver "amd" with capabilities: [[gpu]]' in run("--gpus", "driver=amd")
    os.unlink(directory / "nvidia.yaml")
    assert 'could not select device driver "" with capabilities: [[gpu]]' in run("--gpus", "all")


@pytest.mark.parametrize(
    ("name", "text", "wrong"),
    [
        ("a.json", "{", "Expecting property name"),
        ("a.json", '{"cdiVersion": "0.5.0", "kind": "a.b/c", "devices": [{"name": 1}]}', "Expected `str`, got `int`"),
        ("a.json", '{"cdiVersion": "0.5.0", "kind": "a.b/c", "more": 1}', "unknown field `more`"),
        ("a.json", '{"cdiVersion": "7", "kind": "a.b/c"}', "of version `7` is not known"),
        ("a.yaml", "a: [", "not YAML"),
        ("a.yaml", "&a [*a]", "Expected `object`"),
    ],
)
def test_files_that_are_none_are_told_of(file_engine, directory, name, text, wrong):
    if file_engine.process is None:
        file_engine.extra += ["--cdi-spec-dir", "/tmp/specs-of-" + file_engine.name]
        file_engine.start()
        file_engine.add_busybox()
    place = "/tmp/specs-of-" + file_engine.name
    os.symlink(directory, place)
    try:
        (directory / name).write_text(text)
        run = ("run", "--rm", "--device", "vendor.com/unit=one", "busybox", "sh", "-c", "echo $WHICH")
        assert file_engine.ketch(*run).out == "one\n"
        assert wrong in file_engine.log().splitlines()[-1]
        (directory / name).unlink()
        (directory / "again.json").write_text((directory / "vendor.json").read_text())
        failed = file_engine.ketch(*run, check=False)
        assert (failed.code, "unresolvable CDI devices vendor.com/unit=one" in failed.err) == (125, True)
        assert "two files in" in file_engine.log()
    finally:
        os.unlink(place)
