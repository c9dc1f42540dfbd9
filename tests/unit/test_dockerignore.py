"""The rules of .dockerignore, after the examples of Docker's documentation and its pattern matcher's behaviour."""

from __future__ import annotations

import json
import pathlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch import dockerignore
from ketch.errors import InvalidArgument

# A pattern, the paths that it matches, and those that it does not.
PATTERNS = [
    ("a", "a a/b a/b/c", "b ab b/a"),
    ("a/b", "a/b a/b/c", "a b a/bc"),
    ("/a", "a a/b", "b/a"),
    ("a/", "a a/b", "b/a"),
    ("./a/../b", "b b/c", "a/b"),
    ("*/temp*", "x/temporary.txt x/temp x/temp/y", "temp temporary x/y/temp"),
    ("*/*/temp*", "x/y/temporary.txt", "x/temp"),
    ("temp?", "tempa tempb tempa/x", "temp tempab x/tempa temp/"),
    ("*", "a a/b .c", ""),
    ("**", "a a/b .c/d", ""),
    ("*.go", "a.go .go a.go/b", "a.gox b/a.go a/b.go"),
    ("**/*.go", "a.go x/a.go x/y/a.go", "a.gox a.goo/b"),
    ("**/a", "a x/a x/y/a a/b x/a/b", "ab xa x/ab"),
    ("**a", "a xa x/a x/ya", "ab"),
    ("a/**", "a/b a/b/c", "a b/a"),
    ("a**", "a ab abc/d a/b", "b"),
    ("a/**/b", "a/b a/x/b a/x/y/b a/b/c", "ab a/xb b"),
    ("**/a/**", "a/b x/a/b", "a b"),
    ("a/**/**/b", "a/b a/x/b", "ab"),
    ("[a-c]x", "ax bx cx/y", "dx x abx"),
    ("[^a-c]x", "dx -x", "ax x"),
    (r"[\]\-]x", "]x -x", "ax"),
    (r"a\*", "a*", "ab a"),
    (r"\[a", "[a", "a"),
    ("a.b", "a.b", "axb"),
    ("a+(b)|{c}$", "a+(b)|{c}$", "ab"),
    ("ä?", "äö", "ä"),
    ("a b", "a b", "a"),
    (".*", ".a .git/x", "a"),
    ("a/*", "a/b a/b/c", "a"),
]


@pytest.mark.parametrize(("pattern", "yes", "no"), PATTERNS)
def test_patterns(pattern, yes, no):
    rules = dockerignore.read(pattern)
    split = (lambda text: [text]) if " " in pattern else str.split
    assert [path for path in split(yes) if not rules.ignored(path)] == []
    assert [path for path in split(no) if path and rules.ignored(path.rstrip("/") or path) and path[-1] != "/"] == []


def test_the_last_pattern_that_matches_decides():
    rules = dockerignore.read("*.md\n!README*.md\nREADME-secret.md\n")
    assert [
        name for name in ("a.md", "README.md", "README-x.md", "README-secret.md", "b") if not rules.ignored(name)
    ] == [
        "README.md",
        "README-x.md",
        "b",
    ]
    rules = dockerignore.read("*.md\nREADME-secret.md\n!README*.md\n")
    assert not rules.ignored("README-secret.md")
    rules = dockerignore.read("*\n!a/b\n!c\nc/d\n")
    assert [
        path for path in ("a", "a/b", "a/b/x", "a/x", "c", "c/x", "c/d", "c/d/e", "e") if not rules.ignored(path)
    ] == [
        *("a/b", "a/b/x", "c", "c/x"),
    ]


def test_what_a_file_may_hold():
    text = "\ufeff# comment\n  # no comment\n\n   \na  \r\n\tb\n! c \n/d\n//e/\n!/f\n!\n/\n."
    assert dockerignore.patterns(text) == ["# no comment", "a", "b", "!c", "d", "e", "!f", "!", "/", "."]
    assert not dockerignore.read("# nothing\n")
    assert dockerignore.file_names("sub/My.Dockerfile") == ("sub/My.Dockerfile.dockerignore", ".dockerignore")


@pytest.mark.parametrize("bad", ["[", "[a", "[]", "[]a]", "[^]", "[a-]", "[-a]", "[b-a]", "a\\", "[a\\"])
def test_patterns_that_cannot_be_read(bad):
    with pytest.raises(InvalidArgument, match=re.escape("syntax error in pattern")):
        dockerignore.read(f"a\n{bad}\n")


def test_an_exclamation_mark_alone():
    with pytest.raises(InvalidArgument, match="illegal exclusion pattern"):
        dockerignore.read("!\n")


# The paths of which dockerd 28.5.2 says that a pattern excludes them (rule CopyIgnoredFile); null: it refuses it.
# "walks": which of "files" it had after COPY of the whole context, for several patterns.
RECORDED = json.loads((pathlib.Path(__file__).parents[1] / "data" / "dockerignore.json").read_text())


@pytest.mark.parametrize("pattern", RECORDED["patterns"])
def test_patterns_are_those_of_dockerd(pattern):
    expected = RECORDED["patterns"][pattern]
    if expected is None:
        with pytest.raises(InvalidArgument, match="syntax error in pattern"):
            dockerignore.read(pattern)
    else:
        rules = dockerignore.read(pattern)
        assert sorted(filter(rules.ignored, RECORDED["paths"])) == expected


NAMES = st.sampled_from(["a", "b", "ab", "*", "**", "?", "a*", "[a-b]", "**b", "c"])
PATHS = st.lists(st.sampled_from(["a", "b", "ab", "c", "aab"]), min_size=1, max_size=4).map("/".join)
LINES = st.lists(st.tuples(st.booleans(), st.lists(NAMES, min_size=1, max_size=3).map("/".join)), max_size=5)


def kept(rules, files):
    """What a walk keeps, directory by directory."""
    known, found = {"": (False, ())}, []
    for path in files:
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            name, above = "/".join(parts[:depth]), "/".join(parts[: depth - 1])
            if known[above] is None or (known[above][0] and not rules.may_keep_below(above)):
                known[name] = None
            else:
                known[name] = rules.below(known[above][1], name)
        found += [path] if known[path] and not known[path][0] else []
    return found


@pytest.mark.parametrize(("patterns", "expected"), RECORDED["walks"])
def test_walks_are_those_of_dockerd(patterns, expected):
    assert kept(dockerignore.read("\n".join(patterns)), RECORDED["files"]) == expected


@given(LINES, PATHS)
def test_a_walk_without_exceptions_says_the_same_as_a_single_path(lines, path):
    rules = dockerignore.IgnoreRules([pattern for _, pattern in lines])
    assert (kept(rules, [path]) == []) == rules.ignored(path)


@given(LINES, PATHS)
def test_a_directory_that_is_passed_over_keeps_nothing(lines, path):
    class Patient(dockerignore.IgnoreRules):
        def may_keep_below(self, directory):
            return True

    patterns = [("!" if exception else "") + pattern for exception, pattern in lines]
    assert kept(dockerignore.IgnoreRules(patterns), [path]) == kept(Patient(patterns), [path])


def test_directories_that_need_not_be_read():
    rules = dockerignore.read("node_modules\n!a/keep\n!x/*/z\n")
    assert [rules.may_keep_below(name) for name in ("node_modules", "a", "a/keep", "a/b", "x", "x/y", "y")] == [
        *(False, True, True, False, True, True, False),
    ]


@given(st.text(max_size=30), st.text(min_size=1, max_size=10))
def test_no_text_breaks_the_rules(text, path):
    try:
        dockerignore.read(text).ignored(path)
    except InvalidArgument:
        return
