"""Colours on a terminal: of errors, of the titles of help texts, of containers' states.

Nothing is coloured elsewhere than on a terminal that takes escape sequences, nor where ``NO_COLOR`` is set and not
empty (no-color.org).  What is coloured has been made safe before (`printable`).
"""

from __future__ import annotations

import os

from ketch import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from ketch.errors import KetchError

# Parameters of SGR (ECMA-48 §8.3.117).
BOLD, ERROR, WARNING = "1", "1;31", "1;33"
_GOOD, _BAD, _UNSETTLED = "32", "31", "33"
_WARNING = "WARNING:"
_USAGE = "Usage:"


def takes_escapes(stream: TextIO) -> bool:
    """Whether it is a terminal that can be drawn on: ``TERM`` names it, and not as ``dumb``."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def wanted(stream: TextIO) -> bool:
    """Whether what is written there is to be coloured."""
    return takes_escapes(stream) and not os.environ.get("NO_COLOR")


def painted(text: str, style: str) -> str:
    """The text in a style; an empty one changes nothing."""
    return f"\x1b[{style}m{text}\x1b[0m" if style and text else text


def complaint(error: KetchError, stream: TextIO) -> str:
    """The lines that tell an error, for ``stream``."""
    name = painted("ketch:", ERROR) if wanted(stream) else "ketch:"
    return f"{name} {printable.lines(error.message)}\n" + (f"  {printable.lines(error.hint)}\n" if error.hint else "")


def remark(text: str, stream: TextIO) -> str:
    """The lines of a remark, for ``stream``; the first word of a warning stands out."""
    safe = printable.lines(text)
    if not safe.startswith(_WARNING) or not wanted(stream):
        return safe
    return painted(_WARNING, WARNING) + safe.removeprefix(_WARNING)


def help_text(text: str, stream: TextIO) -> str:
    """A help text for ``stream``, with bold titles."""
    if not wanted(stream):
        return text
    return "".join(map(_titled, text.splitlines(keepends=True)))


def _titled(line: str) -> str:
    if line.startswith(_USAGE):
        return painted(_USAGE, BOLD) + line.removeprefix(_USAGE)
    title = line.rstrip("\n")
    return painted(title, BOLD) + "\n" if title.endswith(":") and not title.startswith(" ") else line


def states(lines: list[str]) -> list[str]:
    """The lines of a table of containers, titles first, with the column of their states coloured."""
    begin, behind = (lines[0].find(title) for title in ("STATUS", "PORTS"))
    end = behind if behind > 0 else len(lines[0])
    return lines if begin < 0 else [lines[0], *(_stated(line, begin, end) for line in lines[1:])]


def _stated(line: str, begin: int, end: int) -> str:
    state = line[begin:end].rstrip()
    return line[:begin] + painted(state, _style(state)) + line[begin + len(state) :]


def _style(state: str) -> str:
    """The style of a state as `ps` has it: ``Up 5 minutes (unhealthy)``, ``Exited (1) 2 hours ago``."""
    if state.startswith("Up"):
        if state.endswith("(unhealthy)"):
            return _BAD
        return _UNSETTLED if state.endswith(("(Paused)", "(health: starting)")) else _GOOD
    if state.startswith("Exited (") and ")" in state and not state.startswith("Exited (0)"):
        return _BAD
    if state.startswith(("Dead", "Removal")):
        return _BAD
    return _UNSETTLED if state.startswith("Restarting") else ""
