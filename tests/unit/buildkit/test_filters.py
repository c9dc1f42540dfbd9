"""Filters of lists in containerd's language."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.buildkit.control import history_filters
from ketch.buildkit.control.filters import parse
from ketch.rpc.status import RpcError

ROW = {"id": "abc", "type": "regular", "inuse": "", "labels.a.b": "x y"}


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ([], True),
        ([""], True),
        (["id==abc"], True),
        (["id==ab"], False),
        (["id~=^ab"], True),
        (["id~=b$"], False),
        (["id!=x"], True),
        (["gone!=x"], True),
        (["gone==x"], False),
        (["inuse"], True),
        (["shared"], False),
        (["id==abc,inuse"], True),
        (["id==abc,shared"], False),
        (["id==abc,shared", "type==regular"], True),
        (['labels."a.b"=="x y"'], True),
        (["labels.a.b=="], False),
        (["type==regular,", "shared"], True),
    ],
)
def test_what_is_wanted(filters, wanted):
    assert parse(filters, "prune")(ROW) is wanted


@pytest.mark.parametrize("text", ["bad filter", "=x", "a==b|c", 'a=="open', "a~=(", "a,,b", "a=b"])
def test_what_is_none(text):
    with pytest.raises(RpcError, match="failed to parse prune filters"):
        parse([text], "prune")


@pytest.mark.parametrize("expression", ["(a+)+$", "([a-z]+)*!!$"])
def test_no_expression_takes_longer_than_its_text(expression):
    assert parse([f"id~={expression}"], "prune")({"id": "a" * 10_000 + "!"}) is False


@pytest.mark.parametrize("texts", [["a"] * 101, ["id==" + "a" * 5000], ['"\\' * 100_000]])
@pytest.mark.parametrize("read", [lambda texts: parse(texts, "history"), history_filters.parse])
def test_filters_are_bounded(texts, read):
    with pytest.raises(RpcError, match="failed to parse history filters: there may be 100, of 4096 characters each"):
        read(texts)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text):
    try:
        found = parse([text], "prune")
    except RpcError:
        return
    assert found(ROW) in (True, False)


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20))
def test_a_quoted_value_is_what_it_was(value):
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    assert parse([f'id=="{quoted}"'], "prune")({"id": value})
