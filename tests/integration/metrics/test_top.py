"""``ketch top`` without a container: all of them, once where there is no terminal, else in place."""

from __future__ import annotations

import json
import signal
import termios

import pytest

pytestmark = pytest.mark.ketch_only


@pytest.fixture
def three(engine):
    for name, command in (("busy", "while :; do :; done"), ("idle", "sleep 1000"), ("ended", "true")):
        engine.docker("run", "-d", "--name", name, "busybox", "sh", "-c", command)
    engine.docker("wait", "ended")


def test_once(engine, three):
    found = [json.loads(line) for line in engine.ketch("top", "--format", "json").out.splitlines()]
    assert [row["Name"] for row in found] == ["busy", "idle"]
    assert float(found[0]["CPUPerc"].rstrip("%")) > 1
    assert found[0]["NetIn"].endswith("B/s")
    titles, *rows = engine.ketch("top", "--interval", "0.1", "--sort", "name", "-r", "-a").out.splitlines()
    assert titles.split()[:3] == ["NAME", "CPU", "%"]
    assert [row.split()[0] for row in rows] == ["idle", "ended", "busy"]
    assert engine.ketch("top", "--interval", "0.1", "--sort", "name", "--format", "{{.Name}} {{.State}}").out == (
        "busy running\nidle running\n"
    )
    wrong = engine.ketch("top", "--sort", "size", check=False)
    assert (wrong.code, "invalid --sort `size`" in wrong.err) == (1, True)
    assert "sleep 1000" in engine.ketch("top", "idle", "-ef").out


def test_on_a_terminal(engine, three):
    with engine.ketch.terminal("top", "--interval", "0.1") as terminal:
        terminal.resize(8, 44)
        terminal.expect(r"\x1b\[\?1049h")  # another screen
        terminal.expect(r"2 running[^\n]*\n[^\n]*\n[^\n]*NAME[^\n]*CPU %v[^\n]*\n[^\n]*busy[^\n]*\n[^\n]*idle")
        terminal.send("n")
        terminal.expect(r"NAMEv")
        terminal.send("r")
        terminal.expect(r"NAME\^[^\n]*\n[^\n]*idle[^\n]*\n[^\n]*busy")
        terminal.send("\x1a")  # ^Z would leave the screen as it is
        terminal.resize(6, 44)
        terminal.expect("1 more: up and down")
        terminal.send("\x1b[Bx")
        terminal.expect(r"NAME\^[^\n]*\n[^\n]*busy")
        terminal.send("nxq")
        terminal.expect(r"\x1b\[\?1049l")  # and back
        assert terminal.wait() == 0
    with engine.ketch.terminal("top", "--interval", "0.1") as terminal:
        terminal.expect("busy")
        terminal.signal(signal.SIGTERM)
        terminal.expect(r"\x1b\[\?1049l")
        assert terminal.wait() == 0


def test_whatever_ends_it_leaves_the_terminal_as_it_was(engine, three):
    for numbers in ((signal.SIGINT,), (signal.SIGTERM, signal.SIGINT, signal.SIGTERM), (signal.SIGHUP, signal.SIGINT)):
        for _ in range(3):  # where the second one finds it differs
            with engine.ketch.terminal("top", "--interval", "0.1") as terminal:
                terminal.resize(5, 20)
                terminal.expect(r"CPU %v")
                for number in numbers:
                    terminal.signal(number)
                terminal.expect(r"\x1b\[\?25h\x1b\[\?1049l")
                terminal.wait()
                flags = termios.tcgetattr(terminal._out_fd)[3]
                assert flags & termios.ICANON
                assert flags & termios.ECHO
