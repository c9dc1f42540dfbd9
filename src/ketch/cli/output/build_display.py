"""The display of a build: a view that is drawn again and again on a terminal; lines, JSON, or nothing elsewhere."""

from __future__ import annotations

import os
import threading
import time

from ketch import printable
from ketch.cli import colours
from ketch.cli.output.build_state import text_of
from ketch.errors import InvalidArgument
from ketch.notation import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Protocol, TextIO

    from ketch.cli.output.build_live import LiveLine
    from ketch.cli.output.build_state import Message

    class _View(Protocol):
        def feed(self, message: Message) -> None: ...
        def refresh(self) -> None: ...
        def close(self) -> None: ...
        def warnings(self) -> list[Message]: ...


MODES = ("auto", "plain", "tty", "rawjson", "quiet", "none")
_EVERY_S = 0.1
_STYLES = {"done": "36", "failed": "31", "canceled": "33", "faint": "2"}


class BuildDisplay:
    """The display, from the first message to the last; a thread draws while nothing comes."""

    def __init__(self, to: TextIO, mode: str, headline: str = "", *, details: bool = False) -> None:
        """InvalidArgument for a mode that there is not; ``details``: warnings with the lines that they are about."""
        self._to, self._details = to, details
        self._view = _view(to, mode, headline)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="build display", daemon=True)

    def __enter__(self) -> BuildDisplay:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        self._view.close()
        self._to.write(warnings_text(self._view.warnings(), details=self._details))
        self._to.flush()

    def feed(self, message: Message) -> None:
        """Take a message of the build."""
        with self._lock:
            self._view.feed(message)

    def _tick(self) -> None:
        while not self._over.wait(_EVERY_S):
            with self._lock:
                self._view.refresh()


def _view(to: TextIO, mode: str, headline: str) -> _View:
    terminal = colours.takes_escapes(to)
    if mode == "tty" and not terminal:
        raise InvalidArgument("--progress tty: standard error is no terminal", hint="use --progress plain")
    if mode in ("auto", "tty") and terminal:
        return _Terminal(to)
    if mode in ("auto", "plain"):
        return _Lines(to, headline)
    if mode == "rawjson":
        return _Json(to)
    if mode in ("quiet", "none"):
        return _Nothing()
    raise InvalidArgument(f"invalid --progress `{mode}`", hint=f"use {', '.join(MODES[:-1])}")


class _Nothing:
    """No display."""

    def feed(self, message: Message) -> None:
        """Show nothing."""

    def refresh(self) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Show nothing."""

    def warnings(self) -> list[Message]:
        """The warnings to be shown at the end."""
        return []


class _Json(_Nothing):
    """Each message as a line."""

    def __init__(self, to: TextIO) -> None:
        self._to = to

    def feed(self, message: Message) -> None:
        """Write it."""
        self._to.write(documents.dumps(message, spaces=False) + "\n")
        self._to.flush()


class _Lines:
    """The plain view; on a terminal what steps write has no control characters."""

    def __init__(self, to: TextIO, headline: str) -> None:
        from ketch.cli.output.build_plain import PlainView

        self._to = to
        self._view = PlainView(self._write, headline)

    def _write(self, text: str) -> None:
        self._to.write(printable.lines(text) if self._to.isatty() else text)

    def feed(self, message: Message) -> None:
        """Write what it has, now or soon."""
        self._view.feed(message, time.monotonic())
        self._to.flush()

    def refresh(self) -> None:
        """Write what has come."""
        self._view.refresh(time.monotonic())
        self._to.flush()

    def close(self) -> None:
        """Write the rest."""
        self._view.close(time.monotonic())

    def warnings(self) -> list[Message]:
        """The warnings to be shown at the end."""
        return self._view.state.warnings


class _Terminal:
    """The live view, drawn over itself."""

    def __init__(self, to: TextIO) -> None:
        from ketch.cli.output.build_live import LiveView, columns

        self._to = to
        self._view = LiveView()
        self._columns = columns
        self._drawn: list[str] = []
        self._coloured = colours.wanted(to)
        self._next = 0.0
        self._ahead: int | None = None  # of our clock, compared with the daemon's

    def feed(self, message: Message) -> None:
        """Take it; it is drawn now or soon."""
        self._view.feed(message)
        if self._ahead is None and self._view.state.began_at is not None:
            self._ahead = time.time_ns() - self._view.state.began_at
        if time.monotonic() >= self._next:
            self.refresh()

    def refresh(self) -> None:
        """Draw again."""
        width, height = self._size()
        self._draw(self._view.lines(width - 1, height - 1, self._now()), width)
        self._next = time.monotonic() + _EVERY_S

    def close(self) -> None:
        """Draw all steps, and leave them there."""
        width, height = self._size()
        self._draw(self._view.lines(width - 1, height - 1, self._now(), final=True), width)
        self._to.write(self._view.failures())

    def warnings(self) -> list[Message]:
        """The warnings to be shown at the end."""
        return self._view.state.warnings

    def _size(self) -> tuple[int, int]:
        """Columns and lines of the terminal; 80 and 24 where it does not tell."""
        try:
            found = os.get_terminal_size(self._to.fileno())
        except (OSError, ValueError):
            return 80, 24
        return found.columns or 80, found.lines or 24

    def _now(self) -> int:
        return time.time_ns() - (self._ahead or 0)

    def _draw(self, lines: list[LiveLine], width: int) -> None:
        """Replace what was drawn, in one piece (a terminal that knows ?2026 shows nothing in between).

        A terminal that has become narrower has wrapped what was drawn.
        """
        up = sum(max(1, -(-self._columns(text) // max(width, 1))) for text in self._drawn)
        body = "".join(f"{self._styled(line)}\x1b[K\n" for line in lines)
        back = f"\x1b[{up}A\r" if up else "\r"
        self._to.write(f"\x1b[?2026h\x1b[?25l{back}{body}\x1b[J\x1b[?25h\x1b[?2026l")
        self._to.flush()
        self._drawn = [line.text for line in lines]

    def _styled(self, line: LiveLine) -> str:
        return colours.painted(line.text, _STYLES[line.style]) if line.style and self._coloured else line.text


def warnings_text(warnings: list[Message], *, details: bool = False) -> str:
    """The warnings of a build, at its end."""
    if not warnings:
        return ""
    number = len(warnings)
    head = f"{number} warning{'s' if number > 1 else ''} found" + ("" if details else " (use --debug to expand)")
    lines = [f"\n {head}:"]
    for warning in warnings:
        lines.append(f" - {printable.cell(text_of(warning.get('short')))}")
        if details:
            lines += [printable.lines(text_of(text)) for text in warning.get("detail") or ()]
            lines += [f"More info: {printable.cell(warning['url'])}"] if warning.get("url") else []
            lines += [*_excerpt(warning), ""]
    return "\n".join(lines) + "\n"


def _excerpt(warning: Message) -> list[str]:
    """The lines that a warning is about, with those around them, as BuildKit shows them."""
    source, ranges = warning.get("sourceInfo") or {}, warning.get("range") or []
    if not source or not ranges:
        return []
    text = text_of(source.get("data")).split("\n")
    start = min(int(r["start"]["line"]) for r in ranges)
    end = min(max(int((r.get("end") or r["start"])["line"]) for r in ranges), len(text))
    first, last, more = start, end, 4 if start == end else 2
    while more > 0:  # in turn before and behind; where the file ends, the other side gets more
        more -= 1 + (first > 1 and last < len(text))
        first, last = max(first - 1, 1), min(last + 1, len(text))
    rule = "-" * 20
    shown = [
        f" {n:3} | {'>>>' if start <= n <= end else '   '} {printable.cell(text[n - 1].rstrip(chr(13)).expandtabs())}"
        for n in range(first, last + 1)
    ]
    return [f"{printable.cell(str(source.get('filename', '')))}:{start}", rule, *shown, rule]
