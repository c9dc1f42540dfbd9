"""Lists of processors and memory nodes, as cpuset(7) writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.linux import scheduler


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 5)), max_size=5), st.sampled_from([",", ", ", " ,"]))
def test_lists_are_read(ranges: list[tuple[int, int]], comma: str) -> None:
    text = comma.join(f"{first}-{first + more}" if more else str(first) for first, more in ranges)
    assert scheduler.parse_list(text) == {n for first, more in ranges for n in range(first, first + more + 1)}


@given(st.text("0123456789-, x", max_size=8))
def test_any_text_is_a_list_or_none(text: str) -> None:
    try:
        numbers = scheduler.parse_list(text)
    except ValueError:
        return
    assert all(str(number) in text.replace(" ", "") or "-" in text for number in numbers)


@pytest.mark.parametrize("text", ["3-1", "-1", "1-", "a", "1-2-3", "8192", "0-99999999999", "1 2", "²"])
def test_what_is_no_list(text: str) -> None:
    with pytest.raises(ValueError, match=r"range|invalid literal"):
        scheduler.parse_list(text)
