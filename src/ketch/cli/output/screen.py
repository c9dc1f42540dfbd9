"""A terminal that is drawn on in place: another screen for the time, and frames as large as it is."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from ketch import printable
from ketch.contexts import contextmanager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TextIO

_BEGIN, _END = "\033[?1049h\033[?25l", "\033[?25h\033[?1049l"  # another screen without a cursor, and back
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def screen(out: TextIO) -> Iterator[None]:
    """A context in which the terminal is drawn on; it is restored in any case.

    SIGTERM and SIGHUP end the context as SIGINT does, by KeyboardInterrupt, and the first of them does: those that
    follow find the terminal being restored.
    """
    before = {number: signal.getsignal(number) for number in _ENDS}

    def end(_number: int, _frame: object) -> None:
        for number in _ENDS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in _ENDS:
        signal.signal(number, end)
    try:
        out.write(_BEGIN)
        yield
    finally:
        out.write(_END)
        out.flush()
        for number, handler in before.items():
            signal.signal(number, handler)


def size(out: TextIO) -> tuple[int, int]:
    """The terminal's (lines, columns); zeros where it does not know."""
    found = os.get_terminal_size(out.fileno())
    return found.lines, found.columns


def draw(
    out: TextIO, lines: Sequence[str], inverse: int = -1, *, paint: Callable[[list[str]], list[str]] = list
) -> None:
    """Draw a frame over the one before; what does not fit is cut off, and control characters are shown.

    ``inverse`` is the number of the line that stands out; ``paint`` adds colours to the lines as they are shown.
    """
    rows, columns = size(out)
    if rows and columns:
        lines = [line[:columns] for line in lines[: rows - 1]]
    text = ""
    for number, line in enumerate(paint([printable.lines(line) for line in lines])):
        text += f"\033[7m{line}\033[0m\033[K\n" if number == inverse else f"{line}\033[K\n"
    out.write(f"\033[H{text}\033[J")
    out.flush()
