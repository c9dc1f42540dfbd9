"""Streams of a build for its client: Ketch's own events, and the lines of the old API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch.build.classic.stream import ClassicStream
from ketch.build.errors import SolveError
from ketch.build.progress import LogLine
from ketch.engine.build.run.waiting import WaitingItems
from ketch.engine.model.building.builds import BuildProgress, OutputBytes
from ketch.errors import KetchError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.build.dockerfile.convert.conversion import Conversion
    from ketch.build.progress import SolveStatus
    from ketch.engine.build.dockerfiles import FoundDockerfile
    from ketch.engine.model.building.builds import BuildEvent, BuildExplanations, BuildResult, ImageBuild
    from ketch.images.progress import ProgressItem
    from ketch.notation.api_objects import ApiObject


_LEFT_OUT = b"[output is left out here: the client did not read it]\n"
_OF_STEPS = ("Step ", " ---> ", "Success", "[Warning]")


class EventListener:
    """One who passes on everything as events; of a client that does not read, what commands print is left out."""

    def __init__(self) -> None:
        self.events: WaitingItems[BuildEvent | None] = WaitingItems()
        self._left_out = False

    def read(self, dockerfile: FoundDockerfile) -> None:
        """Nothing: clients of this stream have the file."""

    def pulled(self, item: ProgressItem) -> None:
        """Nothing: it is a step of the build, of which `status` hears."""

    def converted(self, conversion: Conversion, bases: Mapping[int, str]) -> None:
        """Nothing: the graph is in what follows."""

    def status(self, status: SolveStatus) -> None:
        """Pass on a change."""
        logs = status.logs
        if logs and self.events.full:
            first = LogLine(vertex=logs[0].vertex, stream=2, data=_LEFT_OUT, timestamp=logs[0].timestamp)
            status = msgspec.structs.replace(status, logs=[] if self._left_out else [first])
        self._left_out = self.events.full
        self.events.put(BuildProgress(status), sum(len(line.data) for line in status.logs))

    def explained(self, found: BuildExplanations) -> None:
        """Pass on explanations."""
        self.events.put(found)

    def output(self, index: int, data: bytes) -> None:
        """Pass on bytes of an output."""
        self.events.put(OutputBytes(index, data), len(data))

    async def room(self) -> None:
        """Wait until the client has read enough."""
        await self.events.room()


class ClassicListener:
    """One who writes the stream of the old API."""

    def __init__(self, request: ImageBuild) -> None:
        self.items: WaitingItems[ApiObject | None] = WaitingItems()
        self._request = request
        self._stream: ClassicStream | None = None

    def read(self, dockerfile: FoundDockerfile) -> None:
        """Begin the stream (DockerfileError)."""
        self._stream = ClassicStream(dockerfile.text, self._request.target, self._request.labels)

    def pulled(self, item: ProgressItem) -> None:
        """Tell of a pull, below the headline of its step."""
        if self._stream is not None:
            self._put(self._stream.first_line())
            self.items.put(dict(item))

    def converted(self, conversion: Conversion, bases: Mapping[int, str]) -> None:
        """Tell of the first step."""
        if self._stream is not None:
            self._put(self._stream.begin(conversion.places, conversion.stages, bases, conversion.triggers))

    def status(self, status: SolveStatus) -> None:
        """Tell what has changed."""
        if self._stream is not None:
            self._put(self._stream.status(status))

    def explained(self, found: BuildExplanations) -> None:
        """Nothing: this API explains nothing."""

    def output(self, index: int, data: bytes) -> None:
        """Nothing: this API has no outputs."""

    async def room(self) -> None:
        """Wait until the client has read enough."""
        await self.items.room()

    def finish(self, result: BuildResult) -> None:
        """End the stream."""
        if self._stream is not None:
            self._put(self._stream.finish(result.image, result.names, result.unused))

    def failure(self, error: KetchError) -> list[ApiObject]:
        """The end of the stream of a build that failed; nothing where it was refused before it began."""
        if self._stream is None:
            return []
        if isinstance(error, SolveError) and isinstance(error.cause, KetchError):
            error = error.cause
        return self._stream.fail(error)

    def _put(self, items: list[ApiObject]) -> None:
        for item in items:
            text = str(item.get("stream", ""))
            if not self.items.full or not text or text.startswith(_OF_STEPS):
                self.items.put(item, len(text))
