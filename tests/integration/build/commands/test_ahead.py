"""Containers that are made ahead of their commands: taken by the next one, or ended."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess

import pytest

from ketch.engine.build.command import ahead as ahead_module
from ketch.runtime.cgroups import common
from tests.support.engines import NOWHERE, Engine
from tests.support.leaks import Census
from tests.support.waiting import until

pytestmark = pytest.mark.ketch_only


@pytest.fixture
def patient_box(build_box, monkeypatch):
    """Containers that are made ahead wait for as long as the test takes."""
    monkeypatch.setattr(ahead_module, "_IDLE_S", 1000.0)
    yield build_box
    build_box.call(build_box.ahead.close())


def waiting(box):
    """The container that waits, when it is there."""

    async def found():
        assert box.ahead._waiting is not None
        return await asyncio.shield(box.ahead._waiting.task)

    return box.call(found())


def test_the_next_command_takes_it(patient_box):
    """It sees, may and leaves what any other command does."""
    look = """
        exec 2>&1; id; hostname; echo $$
        grep -E '^(Seccomp|CapEff|NoNewPrivs):' /proc/self/status; ulimit -n; cat /proc/self/cgroup | grep -c build-
        cat /etc/hosts; ip -o addr | grep -o 'eth0.*inet [0-9]*'; ip route | grep -c default
        cat /proc/sys/net/ipv4/ip_forward; mount | grep -c cgroup; ls /dev | wc -l; echo x >/tmp/written
    """
    fields = {"user": "alice", "limits": [("nofile", 100, 200)], "hosts": [("far", "10.9.8.7")], "hostname": "other"}
    plain = patient_box.run(look, **fields)
    assert plain.error is None, plain.out
    first = patient_box.run("echo one >/first", followed=True)
    container = waiting(patient_box)
    second = patient_box.run(look, root=first.written.root, **fields)
    assert second.out == plain.out
    assert patient_box.layer(second.written.root) == patient_box.layer(plain.written.root)
    assert container.monitor.exited.result().code == 0
    assert patient_box.ahead._waiting is None


def test_it_is_taken_by_a_command_of_its_kind_alone(patient_box):
    patient_box.run("true", followed=True)
    container = waiting(patient_box)
    parent = f"/{patient_box.config.bridge}/inner"
    assert patient_box.run("echo $0", network="none").error is None
    assert patient_box.run("echo $0", cgroup_parent=parent).error is None
    common.at(parent).remove()
    assert waiting(patient_box) is container
    assert patient_box.run("echo taken").out == "taken\n"
    assert patient_box.ahead._waiting is None


def test_nothing_is_made_for_a_last_command(patient_box):
    patient_box.run("true")
    patient_box.run("true", network="none", followed=True)
    assert patient_box.ahead._waiting is None


def test_one_that_nobody_takes_is_ended(build_box, monkeypatch):
    monkeypatch.setattr(ahead_module, "_IDLE_S", 0.01)
    build_box.run("true", followed=True)
    build_box.until_gone()


def test_one_that_was_killed_is_not_taken(patient_box):
    patient_box.run("true", followed=True)
    container = waiting(patient_box)
    os.kill(container.monitor.process, signal.SIGKILL)
    until(lambda: not container.monitor.connected, "its end is noticed")
    assert patient_box.run("echo well").out == "well\n"
    patient_box.until_gone()


def test_a_cancelled_command_leaves_nothing_of_it(patient_box):
    async def cancelled(moment):
        await patient_box.ran("true", followed=True)
        task = asyncio.create_task(patient_box.ran("sleep 1000"))
        await asyncio.sleep(moment)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    for moment in (0, 0.001, 0.003, 0.006, 0.01):
        patient_box.call(cancelled(moment))
        patient_box.until_gone()


def test_a_failure_of_the_set_up_is_told(patient_box):
    patient_box.run("true", followed=True)
    waiting(patient_box)
    ran = patient_box.run("/no/such/program", "x")
    assert ran.error is not None
    assert "no such file or directory" in ran.err.lower()
    patient_box.until_gone()


def test_a_daemon_that_dies_with_one(tmp_path):
    """It is gone with the daemon, and the next one removes its directories."""
    engine = Engine("ketch", suffix="y")
    before = Census.take(engine.name)
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN sleep 1000\nRUN true\n")

    def monitors():
        place = f"{engine.exec_root}/run"
        names = [name for name in os.listdir(place) if name.startswith("build-")] if os.path.isdir(place) else []
        return [name for name in names if os.path.exists(f"{place}/{name}/monitor.pid")]

    try:
        engine.start()
        engine.add_busybox()
        command = [engine.ketch.program, "build", str(tmp_path)]
        environment = {**engine.environment(), **NOWHERE}
        client = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until(lambda: len(monitors()) == 2, "the second one waits")
            engine.stop(signal.SIGKILL)
        finally:
            client.kill()
            client.wait()
        engine.start()
        until(lambda: monitors() == [], "its directories are removed")
        assert engine.ketch("ps", "-aq").out == ""
    finally:
        if engine.process is not None:
            engine.stop()
        engine.delete()
    assert before.leaks() == []
