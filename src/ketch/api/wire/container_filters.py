"""``ps --filter``: predicates over containers.

Values of one filter are alternatives (those of ``label`` are all needed), filters are all needed, except that a port
that is published or exposed satisfies both port filters.  An unknown filter or an impossible value is an error (400).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ketch import expressions
from ketch.api.wire.containers import port_rows
from ketch.api.wire.filters import Filters, booleans_of, check, has_labels
from ketch.engine.model.records import Status
from ketch.errors import InvalidArgument, NotFound, UnclassifiedArgument
from ketch.notation import integers

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.engine.engine import Engine
    from ketch.engine.model.records import Container

    Test = Callable[[Container], bool]

_KNOWN = frozenset(
    (
        "ancestor",
        "before",
        "exited",
        "expose",
        "health",
        "id",
        "is-task",
        "isolation",
        "label",
        "name",
        "network",
        "publish",
        "since",
        "status",
        "volume",
    )
)
_STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
_HEALTH = ("none", "starting", "healthy", "unhealthy")
_PORTS = re.compile(r"(\d{1,8})(?:-(\d{1,8}))?(?:/(\w{1,9}))?\Z", re.ASCII)


def predicate(engine: Engine, filters: Filters) -> Test:
    """The predicate of these filters (InvalidArgument, NotFound)."""
    check(filters, _KNOWN)
    filters = {name: values for name, values in filters.items() if values}  # one without values filters nothing
    for name, what, allowed in (("status", "state", _STATES), ("health", "health", _HEALTH)):
        for value in filters.get(name, ()):
            if value not in allowed:
                raise InvalidArgument(
                    f"invalid filter '{name}={value}': invalid value for {what} ({value}): must be one of "
                    f"{', '.join(allowed)}"
                )
    tests = [_test(engine, name, values) for name, values in filters.items() if name not in ("publish", "expose")]
    if "publish" in filters or "expose" in filters:
        tests.append(_port_test(filters))
    return lambda container: all(test(container) for test in tests)


def _test(engine: Engine, name: str, values: list[str]) -> Test:
    makers: dict[str, Callable[[Engine, list[str]], Test]] = {
        "ancestor": _ancestor,
        "before": _before,
        "since": _since,
        "name": _name,
        "id": _id,
        "exited": _exited,
        "is-task": _is_task,
    }
    if name in makers:
        return makers[name](engine, values)
    tests: dict[str, Test] = {
        "label": lambda c: has_labels(c.config.labels, values),
        "status": lambda c: c.state.status in values,
        "health": lambda c: (c.state.health.status if c.state.health else "none") in values,
        "isolation": lambda _c: True,  # (of another system)
        "volume": lambda c: any(m.destination in values or (m.name or m.source) in values for m in c.mounts),
        "network": lambda c: any(
            n in values or any(s.network_id.startswith(v) for v in values) for n, s in c.networks.items()
        ),
    }
    return tests[name]


def _before(engine: Engine, values: list[str]) -> Test:
    moments = _created(engine, values)
    return lambda c: all(c.created < m for m in moments)


def _since(engine: Engine, values: list[str]) -> Test:
    moments = _created(engine, values)
    return lambda c: all(c.created > m for m in moments)


def _created(engine: Engine, values: list[str]) -> list[int]:
    """The times at which these containers were made (NotFound, of an empty name, too)."""
    if "" in values:
        raise NotFound("No such container: ")
    return [engine.containers.get(v).created for v in values]


def _ancestor(engine: Engine, values: list[str]) -> Test:
    """Containers of an image or of one built on it (whose lowest layers are the same)."""
    images = []
    for value in values:
        try:
            images.append(engine.images.get(value))
        except (NotFound, InvalidArgument):
            continue  # no container is of an image that is not here, or that cannot be
    ids = {image.id for image in images}
    for other in engine.images.list(everything=True):
        for image in images:
            base = image.chain_ids
            if (
                base
                and other.chain_ids[: len(base)] == base
                and (len(other.chain_ids), other.created) > (len(base), image.created)
            ):
                ids.add(other.id)
    return lambda c: c.image_id in ids


def _patterns(name: str, values: list[str]) -> expressions.Expressions:
    """The expressions among the values; others fit nothing, as with Docker."""
    return expressions.Expressions(filter(expressions.is_valid, values))


def _name(_engine: Engine, values: list[str]) -> Test:
    """A regular expression over names, with Docker's slash before them and without; names of links do not count."""
    patterns = _patterns("name", values)
    return lambda c: patterns.fit(f"/{c.name}", c.name)


def _id(_engine: Engine, values: list[str]) -> Test:
    patterns = _patterns("id", [value for value in values if value])  # an empty one fits nothing
    return lambda c: patterns.fit(c.id)


def _exited(_engine: Engine, values: list[str]) -> Test:
    codes = set()
    for value in values:
        try:
            codes.add(integers.signed(value))
        except integers.NotAnIntegerError as e:
            raise InvalidArgument(f"invalid filter 'exited={value}': strconv.Atoi: parsing \"{value}\": {e}") from e
    ended = (Status.EXITED, Status.DEAD)
    return lambda c: c.state.finished_at > 0 and c.state.status in ended and c.state.exit_code in codes


def _is_task(_engine: Engine, values: list[str]) -> Test:
    wanted = booleans_of({"is-task": values}, "is-task")
    return lambda _c: not wanted


def _port_test(filters: Filters) -> Test:
    published = [_span("publish", v) for v in filters.get("publish", ())]
    exposed = [_span("expose", v) for v in filters.get("expose", ())]

    def test(container: Container) -> bool:
        return any(
            any(row["Type"] == proto and row.get("PublicPort") in span for span, proto in published)
            or any(row["Type"] == proto and row["PrivatePort"] in span for span, proto in exposed)
            for row in port_rows(container)
        )

    return test


def _span(name: str, value: str) -> tuple[range, str]:
    """``80``, ``80/udp``, ``8000-8010/tcp``."""
    match = _PORTS.match(value)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if match is None or first > last or last > 65535:
        wrong = "value out of range" if last > 65535 else "invalid syntax"
        why = f'strconv.ParseUint: parsing "{value.partition("/")[0]}": {wrong}'
        raise UnclassifiedArgument(
            f"error while looking up for {name} {value}: {why if value else 'Empty string specified for ports.'}",
            hint="use e.g. 80, 80/udp or 8000-8010/tcp",
        )
    return range(first, last + 1), match[3] or "tcp"
