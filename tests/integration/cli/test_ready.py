"""``--wait-healthy`` and ``ps --watch``: driven by events, without polling."""

from __future__ import annotations

import json
import signal
import termios

import pytest

from tests.support.containers import FAST
from tests.support.tap import Tap

pytestmark = pytest.mark.ketch_only
CHECK = ("--health-cmd", "echo looking; cat /ok", *FAST)


def test_returns_when_it_is_healthy(engine):
    ketch = engine.ketch
    chosen = ("--filter", "container=waited", "--filter", "event=exec_die")
    with ketch.piped(
        "run",
        "-d",
        "--wait-healthy",
        "--name",
        "waited",
        *CHECK,
        "--health-retries",
        "1000",
        "busybox",
        "sleep",
        "1000",
    ) as run:
        with ketch.piped("events", "--since", "0", *chosen, "--format", "{{.Action}}") as events:
            events.expect("exec_die")
        assert not run.read(0)
        ketch("exec", "waited", "touch", "/ok")
        run.expect("[0-9a-f]{64}\n")
        assert run.wait() == 0
    assert "(healthy)" in ketch("ps").out
    assert ketch("start", "--wait-healthy", "waited").out == "waited\n"  # it runs already
    ketch("stop", "-t", "0", "waited")
    assert ketch("start", "--wait-healthy=10", "waited").out == "waited\n"


def test_without_a_check_it_is_ready_when_it_runs(engine):
    started = engine.ketch("run", "-d", "--wait-healthy=5s", "--name", "plain", "busybox", "sleep", "1000")
    assert len(started.out) == 65


@pytest.mark.parametrize(
    ("flags", "command", "words"),
    [
        (CHECK, "sleep 1000", "is unhealthy; its last check said:\nlooking\ncat: can't open '/ok'"),
        (CHECK, "sleep 0.1; exit 3", "ended (exit code 3) before it was healthy"),
        (("--rm", *CHECK), "exit 4", "ended (exit code 4) before it was healthy"),
    ],
)
def test_failures(engine, flags, command, words):
    retries = ("--health-retries", "2" if "unhealthy" in words else "1000")
    failed = engine.ketch(
        "run", "-d", "--wait-healthy", "--name", "bad", *flags, *retries, "busybox", "sh", "-c", command, check=False
    )
    assert (failed.code, failed.out) == (1, "")
    assert words in failed.err or "--rm" in flags and "before it was healthy" in failed.err
    assert "see: ketch logs" in failed.err


def test_time_runs_out(engine):
    ketch = engine.ketch
    ketch("create", "--name", "slow", "--health-cmd", "cat /ok", "--health-interval", "1h", "busybox", "sleep", "1000")
    failed = ketch("start", "--wait-healthy=300ms", "slow", check=False)
    assert (failed.code, failed.out) == (1, "")
    assert "container slow is not healthy after 0.3 s" in failed.err
    assert ketch("inspect", "-f", "{{.State.Running}}", "slow").out == "true\n"
    for flags in (("-d", "--wait-healthy=soon"), ("-d", "--wait-healthy=0"), ("--wait-healthy",)):
        assert ketch("run", *flags, "busybox", "true", check=False).code == 125


def test_a_start_that_fails_is_that_failure(engine):
    failed = engine.ketch("run", "-d", "--wait-healthy", *CHECK, "busybox", "/nothing", check=False)
    assert failed.code == 127


# -- ps --watch --------------------------------------------------------------------------------------


def test_json_lines_of_what_changes(engine):
    ketch = engine.ketch
    ketch("run", "-d", "--name", "first", "busybox", "sleep", "1000")
    with ketch.piped("ps", "--watch", "--format", "json") as watch:

        def line() -> tuple[str, str]:
            one = json.loads(watch.expect(r"\{.*\}\n")[0])
            return one["Names"], one["State"]

        assert line() == ("first", "running")
        ketch("run", "-d", "--name", "second", "busybox", "sleep", "1000")
        assert line() == ("second", "running")
        ketch("rename", "second", "other")
        assert line() == ("other", "running")
        ketch("pause", "other")
        assert line() == ("other", "paused")
        ketch("stop", "-t", "0", "first")
        assert line() == ("first", "exited")
        ketch("rm", "-f", "other")
        assert line()[1] in ("exited", "removed")
        watch.signal(signal.SIGINT)
        assert watch.wait() == 0


def test_lines_elsewhere(engine):
    ketch = engine.ketch
    with ketch.piped("ps", "-a", "--watch") as watch:
        watch.expect("CONTAINER ID .*NAMES\n")
        ketch("create", "--name", "box", "busybox", "true")
        watch.expect("Created .*box\n")
        ketch("rm", "box")
        watch.expect("Removed .*box\n")
        assert "CONTAINER" not in watch.text
        watch.signal(signal.SIGINT)
        assert watch.wait() == 0


def test_a_terminal_is_drawn_again_and_put_back(engine):
    ketch = engine.ketch
    ketch("run", "-d", "--name", "box", *CHECK, "busybox", "sleep", "1000")
    with ketch.terminal("ps", "--watch") as watch:
        watch.resize(10, 200)
        before = termios.tcgetattr(watch._out_fd)
        watch.expect(r"\x1b\[\?1049h\x1b\[\?25l")
        first = watch.expect(r"Up (\d+) seconds? \(")
        seconds = int(first[1])
        watch.expect(rf"Up {seconds + 2} seconds \(")  # nothing happens to it, its age grows
        ketch("exec", "box", "touch", "/ok")
        watch.expect(r"seconds \(healthy\)")
        ketch("run", "-d", "--name", "second", "busybox", "sleep", "1000")
        watch.expect("second")
        watch.signal(signal.SIGINT)
        watch.expect(r"\x1b\[\?25h\x1b\[\?1049l")
        assert watch.wait() == 0
        assert termios.tcgetattr(watch._out_fd) == before
    with ketch.terminal("ps", "--watch") as watch:
        watch.expect("second")
        watch.signal(signal.SIGTERM)
        watch.expect(r"\x1b\[\?25h\x1b\[\?1049l")
        assert watch.wait() == 0


def test_no_polling(engine, tmp_path):
    """The client is silent while only ages grow, and asks when something happens: the tap does hear it."""
    engine.ketch("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    tap = Tap(str(tmp_path / "tap"), engine.socket)
    try:
        with engine.ketch.terminal("-H", f"unix://{tap.path}", "ps", "--watch") as watch:
            first = int(watch.expect(r"Up (\d+) second")[1])
            watch.expect(rf"Up {first + 1} second")
            before = tap.asked()
            watch.expect(rf"Up {first + 3} second")
            assert tap.asked() == before
            engine.ketch("run", "-d", "--name", "newcomer", "busybox", "sleep", "1000")
            watch.expect("newcomer")
            assert tap.asked() > before
    finally:
        tap.close()


def test_the_end_of_the_daemon_is_said(own_engine):
    own_engine.start()
    with own_engine.ketch.piped("ps", "--watch") as watch:
        watch.expect("NAMES")
        own_engine.stop(signal.SIGKILL)
        assert watch.wait() == 1
        assert "the daemon" in watch.text
