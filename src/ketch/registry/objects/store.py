"""The interface of object stores, which keep a registry's bytes by key: on the local disk, or in a bucket.

    blobs/ALGORITHM/ab/abcd…                         a blob or a manifest, verified, never changed
    repositories/NAME/_layers/ALGORITHM/HEX          the repository has this blob (empty)
    repositories/NAME/_manifests/revisions/ALGORITHM/HEX  the repository has this manifest (its media type)
    repositories/NAME/_manifests/tags/TAG            what a tag stands for (a digest)
    repositories/NAME/_referrers/HEX/HEX             what refers to a manifest (a descriptor)
    catalog/NAME, with %2F                           the repository is there (empty)
    uploads/UUID/repository, uploads/UUID/…          an upload under way
    condemned/HEX, deleting/HEX                      garbage collection (see `gc`)

ALGORITHM is sha256 or sha512; where only HEX is in a key, its length says which of them.

Every process over one store sees what the others do; nothing is kept in memory that another one must know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


_SHA512_DIGITS = 128


class Found(NamedTuple):
    """One object of a list: key, bytes, and the moment (seconds since 1970) when it was last written."""

    key: str
    size: int
    modified: float


class ObjectMissing(Exception):
    """No object has the key."""


class Objects(Protocol):
    """The interface of both stores; keys have no leading slash (ObjectMissing)."""

    async def get(self, key: str) -> bytes:
        """The content of a small object."""

    async def put(self, key: str, data: bytes) -> None:
        """Write an object; readers see the old one or the new one."""

    async def head(self, key: str) -> Found:
        """Size and time of an object."""

    async def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""

    def list(self, prefix: str, after: str = "") -> AsyncIterator[Found]:
        """The objects with a ``prefix``, in order of their keys, after the key ``after``."""

    def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from ``start`` up to ``end``, in pieces."""

    def path(self, key: str) -> str | None:
        """The local file, for sendfile(2); None where there is none."""

    async def append(self, upload: str, offset: int, pieces: AsyncIterator[bytes]) -> int:
        """Add to an upload that has ``offset`` bytes; returns how many it has then, also of pieces that break off."""

    async def length(self, upload: str) -> int:
        """The size of an upload."""

    async def finish(self, upload: str, digest: str, key: str) -> bool:
        """Make the upload the object ``key`` if it has the digest; else it stays, and the answer is False."""

    async def discard(self, upload: str) -> None:
        """Delete an upload."""

    async def close(self) -> None:
        """Close connections."""


def blob(digest: str) -> str:
    """The key of a blob or manifest."""
    algorithm, _, hexadecimal = digest.partition(":")
    return f"blobs/{algorithm}/{hexadecimal[:2]}/{hexadecimal}"


def digest_of(key: str) -> str:
    """The digest that a key ends in, known by its length."""
    hexadecimal = key.rpartition("/")[2]
    return f"{'sha512' if len(hexadecimal) == _SHA512_DIGITS else 'sha256'}:{hexadecimal}"
