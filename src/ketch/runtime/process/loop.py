"""An event loop over epoll: descriptors and their handlers."""

from __future__ import annotations

from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, epoll
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Handler = Callable[[int], None]

READ, WRITE, GONE = EPOLLIN, EPOLLOUT, EPOLLHUP | EPOLLERR


class Loop:
    """Level-triggered; ``GONE`` is always reported.  Handlers may add and remove descriptors, also their own."""

    def __init__(self) -> None:
        self._epoll = epoll()
        self._handlers: dict[int, Handler] = {}
        self.deadline: float | None = None
        self.on_deadline: Callable[[], None] = lambda: None
        self.on_error: Callable[[], None] = lambda: None
        self.running = True

    def add(self, fd: int, events: int, handler: Handler) -> None:
        """Call ``handler(events)`` whenever ``fd`` is ready."""
        self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def change(self, fd: int, events: int) -> None:
        """Change the events of a descriptor."""
        self._epoll.modify(fd, events)

    def is_ready(self, fd: int) -> bool:
        """Whether something has happened to ``fd`` that no handler has dealt with yet."""
        return any(other == fd for other, _ in self._epoll.poll(0, len(self._handlers)))

    def remove(self, fd: int) -> None:
        """Remove ``fd`` (which must still be open); its handler may have lost it before."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def run(self) -> None:
        """Run until ``running`` is False.  A handler that raises loses its descriptor; the loop goes on."""
        while self.running:
            timeout = -1.0 if self.deadline is None else max(self.deadline - monotonic(), 0)
            ready = self._epoll.poll(timeout, 16)
            for fd, events in ready:
                handler = self._handlers.get(fd)
                if handler is None:
                    continue
                try:
                    handler(events)
                except Exception:
                    self.on_error()
                    if self._handlers.get(fd) is handler:
                        self.remove(fd)
            if self.deadline is not None and monotonic() >= self.deadline:
                self.deadline = None
                self.on_deadline()
