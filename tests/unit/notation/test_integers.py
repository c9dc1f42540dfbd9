"""Whole numbers and truth values as Go's strconv reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.notation import booleans, integers

BITS = st.sampled_from((16, 32, 64))


@given(st.integers(-(1 << 66), 1 << 66), BITS, st.integers(0, 30))
def test_numbers(number, bits, zeros):
    text = f"{'-' * (number < 0)}{'0' * zeros}{abs(number)}"
    for read, low, high in (
        (integers.signed, -(1 << bits - 1), (1 << bits - 1) - 1),
        (integers.unsigned, 0, (1 << bits) - 1),
    ):
        why = "invalid syntax" if text.startswith("-") and low == 0 else "value out of range"
        if low <= number <= high and not (low == 0 and text.startswith("-")):
            assert read(text, bits) == number
        else:
            with pytest.raises(integers.NotAnIntegerError, match=why):
                read(text, bits)


@pytest.mark.parametrize("text", ["", " 1", "1 ", "1_0", "0x1", "1.0", "١", "+", "-", "1\n"])
def test_what_is_no_number(text):
    for read in (integers.signed, integers.unsigned):
        with pytest.raises(integers.NotAnIntegerError, match="invalid syntax"):
            read(text)


def test_truth_values():
    assert [booleans.strict(text) for text in ("1", "t", "True", "0", "F", "false")] == [True] * 3 + [False] * 3
    with pytest.raises(booleans.NotABooleanError, match='strconv.ParseBool: parsing "yes": invalid syntax'):
        booleans.strict("yes")
