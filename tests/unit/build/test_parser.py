"""The parser of Dockerfiles, beside BuildKit's own (the package `dockerfile` is a binding to it)."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ketch.build.dockerfile import directives, heredocs, parser
from ketch.build.dockerfile.errors import DockerfileError, Span, excerpt
from ketch.build.dockerfile.instructions.read import READERS
from tests.support.dockerfiles import CORPUS

SAME_MESSAGE = (
    "file with no instructions",
    "unterminated heredoc",
    "must have two arguments",
    "can't find =",
    "invalid escape token",
    "arrays must be comprised of strings only",
    "only one escape parser directive",
    "line greater than max",
)


def ours(text):
    """What the reference says of a file, by our parser."""
    return [
        (
            one.name.upper(),
            one.trigger.name.upper() if one.trigger else None,
            (one.trigger or one).json,
            (one.span.start, one.span.end),
            tuple(one.flags),
            tuple((one.trigger or one).arguments) if (one.trigger or one).keyword in WITH_ARGUMENTS else (),
            tuple((doc.name, doc.fd, doc.content) for doc in one.heredocs if not one.trigger),
        )
        for one in parser.parse(text).statements
    ]


def theirs(reference, text):
    return [
        (
            (one.cmd or "").upper(),
            one.sub_cmd.upper() if one.sub_cmd else None,
            one.json,
            (one.start_line, one.end_line),
            tuple(one.flags),
            tuple(one.value) if (one.sub_cmd or one.cmd or "").upper() in WITH_ARGUMENTS else (),
            tuple((doc.name, doc.file_descriptor, doc.content) for doc in one.heredocs),
        )
        for one in reference.parse_string(text)
    ]


WITH_ARGUMENTS = READERS.keys() - {"ONBUILD"}
NEWER = re.compile(r"\]\s*[\],]|\][^\n]*[^\s\]},]|\$\{y#|\x00")
"""What newer parsers read otherwise than the reference: text behind JSON, modifiers; and what its binding cuts."""


def compare(text):
    reference = pytest.importorskip("dockerfile")
    if NEWER.search(text):
        with contextlib.suppress(DockerfileError):
            parser.parse(text)
        return
    try:
        expected = theirs(reference, text)
    except reference.GoParseError as e:
        with pytest.raises(DockerfileError) as caught:
            parser.parse(text)
        assert any(part in str(e) and part in str(caught.value) for part in SAME_MESSAGE), (str(e), str(caught.value))
        return
    assert ours(text) == expected


@pytest.mark.parametrize("text", CORPUS)
def test_files_are_read_as_buildkit_reads_them(text):
    compare(text)


def test_the_corpus_is_large():
    assert len(set(CORPUS)) >= 150


PIECES = st.sampled_from(
    [
        *("RUN ", "ENV ", "COPY ", "CMD ", "LABEL ", "ARG ", "HEALTHCHECK ", "ONBUILD ", "EXPOSE ", "x ", "CMD ["),
        *("\n", "\n", "\\\n", " \\ \n", "\r\n", "`\n", "# c\n", "#", " ", "\t", '"', "'", "\\", "$a", "${b:-c}", "="),
        *("<<EOF", "<<-'E'", "3<<X", "EOF\n", "\tE\n", "X\n", "--a=b ", "--", '"a"', "]", ",", "a", "b=c", "ü"),
    ]
)


@given(st.lists(PIECES, max_size=25).map("".join))
@example("RUN <<EOF\n")
@example("ENV \\")
@example("ONBUILD ONBUILD ENV a")
def test_made_up_files_are_read_as_buildkit_reads_them(text):
    if "--" in text and not text.isascii():
        return  # the reference takes a flag's bytes for characters
    compare("FROM scratch\n" + text)


@given(st.text(max_size=80))
def test_no_text_breaks_the_parser(text):
    try:
        found = parser.parse(text)
    except DockerfileError:
        return
    spans = [one.span for one in found.statements]
    assert all(span.start <= span.end for span in spans)
    assert all(one.end < other.start for one, other in zip(spans, spans[1:], strict=False))
    assert spans[-1].end <= text.count("\n") + 1


@pytest.mark.parametrize(
    ("text", "span", "message"),
    [
        ("FROM a\n\nENV x\n", Span(3, 3), "ENV must have two arguments"),
        ("FROM a\nRUN a \\\n <<EOF\nb\n", Span(2, 4), "unterminated heredoc"),
        ("# syntax=x\n# syntax=y\nFROM a\n", Span(2, 2), "only one syntax parser directive can be used"),
        ("# escape=x\nFROM a\n", Span(1, 1), r"invalid escape token 'x' does not match ` or \\"),
        ("#\n\n", Span(2, 2), "file with no instructions"),
        ("FROM a\nONBUILD ENV x\n", Span(2, 2), "ENV must have two arguments"),
    ],
)
def test_errors_have_their_lines(text, span, message):
    with pytest.raises(DockerfileError, match=message) as caught:
        parser.parse(text)
    assert caught.value.span == span


def test_what_else_is_known_of_a_file():
    text = "# syntax=docker/dockerfile:1\n# check=skip=all\n\n# a about it\nARG a\nFROM b\nRUN c \\\n\n d\nENV e f\n"
    found = parser.parse(text)
    assert {name: one.value for name, one in found.directives.items()} == {
        "syntax": "docker/dockerfile:1",
        "check": "skip=all",
    }
    assert found.statements[0].comments == ["syntax=docker/dockerfile:1", "check=skip=all", "a about it"]
    assert found.empty_continuations == [Span(7, 9)]
    assert [one.old_pairs for one in found.statements] == [False, False, False, True]


@pytest.mark.parametrize(
    ("text", "value", "line"),
    [
        ("# syntax=a/b:1 x\nFROM c\n", "a/b:1 x", 1),
        ("#!/usr/bin/env x\n# syntax=a\nFROM c\n", "a", 2),
        ("// syntax=a\n", "a", 1),
        ('{"syntax": "a"}', "a", 1),
        ("\ufeff# escape=`\n# SYNTAX = a\n", "a", 2),
        ("FROM c\n# syntax=a\n", None, None),
        ("# other=1\n# syntax=a\n", None, None),
        ('{"syntax": 1}', None, None),
        ("", None, None),
    ],
)
def test_the_front_end_that_a_file_asks_for(text, value, line):
    found = directives.syntax(text)
    assert (found and found.value, found and found.span.start) == (value, line)


def test_the_checks_that_a_file_asks_for():
    found = directives.check("# syntax=a\n# check=error=true\nFROM b\n")
    assert found
    assert (found.value, found.span) == ("error=true", Span(2, 2))
    assert directives.check("FROM a\n# check=skip=all\n") is None


def test_tabs_before_the_lines_of_a_document():
    assert heredocs.mark("<<-EOF")
    whole = parser.parse("RUN <<-EOF\n\ta\n\t\tb \tc\n\tEOF\n").statements[0].heredocs[0]
    assert (whole.content, whole.text()) == ("\ta\n\t\tb \tc\n", "a\nb \tc\n")


def test_triggers_within_triggers_are_not_read_for_ever():
    found = parser.parse("ONBUILD " * 8000 + "RUN x").statements[0]
    assert found.trigger
    assert found.trigger.keyword == "ONBUILD"


def test_excerpts():
    text = "FROM a\nRUN b\n\tRUNN c\nCMD d\nCMD e\nCMD f\n"
    assert excerpt(text, "Dockerfile", Span(3, 3), "RUNN").split("\n") == [
        "Dockerfile:3",
        "--------------------",
        "   1 |     FROM a",
        "   2 |     RUN b",
        "   3 | >>> \tRUNN c",
        "     |     \t^^^^",
        "   4 |     CMD d",
        "   5 |     CMD e",
        "--------------------",
    ]
    assert "   6 | >>> CMD f" in excerpt(text, "x", Span(5, 6))
