"""Summary of noteworthy findings from the reports of all tests, also of a green run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support import peers, programs
from tests.support.clients import places
from tests.support.projects import base

if TYPE_CHECKING:
    from collections.abc import Iterator

Stats = dict[str, list[Any]]  # pytest's: {outcome: reports}


def lines(stats: Stats) -> Iterator[str]:
    """The lines for the end of the run."""
    reasons = [str(report.longrepr[-1]) for report in stats.get("skipped", ())]
    if peers.MISSING and (skipped := sum(peers.MISSING in reason for reason in reasons)):
        yield f"{skipped} skipped: {peers.MISSING}"
    for why in sorted({reason.partition("Skipped: ")[2] or reason for reason in reasons if _not_made(reason)}):
        yield f"{sum(why in reason for reason in reasons)} skipped: {why}"
    if names := programs.missing(reasons):
        yield f"skipped for want of a program: {', '.join(names)}"
    yield from _crash_matrix(stats)
    yield from _interop_matrix(stats)


def _not_made(reason: str) -> bool:
    return places.SKIPPED in reason or base.SKIPPED in reason


def _crash_matrix(stats: Stats) -> Iterator[str]:
    """How many points of the crash matrix were visited, and at how many everything was in order afterwards."""
    visited: dict[str, set[str]] = {"passed": set(), "failed": set(), "error": set()}
    for outcome, found in visited.items():
        for report in stats.get(outcome, ()):
            name = getattr(report, "nodeid", "").partition("test_crash_matrix.py::test_point[")[2]
            if name:
                found.add(name.rpartition("-")[0].partition(":")[0])
    bad = visited["failed"] | visited["error"]
    if points := bad | visited["passed"]:
        yield f"crash matrix: {len(points)} points, {len(points - bad)} survived"


def _interop_matrix(stats: Stats) -> Iterator[str]:
    """Clients against registries: ✓ pulled, pushed, and pulled from there by Ketch, with the same bytes."""
    marks: dict[tuple[str, str], str] = {}
    for outcome, mark in (("passed", "✓"), ("failed", "✗"), ("error", "✗")):
        for report in stats.get(outcome, ()):
            name = getattr(report, "nodeid", "").partition("test_interop.py::test_interop[")[2].rstrip("]")
            if name and (outcome != "passed" or report.when == "call"):
                server, _, client = name.rpartition("-")
                marks[server, client] = mark
    if not marks:
        return
    # Whichever process was first, tables look the same.
    servers, clients = (sorted({key[n] for key in marks}) for n in (0, 1))
    yield "interop matrix" + "".join(f"{server:>18}" for server in servers)
    for client in clients:
        yield f"{client:>14}" + "".join(f"{marks.get((server, client), '-'):>18}" for server in servers)
