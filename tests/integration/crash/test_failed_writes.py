"""Write errors of the disk, which the kernel reports once and then takes for written."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support.rawapi import Api

pytestmark = pytest.mark.ketch_only


@pytest.fixture
def engine_and_fault(own_engine, tmp_path):
    """A running engine, and what arms a fault in it."""
    armed = tmp_path / "armed"
    armed.write_text("")
    own_engine.settings = {"KETCH_FAULT": f"@{armed}"}
    own_engine.start()
    own_engine.add_busybox()
    yield own_engine, armed.write_text
    assert "Traceback" not in own_engine.log()


def test_the_database_is_written_again(engine_and_fault):
    """What an fsync has lost is not taken for written by the next one."""
    engine, arm = engine_and_fault
    arm("database.sync=EIO:1")
    engine.client("volume", "create", "one")
    assert "the second attempt succeeded" in engine.log()
    engine.stop(signal.SIGKILL)
    engine.start()
    assert engine.client("volume", "ls", "-q").out == "one\n"


def test_a_database_that_cannot_be_written(engine_and_fault):
    """Nothing is acknowledged any more, also when the next fsync would succeed, until the daemon is started anew."""
    engine, arm = engine_and_fault
    api = Api(engine.socket)
    engine.client("run", "-d", "--name", "one", "busybox", "sleep", "1000")
    arm("database.sync=EIO")
    refused = "bring state database"
    for name in "first", "second":
        status, answer = api("POST", "/volumes/create", {"Name": name})
        assert (status, refused in answer["message"]) == (500, True), answer
        arm("")
    assert api("POST", "/containers/create", {"Image": "busybox"})[0] == 500
    assert "nothing is changed any more" in engine.log()
    assert engine.client("exec", "one", "echo", "alive").out == "alive\n"
    assert engine.client("ps", "-q").out.strip()
    assert engine.stop() == 0
    engine.start()
    assert "second" not in engine.client("volume", "ls", "-q").out
    engine.client("volume", "create", "second")
    assert engine.client("exec", "one", "echo", "alive").out == "alive\n"
    engine.stop(signal.SIGKILL)
    engine.start()
    assert "second" in engine.client("volume", "ls", "-q").out


def test_a_container_ends_meanwhile(engine_and_fault):
    """Its end is handled by the next daemon."""
    engine, arm = engine_and_fault
    engine.client("run", "-d", "--name", "one", "busybox", "sleep", "1000")
    arm("database.sync=EIO")
    engine.client("volume", "create", "first", check=False)
    arm("")
    engine.client("kill", "one", check=False)
    engine.stop()
    engine.start()
    assert engine.client("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "one").out == "exited 137\n"
    engine.client("start", "one")


def test_the_content_of_images(engine_and_fault):
    """An image of which something has not reached the disk is not there; brought again it is."""
    engine, arm = engine_and_fault
    archive = os.path.join(engine.root, "box.tar")
    engine.client("save", "-o", archive, "busybox")
    engine.client("rmi", "busybox")
    arm("image.sync=EIO:1")
    done = engine.client("load", "-i", archive, check=False)
    assert done.code == 1
    assert "bring the content of images to the disk" in done.err
    assert engine.client("images", "-q").out == ""
    assert os.listdir(f"{engine.data_root}/content/blobs/sha256") == []
    engine.client("load", "-i", archive)
    assert engine.client("run", "--rm", "busybox", "echo", "well").out == "well\n"
