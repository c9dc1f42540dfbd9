"""Which subordinate ids a user has whose lines overlap, or name what is not theirs to give."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.rootless.user_ids import distinct

SOME = st.tuples(st.integers(0, 60), st.integers(1, 30))


def ids(ranges) -> list[int]:
    return [first + number for first, count in ranges for number in range(count)]


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([(100, 10), (300, 5)], [(100, 10), (300, 5)]),
        ([(300, 5), (100, 10)], [(300, 5), (100, 10)]),  # the file's order: ids in images stay what they are
        ([(100, 10), (100, 10)], [(100, 10)]),
        ([(100, 10), (105, 10)], [(100, 15)]),
        ([(105, 10), (100, 10)], [(105, 10), (100, 5)]),
        ([(100, 5), (105, 5)], [(100, 10)]),
        ([(0, 10)], [(1, 6), (8, 2)]),  # neither root nor the user, 7
        ([(7, 1)], []),
    ],
)
def test_ranges(ranges, expected):
    assert distinct(ranges, {0, 7}) == expected


@given(st.lists(SOME, max_size=6), st.sets(st.integers(0, 90), max_size=3))
def test_nobody_is_mapped_twice(ranges, others):
    """Each id that a line has comes once, when the first line has it."""
    found = ids(distinct(ranges, others))
    assert found == [one for one in dict.fromkeys(ids(ranges)) if one not in others]
