"""Regular expressions as Go has them, beside the interpreter's own where both mean the same."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch import expressions

PARTS = st.sampled_from(
    ["a", "b", "é", ".", "a*", "b+", "(a|b)", "[ab]", "[^a]", "^", "(?:ab)?", r"\.", "(?i)A", "x{2}"]
)


@given(st.lists(PARTS, max_size=6).map("".join), st.text("abé.Ax", max_size=12))
def test_what_both_have(expression, text):
    try:
        expected = re.search(expression, text)
    except re.error:  # flags in the middle
        return
    found = expressions.compiled(expression).search(text)
    assert (found and found.span()) == (expected and expected.span())


@pytest.mark.parametrize(
    ("expression", "text"),
    [("(a+)+$", "a" * 100_000 + "!"), ("(a|aa)+$", "a" * 100_000 + "!"), ("a?" * 500 + "a" * 500 + "$", "a" * 400)],
)
def test_what_others_try_for_ever(expression, text):
    assert not expressions.Expressions([expression]).fit(text)


@pytest.mark.parametrize(
    ("expression", "text"),
    [("^[[:alpha:]]+\\z", "abc"), (r"\pN", "1"), ("(?s)a.b", "a\nb"), ("(?P<n>a)", "a"), ("", "")],
)
def test_what_go_has(expression, text):
    assert expressions.is_valid(expression)
    assert expressions.Expressions(["nothing", expression]).fit("", text)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("(", "missing closing ): `(`"),
        ("a)", "unexpected ): `a)`"),
        ("[a", "missing closing ]: `[a`"),
        ("*", "missing argument to repetition operator: `*`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        (r"\1", r"invalid escape sequence: `\1`"),
        ("[b-a]", "invalid character class range: `b-a`"),
        ("a\\", "trailing backslash at end of expression"),
    ],
)
def test_what_is_none_in_gos_words(expression, said):
    assert not expressions.is_valid(expression)
    with pytest.raises(ValueError) as caught:
        expressions.compiled(expression)
    assert str(caught.value) == f"error parsing regexp: {said}"


@pytest.mark.parametrize("expression", ["(" * 5000, "(a{50}){50}", "((a{100}){100}){100}", r"(\pL{500}){2}"])
def test_what_is_too_large(expression):
    assert not expressions.is_valid(expression)
