"""The end of ketchd where containers are to end with it, while one starts, waits for its restart, or does not stop."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support.engines import BIN
from tests.support.rawapi import Api
from tests.support.waiting import patient, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.ketch_only

ENDS = ["sh", "-c", 'trap "exit 7" USR1; echo here; while :; do sleep 0.05; done']
STUBBORN = ["sh", "-c", 'trap "" TERM; echo here; while :; do sleep 0.05; done']
HELD = """#!/bin/sh
# ketch-runtime, whose `create` waits as long as there is a file of this name
case " $* " in *" create "*) while [ -e {hold} ]; do : > {hold}.seen; sleep 0.05; done ;; esac
exec {runtime} "$@"
"""


@pytest.fixture
def ending(own_engine):
    """A daemon with which containers end."""
    own_engine.extra = ["--live-restore=false", "--shutdown-timeout=1"]
    return own_engine


def started(api: Api, name: str, command: list[str], policy: str = "no", **more) -> int:
    """The pid of a new container that has said that it is there."""
    host = {"NetworkMode": "none", "RestartPolicy": {"Name": policy}, **more.pop("host", {})}
    api.must("POST", "/containers/create", {"Image": "busybox", "Cmd": command, "HostConfig": host, **more}, name=name)
    api.must("POST", f"/containers/{name}/start")
    until(lambda: b"here" in (api.must("GET", f"/containers/{name}/logs", stdout=1) or b""), name)
    return state(api, name)["Pid"]


def state(api: Api, name: str) -> dict:
    return api.must("GET", f"/containers/{name}/json")["State"]


def begin_to_end(ending) -> None:
    ending.process.send_signal(signal.SIGTERM)
    until(lambda: "stopping all containers" in ending.log(), ending.log)


def left(ending) -> str:
    """The processes that name this engine, of which its monitors are."""
    return subprocess.run(["pgrep", "-fa", ending.exec_root], capture_output=True, text=True, check=False).stdout


def test_a_container_that_is_being_started_ends_too(ending, tmp_path: Path):
    """Its policy had it started before; the start comes to its end, and so does the container."""
    hold, runtime = tmp_path / "hold", tmp_path / "held-runtime"
    runtime.write_text(HELD.format(hold=hold, runtime=f"{BIN}/ketch-runtime"))
    runtime.chmod(0o755)
    ending.extra += ["--add-runtime", f"held={runtime}"]
    ending.start()
    ending.add_busybox()
    api = Api(ending.socket)
    pid = started(api, "again", ENDS, "always", StopSignal="USR1", host={"Runtime": "held"})
    hold.touch()
    os.kill(pid, signal.SIGKILL)
    until(lambda: (tmp_path / "hold.seen").exists(), "its restart begins")
    begin_to_end(ending)
    hold.unlink()
    assert ending.process.wait(patient(20)) == 0, ending.log()
    assert left(ending) == "", ending.log()
    ending.start()
    until(lambda: state(api, "again")["Running"], ending.log)


def test_a_restart_whose_pause_is_over_during_the_end_is_the_next_daemons(ending, tmp_path: Path):
    trace = tmp_path / "trace"
    ending.settings = {"KETCH_FAULT": "*", "KETCH_FAULT_TRACE": str(trace)}
    ending.start()
    ending.add_busybox()
    api = Api(ending.socket)
    stubborn = started(api, "stubborn", STUBBORN, StopTimeout=600)
    shared = tmp_path / "shared"
    shared.mkdir()
    host = {"NetworkMode": "none", "RestartPolicy": {"Name": "always"}, "Binds": [f"{shared}:/shared"]}
    command = ["sh", "-c", "test -e /shared/up && exec sleep 1000"]
    api.must("POST", "/containers/create", {"Image": "busybox", "Cmd": command, "HostConfig": host}, name="failing")
    api.must("POST", "/containers/failing/start")

    def rounds() -> int:
        return api.must("GET", "/containers/failing/json")["RestartCount"]

    def over() -> int:
        return trace.read_text().count("restart.pending")

    until(lambda: rounds() >= 4 and state(api, "failing")["Restarting"], "the pauses are long enough")
    begin_to_end(ending)
    (shared / "up").touch()  # one that is started from now on stays
    before = over()
    until(lambda: over() > before, "the pause is over")
    os.kill(stubborn, signal.SIGKILL)
    assert ending.process.wait(patient(20)) == 0, ending.log()
    assert "Traceback" not in ending.log()
    behind = trace.read_text().rpartition("restart.pending")[2]
    assert "start." not in behind and "launcher." not in behind, behind
    assert left(ending) == "", ending.log()
    ending.settings = {}
    ending.start()
    until(lambda: state(api, "failing")["Status"] == "running", ending.log)


def test_a_restart_that_a_user_asked_for_is_the_next_daemons_when_the_end_cuts_it(ending):
    """It has been stopped by then, and by nobody who wants it down."""
    ending.start()
    ending.add_busybox()
    api = Api(ending.socket)
    started(api, "asked", STUBBORN, "unless-stopped", StopTimeout=0)

    def restart() -> int:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return api("POST", "/containers/asked/restart", t=600, timeout=patient(60))[0]
        return 0

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(restart)
        until(lambda: kills(api, "asked"), "the restart begins")
        begin_to_end(ending)
        assert ending.process.wait(patient(40)) == 0, ending.log()
        assert asked.result() in (0, 503)
    assert left(ending) == "", ending.log()
    ending.start()
    until(lambda: state(api, "asked")["Running"], ending.log)


def kills(api: Api, name: str) -> object:
    """The signals that the container has had so far."""
    filters = json.dumps({"container": [name], "event": ["kill"]})
    return api.must("GET", "/events", since=0, until=int(time.time()) + 1, filters=filters)


def test_a_stop_that_fails_holds_up_no_other(ending, tmp_path: Path):
    """Of three that have to be killed, one is not: the others are, and the daemon ends as it should."""
    armed = tmp_path / "armed"
    armed.touch()
    ending.settings = {"KETCH_FAULT": f"@{armed}"}
    ending.start()
    ending.add_busybox()
    api = Api(ending.socket)
    names = ("one", "two", "three")
    pids = [started(api, name, STUBBORN, StopTimeout=1) for name in names]
    armed.write_text("stop.signalled=eio:1")
    begin_to_end(ending)
    assert ending.process.wait(patient(30)) == 0, ending.log()
    assert "Input/output error" in ending.log()
    alive = [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
    armed.write_text("")
    ending.start()
    ran = [name for name in names if state(api, name)["Running"]]
    with contextlib.suppress(ProcessLookupError):
        for pid in alive:
            os.kill(pid, signal.SIGKILL)
    assert len(alive) == 1 and len(ran) == 1, ending.log()
