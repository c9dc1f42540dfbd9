"""Containers of a daemon with the vfs driver."""

from __future__ import annotations

import json

import pytest

from tests.support.waiting import patient

pytestmark = pytest.mark.ketch_only


@pytest.fixture
def vfs(own_engine):
    own_engine.extra += ["--storage-driver", "vfs"]
    own_engine.start()
    own_engine.add_busybox()
    return own_engine


def test_life_of_a_container(vfs):
    client = vfs.docker
    assert client("info", "-f", "{{.Driver}}").out.strip() == "vfs"
    name = client("create", "busybox", "sh", "-c", "echo run >>/log; rm -f /bin/vi; cat /log").out.strip()
    assert client("start", "-a", name).out == "run\n"
    shown = json.loads(client("inspect", "-s", name).out)[0]
    assert shown["GraphDriver"]["Name"] == "vfs"
    assert shown["SizeRw"] == 4
    vfs.stop()
    vfs.start()
    assert client("start", "-a", name).out == "run\nrun\n"
    assert sorted(client("diff", name).out.splitlines()) == ["A /log", "C /bin", "D /bin/vi"]
    client("commit", name, "kept:1")
    assert client("run", "--rm", "kept:1", "sh", "-c", "cat /log; test -e /bin/vi || echo gone").out.endswith("gone\n")
    refused = client("create", "--storage-opt", "size=1G", "busybox", check=False)
    assert "not supported for vfs" in refused.err


def test_the_other_driver_does_not_take_its_containers(vfs):
    vfs.docker("create", "busybox")
    vfs.stop()
    vfs.extra[-1] = "overlay"
    vfs.launch()
    assert vfs.process.wait(patient(30))
    assert "was made with vfs" in vfs.log()
    vfs.extra[-1] = "vfs"
    vfs.start()
