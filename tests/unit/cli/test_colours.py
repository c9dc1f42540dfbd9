"""Colours: where there are any, and which state of a container has which."""

from __future__ import annotations

import os
import re

import pytest

from ketch.cli import colours
from ketch.errors import NotFound

RED, GREEN, YELLOW = "31", "32", "33"
STATES = {
    "Up 5 minutes": GREEN,
    "Up 5 minutes (healthy)": GREEN,
    "Up 5 minutes (unhealthy)": RED,
    "Up Less than a second (health: starting)": YELLOW,
    "Up 5 minutes (Paused)": YELLOW,
    "Exited (0) 2 hours ago": "",
    "Exited (137) 2 hours ago": RED,
    "Restarting (1) 2 seconds ago": YELLOW,
    "Created": "",
    "Dead": RED,
    "Removal In Progress": RED,
    "Exited (": "",  # cut off
}


@pytest.fixture
def streams(monkeypatch, tmp_path):
    """A terminal and a file, to be written to."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    master, slave = os.openpty()
    with open(slave, "w") as terminal, open(tmp_path / "file", "w") as file:
        yield terminal, file
    os.close(master)


def test_where_there_are_colours(streams, monkeypatch):
    terminal, file = streams
    assert colours.wanted(terminal)
    assert not colours.wanted(file)
    for name, value, coloured in (
        ("NO_COLOR", "", True),
        ("NO_COLOR", "1", False),
        ("NO_COLOR", "0", False),
        ("TERM", "dumb", False),
        ("TERM", "linux", True),
        ("TERM", None, False),
        ("TERM", "", False),
    ):
        with monkeypatch.context() as patch:
            patch.delenv(name) if value is None else patch.setenv(name, value)
            assert colours.wanted(terminal) is coloured, (name, value)
            assert not colours.wanted(file)


@pytest.mark.parametrize("state", STATES)
def test_states(state):
    """The text stays what it is, and where; a command that looks like a state has no colour."""
    title = "COMMAND       " + "STATUS".ljust(len(state) + 3) + "PORTS     NAMES"
    before, behind = '"Up 5 secs"   ', "   80/tcp    Up 5 seconds"
    painted = f"\x1b[{STATES[state]}m{state}\x1b[0m" if STATES[state] else state
    assert colours.states([title, before + state + behind, ""]) == [title, before + painted + behind, ""]
    lines = [title[:20], (before + state)[:20], ""]  # on a terminal that is too narrow
    assert [re.sub(r"\x1b\[\d+m", "", line) for line in colours.states(lines)] == lines
    assert colours.states([title[:15], before + "U"]) == [title[:15], before + "U"]


def test_tables_without_states():
    lines = ["NAMES", "Up 5 minutes", ""]
    assert colours.states(lines) == lines


def test_texts(streams):
    terminal, file = streams
    error = NotFound("no `\x1b[31mone`\nhere", hint="try\x07")
    assert colours.complaint(error, terminal) == "\x1b[1;31mketch:\x1b[0m no `?[31mone`\nhere\n  try?\n"
    assert colours.complaint(error, file) == "ketch: no `?[31mone`\nhere\n  try?\n"
    assert colours.remark("WARNING: a\x1b", terminal) == "\x1b[1;33mWARNING:\x1b[0m a?"
    assert colours.remark("WARNING: a\x1b", file) == "WARNING: a?"
    assert colours.remark("pulling", terminal) == "pulling"
    text = "Usage:  ketch ps\n\nList: all\n\nOptions:\n  -a, --all:\n"
    assert colours.help_text(text, file) == text
    assert colours.help_text(text, terminal) == (
        "\x1b[1mUsage:\x1b[0m  ketch ps\n\nList: all\n\n\x1b[1mOptions:\x1b[0m\n  -a, --all:\n"
    )
