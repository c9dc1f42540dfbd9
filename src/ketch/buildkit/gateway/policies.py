"""Policies of sources, as clients and front ends send them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.build.policy import AttrConstraint, PolicyRule, SourcePolicy
from ketch.buildkit.wire.control import policy_pb2 as pb
from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST = 10_000  # rules of one build


def policies_of(messages: Iterable[pb.Policy]) -> list[SourcePolicy]:
    """The policies of messages (InvalidArgument)."""
    found = [SourcePolicy(rules=[_rule(rule) for rule in one.rules]) for one in messages]
    if sum(len(one.rules) for one in found) > _MOST:
        raise InvalidArgument(f"source policy: at most {_MOST} rules are applied")
    return found


def _rule(rule: pb.Rule) -> PolicyRule:
    selector = rule.selector
    try:
        return PolicyRule(
            action=pb.PolicyAction.Name(rule.action),
            identifier=selector.identifier,
            match=pb.MatchType.Name(selector.match_type),
            constraints=[
                AttrConstraint(key=one.key, value=one.value, condition=pb.AttrMatch.Name(one.condition))
                for one in selector.constraints
            ],
            update=rule.updates.identifier,
            attrs=dict(rule.updates.attrs),
        )
    except ValueError as e:
        raise InvalidArgument(f"source policy: rule {selector.identifier[:200]!r}: {e}") from e
