"""``--filter``: predicates over images, events and what is pruned; an unknown filter is an error (400).

Those over containers stand in `container_filters`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ketch.api.errors import prefixed
from ketch.errors import InvalidArgument, UnclassifiedArgument
from ketch.notation import gopaths, moments

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.engine.engine import Engine
    from ketch.engine.model.event import Event

Filters = dict[str, list[str]]
_IMAGE = frozenset(("dangling", "label", "before", "since", "reference", "until"))
_EVENT = frozenset(
    (
        "config",
        "container",
        "daemon",
        "event",
        "image",
        "label",
        "network",
        "node",
        "plugin",
        "scope",
        "secret",
        "service",
        "type",
        "volume",
    )
)
_PRUNE = frozenset(("label", "label!", "until", "dangling"))
_BOOLEANS = {"0": False, "false": False, "1": True, "true": True}
_DETAILED = ("health_status", "exec_create", "exec_start")  # actions that have more behind a colon


def check(filters: Filters, known: frozenset[str]) -> None:
    """InvalidArgument for a filter that is not known."""
    for name in filters:
        if name not in known:
            raise InvalidArgument(f"invalid filter '{name}'", hint=f"known: {', '.join(sorted(known))}")


def boolean(name: str, value: str) -> bool:
    """The value of a yes-or-no filter (InvalidArgument for anything else)."""
    if value not in _BOOLEANS:
        raise InvalidArgument(f"invalid filter '{name}=[{value}]'", hint="use true or false")
    return _BOOLEANS[value]


def booleans_of(filters: Filters, name: str, default: bool | None = None) -> bool | None:
    """The value of a yes-or-no filter that may be given once, or twice with the same (InvalidArgument)."""
    values = filters.get(name)
    if values is None:
        return default
    found = {_BOOLEANS[value] for value in values if value in _BOOLEANS}
    if len(found) != 1:
        shown = f"{name}=[{' '.join(values)}]" if values else name
        raise InvalidArgument(f"invalid filter '{shown}'", hint="use true or false")
    return found.pop()


def has_labels(labels: dict[str, str] | None, wanted: list[str]) -> bool:
    """Whether the labels have every ``key`` or ``key=value`` of ``wanted``."""
    labels = labels or {}
    for item in wanted:
        key, equals, value = item.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def image_predicate(engine: Engine, filters: Filters) -> Callable[[Any], bool]:
    """The predicate of ``images --filter``."""
    check(filters, _IMAGE)
    moments = {n: [engine.images.get(v).created for v in filters.get(n, ())] for n in ("before", "since")}
    until = until_moments(filters)
    references = filters.get("reference", [])
    for pattern in references:
        try:
            gopaths.compiled(pattern)
        except gopaths.BadPatternError as e:
            hint = f"`{pattern}`: a `[` needs its `]`, a `\\` what it stands before"
            raise UnclassifiedArgument("syntax error in pattern", hint=hint) from e
    dangling = booleans_of(filters, "dangling")

    def keep(image: Any) -> bool:
        labels = image.config.config.labels if image.config.config else None
        return (
            has_labels(labels, filters.get("label", []))
            and all(image.created < m for m in moments["before"])
            and all(image.created > m for m in moments["since"])
            and all(image.created < m for m in until)
            and (dangling is None or (not image.repo_tags) == dangling)
            and (not references or any(refers(tag, references) for tag in image.repo_tags))
        )

    return keep


def refers(tag: str, patterns: list[str]) -> bool:
    """Whether any pattern matches the name, with or without its tag."""
    names = (tag, tag.rpartition(":")[0])
    return any(gopaths.matches(pattern, name) for pattern in patterns for name in names)


def _moment(text: str) -> int:
    """``24h`` ago, seconds since 1970, or RFC 3339 → ns (InvalidArgument)."""
    found = moments.parse(text, time.time_ns())
    if found is None:
        raise InvalidArgument(
            f'failed to parse value as time or duration: "{text}"', hint="`until` is e.g. 24h, or RFC 3339"
        )
    return found


def until_moments(filters: Filters) -> list[int]:
    """The moments of ``until`` in filters of images, whose faults Docker does not classify (UnclassifiedArgument)."""
    with prefixed("", unclassified=True):
        return [_moment(v) for v in filters.get("until", ())]


def prune_predicate(filters: Filters, known: frozenset[str] = _PRUNE) -> Callable[[int, dict[str, str] | None], bool]:
    """The predicate of ``prune --filter``, over creation time (ns) and labels."""
    check(filters, known)
    if len(filters.get("until", ())) > 1:
        raise InvalidArgument("more than one until filter specified")
    until = [_moment(v) for v in filters.get("until", ())]
    unwanted = filters.get("label!", [])

    def keep(created: int, labels: dict[str, str] | None) -> bool:
        return (
            all(created < m for m in until)
            and has_labels(labels, filters.get("label", []))
            and not (unwanted and has_labels(labels, unwanted))
        )

    return keep


def event_predicate(filters: Filters) -> Callable[[Event], bool]:
    """The predicate of ``events --filter``: any value of a filter (of labels all), and all filters.

    Unknown filters are ignored, as by Docker.
    """
    tests = [_event_test(name, values) for name, values in filters.items() if name in _EVENT]
    return lambda event: all(test(event) for test in tests)


def _event_test(name: str, values: list[str]) -> Callable[[Event], bool]:
    if name == "type":
        return lambda e: e["Type"] in values
    if name == "scope":
        return lambda e: e["scope"] in values
    if name == "label":
        return lambda e: has_labels(e["Actor"]["Attributes"], values)
    if name == "event":
        if any(v in _DETAILED for v in values):
            return lambda e: any(e["Action"].startswith(v) for v in values)
        return lambda e: e["Action"] in values
    if name == "image":
        return lambda e: bool(_image_names(e) & set(values))
    # An object's id or name may be begun only.
    return lambda e: (
        e["Type"] == name
        and any(
            e["Actor"]["ID"].startswith(v) or e["Actor"]["Attributes"].get("name", "").startswith(v) for v in values
        )
    )


def _image_names(event: Event) -> set[str]:
    """The names of an event's image: its id, and its name with the tag and without."""
    attributes = event["Actor"]["Attributes"]
    if event["Type"] == "image":
        names = {event["Actor"]["ID"], attributes.get("name", "")}
    else:
        names = {attributes.get("image", "")}
    return (names | {_without_tag(name) for name in names}) - {""}


def _without_tag(name: str) -> str:
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name
