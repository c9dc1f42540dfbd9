"""Event bus: events go to a journal, and at once to the subscribers.

An event is a dict in the shape of ``GET /events``.  A subscriber who does not keep up is cut off behind ``BACKLOG``
events; nobody else waits for it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ketch.engine.events.journal import EventJournal
    from ketch.engine.model.event import Event
    from ketch.engine.model.records import Container
    from ketch.images.model import Image

BACKLOG = 2048
_BATCH = 256


class EventBus:
    """Publish and subscribe; used from the event loop's thread only."""

    def __init__(self, journal: EventJournal) -> None:
        self._journal = journal
        self._queues: set[asyncio.Queue[Event]] = set()
        self._last = 0
        self.published = 0  # since the start

    def publish(self, kind: str, action: str, actor_id: str, attributes: dict[str, str]) -> None:
        """Publish an event; ``kind`` is container, image, volume, network, builder or daemon."""
        now = self._tick()
        event: Event = {
            "Type": kind,
            "Action": action,
            "Actor": {"ID": actor_id, "Attributes": attributes},
            "scope": "local",
            "time": now // 1_000_000_000,
            "timeNano": now,
        }
        if kind in ("container", "image"):  # what clients of API 1.21 read; empty ones are left out
            older = {"status": action, "id": actor_id}
            if kind == "container":
                older["from"] = attributes.get("image", "")
            event = {**{name: value for name, value in older.items() if value}, **event}  # type: ignore[typeddict-item]
        self._journal.append(event)
        self.published += 1
        for queue in list(self._queues):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._queues.discard(queue)

    def of_container(self, container: Container, action: str, **attributes: str) -> None:
        """Publish an event of a container, with its labels, its image and its name as attributes."""
        labels = container.config.labels or {}
        self.publish(
            "container",
            action,
            container.id,
            {**labels, "image": container.image_ref, "name": container.name, **attributes},
        )

    def of_image(self, image: Image, action: str, name: str = "") -> None:
        """Publish an event of an image, with its labels; its name is its id unless another is given."""
        labels = (image.config.config.labels if image.config.config is not None else None) or {}
        self.publish("image", action, image.id, {**labels, "name": name or image.id})

    def _tick(self) -> int:
        """The current time, strictly increasing: it separates past events from live ones."""
        self._last = max(time.time_ns(), self._last + 1)
        return self._last

    @property
    def listeners(self) -> int:
        """The number of subscribers."""
        return len(self._queues)

    async def subscribe(self, since_ns: int | None = None, until_ns: int | None = None) -> AsyncIterator[Event]:
        """Past events from ``since_ns`` on (with ``until_ns`` alone: all), then live ones until ``until_ns``."""
        queue: asyncio.Queue[Event] = asyncio.Queue(BACKLOG)
        self._queues.add(queue)
        heard = self._tick()  # what is older is in the journal, what is later comes through the queue
        try:
            if since_ns is not None or until_ns is not None:
                last = heard if until_ns is None else min(heard, until_ns)
                async for event in self._past(since_ns or 0, last):
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

    async def _past(self, since_ns: int, until_ns: int) -> AsyncIterator[Event]:
        """Past events from the journal, which is read in a thread."""
        events = self._journal.read(since_ns, until_ns)

        def some() -> list[Event]:
            return list(itertools.islice(events, _BATCH))

        while batch := await asyncio.to_thread(some):
            for event in batch:
                yield event
