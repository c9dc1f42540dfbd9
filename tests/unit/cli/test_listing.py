"""Columns, quiet and raw listings, ports, ellipses, quoting, order, sizes and times as Docker's client prints them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.cli.errors import UsageError
from ketch.cli.gotemplate.strings import ellipsis, go_json, natural, quote
from ketch.cli.output.listing import Listing, filters, label_title, table
from ketch.cli.output.rows import ports
from ketch.notation import ages

ROWS = [
    {"ID": "1", "Names": "a", "Labels": "k=<v>", "Label": lambda name: "v" if name == "k" else ""},
    {"ID": "22", "Names": "long-name-of-it", "Labels": "", "Label": lambda name: ""},
]
COLUMNS = [("CONTAINER ID", "ID"), ("NAMES", "Names")]


def listing(format: str = "", *, quiet: bool = False, **options: Any) -> str:
    return Listing(COLUMNS, quiet="ID", **options).text(ROWS, format, quiet=quiet)


def test_a_table_has_its_titles_and_gaps() -> None:
    assert listing() == "CONTAINER ID   NAMES\n1              a\n22             long-name-of-it\n"
    assert listing("table") == listing()


def test_columns_are_at_least_ten_wide() -> None:
    assert table([["A", "B"], ["x", "y"]]) == "A         B\nx         y"


def test_quiet_prints_one_field_and_leaves_other_formats_alone() -> None:
    assert listing(quiet=True) == "1\n22\n"
    assert listing("{{.Names}}", quiet=True) == "a\nlong-name-of-it\n"


def test_json_is_one_object_a_line_without_methods() -> None:
    lines = listing("json").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"ID": "1", "Names": "a", "Labels": "k=<v>"},
        {"ID": "22", "Names": "long-name-of-it", "Labels": ""},
    ]
    assert "\\u003cv\\u003e" in lines[0]
    assert listing("{{json .}}") == listing("json")


def test_table_templates_have_titles() -> None:
    text = listing(r'table {{.Names}}\t{{upper .ID}}\t{{.Label "com.example.k"}}\t{{.Labels}}', headers={"Labels": "L"})
    assert text.splitlines()[0] == "NAMES             CONTAINER ID   k         L"


def test_table_templates_without_tabs_are_lines() -> None:
    assert listing("table {{.ID}}:{{.Names}}") == "CONTAINER ID:NAMES\n1:a\n22:long-name-of-it\n"


def test_raw_blocks() -> None:
    raw = [("id", "ID"), ("labels", "Labels")]
    assert listing("raw", raw=raw) == "id: 1\nlabels: k=<v>\n\nid: 22\nlabels:\n\n"
    assert listing("raw", quiet=True, raw=raw) == "id: 1\nid: 22\n"


def test_nothing_to_list_prints_the_titles_alone() -> None:
    assert Listing(COLUMNS).text([], "") == "CONTAINER ID   NAMES\n"
    assert Listing(COLUMNS).text([], "{{.ID}}") == ""


@given(st.lists(st.lists(st.text("ab c", max_size=20), min_size=3, max_size=3), min_size=1))
def test_columns_begin_at_the_same_place(rows: list[list[str]]) -> None:
    lines = table(rows).split("\n")
    starts = [len(line) - len(row[-1]) for line, row in zip(lines, rows, strict=True)]
    assert len(set(starts)) == 1
    assert all(line.startswith(row[0]) and line.endswith(row[-1]) for line, row in zip(lines, rows, strict=True))


def test_filters() -> None:
    assert filters([]) is None
    answer = filters(["Status = running", "label=a=b", "status=exited"])
    assert answer and json.loads(answer) == {"status": {"running": True, "exited": True}, "label": {"a=b": True}}
    with pytest.raises(UsageError, match="bogus"):
        filters(["bogus"])


def test_titles_of_labels() -> None:
    assert label_title("com.example.my-team_name") == "my team name"


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        ([], ""),
        ([("", None, 80)], "80/tcp"),
        ([("", None, 80), ("", None, 81), ("", None, 443)], "80-81/tcp, 443/tcp"),
        ([("0.0.0.0", 80, 80), ("0.0.0.0", 81, 81)], "0.0.0.0:80-81->80-81/tcp"),
        ([("0.0.0.0", 8080, 80), ("::", 8080, 80)], "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
        ([("0.0.0.0", 8080, 80), ("0.0.0.0", 8081, 81)], "0.0.0.0:8080->80/tcp, 0.0.0.0:8081->81/tcp"),
        ([("0.0.0.0", 8080, 80), ("", None, 9000)], "9000/tcp, 0.0.0.0:8080->80/tcp"),
        ([("127.0.0.1", 53, 53), ("", None, 80)], "127.0.0.1:53->53/tcp, 80/tcp"),
    ],
)
def test_ports(rows: list[tuple[str, int | None, int]], shown: str) -> None:
    one = [{"IP": ip, "PublicPort": public, "PrivatePort": private, "Type": "tcp"} for ip, public, private in rows]
    for row in one:
        if row["PublicPort"] is None:
            del row["IP"], row["PublicPort"]
    assert ports(list(reversed(one))) == shown


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("日本語", 6, "日本語"), ("日本語x", 6, "日本…"), ("", 5, "")],
)
def test_ellipsis(text: str, width: int, expected: str) -> None:
    assert ellipsis(text, width) == expected


@given(st.text(), st.integers(2, 30))
def test_an_ellipsis_is_never_wider_than_asked_for(text: str, width: int) -> None:
    assert len(ellipsis(text, width)) <= width
    assert len(text) > width or ellipsis(text, width) == text or not text.isascii()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a b", '"a b"'), ('say "x"\n', '"say \\"x\\"\\n"'), ("\x01\\é\u200b", '"\\x01\\\\é\\u200b"'), ("", '""')],
)
def test_quote(text: str, expected: str) -> None:
    assert quote(text) == expected


@given(st.text())
def test_quoted_texts_are_printable(text: str) -> None:
    assert quote(text).isprintable()


def test_natural_order() -> None:
    assert sorted(["web10", "web9", "db", "10", "9", ""], key=natural) == ["", "9", "10", "db", "web9", "web10"]


@given(st.lists(st.text()))
def test_natural_order_is_defined_for_everything(names: list[str]) -> None:
    assert len(sorted(names, key=natural)) == len(names)


@given(st.text())
def test_json_for_html_means_the_same(text: str) -> None:
    safe = go_json(text)
    assert json.loads(safe) == text
    assert not set("<>&") & set(safe)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "About a minute"),
        (125, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (5400, "2 hours"),
        (86400, "24 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (14 * 86400, "2 weeks"),
        (60 * 86400, "2 months"),
        (365 * 86400, "12 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_human_duration(seconds: float, shown: str) -> None:
    assert ages.age(seconds) == shown
