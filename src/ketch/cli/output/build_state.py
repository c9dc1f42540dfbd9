"""The state of a build, put together from BuildKit's status messages (client.SolveStatus as JSON).

A message has rows that are new or replace older ones: vertexes (steps), statuses (parts of a step, with bytes), logs
and warnings.  A step can begin again, and several vertexes of one progress group are shown as one step.
"""

from __future__ import annotations

import binascii

from ketch.notation import moments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Message = dict[str, Any]
    Intervals = list[tuple[int, int | None]]

CANCELED = "context canceled"  # the end of the error of a step that was given up


def nanoseconds(text: str | None) -> int | None:
    """A time of a message, in ns since 1970."""
    return moments.rfc3339(text) if text else None


def text_of(encoded: str | None) -> str:
    """A text that is bytes on the wire."""
    return binascii.a2b_base64(encoded or "").decode(errors="replace")


class StepPart:
    """A part of a step, such as a layer that is fetched; times in ns since 1970."""

    __slots__ = ("completed", "current", "name", "started", "timestamp", "total")

    def __init__(self, row: Message) -> None:
        self.name = str(row.get("id", ""))
        self.current, self.total = int(row.get("current") or 0), int(row.get("total") or 0)
        self.timestamp = nanoseconds(row.get("timestamp"))
        self.started, self.completed = nanoseconds(row.get("started")), nanoseconds(row.get("completed"))


class BuildStep:
    """One step: a vertex, or the vertexes of a progress group."""

    def __init__(self, digest: str, name: str, *, group: bool = False) -> None:
        self.digest, self.name = digest, name
        self.hidden = group  # until a vertex of the group begins that is not there only for the others' sake
        self.listed = False
        self.parts: dict[str, StepPart] = {}
        self.shown_parts: list[str] = []  # those that have begun, in that order
        self.warnings: list[Message] = []
        self._members: dict[str, Message] = {}
        self._runs: dict[int, int | None] = {}
        self._fresh: list[tuple[int | None, bytes]] = []
        self._fresh_parts: set[str] = set()

    @property
    def cached(self) -> bool:
        """Whether its result was there already."""
        return bool(self._members) and all(row.get("cached") for row in self._members.values())

    @property
    def error(self) -> str:
        """The error that ended it."""
        return next((str(row["error"]) for row in self._members.values() if row.get("error")), "")

    @property
    def canceled(self) -> bool:
        """Whether it was given up, because of an error elsewhere."""
        return self.error.endswith(CANCELED)

    def runs(self) -> Intervals:
        """The times in which it ran: those that overlap are one; an open one has no end."""
        found: Intervals = []
        for start, stop in sorted(self._runs.items()):
            if not found or (found[-1][1] is not None and found[-1][1] < start):
                found.append((start, stop))
            elif found[-1][1] is not None and (stop is None or stop > found[-1][1]):
                found[-1] = (found[-1][0], stop)
        return found

    @property
    def started(self) -> bool:
        """Whether it has begun."""
        return bool(self._runs)

    @property
    def completed_at(self) -> int | None:
        """The end of its last run; None while it runs, and before."""
        runs = self.runs()
        return runs[-1][1] if runs else None

    def seconds(self, now: int) -> float:
        """The time that it took, or has taken until ``now``."""
        return sum((now if stop is None else stop) - start for start, stop in self.runs()) / 1e9

    def take_output(self) -> list[tuple[float, bytes]]:
        """Output since the last call, each piece with the seconds since its run began."""
        runs = self.runs()
        begin = runs[-1][0] if runs else None
        pieces = [(0.0 if begin is None or at is None else (at - begin) / 1e9, data) for at, data in self._fresh]
        self._fresh = []
        return pieces

    def take_parts(self) -> list[StepPart]:
        """The parts that have changed since the last call and have begun."""
        fresh, self._fresh_parts = self._fresh_parts, set()
        return [self.parts[name] for name in self.shown_parts if name in fresh]

    def see(self, row: Message) -> bool:
        """Take a vertex's row; whether it changed anything that is shown."""
        digest = str(row["digest"])
        old = self._members.get(digest)
        start = nanoseconds(row.get("started"))
        if old is not None and old.get("started") and start is None:
            return False  # it was announced again by somebody who waits for it
        self._members[digest] = row
        if start is None:
            return False
        self._runs[start] = nanoseconds(row.get("completed"))
        group = row.get("progressGroup")
        if not (group and group.get("weak")) or row.get("error"):
            self.hidden = False
        return old is None or any(
            old.get(key) != row.get(key) for key in ("name", "started", "completed", "cached", "error")
        )

    def see_part(self, row: Message) -> None:
        """Take a status's row."""
        part = StepPart(row)
        known = self.parts.get(part.name)
        if part.started is not None and (known is None or known.started is None):
            self.shown_parts.append(part.name)
        self.parts[part.name] = part
        self._fresh_parts.add(part.name)

    def see_output(self, row: Message) -> None:
        """Take a log's row."""
        self._fresh.append((nanoseconds(row.get("timestamp")), binascii.a2b_base64(row.get("data") or "")))


class BuildState:
    """All steps of a build; ``steps``: those that have begun, in that order."""

    def __init__(self) -> None:
        self.steps: list[BuildStep] = []
        self.warnings: list[Message] = []
        self.began_at: int | None = None
        self._of: dict[str, BuildStep] = {}
        self._all: dict[str, BuildStep] = {}

    def update(self, message: Message) -> list[BuildStep]:
        """Take a message; returns the steps that it changes, one as often as it is changed."""
        changed: list[BuildStep] = []
        for row in message.get("vertexes") or ():
            step = self._step(row)
            if step.see(row) and not step.hidden:
                changed.append(step)
            if step.started and not step.hidden and not step.listed:
                step.listed = True
                self.steps.append(step)
            if self.began_at is None:
                self.began_at = nanoseconds(row.get("started"))
        for row in message.get("statuses") or ():
            if (known := self._of.get(row.get("vertex", ""))) is not None:
                known.see_part(row)
                changed.append(known)
        for row in message.get("warnings") or ():
            self.warnings.append(row)
            if (known := self._of.get(row.get("vertex", ""))) is not None:
                known.warnings.append(row)
        for row in message.get("logs") or ():
            if (known := self._of.get(row.get("vertex", ""))) is not None:
                known.see_output(row)
                changed.append(known)
        return changed

    def _step(self, row: Message) -> BuildStep:
        """The step of a vertex, which may be its group's."""
        digest, group = str(row["digest"]), row.get("progressGroup")
        key = str(group["id"]) if group else digest
        step = self._all.get(key)
        if step is None:
            name = group.get("name", "") if group else row.get("name", "")
            step = self._all[key] = BuildStep(key, str(name), group=bool(group))
        elif not group and row.get("name"):
            step.name = str(row["name"])
        self._of[digest] = step
        return step

    def counts(self) -> tuple[int, int, int]:
        """(steps that have ended, those of them that were cached, all that are known)."""
        known = [step for step in self._all.values() if not step.hidden]
        ended = [step for step in known if step.completed_at is not None]
        return len(ended), sum(step.cached for step in ended), len(known)
