"""Steps of a build that are no vertices of its graph: reading the Dockerfile, finding images, exporting."""

from __future__ import annotations

import secrets
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ketch.build.progress import SolveStatus, VertexState, VertexStatus
from ketch.engine.os_errors import explained
from ketch.errors import KetchError
from ketch.notation import times

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Phase:
    """One such step, as clients see it."""

    def __init__(self, name: str, tell: Callable[[SolveStatus], None]) -> None:
        self._tell = tell
        self._state = VertexState(digest=f"sha256:{secrets.token_hex(32)}", name=name, started=_now())
        self._send()

    @property
    def digest(self) -> str:
        """The name by which clients know the step."""
        return self._state.digest

    def status(self, name: str, current: int, total: int, *, done: bool = False) -> None:
        """Tell how far a part is."""
        row = VertexStatus(
            id=name,
            vertex=self._state.digest,
            name=name,
            current=current,
            total=total,
            timestamp=_now(),
            started=self._state.started,
            completed=_now() if done else None,
        )
        self._tell(SolveStatus(statuses=[row]))

    def part(self, name: str) -> None:
        """Tell of a part that is done."""
        self.status(name, 0, 0, done=True)

    def end(self, error: str = "") -> None:
        """End it."""
        self._state.completed, self._state.error = _now(), error
        self._send()

    def _send(self) -> None:
        state = self._state
        copy = VertexState(
            digest=state.digest, name=state.name, started=state.started, completed=state.completed, error=state.error
        )
        self._tell(SolveStatus(vertexes=[copy]))


@contextmanager
def phase(name: str, tell: Callable[[SolveStatus], None]) -> Iterator[Phase]:
    """A step, as long as the context lasts; errors of the system become KetchError, with its name."""
    found = Phase(name, tell)
    try:
        yield found
    except KetchError as e:
        found.end(e.message)
        raise
    except OSError as e:
        error = explained(e, name)
        found.end(error.message)
        raise error from e
    except BaseException:
        found.end("context canceled")
        raise
    found.end()


def _now() -> str:
    return times.rfc3339(time.time_ns())
