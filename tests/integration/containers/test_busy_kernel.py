"""Containers that sleep in the kernel: requests to others do not wait for them."""

from __future__ import annotations

import os
import threading

import pytest

from tests.support import fuse
from tests.support.rawapi import Api
from tests.support.waiting import patient, until


@pytest.fixture
def stuck(engine, tmp_path):
    """A container whose program waits for a file system, where no freezer and no signal but SIGKILL reaches it."""
    if not os.path.exists("/dev/fuse"):
        pytest.skip("no FUSE here")
    place = tmp_path / "fuse"
    place.mkdir()
    with fuse.mounted(place) as waited_for:
        engine.client("run", "-d", "--name", "stuck", "-v", f"{place}:/fuse", "busybox", "cat", "/fuse/file")
        try:
            assert waited_for.wait(patient(60))
            yield "stuck"
        finally:
            engine.client("rm", "-f", "stuck", check=False)


@pytest.mark.ketch_only
@pytest.mark.timeout(120)
def test_a_pause_that_waits(engine, stuck):
    """Others are served meanwhile; what cannot be frozen runs on, and can be killed."""
    api, answers = Api(engine.socket), []
    asked = threading.Thread(target=lambda: answers.append(api("POST", f"/containers/{stuck}/pause")))
    asked.start()
    pings = 0
    while asked.is_alive():
        assert api("GET", "/_ping")[0] == 200
        pings += asked.is_alive()
    assert pings > 5, answers
    [(status, answer)] = answers
    assert status == 500, answer
    assert "freeze" in answer["message"]
    assert engine.client("inspect", "-f", "{{.State.Status}}", stuck).out == "running\n"
    engine.client("update", "-m", "64m", "--memory-swap", "128m", stuck)
    engine.client("kill", stuck)
    until(lambda: engine.client("inspect", "-f", "{{.State.Status}}", stuck).out == "exited\n", "its end")


@pytest.mark.ketch_only
def test_killed_while_it_is_frozen(engine, stuck):
    """A kill that comes in the middle of a pause is not undone by it."""
    api, answers = Api(engine.socket), []
    asked = threading.Thread(target=lambda: answers.append(api("POST", f"/containers/{stuck}/pause")))
    asked.start()
    engine.client("kill", stuck)
    asked.join()
    until(lambda: engine.client("inspect", "-f", "{{.State.Status}}", stuck).out == "exited\n", "its end")
