"""``ketch`` by itself: it starts the daemon when none answers, in a private copy of the default directories."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.support.engines import BIN
from tests.support.leaks import Census
from tests.support.run.session import MARK, SESSION
from tests.support.waiting import patient

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
        env=environment,
        capture_output=True,
        text=True,
        timeout=patient(60),
        check=False,
    )


@pytest.fixture(autouse=True)
def _nothing_runs_on():
    before = Census.take(f"{SESSION}c")
    yield
    assert [thing for thing in before.leaks() if thing.startswith("process")] == []


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


def test_a_word_too_many_stops_nothing():
    done = in_private("""
        ketch daemon start
        ketch daemon stop now || echo refused $?
        ketch daemon stop --help
        ketch daemon status
    """)
    assert done.returncode == 0, done.stderr
    assert "refused 1" in done.stdout
    assert "`ketch daemon stop` takes no arguments" in done.stderr
    assert "Usage:  ketch daemon stop" in done.stdout
    assert "answers at" in done.stdout


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
    assert lines[-3].startswith("ketchd is not running at unix:///")
    assert lines[-1] == "status 3"


def test_its_log_is_kept_small():
    """Also while it runs: what fills it here is less than a start puts aside."""
    done = in_private("""
        head -c 10485700 /dev/zero | tr '\\0' x > /var/log/ketchd.log
        ketch daemon start
        until test -e /var/log/ketchd.log.1; do sleep 0.02; done
        ketch daemon stop
        wc -c < /var/log/ketchd.log
        head -c 10485700 /var/log/ketchd.log.1 | tr -d x | wc -c
        grep -a "API listen" /var/log/ketchd.log /var/log/ketchd.log.1 | tail -c 60
    """)
    assert done.returncode == 0, done.stderr
    _, _, small, filled, *_ = done.stdout.splitlines()
    assert int(small) < 10_000
    assert filled == "0"
    assert "API listen" in done.stdout


def test_stop_means_the_daemon_of_that_address():
    """However it is named: by flag or variable; the other one, whose pid file is the default, goes on."""
    done = in_private("""
        flags="--data-root /var/lib/other --exec-root /run/other --bridge other0 --cgroup-parent /other-$$"
        ketch daemon start --cgroup-parent /default-$$
        ketch -H unix:///run/other.sock daemon start $flags
        cat /var/run/ketchd.pid /var/run/ketchd-run-other.sock.pid
        ketch -H unix:///run/other.sock daemon stop
        ketch daemon status
        DOCKER_HOST=unix:///run/other.sock ketch daemon status || echo status $?
        DOCKER_HOST=unix:///run/other.sock ketch daemon stop
        ketch -H tcp://127.0.0.1:1 daemon stop || echo refused
        ketch daemon start
    """)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    started = [line.split("pid ")[1].split(")")[0] for line in lines if line.startswith("started")]
    assert lines[2:4] == started
    assert lines[4].startswith(f"stopped ketchd (pid {started[1]}) at unix:///run/other.sock")
    assert lines[5].startswith("ketchd ")
    rest = "\n".join(lines[6:])
    assert "nothing answers at unix:///run/other.sock\nstatus 3\n" in rest
    assert "ketchd is not running at unix:///run/other.sock\nrefused\n" in rest
    assert lines[-1].startswith("ketchd answers already")


def test_stop_of_what_is_not_ketchd():
    done = in_private("""
        python3 -c 'import socket, time; s = socket.socket(socket.AF_UNIX); s.bind("/run/alien.sock"); s.listen()
time.sleep(60)' &
        while [ ! -S /run/alien.sock ]; do sleep 0.05; done
        sleep 0.2
        ketch -H unix:///run/alien.sock daemon stop || echo refused
        kill -0 $! && echo alive
        kill $!
    """)
    assert done.stdout.splitlines() == ["refused", "alive"]
    assert "is not ketchd" in done.stderr


def test_no_space_for_the_log():
    """What a former daemon said there is not told as what this one said."""
    done = in_private("""
        mount -t tmpfs -o size=8k tmpfs /var/log
        echo 'ketchd: of yesterday' > /var/log/ketchd.log
        truncate -s 4096 /var/log/ketchd.log
        head -c 4096 /dev/zero > /var/log/rest
        ketch daemon start --no-such-flag
    """)
    assert done.returncode == 1
    assert "it ended at once: it printed nothing\n  is there space left for its log?" in done.stderr
