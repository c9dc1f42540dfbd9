"""Patterns in the modifiers of variables, beside regular expressions that say the same."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.build.dockerfile import words

PATTERNS = st.text("ab*?", max_size=8)
TEXTS = st.text("abc\n", max_size=12)


def expression(pattern: str, *, longest: bool) -> str:
    stars = ".*" if longest else ".*?"
    return f"(?s:{pattern.replace('?', '.').replace('*', stars)})"


def expanded(text: str, value: str) -> str:
    return words.expand("${x" + text + "}", {"x": value})


def replaced(pattern: str, text: str, *, every: bool) -> str:
    """As Go does it: nothing is found where the last one has ended."""
    found, at, last = "", 0, -1
    for match in re.finditer(expression(pattern, longest=True), text):
        if match.start() == match.end() == last:
            continue
        found, at, last = found + text[at : match.start()] + "_", match.end(), match.end()
        if not every:
            break
    return found + text[at:]


@given(PATTERNS, TEXTS)
def test_what_is_replaced(pattern, text):
    made = words._pattern(pattern)
    for every in (False, True):
        assert made.replaced(text, "_", every=every) == replaced(pattern, text, every=every)


@given(PATTERNS, TEXTS)
def test_beginnings_and_ends(pattern, text):
    made = words._pattern(pattern)
    for longest in (False, True):
        match = re.match(expression(pattern, longest=longest), text)
        assert made.beginning(text, longest=longest) == (match.end() if match else None)
        whole = re.compile(expression(pattern, longest=longest))
        starts = [at for at in range(len(text) + 1) if whole.fullmatch(text, at)]
        assert made.ending(text, longest=longest) == ((starts[0] if longest else starts[-1]) if starts else None)


@pytest.mark.parametrize(
    ("modifier", "result"),
    [
        # What dockerd 28.5.2 made of them.
        *(("//*/r", "r"), ("//a*/r", "r"), ("//b*/r", "ar"), ("//?/r", "rrrrrr"), ("/*/r", "r"), ("//b*c/r", "ar")),
        *(("//*b/r", "rc"), ("/%/r", "abcabc"), ("//*b*/r", "r"), ("//a*a*/r", "r"), ("//x*/r", "abcabc")),
    ],
)
def test_as_dockerd_has_them(modifier, result):
    assert expanded(modifier, "abcabc") == result


def test_many_stars_take_no_time():
    """As a regular expression that tries everything these would not end."""
    value = "a" * 100_000
    for modifier in ("//" + "a*" * 20 + "b/r", "##" + "*a" * 20 + "b", "%%" + "a*" * 20 + "b", "%b" + "*a" * 20 + "b"):
        assert expanded(modifier, value) == value
