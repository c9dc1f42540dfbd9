"""Filters of the history of builds: containerd's language, and comparisons of times: ``duration>10s,status==error``.

startedAt, completedAt    >, >=, <, <= a time of RFC 3339, or a duration: so long ago
duration                  >, >=, <, <= a duration; of a build that runs until now
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from ketch.buildkit.control import filters
from ketch.notation import durations, moments
from ketch.rpc.status import Code, RpcError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.engine.model.building.records import BuildRecord

    RecordFilter = Callable[[BuildRecord], bool]

_PARTS = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^,])+')
_TIMED = re.compile(r"(startedAt|completedAt|duration)(>=|<=|>|<)(.*)", re.DOTALL)


def parse(texts: Sequence[str]) -> RecordFilter:
    """Whether a build is wanted: by all parts of a filter, by any of several filters (RpcError)."""
    filters.check(texts, "history")
    found = [_filter(text) for text in texts]
    return lambda record: not found or any(one(record) for one in found)


def _filter(text: str) -> RecordFilter:
    """One filter; without a comparison of times it is containerd's as a whole."""
    pieces = _PARTS.findall(text)
    timed = [match for piece in pieces if (match := _TIMED.fullmatch(piece))]
    others = [piece for piece in pieces if not _TIMED.fullmatch(piece)] if timed else [text]
    parts = [_compared(match[1], match[2], match[3]) for match in timed]
    if others:
        plain = filters.parse([",".join(others)], "history")
        parts.append(lambda record: plain(_fields(record)))
    return lambda record: all(part(record) for part in parts)


def _compared(name: str, operator: str, text: str) -> RecordFilter:
    limit = durations.parse(text)
    if name == "duration" and limit is None:
        raise RpcError(Code.INVALID_ARGUMENT, f"invalid duration {text}")
    if name != "duration":
        limit = time.time_ns() - limit if limit is not None else moments.rfc3339(text)
        if limit is None:
            raise RpcError(Code.INVALID_ARGUMENT, f"invalid time {text}")
    at = limit or 0

    def wanted(record: BuildRecord) -> bool:
        if name == "completedAt" and not record.completed:
            return False
        value = {
            "startedAt": record.created,
            "completedAt": record.completed,
            "duration": (record.completed or time.time_ns()) - record.created,
        }[name]
        if value == at:
            return "=" in operator
        return (value > at) == (operator[0] == ">")

    return wanted


def _fields(record: BuildRecord) -> dict[str, str]:
    fields = {
        "ref": record.ref,
        "status": record.status,
        "repository": record.attributes.get("vcs:source", ""),
    }
    return {name: value for name, value in fields.items() if value}
