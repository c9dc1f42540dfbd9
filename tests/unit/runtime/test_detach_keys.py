"""Detach keys: what they are, and finding them in input that arrives in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgument
from ketch.runtime.process.io.detach import Matcher, parse


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", b"\x10\x11"),
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("a", b"a"),
        ("ctrl-@,z", b"\0z"),
        ("ctrl-[,CTRL-A", b"\x1b\x01"),
        ("ctrl-_", b"\x1f"),
        ("ctrl-\\,ctrl-]", b"\x1c\x1d"),
    ],
)
def test_parse(text, keys):
    assert parse(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "ctrl-ab", "abc", "a,,b", "ctrl-p ctrl-q", "ö"])
def test_parse_refuses(text):
    with pytest.raises(InvalidArgument):
        parse(text)


def test_the_first_key_is_held_back_until_the_next_one_shows_what_it_was():
    matcher = Matcher(b"\x10\x11")
    assert matcher.feed(b"ls\x10") == (b"ls", False)
    assert matcher.feed(b"a") == (b"\x10a", False)
    assert matcher.feed(b"\x10") == (b"", False)
    assert matcher.feed(b"\x10") == (b"\x10", False)
    assert matcher.feed(b"\x11rest") == (b"", True)


def test_the_end_of_input_gives_back_what_was_held():
    matcher = Matcher(b"\x10\x11")
    matcher.feed(b"\x10")
    assert matcher.flush() == b"\x10"
    assert matcher.flush() == b""


@given(st.binary(max_size=40).map(lambda b: bytes(x % 3 for x in b)), st.integers(1, 4), st.data())
def test_pieces_do_not_matter(data, length, draw):
    """However the input is cut, what is passed on is what stands before the first occurrence."""
    keys = bytes(draw.draw(st.integers(0, 2)) for _ in range(length))
    matcher, passed, detached, position = Matcher(keys), b"", False, 0
    while position < len(data) and not detached:
        step = draw.draw(st.integers(1, 5))
        piece, detached = matcher.feed(data[position : position + step])
        passed += piece
        position += step
    assert detached == (keys in data)
    assert passed + (b"" if detached else matcher.flush()) == data.partition(keys)[0]
