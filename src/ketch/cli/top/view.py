"""A frame of ``ketch top``, for the size of a terminal: a head, the columns that fit, and the keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ketch.cli.top.rows import ordered
from ketch.notation.sizes import human_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.cli.top.rows import ContainerLoad

COLUMNS = [
    ("NAME", "Name"),
    ("CPU %", "CPUPerc"),
    ("MEM", "MemUsage"),
    ("MEM %", "MemPerc"),
    ("NET IN", "NetIn"),
    ("NET OUT", "NetOut"),
    ("READ", "BlockRead"),
    ("WRITE", "BlockWrite"),
    ("PIDS", "PIDs"),
    ("STATE", "State"),
]
_FIELDS = {
    "cpu": "CPUPerc",
    "memory": "MemUsage",
    "network": "NetIn",
    "block": "BlockRead",
    "pids": "PIDs",
    "name": "Name",
}
_LEFT = ("Name", "State")  # the others are numbers
_DISPENSABLE = (
    "State",
    "BlockRead",
    "BlockWrite",
    "MemPerc",
    "NetIn",
    "NetOut",
    "PIDs",
    "MemUsage",
)  # the first goes first
_GAP, _SHORTEST_NAME, _USUAL_NAME = 2, 10, 20
_KEYS_LINE = "sort: c cpu  m memory  i net  b block  p pids  n name   r reverse   q quit"
TITLES = 2  # the number of the line with the titles


class Choice(NamedTuple):
    """The choices of who looks; ``top`` is the number of the first container that is shown."""

    key: str = "cpu"
    backwards: bool = False
    top: int = 0


def frame(found: Sequence[ContainerLoad], view: Choice, lines: int, columns: int) -> list[str]:
    """The lines of a frame; 0 lines or columns: as many as it takes."""
    loads = ordered(found, view.key, backwards=view.backwards)
    room = rows_shown(lines) if lines else len(loads)
    first = min(view.top, max(len(loads) - room, 0))
    table = _table(loads, view, columns)
    shown = table[1:][first : first + room]
    more = len(loads) - len(shown)
    last = f"{more} more: up and down   {_KEYS_LINE}" if more else _KEYS_LINE
    return [_summary(found), "", table[0], *shown, *[""] * (room - len(shown)), last]


def rows_shown(lines: int) -> int:
    """The number of containers for which a terminal of so many lines has room: the last line stays empty."""
    return max(lines - TITLES - 3, 1)


def _summary(loads: Sequence[ContainerLoad]) -> str:
    running = [load for load in loads if load.state == "running"]
    others = len(loads) - len(running)
    count = f"{len(running)} running" + (f", {others} not" if others else "")
    cpu, memory = sum(load.cpu or 0.0 for load in loads), sum(load.memory for load in loads)
    return f"ketch top   {count}   cpu {cpu:.1f}%   memory {human_bytes(memory)}"


def _table(loads: Sequence[ContainerLoad], view: Choice, columns: int) -> list[str]:
    """The titles and the rows, without the columns for which there is no room."""
    cells = [load.cells() for load in loads]
    mark = "^" if view.backwards else "v"
    chosen = _FIELDS[view.key]
    titles = {field: title + mark if field == chosen else title for title, field in COLUMNS}
    rows = [titles, *cells]
    widths = {field: max(len(row[field]) for row in rows) for _, field in COLUMNS}
    for field in _DISPENSABLE:
        if not columns or _width(widths, usual=True) <= columns:
            break
        del widths[field]
    if columns:
        room = columns - (_width(widths) - widths["Name"])
        widths["Name"] = min(widths["Name"], max(room, _SHORTEST_NAME))
    return [_line(row, widths) for row in rows]


def _width(widths: dict[str, int], *, usual: bool = False) -> int:
    name = min(widths["Name"], _USUAL_NAME) if usual else widths["Name"]
    return sum(widths.values()) - widths["Name"] + name + _GAP * (len(widths) - 1)


def _line(row: dict[str, str], widths: dict[str, int]) -> str:
    cells = []
    for field, width in widths.items():
        text = row[field][:width]
        cells.append(text.ljust(width) if field in _LEFT else text.rjust(width))
    return (" " * _GAP).join(cells).rstrip()
