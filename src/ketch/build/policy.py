"""Policies of sources: which a build may use, and by which others some are replaced.

Rules are tried in their order, the last one that allows or denies decides; one that converts begins it all anew with
the new source.  (BuildKit's sourcepolicy.)
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from ketch import expressions
from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.vertex import Edge, Vertex, in_order, vertex
from ketch.errors import InvalidArgument, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ALLOW, DENY, CONVERT = "ALLOW", "DENY", "CONVERT"
WILDCARD, EXACT, REGEX = "WILDCARD", "EXACT", "REGEX"
EQUAL, NOTEQUAL, MATCHES = "EQUAL", "NOTEQUAL", "MATCHES"
_MOST_CONVERSIONS = 20
_LONGEST = 4096  # characters of an identifier that patterns are tried on
_REFERENCE = re.compile(r"\$(?:(\d{1,9})|\{(\d{1,9})\})")


class AttrConstraint(Struct, frozen=True, kw_only=True):
    """A condition on an attribute of a source."""

    key: str
    value: str = ""
    condition: str = EQUAL


class PolicyRule(Struct, frozen=True, kw_only=True):
    """A rule: which sources it is for, and what becomes of them; ``update`` and ``attrs`` are those of CONVERT."""

    action: str
    identifier: str
    match: str = WILDCARD
    constraints: Sequence[AttrConstraint] = ()
    update: str = ""
    attrs: Mapping[str, str] = {}


class SourcePolicy(Struct, frozen=True, kw_only=True):
    """Rules that go together."""

    rules: Sequence[PolicyRule] = ()


def judged(source: pb.SourceOp, policies: Sequence[SourcePolicy]) -> pb.SourceOp:
    """The source that takes the place of one, mostly itself (PermissionDenied: it may not be used; InvalidArgument)."""
    found = source
    for _ in range(_MOST_CONVERSIONS + 1):
        changed = next(filter(None, (_converted(found, policy) for policy in policies)), None)
        if changed is None:
            return found
        found = changed
    raise InvalidArgument(f'source "{source.identifier[:200]}": too many mutations on a single source')


def applied(result: Edge, policies: Sequence[SourcePolicy]) -> tuple[Edge, Mapping[str, str]]:
    """A graph whose sources are those that take the place of its own; with the digests that changed, old → new.

    PermissionDenied: one may not be used.
    """
    made: dict[str, Vertex] = {}
    for one in in_order([result.vertex]):
        inputs = [Edge(made[edge.vertex.digest], edge.output) for edge in one.inputs]
        source = judged(one.op.source, policies) if one.kind == "source" else None
        same = source is None or source is one.op.source
        if same and all(new.vertex is old.vertex for new, old in zip(inputs, one.inputs, strict=True)):
            made[one.digest] = one
            continue
        op = pb.Op()
        op.CopyFrom(one.op)
        if source is not None:
            op.source.CopyFrom(source)
        made[one.digest] = vertex(op, inputs, one.metadata)
    changed = {digest: one.digest for digest, one in made.items() if digest != one.digest}
    return Edge(made[result.vertex.digest], result.output), changed


def _converted(source: pb.SourceOp, policy: SourcePolicy) -> pb.SourceOp | None:
    """The source that the first rule which converts makes of one; None: there is none (PermissionDenied)."""
    denied = False
    for rule in policy.rules:
        if not _matches(rule, source):
            continue
        if rule.action == CONVERT:
            changed = pb.SourceOp()
            changed.CopyFrom(source)
            changed.identifier = _updated(rule, source.identifier)
            changed.attrs.update(rule.attrs)
            if changed != source:
                return changed
        else:
            denied = rule.action == DENY
    if denied:
        raise PermissionDenied(f'source "{source.identifier}" denied by policy: source denied by policy')
    return None


def _matches(rule: PolicyRule, source: pb.SourceOp) -> bool:
    for one in rule.constraints:
        value = source.attrs.get(one.key, "")
        if one.condition == MATCHES:
            fits = _regex(one.value).search(value[:_LONGEST]) is not None
        else:
            fits = (value == one.value) == (one.condition == EQUAL)
        if not fits:
            return False
    identifier = source.identifier
    if rule.identifier == identifier:
        return True
    if rule.match == REGEX:
        return _regex(rule.identifier).search(identifier[:_LONGEST]) is not None
    return rule.match == WILDCARD and _wildcard(rule.identifier, identifier) is not None


def _updated(rule: PolicyRule, identifier: str) -> str:
    """The identifier that takes the place of one; ``$1`` and ``${1}`` are parts of it that the pattern has matched."""
    if not rule.update:
        return identifier
    if rule.match == REGEX:

        def filled(found: Any) -> str:
            return _filled(rule.update, (found[0], *found.groups("")))

        return str(_regex(rule.identifier).sub(filled, identifier[:_LONGEST]))
    parts = _wildcard(rule.identifier, identifier) if rule.match == WILDCARD else None
    return rule.update if parts is None else _filled(rule.update, (identifier, *parts))


def _filled(template: str, parts: Sequence[str]) -> str:
    def part(reference: re.Match[str]) -> str:
        number = int(reference[1] or reference[2])
        return parts[number] if number < len(parts) else ""

    return _REFERENCE.sub(part, template)


def _regex(text: str) -> Any:
    try:
        return expressions.compiled(text)
    except ValueError as e:
        raise InvalidArgument(f"invalid regex {text[:200]!r}: {e}") from e


def _wildcard(pattern: str, text: str) -> list[str] | None:
    """The parts of a text that each ``*`` stands for, the first ones as much as they can; None: it does not match.

    From the end on, so that no pattern takes longer than the text is long.
    """
    first, *others = pattern.split("*")
    if not others:
        return [] if text == pattern else None
    if not text.startswith(first) or not text.endswith(others[-1]) or len(text) < len(first) + len(others[-1]):
        return None
    found: list[str] = []
    end = len(text) - len(others[-1])
    for part in reversed(others[:-1]):
        at = text.rfind(part, len(first), end)
        if at < 0:
            return None
        found.append(text[at + len(part) : end])
        end = at
    return [text[len(first) : end], *reversed(found)]
