"""Containers of a user who logs out, as logind and PAM have it."""

from __future__ import annotations

import os

import pytest

from tests.support.boxes import runtime_box
from tests.support.boxes.systemd_box import SystemdBox
from tests.support.programs import need
from tests.support.run import unprivileged
from tests.support.run.login import PamLogin
from tests.support.run.users_daemon import UsersDaemon
from tests.support.waiting import until

pytestmark = [pytest.mark.ketch_only, pytest.mark.timeout(120), *runtime_box.NEEDED]


def test_logging_out(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Unless the user lingers, containers end with the last login, by their own signals; the next has ketchd again."""
    need("newuidmap")
    unprivileged.user()
    machine = SystemdBox(tmp_path_factory.mktemp("machine"))
    try:
        login = PamLogin(machine)
        daemon = UsersDaemon(login)
        daemon.install()
        script = "trap 'exit 3' TERM; trap 'sleep 1; exit 7' USR1; while :; do sleep 0.1; done"
        box = daemon.run("one", "sh", "-c", script, stop_signal="USR1")
        login.leave()
        until(lambda: not os.path.exists(machine.cgroup + login.cgroup), "the user's systemd has ended")
        login.enter()
        until(daemon.answers, "ketchd is started by the login")
        state = daemon.api.must("GET", f"/containers/{box}/json")["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", 7)
        machine.run("loginctl", "enable-linger", unprivileged.NAME)
        daemon.api.must("POST", f"/containers/{box}/start")
        login.systemctl("restart", "ketch")
        assert "enable-linger" not in str(daemon.api.must("GET", "/info")["Warnings"])
        login.leave()
        login.enter()
        assert daemon.api.must("GET", f"/containers/{box}/json")["State"]["Status"] == "running"
        daemon.remove(box)
        login.close()
    finally:
        machine.close()
