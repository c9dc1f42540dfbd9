"""Daemons, runtimes and commands whose parent closed stdin, stdout or stderr, and output that cannot be written."""

from __future__ import annotations

import itertools
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.engines import BIN, KETCH
from tests.support.waiting import patient

if TYPE_CHECKING:
    from tests.support.engines import Engine

pytestmark = [pytest.mark.timeout(120), pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")]

CLOSED = [
    " ".join(streams) for length in (1, 2, 3) for streams in itertools.combinations(("<&-", ">&-", "2>&-"), length)
]


def closing(streams: str) -> list[str]:
    """What starts a command line without some of its streams."""
    return ["sh", "-c", f'exec "$@" {streams}', "sh"]


def test_a_daemon_without_streams(own_engine: Engine) -> None:
    own_engine.prefix = closing("<&- >&- 2>&-")
    own_engine.start()
    own_engine.add_busybox()
    assert own_engine.process is not None
    for fd in range(3):
        assert os.readlink(f"/proc/{own_engine.process.pid}/fd/{fd}") == "/dev/null"
    look = ("sh", "-c", "echo out; echo error >&2; readlink /proc/self/fd/0")
    done = own_engine.client("run", "--rm", "busybox", *look)
    assert (done.out.split(), done.err) == (["out", "/dev/null"], "error\n")
    assert own_engine.client("run", "--rm", "-i", "busybox", "cat", stdin=b"in").out == "in"
    own_engine.client("run", "-d", "--name", "one", "busybox", "sh", "-c", "echo log; exec sleep 1000")
    assert own_engine.client("exec", "one", "echo", "hello").out == "hello\n"
    own_engine.stop()
    own_engine.start()
    assert own_engine.client("logs", "one").out == "log\n"


def test_commands_without_streams(engine: Engine) -> None:
    if engine.kind != "ketch":
        pytest.skip("about ketch's own command line")
    engine.ketch("run", "-d", "--name", "one", "busybox", "sh", "-c", "echo log; exec sleep 1000")
    for streams in CLOSED:
        for words in (("ps",), ("version",), ("logs", "one"), ("exec", "one", "echo", "hello"), ("inspect", "one")):
            done = subprocess.run(
                [*closing(streams), KETCH, *words],
                env=engine.environment(),
                capture_output=True,
                text=True,
                check=False,
                timeout=patient(30),
            )
            assert (done.returncode, done.stderr) == (0, ""), (streams, words)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written(engine: Engine, unbuffered: str) -> None:
    if engine.kind != "ketch":
        pytest.skip("about ketch's own programs")
    programs = {
        KETCH: "ps|version|images|ps --help|--help|--version|help ps|registry --help|registry serve --help|"
        "registry htpasswd me",
        f"{BIN}/ketchd": "--version|--help",
        f"{BIN}/ketch-runtime": "--version|--help|features|list|list --format json",
    }
    for program, command_lines in programs.items():
        for words in command_lines.split("|"):
            done = subprocess.run(
                ["sh", "-c", 'exec "$@" > /dev/full', "sh", program, *words.split()],
                env={**engine.environment(), "PYTHONUNBUFFERED": unbuffered},
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                timeout=patient(30),
            )
            said = f"{os.path.basename(program)}: write error: No space left on device\n"
            assert (done.returncode, done.stderr) == (1, said), (program, words)


def test_errors_that_cannot_be_written(engine: Engine) -> None:
    """The exit code tells what happened, as it does where somebody reads."""
    if engine.kind != "ketch":
        pytest.skip("about ketch's own programs")
    for program, words, code in (
        (KETCH, ("rm", "nope"), 1),
        (KETCH, ("ps", "--nope"), 125),
        (KETCH, ("run", "--rm", "busybox", "nope"), 127),
        (KETCH, ("run", "--rm", "busybox", "sh", "-c", "echo error >&2"), 1),
        (KETCH, ("registry", "serve", "--nope"), 2),
        (f"{BIN}/ketchd", ("--nope",), 1),
        (f"{BIN}/ketchd", ("--validate", "--config-file", "/nope"), 1),
        (f"{BIN}/ketch-runtime", ("state", "nope"), 1),
    ):
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" 2> /dev/full', "sh", program, *words],
            env=engine.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=False,
            timeout=patient(30),
        )
        assert (done.returncode, done.stdout) == (code, b""), (program, words)
