"""Which runtime a container gets, what says so, and what is refused in dockerd's words."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess

import pytest

from tests.support.rawapi import Api
from tests.support.run.runtimes import kept, usable
from tests.support.waiting import until

SHIM = "io.containerd.runc.v2"
MISSING = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: "
    "unable to retrieve OCI runtime error"
)

LYING = """#!/bin/sh
while [ $# -gt 0 ]; do
    if [ "$1" = --pid-file ]; then echo {} > "$2"; fi
    shift
done
"""


@pytest.fixture
def runc():
    with usable("runc") as name:
        yield name


def test_choice(own_engine, runc):
    """The default is what it was when the container was created; the same is in info and inspect."""
    engine = own_engine
    args = {"path": "runc", "runtimeArgs": ["--debug"]}
    settings = {"runtimes": {"gone": {"path": "/nonexistent/runtime"}, "args": args}}
    path = f"{engine.root}/daemon.json"
    with open(path, "w", encoding="utf-8") as f:
        json.dump(settings, f)
    engine.extra += ["--config-file", path, "--default-runtime", "args", "--add-runtime", f"flag={runc}"]
    engine.start()
    engine.add_busybox()
    api = Api(engine.socket)
    info = api.must("GET", "/info")
    assert info["DefaultRuntime"] == "args"
    assert {"ketch", "runc", "args", "gone", "flag", SHIM} <= info["Runtimes"].keys()
    assert info["Runtimes"]["args"] == {"path": "runc", "runtimeArgs": ["--debug"]}
    for name, shown in {"": "args", "ketch": "ketch", SHIM: SHIM, "flag": "flag"}.items():
        body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"Runtime": name}}
        api.must("POST", "/containers/create", body, name=f"box-{name}")
        api.must("POST", f"/containers/box-{name}/start")
        assert engine.inspect(f"box-{name}")["HostConfig"]["Runtime"] == shown
    assert sorted(one.split("/")[0] for one in kept(engine)) == ["args", "flag"]
    for name in ("nonesuch", "/nonexistent/x", "io.containerd.foo.v1"):
        status, answer = api("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Runtime": name}})
        assert (status, answer["message"]) == (400, f"unknown or invalid runtime name: {name}")
    api.must("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Runtime": "gone"}}, name="lost")
    status, answer = api("POST", "/containers/lost/start")
    assert (status, answer["message"].startswith(MISSING)) == (400, True)
    assert answer["message"].endswith("fork/exec /nonexistent/runtime: no such file or directory")
    state = engine.inspect("lost")["State"]
    assert (state["Status"], state["ExitCode"], state["Error"]) == ("created", 127, answer["message"])
    engine.stop(signal.SIGKILL)
    engine.extra = []  # its containers go on, and end, without the settings that they were started with
    engine.start()
    assert api.must("GET", "/info")["DefaultRuntime"] == "ketch"
    assert engine.ketch("exec", "box-", "echo", "in").out == "in\n"
    api.must("POST", "/containers/box-flag/stop", t=0)
    status, answer = api("POST", "/containers/box-flag/start")
    assert (status, answer["message"]) == (400, "unknown or invalid runtime name: flag")
    assert engine.inspect("box-flag")["State"]["Status"] == "exited"


SLOW = """#!/bin/sh
case " $* " in *" {0} "*) touch {1}; exec sleep 1000; esac
exec runc "$@"
"""


def test_a_runtime_that_does_not_delete(own_engine, runc, tmp_path):
    """What is left of a killed monitor's container is ended all the same, and its runtime is asked again."""
    engine, broken = own_engine, tmp_path / "broken"
    broken.write_text('#!/bin/sh\ncase " $* " in *" delete "*) exit 1; esac\nexec runc "$@"\n')
    broken.chmod(0o755)
    engine.start()
    engine.add_busybox()
    engine.ketch("run", "-d", "--name", "box", "--runtime", str(broken), "busybox", "sleep", "1000")
    found = engine.inspect("box")
    with open(f"{engine.exec_root}/run/{found['Id']}/monitor.pid", encoding="ascii") as f:
        os.kill(int(f.read()), signal.SIGKILL)
    until(lambda: engine.inspect("box")["State"]["Status"] == "exited", "its end is known")
    assert not os.path.exists(f"/proc/{found['State']['Pid']}/exe")
    assert len(kept(engine)) == 1
    broken.write_text('#!/bin/sh\nexec runc "$@"\n')
    engine.ketch("rm", "box")
    assert kept(engine) == []


def test_a_runtime_that_names_a_process_of_others(own_engine, tmp_path):
    """Whoever stops the container would signal that process."""
    lying = tmp_path / "lying"
    others = subprocess.Popen(["sleep", "1000"])
    try:
        lying.write_text(LYING.format(others.pid))
        lying.chmod(0o755)
        own_engine.start()
        own_engine.add_busybox()
        api = Api(own_engine.socket)
        api.must("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Runtime": str(lying)}}, name="box")
        status, answer = api("POST", "/containers/box/start")
        assert (status, f"process {others.pid} is none that it has made" in answer["message"]) == (500, True)
        api.must("DELETE", "/containers/box", force=1)
        assert others.poll() is None
    finally:
        others.kill()
        others.wait()


def test_starts_that_are_interrupted(own_engine, runc, tmp_path):
    """Nothing is left of a start that was killed while the runtime was at work."""
    own_engine.start()
    own_engine.add_busybox()
    for victim in ("monitor", "daemon", "both"):
        _interrupted(own_engine, tmp_path, victim)


def _interrupted(engine, tmp_path, victim):
    slow, begun = tmp_path / f"slow-{victim}", tmp_path / f"begun-{victim}"
    slow.write_text(SLOW.format("create", begun))
    slow.chmod(0o755)
    engine.ketch("create", "--name", victim, "--runtime", str(slow), "busybox", "sleep", "1000")
    run_dir = f"{engine.exec_root}/run/{engine.inspect(victim)['Id']}"
    with engine.ketch.piped("start", victim) as client:
        until(begun.exists, "the runtime is at work")
        with open(f"{run_dir}/monitor.pid", encoding="ascii") as f:
            monitor = int(f.read())
        if victim != "monitor":
            engine.stop(signal.SIGKILL)
        if victim != "daemon":
            with contextlib.suppress(ProcessLookupError):  # without its daemon it gives up by itself
                os.kill(monitor, signal.SIGKILL)
        assert client.wait() != 0
    until(lambda: not os.path.exists(f"/proc/{monitor}/exe"), "its monitor has ended")
    if victim != "monitor":
        engine.start()
    slow.write_text(SLOW.format("nothing", "x"))
    assert engine.inspect(victim)["State"]["Status"] in ("created", "exited")
    until(lambda: not os.path.exists(f"{run_dir}/runtime.json"), "nothing is kept of it")
    engine.ketch("start", victim)
    assert engine.ketch("exec", victim, "echo", "in").out == "in\n"
