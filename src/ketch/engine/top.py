"""``top``: the processes of a container as ``ps`` would show them; no program is run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ketch.engine import psfields, psoptions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ketch.engine.psoptions import Listing

Facts = dict[str, str]
_COMMANDS = ("args", "cmd", "command", "comm", "ucmd", "ucomm")


def table(pids: list[int], ps_args: str) -> dict[str, Any]:
    """``{"Titles": […], "Processes": [[…], …]}`` for these host pids; those that ended meanwhile are left out.

    InvalidArgument for options that ps does not have, or that leave out the pid.
    """
    listing = psoptions.parse(ps_args or "-ef")
    machine = psfields.Machine.look()
    wanted = sorted(pid for pid in pids if listing.pids is None or pid in listing.pids)
    found = list(_facts(wanted, machine, listing.threads))
    for key, descending in reversed(listing.sort):
        found.sort(key=lambda facts, key=key: _sort_key(facts, key), reverse=descending)  # type: ignore[misc]
    if listing.forest:
        found = list(_tree(found, lines=listing.forest == "lines"))
    return {"Titles": [c.title for c in listing.columns], "Processes": [_row(facts, listing) for facts in found]}


def _facts(pids: Iterable[int], machine: psfields.Machine, threads: bool) -> Iterator[Facts]:
    for pid in pids:
        try:
            if threads:
                for tid in sorted(map(int, os.listdir(f"/proc/{pid}/task"))):
                    yield psfields.facts(pid, machine, tid)
            else:
                yield psfields.facts(pid, machine)
        except (FileNotFoundError, ProcessLookupError):
            continue


def _row(facts: Facts, listing: Listing) -> list[str]:
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
        return (float(text) if key in psfields.NUMBERS else 0.0, text)
    except ValueError:
        return (-1.0, text)


def _tree(found: list[Facts], *, lines: bool) -> Iterator[Facts]:
    r"""Children below their parents, with ``\_`` before the command (``--forest``) or only further to the right."""
    children: dict[str, list[Facts]] = {}
    here = {facts["pid"] for facts in found}
    for facts in found:
        children.setdefault(facts["ppid"] if facts["ppid"] in here else "", []).append(facts)

    waiting = [(iter(_marked(children.get("", []))), "")]
    while waiting:
        siblings, indent = waiting[-1]
        for facts, is_last in siblings:
            yield {**facts, "branch": f"{indent}\\_ " if lines else indent}
            further = "  " if not lines else "    " if is_last else " |  "
            waiting.append((iter(_marked(children.get(facts["pid"], []))), indent + further))
            break
        else:
            waiting.pop()


def _marked(siblings: list[Facts]) -> list[tuple[Facts, bool]]:
    """Each with whether it is the last."""
    return [(facts, facts is siblings[-1]) for facts in siblings]
