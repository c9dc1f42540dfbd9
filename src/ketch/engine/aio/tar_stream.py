"""Tar archive on its way to a client."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable


class TarStream:
    """A tar stream in chunks: to be iterated over, and closed (``contextlib.aclosing``) also when it never was."""

    def __init__(self, chunks: AsyncGenerator[bytes, None], abandon: Callable[[], None]) -> None:
        self._chunks = chunks
        self._abandon = abandon
        self._begun = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._begun = True
        async for chunk in self._chunks:
            yield chunk

    async def aclose(self) -> None:
        """End it, whole or not."""
        if self._begun:
            await self._chunks.aclose()
        else:
            self._abandon()
