"""Streams of a build for its client: Ketch's own events, and the lines of the old API."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ketch.build.classic.stream import ClassicStream
from ketch.build.errors import SolveError
from ketch.engine.model.building.builds import BuildProgress, OutputBytes
from ketch.errors import KetchError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.build.dockerfile.convert.conversion import Conversion
    from ketch.build.progress import SolveStatus
    from ketch.engine.build.run.contexts import FoundDockerfile
    from ketch.engine.model.building.builds import BuildEvent, BuildExplanations, BuildResult, ImageBuild
    from ketch.images.progress import ProgressItem
    from ketch.notation.api_objects import ApiObject


class EventListener:
    """One who passes on everything as events."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[BuildEvent | None] = asyncio.Queue()

    def read(self, dockerfile: FoundDockerfile) -> None:
        """Nothing: clients of this stream have the file."""

    def pulled(self, item: ProgressItem) -> None:
        """Nothing: it is a step of the build, of which `status` hears."""

    def converted(self, conversion: Conversion, bases: Mapping[int, str]) -> None:
        """Nothing: the graph is in what follows."""

    def status(self, status: SolveStatus) -> None:
        """Pass on a change."""
        self.events.put_nowait(BuildProgress(status))

    def explained(self, found: BuildExplanations) -> None:
        """Pass on explanations."""
        self.events.put_nowait(found)

    def output(self, index: int, data: bytes) -> None:
        """Pass on bytes of an output."""
        self.events.put_nowait(OutputBytes(index, data))


class ClassicListener:
    """One who writes the stream of the old API."""

    def __init__(self, request: ImageBuild) -> None:
        self.items: asyncio.Queue[ApiObject | None] = asyncio.Queue()
        self._request = request
        self._stream: ClassicStream | None = None

    def read(self, dockerfile: FoundDockerfile) -> None:
        """Begin the stream (DockerfileError)."""
        self._stream = ClassicStream(dockerfile.text, self._request.target, self._request.labels)

    def pulled(self, item: ProgressItem) -> None:
        """Tell of a pull, below the headline of its step."""
        if self._stream is not None:
            self._put(self._stream.first_line())
            self.items.put_nowait(dict(item))

    def converted(self, conversion: Conversion, bases: Mapping[int, str]) -> None:
        """Tell of the first step."""
        if self._stream is not None:
            self._put(self._stream.begin(conversion.places, conversion.stages, bases))

    def status(self, status: SolveStatus) -> None:
        """Tell what has changed."""
        if self._stream is not None:
            self._put(self._stream.status(status))

    def explained(self, found: BuildExplanations) -> None:
        """Nothing: this API explains nothing."""

    def output(self, index: int, data: bytes) -> None:
        """Nothing: this API has no outputs."""

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
            self.items.put_nowait(item)
