"""The interface of object stores, which keep a registry's bytes by key: on the local disk, or in a bucket.

    blobs/sha256/ab/abcd…                            a blob or a manifest, verified, never changed
    repositories/NAME/_layers/sha256/HEX             the repository has this blob (empty)
    repositories/NAME/_manifests/revisions/sha256/HEX  the repository has this manifest (its media type)
    repositories/NAME/_manifests/tags/TAG            what a tag stands for (a digest)
    repositories/NAME/_referrers/HEX/HEX             what refers to a manifest (a descriptor)
    catalog/NAME, with %2F                           the repository is there (empty)
    uploads/UUID/repository, uploads/UUID/…          an upload under way
    condemned/HEX, deleting/HEX                      garbage collection (see `gc`)

Every process over one store sees what the others do; nothing is kept in memory that another one must know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Found(NamedTuple):
    """One object of a list: key, bytes, and the moment (seconds since 1970) when it was last written."""

    key: str
    size: int
    modified: float


class ObjectMissing(Exception):
    """There is no object with that key."""


class Objects(Protocol):
    """What both stores can do; keys have no leading slash.  ObjectMissing for objects that are not there."""

    async def get(self, key: str) -> bytes:
        """A small object whole."""

    async def put(self, key: str, data: bytes) -> None:
        """Write an object; readers see the old one or the new one."""

    async def head(self, key: str) -> Found:
        """Size and age."""

    async def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""

    def list(self, prefix: str, after: str = "") -> AsyncIterator[Found]:
        """All objects whose keys begin with ``prefix``, in order of their keys, from behind the key ``after``."""

    def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from ``start`` up to ``end``, in pieces."""

    def path(self, key: str) -> str | None:
        """The local file, for sendfile(2); None where there is none."""

    async def append(self, upload: str, offset: int, pieces: AsyncIterator[bytes]) -> int:
        """Add to an upload that has ``offset`` bytes; returns how many it has then, also of pieces that break off."""

    async def length(self, upload: str) -> int:
        """Bytes of an upload."""

    async def finish(self, upload: str, digest: str, key: str) -> bool:
        """Make the upload the object ``key`` if it has that digest; False, and it stays, when it has not."""

    async def discard(self, upload: str) -> None:
        """Forget an upload."""

    async def close(self) -> None:
        """Give up connections."""


def blob(digest: str) -> str:
    """The key of a blob or manifest."""
    hexadecimal = digest.partition(":")[2]
    return f"blobs/sha256/{hexadecimal[:2]}/{hexadecimal}"
