"""A build on a terminal: its steps with their times, the last lines of those that run, and a line for all.

Here is which lines are shown in how much room; they are drawn by `build_display`.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from ketch import printable
from ketch.cli.output.build_plain import amount
from ketch.cli.output.build_state import BuildState, text_of

if TYPE_CHECKING:
    from ketch.cli.output.build_state import BuildStep, Message, StepPart

_TAIL = 6  # lines of a step that runs
_KEPT = 10  # lines of a step that failed, shown again at the end
_NARROWEST = 20  # columns; below them nothing is shown but the first line
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


class LiveLine(NamedTuple):
    """A line of the view; ``style``: ``done``, ``failed``, ``canceled``, ``faint`` or none."""

    text: str
    style: str = ""


class _Row(NamedTuple):
    """A line before it is fitted: its text, what stands at its right end, and whether it must be seen."""

    text: str
    end: str
    style: str
    running: bool


class _Tail:
    """The last lines of a step's output, as a terminal would have them."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=_KEPT)
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *whole, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-(1 << 14) :]
        self.lines.extend(map(_shown, whole))

    def last(self, number: int) -> list[str]:
        """So many of them that are not empty; a line that has not ended is the last one."""
        lines = [*self.lines, _shown(self._rest)] if self._rest else [*self.lines]
        return [line for line in lines if line.strip()][-number:] if number > 0 else []


def _shown(line: bytes) -> str:
    text = _ESCAPE.sub("", line.decode(errors="replace")).rstrip("\r").rpartition("\r")[2]
    return printable.cell(text.expandtabs())


def columns(text: str) -> int:
    """The number of columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def cut(text: str, width: int) -> str:
    """As much of the beginning of a text as fits."""
    if text.isascii():
        return text[: max(width, 0)]
    while columns(text) > width:
        text = text[:-1]
    return text


class LiveView:
    """Takes messages, and says which lines are to be shown."""

    def __init__(self) -> None:
        self.state = BuildState()
        self._tails: dict[str, _Tail] = {}

    def feed(self, message: Message) -> None:
        """Take a message."""
        for step in self.state.update(message):
            for _, data in step.take_output():
                self._tails.setdefault(step.digest, _Tail()).feed(data)

    def lines(self, width: int, height: int, now: int, *, final: bool = False) -> list[LiveLine]:
        """The lines that fit; ``now`` in ns since 1970; ``final``: all steps, whatever the height, and no output."""
        head = LiveLine(cut(self._head(now, final=final), width), "")
        if width < _NARROWEST or (height < 2 and not final):
            return [head]
        rows = [row for step in self.state.steps for row in self._rows(step, now)]
        if final:
            return [head, *(_fitted(row, width) for row in rows)]
        room = height - 1
        if len(rows) >= room:
            return [head, *(_fitted(row, width) for row in _chosen(rows, room))]
        return [head, *self._with_output(width, room - len(rows), now)]

    def _with_output(self, width: int, room: int, now: int) -> list[LiveLine]:
        """All steps, and the last lines of those that run, the youngest first, as far as there is room."""
        shares: dict[str, list[str]] = {}
        for step in reversed(self.state.steps):
            if step.completed_at is None and step.digest in self._tails:
                shares[step.digest] = self._tails[step.digest].last(min(_TAIL, room))
                room -= len(shares[step.digest])
        lines: list[LiveLine] = []
        for step in self.state.steps:
            lines += [_fitted(row, width) for row in self._rows(step, now)]
            lines += [LiveLine(cut(f" => => # {text}", width), "faint") for text in shares.get(step.digest, ())]
        return lines

    def failures(self) -> str:
        """The last lines of each step that failed, as the plain view has them."""
        found = []
        for step in self.state.steps:
            if step.error and not step.canceled:
                tail = self._tails.get(step.digest, _Tail()).last(_KEPT)
                found.append(f"------\n > {step.name}:\n" + "".join(f"{line}\n" for line in tail) + "------\n")
        return "".join(found)

    def _head(self, now: int, *, final: bool) -> str:
        ended, cached, known = self.state.counts()
        began = self.state.began_at
        seconds = (now - began) / 1e9 if began is not None else 0.0
        failed = any(step.error for step in self.state.steps)
        word = ("" if not final else " FAILED" if failed else " FINISHED") if known else ""
        return f"[+] Building {max(seconds, 0.0):.1f}s ({ended}/{known}{f', {cached} cached' if cached else ''}){word}"

    def _rows(self, step: BuildStep, now: int) -> list[_Row]:
        runs = step.completed_at is None
        mark, style = "", "" if runs else "done"
        if step.canceled:
            mark, style = "CANCELED ", "canceled"
        elif step.error:
            mark, style = "ERROR ", "failed"
        elif step.cached:
            mark = "CACHED "
        rows = [_Row(f" => {mark}{printable.cell(step.name)}", _seconds(step.seconds(now)), style, runs)]
        rows += [_part(step.parts[name], now, style, runs) for name in step.shown_parts]
        rows += [_Row(f" => => WARN: {printable.cell(text_of(w.get('short')))}", "", "", runs) for w in step.warnings]
        return rows


def _part(part: StepPart, now: int, style: str, runs: bool) -> _Row:
    end = now if part.completed is None else part.completed
    took = _seconds((end - part.started) / 1e9 if part.started is not None else 0.0)
    moved = amount(part)
    return _Row(
        f" => => {printable.cell(part.name)}", f"{moved} {took}".strip(), style, runs and part.completed is None
    )


def _seconds(seconds: float) -> str:
    return f"{seconds if seconds >= 0.05 else 0.0:.1f}s"


def _fitted(row: _Row, width: int) -> LiveLine:
    """A row in exactly this width, or less where nothing stands at its end."""
    if not row.end:
        return LiveLine(cut(row.text, width), row.style)
    end = row.end if len(row.end) <= width // 2 else row.end.rpartition(" ")[2]
    room = width - len(end) - 1
    text = cut(row.text, room)
    return LiveLine(f"{text}{' ' * (room - columns(text))} {end}", row.style)


def _chosen(rows: list[_Row], room: int) -> list[_Row]:
    """As many rows as there is room for: those that run and those that failed, then the last of the others."""
    wanted = [number for number, row in enumerate(rows) if row.running or row.style == "failed"][-room:]
    others = [number for number in range(len(rows)) if number not in set(wanted)]
    free = room - len(wanted)
    kept = sorted([*wanted, *(others[-free:] if free > 0 else [])])
    return [rows[number] for number in kept]
