"""``ketch top`` without a container: the load of all of them, drawn in place, or once where there is no terminal."""

from __future__ import annotations

import os
import re
import select
import signal
import threading
from typing import TYPE_CHECKING

from ketch.cli import colours
from ketch.cli.output.listing import Listing
from ketch.cli.output.screen import draw, screen, size
from ketch.cli.top.rows import KEYS, loads, ordered
from ketch.cli.top.view import COLUMNS, TITLES, Choice, frame, rows_shown
from ketch.contexts import contextmanager
from ketch.errors import InvalidArgument, KetchError, NotFound, Unavailable, Unimplemented

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.cli.context import Context
    from ketch.cli.options.flags import Options
    from ketch.cli.top.rows import ContainerLoad, UsageLine
    from ketch.client.http import Response

_LISTING = Listing(COLUMNS, {"ID": "CONTAINER ID", "MemLimit": "LIMIT"})
_SORTS = {"c": "cpu", "m": "memory", "i": "network", "b": "block", "p": "pids", "n": "name"}
_ARROWS = {"\033[A": -1, "\033[B": 1, "k": -1, "j": 1, "\033OA": -1, "\033OB": 1}
_PAGES = {"\033[5~": -1, "\033[6~": 1, " ": 1}
_ENDS = ("q", "Q", "\x04")
_KEY = re.compile(r"\033(?:\[\d{0,9}[A-Za-z~]|O[A-Za-z])|.", re.DOTALL)  # several may have been typed by the time


def show_all(ctx: Context, opts: Options) -> int:
    """Show the load of all containers until somebody has seen enough."""
    key = opts["sort"] or "cpu"
    if key not in KEYS:
        raise InvalidArgument(f"invalid --sort `{key}`", hint=f"use one of {', '.join(KEYS)}")
    stream = _stream(ctx, opts)
    if opts["no-stream"] or opts["format"] or not colours.takes_escapes(ctx.out):
        lines = stream.stream_lines()
        before = next(lines, None)
        now = next(lines, None)
        stream.close()
        if now is None:
            raise _gone()
        rows = ordered(loads(before, now), key, backwards=opts["reverse"])
        ctx.show(_LISTING.text([row.cells() for row in rows], opts["format"]))
        return 0
    try:
        with screen(ctx.out), _keys():
            _Live(ctx, stream, Choice(key, opts["reverse"])).run()
    except KeyboardInterrupt:
        pass
    return 0


def _stream(ctx: Context, opts: Options) -> Response:
    query = {"all": opts["all"], "interval": opts["interval"] or None}
    try:
        return ctx.client().request("GET", "/ketch/stats", query, stream=True)
    except NotFound as e:
        raise Unimplemented(
            "top of all containers: the daemon is not ketchd, which has one stream for them", hint="use: ketch stats"
        ) from e


def _gone() -> Unavailable:
    return Unavailable("the daemon went away", hint="is it running? see: ketch daemon status")


@contextmanager
def _keys() -> Iterator[None]:
    """A context in which keys arrive as they are pressed, unseen; ^Z, which would leave the screen as it is, is one."""
    if not os.isatty(0):
        yield
        return
    import termios
    import tty

    saved = termios.tcgetattr(0)
    try:
        tty.setcbreak(0, termios.TCSANOW)
        own = termios.tcgetattr(0)
        own[6][termios.VSUSP] = b"\0"
        termios.tcsetattr(0, termios.TCSANOW, own)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSANOW, saved)


class _Live:
    """The frames of one terminal.  A thread reads the daemon's lines; a pipe tells of them, and of a new size."""

    def __init__(self, ctx: Context, stream: Response, view: Choice) -> None:
        self._ctx, self._stream, self._view = ctx, stream, view
        self._found: list[ContainerLoad] = []
        self._failure: KetchError | OSError | None = None
        self._wake, self._woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        """Draw until `q` is pressed (KetchError: the daemon went away)."""
        threading.Thread(target=self._read, daemon=True).start()
        signal.signal(signal.SIGWINCH, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        sources = [self._wake, 0] if os.isatty(0) else [self._wake]
        while True:
            ready, _, _ = select.select(sources, [], [])
            if self._wake in ready:
                os.read(self._wake, 4096)
            if 0 in ready:
                typed = os.read(0, 256).decode(errors="replace")
                if not typed or not all(self._takes(key) for key in _KEY.findall(typed)):
                    return
            if self._failure is not None:
                raise self._failure
            draw(self._ctx.out, frame(self._found, self._view, *size(self._ctx.out)), TITLES)

    def _read(self) -> None:
        """Read the lines, in a thread."""
        before: UsageLine | None = None
        try:
            for line in self._stream.stream_lines():
                self._found = loads(before, line)
                before = line
                os.write(self._woken, b"l")
            self._failure = _gone()
        except (KetchError, OSError) as e:
            self._failure = e
        os.write(self._woken, b"l")

    def _takes(self, key: str) -> bool:
        """Do what a key means; False: enough."""
        view, rows = self._view, rows_shown(size(self._ctx.out)[0])
        if key in _ENDS:
            return False
        if key in _SORTS:
            view = view._replace(key=_SORTS[key], top=0)
        elif key == "r":
            view = view._replace(backwards=not view.backwards, top=0)
        step = _ARROWS.get(key, 0) + _PAGES.get(key, 0) * rows
        top = min(view.top + step, max(len(self._found) - rows, 0))
        self._view = view._replace(top=max(top, 0))
        return True
