"""``ketch`` by itself: it starts the daemon when none answers, in a private copy of the default directories."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.integration.engines import BIN, SESSION
from tests.integration.leaks import MARK, Census

pytestmark = pytest.mark.ketch_only

# New mount and network namespaces: the default socket, roots and bridge are all the test's own.
_PROLOGUE = """
    set -eu
    mount --make-rprivate /
    for directory in /run /var/lib /var/log; do mount -t tmpfs tmpfs $directory; done
    ip link set lo up
    unset DOCKER_HOST
    trap 'ketch daemon stop >/dev/null 2>&1 || true' EXIT
"""


def in_private(script: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", MARK: f"{SESSION}c"}
    return subprocess.run(
        ["unshare", "-m", "-n", "sh", "-c", _PROLOGUE + script],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_runs_on():
    before = Census.take(f"{SESSION}c")
    yield
    assert [thing for thing in before.left_over() if thing.startswith("process")] == []


def test_run_starts_a_daemon_and_says_so():
    done = in_private("""
        ketch daemon start
        ketch image bootstrap -q busybox
        ketch daemon stop
        ketch run --rm busybox echo hello
    """)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "hello"
    started = [line for line in done.stderr.splitlines() if "start" in line]
    assert len(started) >= 1
    assert "ketchd" in started[-1]


def test_start_status_stop():
    done = in_private("""
        ketch daemon status || echo status $?
        ketch daemon start
        ketch daemon start
        ketch daemon status
        ketch daemon stop
        ketch daemon stop
        ketch daemon status || echo status $?
    """)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("nothing answers at unix:///")
    assert lines[1] == "status 3"
    assert lines[2].startswith("started ketchd (pid ")
    assert lines[3].startswith("ketchd answers already")
    assert "0 of 0 containers run, 0 images" in done.stdout
    assert lines[-3:-2] == ["ketchd is not running"]
    assert lines[-1] == "status 3"
