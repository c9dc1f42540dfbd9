"""JSON that is nested beyond a limit, whatever Python's decoder would make of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.notation import documents

LIMIT = documents.DEEPEST
_VALUES = st.recursive(
    st.none() | st.text('[]{}"\\a'), lambda inner: st.lists(inner) | st.dictionaries(st.text('[]{}"\\a'), inner)
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(_VALUES)
def test_the_depth_is_that_of_the_value(value: Any) -> None:
    around = LIMIT - depth(value)
    assert not documents.is_too_deep("[" * around + json.dumps(value) + "]" * around)
    assert documents.is_too_deep("[" * (around + 1) + json.dumps(value) + "]" * (around + 1))


@pytest.mark.parametrize(
    ("text", "too_deep"),
    [
        ("[" * LIMIT, False),
        ("[" * (LIMIT + 1), True),
        ('{"a":' * (LIMIT + 1), True),
        ("[]" * (LIMIT + 1), False),
        ('"' + "[" * (LIMIT + 1) + '"', False),
        ('"' + "[" * (LIMIT + 1), False),
        ('"\\"' + "[" * (LIMIT + 1), False),
        ('"\\' + "[" * (LIMIT + 2), False),
        ("]" * LIMIT + "[" * LIMIT, False),
    ],
)
def test_brackets_in_texts_and_of_neighbours_do_not_count(text: str, too_deep: bool) -> None:
    assert documents.is_too_deep(text) is too_deep
