"""Patterns of paths, beside plain matchers that try everything."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.notation import gopaths

PATTERNS = st.lists(
    st.sampled_from(["*", "**", "**/", "?", "a", "b", "/", "[ab]", "[^a]", r"\*", "é"]), max_size=9
).map("".join)
PATHS = st.text("ab/*é\n", max_size=12)


def tried(tokens: list[str], path: str) -> bool:
    """Go's own way, of patterns without classes that match slashes: each star in turn takes as little as it can."""
    if not tokens:
        return not path
    if tokens[0] == "*":
        ends = range(len(path.partition("/")[0]) + 1)
        return any(tried(tokens[1:], path[end:]) for end in ends)
    if not path:
        return False
    fits = path[0] != "/" if tokens[0] == "?" else path[0] == tokens[0]
    return fits and tried(tokens[1:], path[1:])


@given(st.lists(st.sampled_from("*?ab/"), max_size=9), PATHS)
def test_of_one_level(tokens, path):
    assert gopaths.matches("".join(tokens), path) == tried(tokens, path)


def test_a_class_may_be_a_slash_where_it_is_found_first():
    """As in Go, which does not look for it further on."""
    assert gopaths.matches("a[^x]b", "a/b")
    assert not gopaths.matches("*[^b]*c", "a/xc")


@given(PATTERNS, PATHS)
def test_of_any_level(pattern, path):
    """In both ways the same as the expression into which Docker makes it."""
    tokens = gopaths._tokens(pattern)
    expected = re.fullmatch("".join(tokens), path) is not None
    assert gopaths._LinearMatcher(tokens).matches(path) == expected
    assert gopaths.docker_matcher(pattern)(path) == expected


@pytest.mark.parametrize("pattern", ["[", "[a", "[]", "[]a]", "[-]", "[a-]", "\\", "[\\", "[a-\\"])
def test_what_is_no_pattern(pattern):
    for read in (gopaths.compiled, gopaths.docker_matcher):
        with pytest.raises(gopaths.BadPatternError):
            read(pattern)


def test_ranges_that_are_none():
    assert not gopaths.matches("[b-a]", "a") and gopaths.matches("[^b-a]", "a")
    with pytest.raises(gopaths.BadPatternError):
        gopaths.docker_matcher("[b-a]")


def test_many_stars_take_no_time():
    """As expressions that try everything these would not end."""
    assert not gopaths.matches("*a" * 30 + "b", "a" * 4000)
    for pattern in ("*a" * 30 + "b", "**/a" * 30 + "b", "**a*" * 30 + "b"):
        matcher = gopaths.docker_matcher(pattern)
        assert not matcher("a" * 4000) and not matcher("a/" * 2000)
