"""Protocol of those who hear of a build while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.build.dockerfile.convert.conversion import Conversion
    from ketch.build.progress import SolveStatus
    from ketch.engine.build.dockerfiles import FoundDockerfile
    from ketch.engine.model.building.builds import BuildExplanations
    from ketch.images.progress import ProgressItem


class BuildListener(Protocol):
    """One who hears of a build; from the event loop only."""

    def read(self, dockerfile: FoundDockerfile) -> None:
        """Hear of the file, before anything is asked of others (DockerfileError: it cannot be read)."""
        ...

    def pulled(self, item: ProgressItem) -> None:
        """Hear of the pull of an image with which a stage begins."""
        ...

    def converted(self, conversion: Conversion, bases: Mapping[int, str]) -> None:
        """Hear of the graph of a platform, and of the ids of the images with which stages begin."""
        ...

    def status(self, status: SolveStatus) -> None:
        """Hear of a change."""
        ...

    def explained(self, found: BuildExplanations) -> None:
        """Hear why steps were not found in the cache."""
        ...

    def output(self, index: int, data: bytes) -> None:
        """Take bytes of an output."""
        ...

    async def room(self) -> None:
        """Wait until more bytes of outputs may come."""
        ...
