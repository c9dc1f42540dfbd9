"""Signals that clients get: passed on to the container, counted, or the end of the command; the same for both."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.rawapi import Api
from tests.support.terminal import Terminal
from tests.support.waiting import until

# What a shell does at once is what it does before its next command.
_NAMES = ("INT", "TERM", "TSTP", "CONT", "ALRM", "WINCH", "IO", "PWR")
LOOP = "".join(f"trap 'echo got-{name}.' {name};" for name in _NAMES) + "while :; do echo turn; sleep 0.05; done"


def running(client) -> bool:
    return client.engine.inspect("box")["State"]["Running"]


WAYS = {
    "run": ("run", "--name", "box", "busybox", "sh", "-c", LOOP),
    "run -t": ("run", "-t", "--name", "box", "busybox", "sh", "-c", LOOP),
    "attach": ("attach", "--no-stdin", "box"),
}


@pytest.fixture(params=WAYS)
def words(request, client):
    if request.param == "attach":
        client.engine.client("run", "-d", "--name", "box", "busybox", "sh", "-c", LOOP)
    return WAYS[request.param]


def test_nearly_all_are_passed_on(client, words):
    with client.piped(*words) as program:
        program.expect("turn")
        for name in _NAMES:
            program.signal(getattr(signal, f"SIG{name}"))
            program.expect(f"got-{name}")
        assert running(client)


def test_the_third_interruption_leaves_the_container(client, words):
    with client.piped(*words) as program:
        program.expect("turn")
        for number, name in (signal.SIGINT, "INT"), (signal.SIGTERM, "TERM"):
            program.signal(number)
            program.expect(f"got-{name}")
        program.signal(signal.SIGINT)
        assert program.wait() == 1
    assert running(client)


def test_a_daemon_that_hangs_can_be_left(own_engine):
    own_engine.start()
    own_engine.add_busybox()
    with own_engine.ketch.piped("run", "-t", "--name", "box", "busybox", "sh", "-c", LOOP) as program:
        program.expect("turn")
        own_engine.process.send_signal(signal.SIGSTOP)
        try:
            until(lambda: _ends(program), "it does not end")  # two signals at once are one
            assert program.wait() == 1
        finally:
            own_engine.process.send_signal(signal.SIGCONT)
    Api(own_engine.socket)("DELETE", "/containers/box", force=1)


def _ends(program) -> bool:
    program.signal(signal.SIGINT)
    return os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("command", ["logs -f box", "wait box", "stop -t 100 box"])
def test_other_commands_end(client, command, number, code):
    client.engine.client("run", "-d", "--name", "box", "busybox", "sh", "-c", LOOP)
    with client.piped(*command.split()) as program:
        if command.startswith("logs"):
            program.expect("turn")
        else:
            program.read(1)
        program.signal(number)
        assert program.wait() == code


def test_a_terminal_is_as_before_when_its_program_is_ended(client):
    """SIGTERM to `exec -it`, which has switched the terminal to raw mode."""
    client.engine.client("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    script = 'stty -g; "$@" exec -it box sh -c "echo in-\\$((1 + 1)); exec sleep 1000"; echo; stty -g'
    with Terminal(["sh", "-c", script, "sh", *client.command], client.engine.environment()) as shell:
        before = shell.expect(r"([0-9a-f]+(:[0-9a-f]+)+)\r?\n")[1]
        shell.expect("in-2")
        [program] = Path(f"/proc/{shell.pid}/task/{shell.pid}/children").read_text(encoding="ascii").split()
        os.kill(int(program), signal.SIGTERM)
        assert shell.expect(r"([0-9a-f]+(:[0-9a-f]+)+)\r?\n")[1] == before
