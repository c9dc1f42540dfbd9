"""Downloads of blobs from a registry to the content store: streamed, hashed, resumed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from ketch.errors import InvalidArgument, Unavailable
from ketch.images.progress import Meter, short, status
from ketch.images.single_flight import SingleFlight
from ketch.storage.content.partial import sweep

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.images.progress import ProgressItem
    from ketch.oci.manifest import Descriptor
    from ketch.remote.repository import Repository
    from ketch.storage.content.partial import Partial
    from ketch.storage.content.store import ContentStore

    DownloadReport = Callable[[ProgressItem | "BlobProgress"], None]

_BATCH = 1 << 20
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 15.0


class BlobProgress:
    """Progress for readers of the growing file: ``size`` bytes of ``path`` are written.

    ``generation`` counts the times that it began anew.
    """

    __slots__ = ("generation", "path", "size")

    def __init__(self, path: str, size: int, generation: int) -> None:
        self.path, self.size, self.generation = path, size, generation


class Downloads:
    """The downloads of one daemon: one for each blob, ``limit`` in all.

    A download is tried ``attempts`` times in a row without a byte's progress before it is given up.
    """

    def __init__(self, content: ContentStore, limit: int = 3, attempts: int = 5) -> None:
        self._content = content
        self._slots = asyncio.Semaphore(limit)
        self._attempts = attempts
        self._shared: SingleFlight[None] = SingleFlight()

    async def fetch(
        self, repository: Repository, descriptor: Descriptor, report: DownloadReport, *, small: bool = False
    ) -> None:
        """Download a blob to the content store; the caller holds it in a lease.

        ``report`` gets progress items and `BlobProgress`.  InvalidArgument when it is not what the digest promises,
        Unavailable when the registry does not give it, ResourceExhausted when the disk is full; what came stays for
        the next time.  What is ``small`` does not wait for others to end.
        """
        await self._shared.join(
            descriptor.digest, lambda publish: self._fetch(repository, descriptor, publish, small), report
        )

    def sweep(self) -> int:
        """Remove old partial downloads; returns the bytes."""
        return sweep(self._content.ingest_root, 0, self._shared.active())

    async def _fetch(self, repository: Repository, descriptor: Descriptor, report: DownloadReport, small: bool) -> None:
        if self._content.exists(descriptor.digest):
            return
        ident = short(descriptor.digest)
        if self._slots.locked() and not small:
            report(status(ident, "Waiting"))
        async with contextlib.nullcontext() if small else self._slots:
            partial = await _begin(self._content, descriptor.digest)
            download = _Download(repository, descriptor, self._content, partial, report)
            try:
                await download.run(self._attempts)
            finally:
                await download.close()
        report(status(ident, "Download complete"))


class _Download:
    """The download of one blob, over as many connections as it takes."""

    def __init__(
        self,
        repository: Repository,
        descriptor: Descriptor,
        content: ContentStore,
        partial: Partial,
        report: DownloadReport,
    ) -> None:
        self._content = content
        self._repository, self._descriptor, self._partial = repository, descriptor, partial
        self._report: Callable[[Any], None] = report
        self._ident = short(descriptor.digest)
        self._meter = Meter(report, self._ident, "Downloading", descriptor.size)
        self._generation = 0

    async def close(self) -> None:
        """Keep the partial download, also after a cancellation."""
        await asyncio.shield(asyncio.to_thread(self._partial.close))

    async def run(self, attempts: int) -> None:
        resumed = self._partial.size > 0
        while True:
            await self._stream_all(attempts)
            self._report(status(self._ident, "Verifying Checksum"))
            try:
                await asyncio.to_thread(self._partial.commit)
                return
            except InvalidArgument:
                if not resumed:
                    raise
            # What was here before may have been damaged, by a power cut for instance: once more from the beginning.
            resumed = False
            self._partial = await _begin(self._content, self._descriptor.digest)
            self._generation += 1

    async def _stream_all(self, attempts: int) -> None:
        """Stream until the file has its size; broken connections are replaced as long as there is progress."""
        failures, total = 0, self._descriptor.size
        if self._partial.size > total:
            await asyncio.to_thread(self._partial.restart)
        while self._partial.size < total:
            before = self._partial.size
            try:
                await self._stream()
                if self._partial.size >= total:
                    break
                if self._partial.whole:  # nothing has broken off: more would never come
                    self._descriptor.check_size(self._partial.size)
                raise Unavailable(
                    f"download {self._descriptor.digest}: it ends after {self._partial.size} of {total} bytes"
                )
            except Unavailable as e:
                failures = failures + 1 if self._partial.size <= before else 1
                if failures >= attempts:
                    e.hint = e.hint or "what has arrived is kept: pull again to go on"
                    raise
            pause = min(_FIRST_PAUSE_S * 2**failures, _LONGEST_PAUSE_S)
            self._report(status(self._ident, f"Retrying in {max(1, round(pause))} second{'s' * (pause >= 1.5)}"))
            await asyncio.sleep(pause)

    async def _stream(self) -> None:
        """Stream over one connection."""
        loop, partial, total = asyncio.get_running_loop(), self._partial, self._descriptor.size
        async with self._repository.blob(self._descriptor, partial.size) as (start, chunks):
            if start != partial.size:  # the server does not do parts
                await loop.run_in_executor(None, partial.restart)
                self._generation += 1
            self._arrived()
            batch: list[bytes] = []
            size = 0
            try:
                async for chunk in chunks:
                    batch.append(chunk)
                    size += len(chunk)
                    if partial.size + size > total:
                        batch.clear()
                        await loop.run_in_executor(None, partial.restart)
                        raise InvalidArgument(
                            f"download {self._descriptor.digest}: the registry sends more than the {total} bytes "
                            "promised"
                        )
                    if size >= _BATCH:
                        full, batch, size = batch, [], 0
                        await loop.run_in_executor(None, _write, partial, full)
                        self._arrived()
            finally:  # what came before a break is worth keeping, too
                if batch:
                    await asyncio.shield(loop.run_in_executor(None, _write, partial, batch))
            self._arrived()

    def _arrived(self) -> None:
        self._meter.at(self._partial.size)
        self._report(BlobProgress(self._partial.path, self._partial.size, self._generation))


async def _begin(content: ContentStore, digest: str) -> Partial:
    """Open a blob's partial download; it is closed when the caller is cancelled meanwhile."""
    opening = asyncio.ensure_future(asyncio.to_thread(content.partial, digest))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        await asyncio.wait([opening])
        if opening.exception() is None:
            await asyncio.to_thread(opening.result().close)
        raise


def _write(partial: Partial, chunks: list[bytes]) -> None:
    for chunk in chunks:
        partial.write(chunk)
