"""The view of a pull's, push's or load's progress: the daemon's reports by layer, as lines of text.

a1b2c3d4e5f6  Downloading   ━━━━━━━━━━━━╸───────────  31.2MB/52.4MB  48.1MB/s  1s left
0f9e8d7c6b5a  Pull complete
2 of 5 done · 71.4MB/210MB · 96.3MB/s · 2s left
"""

from __future__ import annotations

from ketch.notation.sizes import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.notation.api_objects import ApiObject

_DONE = frozenset(
    (
        "Pull complete",
        "Already exists",
        "Pushed",
        "Layer already exists",
        "Skipped foreign layer",
        "Saved",
    )
)
_MOVED = ("Downloading", "Pushing", "Loading layer", "Saving")
_SMOOTH = 0.3
_NARROW = 60


class LayerProgress:
    """One layer: its state and its speed."""

    def __init__(self, ident: str) -> None:
        self.ident = ident
        self.status = ""
        self.current = self.total = 0
        self.speed = 0.0
        self.moved = 0  # of bytes that come or go, as opposed to those that are unpacked
        self.moved_total = 0
        self._at = 0.0

    def feed(self, item: ApiObject, now: float) -> None:
        """Process a report."""
        status = item.get("status", "")
        detail = item.get("progressDetail") or {}
        current, total = detail.get("current") or 0, detail.get("total") or 0
        if status != self.status:
            self.speed, self._at, self.current = 0.0, now, current
        elif now > self._at:
            fresh = max(current - self.current, 0) / (now - self._at)
            self.speed = fresh if not self.speed else _SMOOTH * fresh + (1 - _SMOOTH) * self.speed
            self._at, self.current = now, current
        self.status, self.total = status, total
        if status in _MOVED and total:
            self.moved, self.moved_total = current, total
        elif status in ("Download complete", "Verifying Checksum", "Extracting", "Pull complete", "Pushed"):
            self.moved = self.moved_total

    @property
    def done(self) -> bool:
        return self.status in _DONE or self.status.startswith("Mounted from")


class ProgressView:
    """All layers of one pull, push or load."""

    def __init__(self) -> None:
        self.rows: dict[str, LayerProgress] = {}

    def feed(self, item: ApiObject, now: float) -> str | None:
        """Process a report; returns a permanent line when it is of no layer."""
        ident, status = str(item.get("id") or ""), item.get("status", "")
        if ident and (ident in self.rows or not status.startswith("Pulling from")):
            if ident not in self.rows:
                self.rows[ident] = LayerProgress(ident)
            self.rows[ident].feed(item, now)
            return None
        return f"{ident}: {status}" if ident else status

    def lines(self, width: int, height: int, *, plain: bool = False) -> list[str]:
        """The view in at most ``height`` lines of at most ``width`` columns; ``plain``: ASCII only."""
        rows = list(self.rows.values())
        if not rows or width < 10 or height < 2:
            return []
        room = height - 1
        shown = rows
        if len(rows) > room:
            active = [row for row in rows if not row.done]
            shown = active[: room - 1]
        lines = [_line(row, width, plain) for row in shown]
        if len(shown) < len(rows):
            hidden = len(rows) - len(shown)
            lines.append(f"{'...' if plain else '…'} and {hidden} more"[:width])
        return [*lines, self._summary(plain)[:width]]

    def _summary(self, plain: bool) -> str:
        rows = self.rows.values()
        moved, total = sum(r.moved for r in rows), sum(r.moved_total for r in rows)
        speed = sum(r.speed for r in rows if r.status in _MOVED)
        parts = [f"{sum(r.done for r in rows)} of {len(rows)} done"]
        if total:
            parts.append(f"{human_size(moved)}/{human_size(total)}")
        if speed and moved < total:
            parts += [f"{human_size(speed)}/s", f"{remaining((total - moved) / speed)} left"]
        return (" - " if plain else " · ").join(parts)


def _line(row: LayerProgress, width: int, plain: bool) -> str:
    head = f"{row.ident[:12]:<12}  {row.status}"
    if not row.total or row.done:
        return head[:width]
    figures = f"{human_size(row.current)}/{human_size(row.total)}"
    if row.speed:
        figures += f"  {human_size(row.speed)}/s"
        if row.current < row.total:
            figures += f"  {remaining((row.total - row.current) / row.speed)} left"
    if width < _NARROW:
        return f"{head}  {figures}"[:width]
    head = f"{row.ident[:12]:<12}  {row.status:<15.15}"
    space = width - len(head) - 2 - 2 - max(len(figures), 38)
    return f"{head}  {bar(row.current, row.total, max(space, 5), plain)}  {figures}"[:width]


def bar(current: int, total: int, width: int, plain: bool) -> str:
    """A progress bar of so many columns."""
    halves = min(2 * width, 2 * width * current // total)
    full, half = divmod(halves, 2)
    if plain:
        return "#" * full + "-" * (width - full)
    return "━" * full + "╸" * half + "─" * (width - full - half)


def remaining(seconds: float) -> str:
    """``12s``, ``3m05s``, ``1h10m``."""
    whole = max(round(seconds), 1)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest:02}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02}m"
