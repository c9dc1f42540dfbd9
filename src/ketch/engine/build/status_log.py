"""Messages of a build, kept for its history: as many as there is room for, compressed."""

from __future__ import annotations

import contextlib
import zlib
from typing import TYPE_CHECKING

import msgspec

from ketch.build.progress import SolveStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.build.dockerfile.convert.conversion import Conversion
    from ketch.engine.build.dockerfiles import FoundDockerfile
    from ketch.engine.build.run.listener import BuildListener
    from ketch.engine.model.building.builds import BuildExplanations
    from ketch.images.progress import ProgressItem

_ROOM = 2 << 20  # bytes of messages; beyond them only the steps themselves are kept


class StatusLog:
    """One who hears of a build, keeps its messages, and passes everything on."""

    def __init__(self, listener: BuildListener) -> None:
        self._listener = listener
        self._lines: list[bytes] = []
        self._size = 0

    def packed(self) -> bytes:
        """The messages so far, for `unpacked`."""
        return zlib.compress(b"".join(self._lines), 1)

    def status(self, status: SolveStatus) -> None:
        """Keep a change, and pass it on."""
        self._listener.status(status)
        if self._size > _ROOM:
            if not status.vertexes:
                return
            status = SolveStatus(vertexes=status.vertexes)
        with contextlib.suppress(UnicodeEncodeError):  # a name that is no text, which no message could have
            line = msgspec.json.encode(status) + b"\n"
            self._size += len(line)
            self._lines.append(line)

    def read(self, dockerfile: FoundDockerfile) -> None:
        """Pass on the file."""
        self._listener.read(dockerfile)

    def pulled(self, item: ProgressItem) -> None:
        """Pass on the pull."""
        self._listener.pulled(item)

    def converted(self, conversion: Conversion, bases: Mapping[int, str]) -> None:
        """Pass on the graph."""
        self._listener.converted(conversion, bases)

    def explained(self, found: BuildExplanations) -> None:
        """Pass on the explanations."""
        self._listener.explained(found)

    def output(self, index: int, data: bytes) -> None:
        """Pass on the bytes."""
        self._listener.output(index, data)

    async def room(self) -> None:
        """Wait until more bytes may come."""
        await self._listener.room()


def unpacked(data: bytes) -> list[bytes]:
    """The kept messages, each as JSON."""
    return zlib.decompress(data).splitlines()
