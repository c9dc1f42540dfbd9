"""Output of the daemon's progress: redrawn on a terminal, elsewhere a line for each step, or JSON."""

from __future__ import annotations

import shutil
import time

from ketch import printable
from ketch.cli import colours
from ketch.cli.output.progress_view import ProgressView
from ketch.client.errors import error_of
from ketch.notation import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, TextIO

    from ketch.cli.context import Context
    from ketch.notation.api_objects import ApiObject

_EVERY_S = 0.1


class Progress:
    """The output of one progress stream to ``to`` (standard output by default)."""

    def __init__(self, ctx: Context, mode: str = "auto", to: TextIO | None = None) -> None:
        self._ctx = ctx
        self._to = to or ctx.out
        drawn = mode == "auto" and colours.takes_escapes(self._to)
        self._mode = "drawn" if drawn else "plain" if mode == "auto" else mode
        self._view = ProgressView()
        self._shown: dict[str, str] = {}
        self._height = 0
        self._next = 0.0
        self._ascii = "utf" not in (getattr(self._to, "encoding", "") or "").lower()

    def run(self, items: Iterator[Any]) -> str:
        """Show the whole stream; returns the last plain status (KetchError of the daemon)."""
        status = ""
        try:
            for item in items:
                if "error" in item:
                    raise error_of(item["error"], (item.get("errorDetail") or {}).get("kind", ""))
                if self._mode == "json":
                    self._write(documents.dumps(item) + "\n")
                elif "stream" in item:
                    self._erase()
                    self._ctx.print(printable.lines(item["stream"].rstrip("\n")))
                elif "status" in item:
                    self._show(_printable(item))
                status = item.get("status", status) if not item.get("id") else status
            if self._mode == "drawn":
                self._draw(time.monotonic())
        except BaseException:
            if self._mode == "drawn":
                self._draw(time.monotonic())
            raise
        return str(status)

    def moved(self, ident: str, status: str, current: int, total: int) -> None:
        """Show bytes that the command line itself has moved."""
        self._show({"id": ident, "status": status, "progressDetail": {"current": current, "total": total}})
        if not total and self._mode == "drawn":
            self._draw(time.monotonic())

    def _show(self, item: ApiObject) -> None:
        if self._mode == "quiet" or item["status"].startswith("sha256:"):
            return
        if self._mode == "plain":
            self._plain(item)
            return
        now = time.monotonic()
        line = self._view.feed(item, now)
        if line is not None:
            self._erase()
            self._write(line + "\n")
            self._draw(now)
        elif now >= self._next:
            self._draw(now)

    def _plain(self, item: ApiObject) -> None:
        """Print each state of a layer once."""
        ident, status = str(item.get("id") or ""), item["status"]
        if ident and self._shown.get(ident) == status:
            return
        if (item.get("progressDetail") or {}).get("current") is not None:
            return
        self._shown[ident] = status
        self._write((f"{ident}: {status}" if ident else status) + "\n")

    def _draw(self, now: float) -> None:
        size = shutil.get_terminal_size()
        lines = self._view.lines(size.columns - 1, size.lines - 1, plain=self._ascii)
        up = f"\033[{self._height}A" if self._height else ""
        self._write(up + "".join(f"\r\033[K{line}\n" for line in lines) + ("\033[J" if self._height else ""))
        self._height = len(lines)
        self._next = now + _EVERY_S

    def clear(self) -> None:
        """Take the view away: what it showed is done, and lines that stay are printed."""
        self._erase()

    def _erase(self) -> None:
        """Erase the view, before permanent lines."""
        if self._height:
            self._write(f"\033[{self._height}A\r\033[J")
            self._height = 0

    def _write(self, text: str) -> None:
        self._to.write(text)
        self._to.flush()


def _printable(item: ApiObject) -> ApiObject:
    """A report without control characters in its texts, which may be a registry's."""
    shown = {name: printable.cell(str(item[name])) for name in ("id", "status") if item.get(name)}
    return {**item, **shown}
