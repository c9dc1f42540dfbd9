"""``overlay.volatile``: mounted so, started again within one boot, and refused after another."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support.waiting import until

pytestmark = pytest.mark.ketch_only


def test_volatile_containers(own_engine):
    own_engine.extra = ["--storage-opt", "overlay.volatile=true"]
    own_engine.start()
    own_engine.add_busybox()
    docker = own_engine.docker
    ident = docker("run", "-d", "--name", "box", "busybox", "sh", "-c", "echo x >>/f; sync; sleep 1000").out.strip()
    root = next(line for line in docker("exec", "box", "cat", "/proc/mounts").out.splitlines() if " / " in line)
    assert "volatile" in root.split()[3]
    directory = os.path.join(own_engine.data_root, "containers", ident)
    mark = os.path.join(directory, "work/work/incompat/volatile")
    docker("cp", "box:/f", "-")
    assert os.path.isdir(mark)  # whoever looks at it meanwhile does not take the mark away
    docker("restart", "-t", "0", "box")
    own_engine.stop(signal.SIGKILL)
    own_engine.start()
    docker("kill", "box")
    docker("start", "box")
    assert docker("exec", "box", "cat", "/f").out == "x\n" * 3
    docker("kill", "box")
    assert os.path.isdir(mark)
    with open(os.path.join(directory, "volatile-boot"), "w", encoding="ascii") as f:
        f.write("another boot\n")
    refused = docker("start", "box", check=False)
    assert refused.code == 1 and "the machine went down" in refused.err
    docker("rm", "box")
    until(lambda: not os.path.exists(directory), "its directory is left")


@pytest.mark.parametrize("option", ["overlay.metacopy=on", "overlay2.size=1g", "overlay.volatile=maybe", "x"])
def test_options_that_there_are_not(own_engine, option):
    own_engine.extra = ["--storage-opt", option]
    with pytest.raises(AssertionError, match="unknown storage option"):
        own_engine.start()
    own_engine.extra = []
    own_engine.process = None
