"""Policies of sources: which rule decides, what takes a source's place, what becomes of the graph above it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.build import policy
from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.operations import Action, files, source
from ketch.build.llb.vertex import in_order
from ketch.build.policy import AttrConstraint, PolicyRule, SourcePolicy
from ketch.errors import InvalidArgument, PermissionDenied

BUSYBOX = "docker-image://docker.io/library/busybox:latest"


def op(identifier: str = BUSYBOX, **attrs: str) -> pb.SourceOp:
    return pb.SourceOp(identifier=identifier, attrs=attrs)


def judge(identifier: str, *rules: PolicyRule, **attrs: str) -> pb.SourceOp:
    return policy.judged(op(identifier, **attrs), [SourcePolicy(rules=rules)])


def rule(action: str, identifier: str, **more) -> PolicyRule:
    return PolicyRule(action=action, identifier=identifier, **more)


def test_the_last_rule_that_matches_decides():
    deny, allow = rule("DENY", BUSYBOX), rule("ALLOW", "docker-image://*")
    assert judge(BUSYBOX, deny, allow).identifier == BUSYBOX
    with pytest.raises(PermissionDenied, match=re.escape(f'source "{BUSYBOX}" denied by policy')):
        judge(BUSYBOX, allow, deny)
    assert judge("local://context", allow, deny).identifier == "local://context"
    same = op()
    assert policy.judged(same, []) is same


@pytest.mark.parametrize(
    ("match", "identifier", "update", "found"),
    [
        ("EXACT", BUSYBOX, "docker-image://x:1", "docker-image://x:1"),
        ("EXACT", "docker-image://*", "docker-image://x:1", BUSYBOX),
        (
            "WILDCARD",
            "docker-image://docker.io/library/*:latest",
            "docker-image://m/${1}:$1",
            "docker-image://m/busybox:busybox",
        ),
        ("WILDCARD", "docker-image://*/*", "x://$1|$2|$3", "x://docker.io/library|busybox:latest|"),
        (
            "REGEX",
            r"^docker-image://(.*)/(?P<x>[^/]+):latest$",
            "docker-image://$1/${2}:9",
            BUSYBOX.replace("latest", "9"),
        ),
        ("REGEX", "busy", "lazy", BUSYBOX.replace("busy", "lazy")),
    ],
)
def test_conversions(match: str, identifier: str, update: str, found: str):
    assert judge(BUSYBOX, rule("CONVERT", identifier, match=match, update=update)).identifier == found


def test_attributes_are_set_and_are_conditions():
    web = "https://host/f"
    pinned = judge(web, rule("CONVERT", web, attrs={"http.checksum": "sha256:1"}))
    assert (pinned.identifier, dict(pinned.attrs)) == (web, {"http.checksum": "sha256:1"})
    for condition, value, denied in (
        ("EQUAL", "a", True),
        ("EQUAL", "b", False),
        ("NOTEQUAL", "a", False),
        ("NOTEQUAL", "b", True),
        ("MATCHES", "^[ab]$", True),
        ("MATCHES", "^b", False),
    ):
        deny = rule("DENY", "*", constraints=[AttrConstraint(key="k", value=value, condition=condition)])
        if denied:
            with pytest.raises(PermissionDenied):
                judge(web, deny, k="a")
        else:
            judge(web, deny, k="a")


def test_what_was_converted_is_judged_again():
    first = rule("CONVERT", BUSYBOX, update="docker-image://other:1")
    assert judge(BUSYBOX, first, rule("CONVERT", "docker-image://other:1", update="x://y")).identifier == "x://y"
    with pytest.raises(PermissionDenied, match="other:1"):
        judge(BUSYBOX, first, rule("DENY", "docker-image://other:*"))
    with pytest.raises(InvalidArgument, match="too many mutations"):
        judge(BUSYBOX, rule("CONVERT", "*", update="${1}x"))
    with pytest.raises(InvalidArgument, match="invalid regex"):
        judge(BUSYBOX, rule("DENY", "(", match="REGEX"))


def test_an_expression_that_others_try_for_ever():
    source = "docker-image://docker.io/library/" + "a" * 4000
    assert judge(source, rule("DENY", "(a+)+$x", match="REGEX")) == judge(source)
    with pytest.raises(PermissionDenied):
        judge(source, rule("DENY", "(a|aa)+$", match="REGEX"))


def test_a_graph_is_changed_only_where_it_has_to_be():
    copy = pb.FileAction(copy=pb.FileActionCopy(src="/", dest="/"))
    base, other = source(BUSYBOX, {}, pb.Platform(OS="linux")), source("local://context", {})
    result = files(base, [Action(copy, other)])
    same, changed = policy.applied(result, [SourcePolicy(rules=[rule("ALLOW", "*")])])
    assert same == result
    assert changed == {}
    made, changed = policy.applied(
        result, [SourcePolicy(rules=[rule("CONVERT", BUSYBOX, update="docker-image://x:1")])]
    )
    vertices = list(in_order([made.vertex]))
    assert [one.op.source.identifier for one in vertices if one.kind == "source"] == [
        "docker-image://x:1",
        "local://context",
    ]
    assert other.vertex in vertices
    assert changed == {base.vertex.digest: vertices[0].digest, result.vertex.digest: made.vertex.digest}
    assert [one.digest for one in made.vertex.op.inputs] == [vertices[0].digest, other.vertex.digest]


_TEXT = st.text("ab/*", max_size=12)


@given(_TEXT, st.text("ab/", max_size=12))
def test_wildcards_are_as_a_regular_expression_has_them(pattern: str, text: str):
    theirs = re.fullmatch("(.*)".join(map(re.escape, pattern.split("*"))), text)
    found = policy._wildcard(pattern, text)
    assert (found is None) == (theirs is None)
    if theirs is not None:
        assert found == list(theirs.groups())


def test_no_wildcard_takes_long():
    assert policy._wildcard("*a" * 2000 + "b", "a" * 100_000) is None
