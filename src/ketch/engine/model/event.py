"""Events in the shape of ``GET /events``: types alone."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class Actor(TypedDict):
    """The object of an event."""

    ID: str
    Attributes: dict[str, str]


_Old = TypedDict("_Old", {"from": NotRequired[str]})


class Event(_Old):
    """One event; ``status``, ``id`` and ``from`` repeat its fields for clients of before API 1.22."""

    Type: str
    Action: str
    Actor: Actor
    scope: str
    time: int
    timeNano: int
    status: NotRequired[str]
    id: NotRequired[str]
