"""Sizes are read and written as docker/go-units does it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.notation import sizes

LARGEST = (1 << 63) - 1


SIZES = {
    "32": 32,
    "32b": 32,
    "32B": 32,
    "32k": 32 << 10,
    "32K": 32 << 10,
    "32kb": 32 << 10,
    "32Kb": 32 << 10,
    "32Mb": 32 << 20,
    "32MiB": 32 << 20,
    "32Gb": 32 << 30,
    "32Tb": 32 << 40,
    "32Pb": 32 << 50,
    "32.5kB": 33280,
    "32.5 kB": 33280,
    "0.3 K": 307,
    ".3kB": 307,
    "0.": 0,
    "0. ": 0,
    "0.b": 0,
    "1e3": 1000,
    "1e3k": 1000 << 10,
    "1.5e1k": 15 << 10,
    "+5": 5,
    "1 ": 1,
    "0b": 0,
    str(LARGEST): LARGEST,
    "8191p": 8191 << 50,
}
NO_SIZES = (
    "",
    "hello",
    ".",
    ". ",
    " ",
    " 32",
    "32  k",
    "-32",
    "-0",
    "32bb",
    "32ib",
    "32kbi",
    "32 k b",
    "32x",
    "b",
    "k",
    "1_000",
    "inf",
    "nan",
    "0x10",
    "\u0663k",
    "9" * 40,
    str(LARGEST + 1),
    "8192p",
    "1e300",
    "1.0e999",
)


@pytest.mark.parametrize(("text", "size"), SIZES.items())
def test_sizes_in_powers_of_1024(text, size):
    assert sizes.parse(text) == size


@pytest.mark.parametrize("text", NO_SIZES)
def test_invalid_sizes(text):
    assert sizes.parse(text) is None


@pytest.mark.parametrize(
    ("text", "size"), [("10k", 10_000), ("1.5MiB", 1_500_000), ("2gb", 2 * 10**9), ("3TB", 3 * 10**12), ("7", 7)]
)
def test_sizes_in_powers_of_1000(text, size):
    assert sizes.parse(text, 1000) == size


@given(st.integers(0, LARGEST))
def test_sizes_are_read_as_they_are_written(size):
    text = sizes.write(size)
    assert sizes.parse(text) == size
    assert len(text) <= len(str(size)) + 1


@given(st.decimals(0, 10**6, places=3, allow_nan=False), st.sampled_from("kmgtp"), st.sampled_from(("", "b", "ib")))
def test_fractions_are_cut_to_whole_bytes(number, unit, rest):
    exact = int(float(number) * 1024 ** ("kmgtp".index(unit) + 1))  # with the 53 bits that Go has, too
    assert sizes.parse(f"{number:f}{unit}{rest}") == (exact if exact <= LARGEST else None)


@given(st.text(max_size=12) | st.text("0123456789.e+-kKmMbBi ", max_size=12))
def test_no_text_breaks_the_reader(text):
    found = sizes.parse(text)
    assert found is None or 0 <= found <= LARGEST


@pytest.mark.parametrize(
    ("size", "three", "four"),
    [
        (0, "0B", "0B"),
        (999, "999B", "999B"),
        (1000, "1kB", "1kB"),
        (1001, "1kB", "1.001kB"),
        (2_746_000, "2.75MB", "2.746MB"),
        (1_984_234, "1.98MB", "1.984MB"),
        (12_345_678_901, "12.3GB", "12.35GB"),
        (999_999, "1000kB", "1000kB"),
        (4_430_000, "4.43MB", "4.43MB"),
        (10**18, "1EB", "1EB"),
        (1234 * 10**24, "1230YB", "1234YB"),
    ],
)
def test_sizes_for_people(size, three, four):
    assert (sizes.human_size(size), sizes.human_size(size, 4)) == (three, four)


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (25276502016, "23.54GiB"),
        (3 << 19, "1.5MiB"),
        (1024, "1KiB"),
        (1 << 20, "1MiB"),
        (2_087_354_105, "1.944GiB"),
        (1 << 60, "1EiB"),
    ],
)
def test_sizes_in_binary_units(size, shown):
    assert sizes.human_bytes(size) == shown


@given(st.integers(0, 9 * 10**17))
def test_human_sizes_are_near(size):
    assert sizes.parse(sizes.human_size(size, 4), 1000) == pytest.approx(size, rel=1e-3)
