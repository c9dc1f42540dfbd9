"""Failures of a build, as its client is told them: with the lines of the Dockerfile, and what the command left."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ketch.build.dockerfile.errors import DockerfileError, Span, excerpt
from ketch.build.errors import CommandFailed, SolveError
from ketch.engine.build import failed_state
from ketch.engine.build.frontends.errors import PlacedError
from ketch.engine.model.building.builds import BuildFailure
from ketch.errors import KetchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.dockerfile.convert.conversion import Conversion
    from ketch.engine.build.dockerfiles import FoundDockerfile
    from ketch.engine.build.frontends.errors import SourcePlace
    from ketch.engine.model.building.builds import ImageBuild
    from ketch.images.store import ImageStore
    from ketch.storage.content.leases import Lease


def _lines(place: SourcePlace) -> str:
    """Lines of a file that another front end has told."""
    numbers = [at.line for one in place.ranges for at in (one.start, one.end)] or [1]
    text = place.info.data.decode("utf-8", "surrogateescape")
    return excerpt(text, place.info.filename, Span(max(1, min(numbers)), max(numbers)))


class Failures:
    """The facts of one build that its failures are told with; ``conversions`` grows with it."""

    def __init__(self, request: ImageBuild, conversions: Sequence[Conversion]) -> None:
        self._request, self._conversions = request, conversions
        self.dockerfile: FoundDockerfile | None = None
        self._image = ""

    async def keep(self, store: ImageStore, error: SolveError, lease: Lease) -> None:
        """Keep what the failed command left, if that is asked for."""
        if not self._request.keep_failed:
            return
        targets = [one.edge for one in self._conversions if one.edge is not None]
        try:
            self._image = await asyncio.to_thread(failed_state.keep, store, lease, targets, error)
        except KetchError as e:
            error.hint = f"what the command left could not be kept: {e.message}"

    def told(self, error: KetchError) -> BuildFailure:
        """The error as clients are told it."""
        placed = error if isinstance(error, PlacedError) else None
        if placed is not None and isinstance(placed.cause, SolveError):
            error = placed.cause
        cause: Exception = error.cause if isinstance(error, SolveError) else error
        vertex = error.vertex if isinstance(error, SolveError) else ""
        span, word = self._place(error, vertex)
        shown = ""
        if span is not None and self.dockerfile is not None:
            shown = excerpt(self.dockerfile.text, self.dockerfile.name, span, word)
        elif placed is not None:
            shown = "\n".join(map(_lines, placed.places))
        return BuildFailure(
            message=error.message,
            kind=cause.kind if isinstance(cause, KetchError) else error.kind,
            hint=error.hint or self._advice(cause),
            excerpt=shown,
            vertex=vertex,
            exit_code=cause.exit_code if isinstance(cause, CommandFailed) else 0,
            image=self._image,
        )

    def _advice(self, cause: Exception) -> str:
        if isinstance(cause, CommandFailed) and not (self._request.classic or self._request.keep_failed):
            return "`ketch build --shell-on-failure` opens a shell in what it left"
        return ""

    def _place(self, error: KetchError, vertex: str) -> tuple[Span | None, str]:
        if isinstance(error, DockerfileError):
            return error.span, error.word
        for one in self._conversions:
            if spans := one.places.of(vertex):
                return spans[0], ""
        return None, ""
