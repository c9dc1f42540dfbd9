"""``top``: the processes of a container as ``ps`` would show them; no program is run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ketch.engine.model.reports import ProcessTable
from ketch.engine.stats import ps_fields, ps_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ketch.engine.stats.ps_options import PsFormat

Facts = dict[str, str]
_WIDEST = 400  # characters before a command that show how deep it is
_ALL_ARGUMENTS, _LEAST_ARGUMENTS, _MOST_ARGUMENTS = 16 << 20, 4 << 10, 128 << 10  # bytes: of all, of each process
_COMMANDS = ("args", "cmd", "command", "comm", "ucmd", "ucomm")


def table(pids: list[int], ps_args: str) -> ProcessTable:
    """``{"Titles": […], "Processes": [[…], …]}`` for these host pids; those that ended meanwhile are left out.

    InvalidArgument for options that ps does not have, or that leave out the pid.
    """
    listing = ps_options.parse(ps_args or "-ef")
    machine = ps_fields.Machine.look()
    tasks = [(pid, tid) for pid in sorted(pids) for tid in (_threads(pid) if listing.threads else (None,))]
    # Children share their parent's arguments, and cost a container nothing; here each would have its own.
    room = min(max(_ALL_ARGUMENTS // max(len(tasks), 1), _LEAST_ARGUMENTS), _MOST_ARGUMENTS)
    found = [facts for facts in _facts(tasks, machine, room) if listing.takes(facts)]
    for key, descending in reversed(listing.sort):
        found.sort(key=lambda facts, key=key: _sort_key(facts, key), reverse=descending)  # type: ignore[misc]
    if listing.forest:
        found = list(_tree(found, lines=listing.forest == "lines"))
    return ProcessTable([c.title for c in listing.columns], [_row(facts, listing) for facts in found])


def _threads(pid: int) -> list[int]:
    try:
        return sorted(map(int, os.listdir(f"/proc/{pid}/task")))
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return []


def _facts(tasks: Iterable[tuple[int, int | None]], machine: ps_fields.Machine, room: int) -> Iterator[Facts]:
    for pid, tid in tasks:
        try:
            yield ps_fields.facts(pid, machine, room, tid)
        except (FileNotFoundError, ProcessLookupError):
            continue


def _row(facts: Facts, listing: PsFormat) -> list[str]:
    cells = []
    for key, _, width in listing.columns:
        cell = facts[key]
        if key == "wchan" and width:
            cell = cell[:width]
        cells.append(facts.get("branch", "") + cell if key in _COMMANDS else cell)
    return cells


def _sort_key(facts: Facts, key: str) -> tuple[float, str]:
    text = facts[key]
    try:
        return (float(text) if key in ps_fields.NUMBERS else 0.0, text)
    except ValueError:
        return (-1.0, text)


def _tree(found: list[Facts], *, lines: bool) -> Iterator[Facts]:
    r"""Children below their parents, with ``\_`` before the command (``--forest``) or only further to the right.

    A container's processes may make a chain of any length, and each may have any number of threads.
    """
    processes: dict[str, list[Facts]] = {}  # rows by pid: with threads there are several
    for facts in found:
        processes.setdefault(facts["pid"], []).append(facts)
    children: dict[str, list[str]] = {}
    for pid, rows in processes.items():
        parent = rows[0]["ppid"]
        children.setdefault(parent if parent in processes else "", []).append(pid)
    waiting = [(pid, "", pid == children[""][-1]) for pid in reversed(children.get("", []))]
    while waiting:
        pid, indent, last = waiting.pop()
        for facts in processes[pid]:
            yield {**facts, "branch": f"{indent}\\_ " if lines else indent}
        further = "  " if not lines else "    " if last else " |  "
        deeper = indent + further if len(indent) < _WIDEST else indent
        below = children.get(pid, [])
        waiting += [(child, deeper, child == below[-1]) for child in reversed(below)]
