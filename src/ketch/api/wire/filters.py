"""``--filter``: predicates over containers, images and events; an unknown filter is an error (400)."""

from __future__ import annotations

import fnmatch
import re
import time
from typing import TYPE_CHECKING, Any

from ketch.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.engine.engine import Engine
    from ketch.engine.model import Container

Filters = dict[str, list[str]]
_CONTAINER = frozenset(
    ("ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name", "network",
     "publish", "since", "status", "volume")
)  # fmt: skip
_STATES = frozenset(("created", "restarting", "running", "removing", "paused", "exited", "dead"))
_IMAGE = frozenset(("dangling", "label", "before", "since", "reference", "until"))
_EVENT = frozenset(
    ("config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret",
     "service", "type", "volume")
)  # fmt: skip
_PRUNE = frozenset(("label", "label!", "until", "all", "dangling"))
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def check(filters: Filters, known: frozenset[str]) -> None:
    """InvalidArgument for a filter that is not known."""
    for name in filters:
        if name not in known:
            raise InvalidArgument(f"invalid filter '{name}'", hint=f"known: {', '.join(sorted(known))}")


def boolean(name: str, value: str) -> bool:
    """The value of a yes-or-no filter (InvalidArgument for anything else)."""
    if value.lower() in ("1", "t", "true"):
        return True
    if value.lower() in ("0", "f", "false"):
        return False
    raise InvalidArgument(f"invalid filter '{name}={value}'", hint="use true or false")


def _name_pattern(text: str) -> re.Pattern[str]:
    """A regular expression over names, which may begin with Docker's slash (InvalidArgument)."""
    try:
        return re.compile("^" + text[2:] if text.startswith("^/") else text.lstrip("/"))
    except re.error as e:
        raise InvalidArgument(f"invalid filter 'name={text}': {e}", hint="it is a regular expression") from e


def has_labels(labels: dict[str, str] | None, wanted: list[str]) -> bool:
    """Every ``key`` or ``key=value`` of ``wanted`` is there."""
    labels = labels or {}
    for item in wanted:
        key, equals, value = item.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def container_predicate(engine: Engine, filters: Filters) -> Callable[[Container], bool]:
    """What ``ps --filter`` keeps; values of one filter are alternatives, filters are all needed."""
    check(filters, _CONTAINER)
    for state in filters.get("status", ()):
        if state not in _STATES:
            raise InvalidArgument(f"invalid filter 'status={state}'")
    for health in filters.get("health", ()):
        if health not in ("none", "starting", "healthy", "unhealthy"):
            raise InvalidArgument(f"invalid filter 'health={health}'")
    for code in filters.get("exited", ()):
        if not code.lstrip("-").isdecimal():
            raise InvalidArgument(f"invalid filter 'exited={code}'")
    tests: list[Callable[[Container], bool]] = []
    for name, values in filters.items():
        tests.append(_container_test(engine, name, values))
    return lambda c: all(test(c) for test in tests)


def _container_test(engine: Engine, name: str, values: list[str]) -> Callable[[Container], bool]:
    if name in ("before", "since"):
        moments = [engine.containers.get(v).created for v in values]
        return lambda c: all(c.created < m if name == "before" else c.created > m for m in moments)
    if name == "ancestor":
        ids = {i for v in values if (i := _image_id(engine, v))}
        return lambda c: c.image_id in ids or c.image_ref in values
    if name == "name":
        patterns = [_name_pattern(v) for v in values]
        return lambda c: any(p.search(c.name) for p in patterns)
    tests: dict[str, Callable[[Container], bool]] = {
        "id": lambda c: any(c.id.startswith(v) for v in values),
        "label": lambda c: has_labels(c.config.labels, values),
        "status": lambda c: c.state.status in values,
        "exited": lambda c: c.state.finished_at > 0 and not c.state.running and str(c.state.exit_code) in values,
        "health": lambda c: (c.state.health.status if c.state.health else "none") in values,
        "is-task": lambda _c: "false" in values or "0" in values,
        "isolation": lambda c: c.host.isolation in values,
        "volume": lambda c: any(m.name in values or m.destination in values or m.source in values for m in c.mounts),
        "network": lambda c: any(n in values or s.network_id in values for n, s in c.networks.items()),
        "publish": lambda c: any(_has_port(c.ports, v) for v in values),
        "expose": lambda c: any(_has_port(c.config.exposed_ports or {}, v) for v in values),
    }
    return tests[name]


def _image_id(engine: Engine, ref: str) -> str:
    try:
        return engine.images.get(ref).id
    except NotFound:
        return ""


def _has_port(ports: dict[str, Any], wanted: str) -> bool:
    numbers, _, proto = wanted.partition("/")
    first, _, last = numbers.partition("-")
    if not first.isdecimal() or (last and not last.isdecimal()):
        raise InvalidArgument(f"invalid filter: `{wanted}` is not a port", hint="use e.g. 80, 80/udp or 8000-8010/tcp")
    if int(last or first) > 65535 or int(first) > 65535:
        raise InvalidArgument(f"invalid filter: `{wanted}`: ports go up to 65535")
    span = range(int(first), int(last or first) + 1)
    return any(f"{n}/{proto or 'tcp'}" in ports for n in span)


def image_predicate(engine: Engine, filters: Filters) -> Callable[[Any], bool]:
    """What ``images --filter`` keeps."""
    check(filters, _IMAGE)
    moments = {n: [engine.images.get(v).created for v in filters.get(n, ())] for n in ("before", "since")}
    until = [_moment(v) for v in filters.get("until", ())]
    references = filters.get("reference", [])
    dangling = {boolean("dangling", v) for v in filters.get("dangling", ())}

    def keep(image: Any) -> bool:
        labels = image.config.config.labels if image.config.config else None
        return (
            has_labels(labels, filters.get("label", []))
            and all(image.created < m for m in moments["before"])
            and all(image.created > m for m in moments["since"])
            and all(image.created < m for m in until)
            and (not dangling or (not image.repo_tags) in dangling)
            and (not references or any(refers(tag, references) for tag in image.repo_tags))
        )

    return keep


def refers(tag: str, patterns: list[str]) -> bool:
    """Whether any pattern matches the name, with or without its tag, as with Docker."""
    names = (tag, tag.rpartition(":")[0])
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _moment(text: str) -> int:
    """``24h`` ago, seconds since 1970, or RFC 3339 → ns."""
    parts = _DURATION.findall(text)
    if parts and "".join(n + u for n, u in parts) == text:
        return time.time_ns() - int(sum(float(n) * _SECONDS[u] for n, u in parts) * 1e9)
    from ketch.api.query import timestamp

    return timestamp({"until": text}, "until")


def prune_predicate(filters: Filters) -> Callable[[int, dict[str, str] | None], bool]:
    """What ``prune --filter`` may remove, from (creation time in ns, labels)."""
    check(filters, _PRUNE)
    until = [_moment(v) for v in filters.get("until", ())]

    def keep(created: int, labels: dict[str, str] | None) -> bool:
        unwanted = filters.get("label!", [])
        return (
            all(created < m for m in until)
            and has_labels(labels, filters.get("label", []))
            and not any(has_labels(labels, [u]) for u in unwanted)
        )

    return keep


def event_predicate(filters: Filters) -> Callable[[dict[str, Any]], bool]:
    """What ``events --filter`` shows."""
    check(filters, _EVENT)

    def matches(event: dict[str, Any]) -> bool:
        actor, kind = event["Actor"], event["Type"]
        attributes = actor["Attributes"]
        for name, values in filters.items():
            if name == "type":
                ok = kind in values
            elif name == "event":
                ok = any(event["Action"] == v or event["Action"].startswith(v + ":") for v in values)
            elif name == "label":
                ok = has_labels(attributes, values)
            elif name == "scope":
                ok = event["scope"] in values
            elif name == "image" and kind == "container":
                shown = attributes.get("image", "")
                ok = any(shown == v or shown.partition(":")[0] == v for v in values)
            else:
                ok = kind == name and any(actor["ID"].startswith(v) or attributes.get("name") == v for v in values)
            if not ok:
                return False
        return True

    return matches
