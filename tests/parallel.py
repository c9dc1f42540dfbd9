"""How tests are spread over worker processes: what takes longest first, and the tests of a file together, for the
daemons that they share take longer to start than most tests to run.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    import pytest

# The files that take longest, in this order, with the number of parts that each may be cut into.
LONG: dict[str, int] = {}


def workers() -> int:
    """How many suit this machine: tests mostly wait."""
    return min(2 * len(os.sched_getaffinity(0)), 8)


def longest_first(items: list[pytest.Item]) -> None:
    """Sort the tests that were collected; each worker has to do that alike."""
    rank = {file: place for place, file in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(_file(item.nodeid), len(rank)))


class Units(LoadScopeScheduling):
    """Gives the next file, or the next part of one, to the worker that has nothing left to do."""

    _units: dict[str, str] | None = None

    def _split_scope(self, nodeid: str) -> str:
        if self._units is None:
            self._units = units(next(iter(self.registered_collections.values())))
        return self._units[nodeid]


def units(tests: list[str]) -> dict[str, str]:
    """{a test's id: the name of its unit}."""
    sizes, seen, found = Counter(map(_file, tests)), Counter[str](), {}
    for test in tests:
        file = _file(test)
        found[test] = f"{file} {seen[file] * LONG.get(file, 1) // sizes[file]}"
        seen[file] += 1
    return found


def _file(test: str) -> str:
    return test.partition("::")[0].rpartition("/")[2]
