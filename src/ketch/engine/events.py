"""What happened: a bounded history and the subscribers who want to hear of it at once.

An event is a dict in the shape of ``GET /events``.  A subscriber who does not keep up loses nothing of
the last ``HISTORY`` events and is cut off beyond that; nobody else waits for it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HISTORY = 2048
Event = dict[str, Any]


class EventBus:
    """Publish and subscribe; used from the event loop's thread only."""

    def __init__(self) -> None:
        self._history: deque[Event] = deque(maxlen=HISTORY)
        self._queues: set[asyncio.Queue[Event]] = set()

    def publish(self, kind: str, action: str, actor_id: str, attributes: dict[str, str]) -> None:
        """Tell everybody; ``kind`` is container, image, volume, network or daemon."""
        now = time.time_ns()
        event: Event = {
            "Type": kind,
            "Action": action,
            "Actor": {"ID": actor_id, "Attributes": attributes},
            "scope": "local",
            "time": now // 1_000_000_000,
            "timeNano": now,
        }
        if kind == "container":
            event = {"status": action, "id": actor_id, "from": attributes.get("image", ""), **event}
        elif kind == "image":
            event = {"status": action, "id": actor_id, **event}
        self._history.append(event)
        for queue in list(self._queues):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._queues.discard(queue)

    @property
    def listeners(self) -> int:
        """How many subscribers there are now."""
        return len(self._queues)

    async def subscribe(self, since_ns: int | None = None, until_ns: int | None = None) -> AsyncIterator[Event]:
        """Past events from ``since_ns`` on, then live ones until ``until_ns`` (None: for ever)."""
        queue: asyncio.Queue[Event] = asyncio.Queue(HISTORY)
        self._queues.add(queue)
        past = [e for e in self._history if since_ns is not None and e["timeNano"] >= since_ns]
        try:
            for event in past:
                if until_ns is None or event["timeNano"] <= until_ns:
                    yield event
            while queue in self._queues:
                left = None if until_ns is None else (until_ns - time.time_ns()) / 1e9
                if left is not None and left <= 0:
                    return
                try:
                    yield await asyncio.wait_for(queue.get(), left)
                except TimeoutError:
                    return
        finally:
            self._queues.discard(queue)
