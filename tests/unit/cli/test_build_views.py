"""Views of builds, made of recordings of BuildKit's messages, beside what ``docker buildx`` made of the same builds."""

from __future__ import annotations

import base64
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.cli.output.build_display import BuildDisplay, warnings_text
from ketch.cli.output.build_live import LiveView, columns
from ketch.cli.output.build_plain import PlainView, StepOutput, size
from ketch.cli.output.build_state import BuildState, nanoseconds
from ketch.errors import InvalidArgument
from tests.support.recordings import progress

RECORDED = progress.rows()


def at(second: float) -> str:
    whole, rest = divmod(round(second * 1000), 1000)
    return f"2026-01-01T00:{whole // 60:02}:{whole % 60:02}.{rest:03}Z"


def vertex(digest: str, name: str, start: float | None = None, stop: float | None = None, **more) -> dict:
    times = {key: at(value) for key, value in (("started", start), ("completed", stop)) if value is not None}
    return {"digest": digest, "name": name, **times, **more}


def log(digest: str, second: float, text: bytes) -> dict:
    return {"vertex": digest, "stream": 1, "data": base64.b64encode(text).decode(), "timestamp": at(second)}


def plainly(messages: list[tuple[float, dict]]) -> str:
    written: list[str] = []
    view = PlainView(written.append)
    for second, message in messages:
        view.feed(message, second)
    view.close(messages[-1][0] + 1)
    return "".join(written)


def played(row: dict) -> tuple[str, BuildState]:
    """A recording in the plain view; each message comes when the last of its events has happened."""
    written: list[str] = []
    view = PlainView(written.append, 'building with "default" instance using docker driver')
    last = 0.0
    for message in row["raw"]:
        times = re.findall(r'"(?:timestamp|started|completed)": "([^"]+)"', json.dumps(message))
        now = max([last, *(nanoseconds(text) / 1e9 for text in times)])
        while last and last + 0.15 < now:  # what the thread of a display does meanwhile
            last += 0.15
            view.refresh(last)
        view.feed(message, now)
        last = now
    view.close(last)
    return "".join(written), view.state


def by_steps(text: str) -> tuple[dict[str, list[str]], list[str]]:
    """The lines of each step, however steps were written in turns, and what is behind them.

    Of a part only the last line counts: how often it is written depends on when messages arrive.
    """
    names: dict[str, str] = {}
    steps: dict[str, list[str]] = {}
    rest = []
    for line in text.splitlines():
        match = re.match(r"#(\d+) (.*)", line)
        if match is None:
            rest += [line] if line else []
        elif match[1] not in names:
            names[match[1]] = match[2]
        elif match[2] not in ("...", names[match[1]]):
            lines = steps.setdefault(names[match[1]], [])
            if lines and (match[2].startswith(lines[-1]) or lines[-1].startswith("DONE")):
                lines.pop()
            lines.append(match[2])
    return steps, rest


@pytest.mark.parametrize("row", RECORDED, ids=lambda row: row["name"])
def test_recordings_as_the_daemon_remembers_them(row):
    """Byte for byte; all messages come at once."""
    text = plainly([(0.0, message) for message in row["raw"]])
    if row["name"] == "cached":  # BuildKit writes steps that end in the same instant in any order
        assert by_steps(text) == by_steps(row["plain"])
    else:
        assert text == row["plain"]


@pytest.mark.parametrize("row", RECORDED, ids=lambda row: row["name"])
def test_recordings_as_they_were_shown(row):
    text, state = played(row)
    expected = re.sub(r"\x1b\[\d+m", "", row["live"]).replace("use docker --debug", "use --debug")
    steps, rest = by_steps(text + warnings_text(state.warnings))
    shown_steps, shown_rest = by_steps(expected)
    for found in (steps, shown_steps):  # the daemon forgets a part of this one
        found["[internal] load .dockerignore"] = [
            line for line in found.get("[internal] load .dockerignore", []) if not line.startswith("transferring")
        ]
    assert steps == shown_steps
    assert sorted(rest) == sorted(shown_rest[: len(rest)])
    assert all(
        re.match(r"Dockerfile:|-+$| +\d+ \|| *$|ERROR: failed to build: ", line) for line in shown_rest[len(rest) :]
    )


def test_of_two_steps_one_is_written():
    """Until it ends, or has been written for five seconds and the other one says more."""
    messages = [
        (0.0, {"vertexes": [vertex("a", "one", 0), vertex("b", "two", 0)]}),
        (0.2, {"logs": [log("a", 0.2, b"x\npar")]}),
        (0.4, {"logs": [log("b", 0.4, b"y\n")]}),
        (0.6, {"logs": [log("a", 0.6, b"tial\n")]}),
        *((6 + n / 10, {"logs": [log("b", 6 + n / 10, b"z\n")]}) for n in range(3)),
        (7.0, {"vertexes": [vertex("b", "two", 0, 7)]}),
        (8.0, {"vertexes": [vertex("a", "one", 0, 8)]}),
    ]
    assert plainly(messages) == (
        "#1 one\n#1 0.200 x\n#1 0.200 partial\n#1 ...\n\n#2 two\n#2 0.400 y\n#2 6.000 z\n"
        "#2 6.100 z\n#2 6.200 z\n#2 DONE 7.0s\n\n#1 one\n#1 DONE 8.0s\n"
    )


def test_a_line_without_an_end():
    """It is written as it comes, again when another step was in between, and ended when its step ends."""
    messages = [
        (0.0, {"vertexes": [vertex("a", "one", 0)]}),
        (0.2, {"logs": [log("a", 0.2, b"no")]}),
        (0.4, {"vertexes": [vertex("b", "two", 0.3, 0.4, cached=True)]}),
        (0.6, {"logs": [log("a", 0.6, b" end")]}),
        (0.8, {"vertexes": [vertex("a", "one", 0, 0.8, error="exit code: 1")]}),
    ]
    assert plainly(messages) == (
        "#1 one\n#1 0.200 no\n#1 ...\n\n#2 two\n#2 CACHED\n\n#1 one\n#1 0.200 no end\n#1 ERROR: exit code: 1\n"
        "------\n > one:\n0.200 no end\n------\n"
    )


def test_a_group_is_one_step():
    """It is shown when a vertex of it begins that is not there for the others' sake alone."""
    group = {"id": "g", "name": "COPY --link f /"}
    state = BuildState()
    assert not state.update({"vertexes": [vertex("a", "a", 0, 1, progressGroup={**group, "weak": True}, cached=True)]})
    assert state.steps == [] and state.counts() == (0, 0, 0)
    state.update({"vertexes": [vertex("b", "b", 2, progressGroup=group)]})
    (step,) = state.steps
    assert step.name == "COPY --link f /" and step.completed_at is None and not step.cached
    state.update({"vertexes": [vertex("b", "b", 2, 4, progressGroup=group)]})
    assert step.seconds(0) == 3.0 and state.counts() == (1, 0, 1)


def test_a_step_that_begins_again():
    state = BuildState()
    state.update({"vertexes": [vertex("a", "a", 0, 1)]})
    state.update({"vertexes": [vertex("a", "a")]})
    (step,) = state.steps
    assert step.completed_at is not None and step.seconds(0) == 1.0
    state.update({"vertexes": [vertex("a", "a", 5)]})
    assert step.completed_at is None and step.seconds(nanoseconds(at(7))) == 3.0


def test_sizes():
    assert [size(number) for number in (0, 2, 999, 1000, 4_600_000, 12_345_678_901)] == [
        "0B",
        "2B",
        "999B",
        "1.00kB",
        "4.60MB",
        "12.35GB",
    ]


@given(st.lists(st.binary(max_size=20), max_size=12))
def test_output_is_cut_into_lines(pieces):
    """However it comes in pieces, the lines are the same."""
    output = StepOutput()
    for piece in pieces:
        output.feed(1, piece)
    whole = b"".join(pieces)
    expected = whole.split(b"\n")
    assert [line.removeprefix(b"1.000 ") for line in output.lines] == (expected if expected[-1] else expected[:-1])
    assert output.open is bool(expected[-1])


def live(rows: list[dict]) -> LiveView:
    view = LiveView()
    for message in rows:
        view.feed(message)
    return view


NOW = nanoseconds(at(10))
RUNNING = [
    {"vertexes": [vertex("a", "[internal] load", 0, 1), vertex("b", "[1/2] FROM busybox", 1, 1, cached=True)]},
    {"vertexes": [vertex("c", "[2/2] RUN make", 2)]},
    {"statuses": [{"id": "context", "vertex": "a", "current": 2000, "timestamp": at(1), "started": at(0)}]},
    {"logs": [log("c", 3, b"first\n\x1b[31mred\x1b[0m\n10%\r20%\r"), log("c", 4, b"\xff\n\nlast with\x07out end")]},
]


def test_a_running_build():
    lines = live(RUNNING).lines(60, 20, NOW)
    assert [line.text for line in lines] == [
        "[+] Building 10.0s (2/3, 1 cached)",
        " => [internal] load                                     1.0s",
        " => => context                                  2.00kB 10.0s",
        " => CACHED [1/2] FROM busybox                           0.0s",
        " => [2/2] RUN make                                      8.0s",
        " => => # first",
        " => => # red",
        " => => # �",
        " => => # last with?out end",
    ]
    assert [line.style for line in lines] == ["", *["done"] * 3, "", *["faint"] * 4]
    assert [line.text for line in live(RUNNING).lines(60, 4, NOW)][1:] == [lines[2].text, lines[3].text, lines[4].text]
    assert [line.text for line in live(RUNNING).lines(60, 2, NOW)][1:] == [lines[4].text]
    assert len(live(RUNNING).lines(60, 2, NOW, final=True)) == 5
    assert [line.text for line in live(RUNNING).lines(15, 20, NOW)] == ["[+] Building 10"]


@pytest.mark.parametrize("row", RECORDED, ids=lambda row: row["name"])
@pytest.mark.parametrize(("width", "height"), [(200, 50), (80, 24), (33, 7), (20, 3), (5, 1)])
def test_recordings_fit_every_terminal(row, width, height):
    view = LiveView()
    for message in row["raw"]:
        view.feed(message)
        lines = view.lines(width, height, NOW)
        assert 1 <= len(lines) <= height and all(columns(line.text) <= width for line in lines)
    final = view.lines(width, height, NOW, final=True)
    assert all(columns(line.text) <= width for line in final)
    if width >= 80:
        failed = any(step.error for step in view.state.steps)
        assert final[0].text.endswith("FAILED" if failed else "FINISHED")
        assert len([line for line in final[1:] if not line.text.startswith(" => =>")]) == len(view.state.steps)


class Terminal(io.StringIO):
    """Standard error that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_displays(monkeypatch):
    """Each mode; a terminal's text has no control characters of steps, and an error's end is there in all."""
    monkeypatch.setenv("TERM", "xterm")
    failing = [*RUNNING, {"vertexes": [vertex("c", "[2/2] RUN make", 2, 5, error="exit code: 2")]}]
    shown = {}
    for mode, to in (
        ("plain", io.StringIO()),
        ("rawjson", io.StringIO()),
        ("quiet", io.StringIO()),
        ("tty", Terminal()),
    ):
        with BuildDisplay(to, mode, "headline") as display:
            for message in failing:
                display.feed(message)
        shown[mode] = to.getvalue()
    assert shown["plain"].startswith("#0 headline\n\n#1 [internal] load\n") and "exit code: 2" in shown["plain"]
    assert [json.loads(line) for line in shown["rawjson"].splitlines()] == failing
    assert shown["quiet"] == ""
    assert "\x1b[31mred" not in shown["tty"] and "\x07" not in shown["tty"] and "FAILED" in shown["tty"]
    assert shown["tty"].endswith("------\n > [2/2] RUN make:\nfirst\nred\n�\nlast with?out end\n------\n")
    with pytest.raises(InvalidArgument, match="no terminal"):
        BuildDisplay(io.StringIO(), "tty")
    with pytest.raises(InvalidArgument, match="invalid --progress"):
        BuildDisplay(io.StringIO(), "x")
