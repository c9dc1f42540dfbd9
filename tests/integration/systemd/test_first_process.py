"""A service manager as the first process of a container: it boots, has cgroups for units, and is stopped."""

from __future__ import annotations

import os
import time

import pytest

from ketch.runtime.cgroups import common
from tests.support.run import daemons
from tests.support.run.nested import Nest
from tests.support.waiting import patient, until

pytestmark = [
    pytest.mark.ketch_only,
    pytest.mark.skipif(os.geteuid() != 0, reason="a daemon of root's"),
    pytest.mark.skipif(common.machine_version() != 2, reason="systemd needs a cgroup to divide: all controllers on v2"),
    pytest.mark.skipif(not os.path.exists("/lib/systemd/systemd"), reason="the machine's own is tried"),
]
OPTIONS = (
    "--security-opt",
    "writable-cgroups=true",
    "--stop-signal",
    "SIGRTMIN+3",
    *(f"--tmpfs={path}" for path in ("/run", "/run/lock", "/tmp")),
)
SYSTEMD = ("/lib/systemd/systemd", "--unit=basic.target")


@pytest.mark.parametrize("users", ["", "host"])
def test_systemd(users):
    """With users of its own or the machine's: units start in cgroups with limits; a stop is a shutdown."""
    with daemons.one_of_its_own("s") as one:
        one.user_namespaces("--userns-default", "auto")
        one.start()
        flags = ("--userns", users) if users else ()
        made = Nest(one, *flags, "--network", "none", *OPTIONS, command=SYSTEMD)
        asked = "systemctl is-system-running"
        until(lambda: made(asked, check=False).out in ("running\n", "degraded\n"), "it boots", 60)
        script = "cat /sys/fs/cgroup$(cut -c4- /proc/self/cgroup)/memory.max"
        assert made(f"systemd-run -q --pipe -p MemoryMax=20M sh -c '{script}'").out == "20971520\n"
        begun = time.monotonic()
        one.docker("stop", "-t", "60", made.id, timeout=90)
        assert time.monotonic() - begun < patient(30)
        assert one.inspect(made.id)["State"]["ExitCode"] == 0
        made.remove()
