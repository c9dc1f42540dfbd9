"""Files of bbolt, the key-value store of dockerd and containerd, read.

The file is pages of one size. Two of them, written in turn, say where the tree of keys begins; a branch page has the
pages below it, a leaf page keys and values, and a value may be a bucket: a tree of its own, whose only page may be
in the value itself. Numbers are little-endian, as on the machines that wrote them.
"""

from __future__ import annotations

import mmap
import os
import struct
from fcntl import LOCK_NB, LOCK_SH, flock
from typing import TYPE_CHECKING

from ketch.errors import Conflict, DataLoss

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAGIC, _VERSION = 0xED0CDAED, 2
_BRANCH, _LEAF = 0x01, 0x02
_BUCKET = 0x01  # flag of a leaf's element
_PAGE = struct.Struct("<QHHI")  # number, flags, elements, further pages
_META = struct.Struct("<IIIIQQQQQQ")  # magic, version, page size, flags, root, …, transaction, checksum
_LEAF_ELEMENT = struct.Struct("<IIII")  # flags, position from here, size of the key, of the value
_BRANCH_ELEMENT = struct.Struct("<IIQ")  # position from here, size of the key, page
_HEADER = struct.Struct("<QQ")  # of a bucket: page of its root, 0: it follows; sequence
_FNV_BASIS, _FNV_PRIME, _64_BITS = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1


class Bolt:
    """An open file; as long as it is open, no daemon can begin to use it.

    Raises Conflict when one does, DataLoss when it is no such file or a part of it cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            try:
                flock(self._fd, LOCK_SH | LOCK_NB)
            except BlockingIOError:
                raise Conflict(
                    f"read {path}: a daemon has it open", hint="stop it, or import through its socket: --from unix://…"
                ) from None
            try:
                self._data = mmap.mmap(self._fd, 0, prot=mmap.PROT_READ)
            except ValueError:
                raise DataLoss(f"read {path}: it is empty") from None
        except BaseException:
            os.close(self._fd)
            raise
        try:
            self._page_size, self._root = self._newest()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._data.close()
        os.close(self._fd)

    def __enter__(self) -> Bolt:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def items(self, *names: bytes) -> dict[bytes, bytes]:
        """The keys and values of a bucket in buckets; empty when there is none."""
        return {key: value for is_bucket, key, value in self._bucket(names) if not is_bucket}

    def buckets(self, *names: bytes) -> list[bytes]:
        """The names of the buckets in a bucket."""
        return [key for is_bucket, key, _ in self._bucket(names) if is_bucket]

    def _bucket(self, names: tuple[bytes, ...]) -> list[tuple[bool, bytes, bytes]]:
        try:
            found = list(self._tree(self._root, b""))
            for name in names:
                values = [value for is_bucket, key, value in found if is_bucket and key == name]
                if not values:
                    return []
                root, _ = _HEADER.unpack_from(values[0])
                found = list(self._tree(root, values[0][_HEADER.size :]))
        except (struct.error, ValueError) as e:
            raise self._broken(str(e)) from e
        return found

    def _newest(self) -> tuple[int, int]:
        """The size of pages, and the root's page, of the newer one of the two that say so."""
        found = []
        for start in (0, *(1 << power for power in range(9, 17))):  # the second one is behind the first, of any size
            if start + _PAGE.size + _META.size > len(self._data):
                break
            raw = self._data[start + _PAGE.size : start + _PAGE.size + _META.size]
            magic, version, page_size, _, root, _, _, _, transaction, checksum = _META.unpack(raw)
            if magic == _MAGIC and version == _VERSION and checksum == _fnv(raw[:-8]) and start in (0, page_size):
                found.append((transaction, page_size, root))
        if not found:
            raise self._broken("it is no file of bbolt's")
        return max(found)[1:]

    def _tree(self, root: int, inline: bytes) -> Iterator[tuple[bool, bytes, bytes]]:
        """(whether it is a bucket, key, value) of a page and all below it; page 0 is ``inline``."""
        waiting, seen = [root], {root}
        while waiting:
            page = waiting.pop()
            data = self._content(page) if page else inline
            _, flags, count, _ = _PAGE.unpack_from(data)
            if flags & _BRANCH:
                places = (_PAGE.size + index * _BRANCH_ELEMENT.size for index in range(count))
                below = [_BRANCH_ELEMENT.unpack_from(data, place)[2] for place in places]
                if not seen.isdisjoint(below) or len(set(below)) < count:
                    raise self._broken("its pages go in a circle")
                seen.update(below)
                waiting += reversed(below)
            elif flags & _LEAF:
                yield from self._leaf(page, data, count)
            else:
                raise self._broken(f"page {page} is none of the tree's")

    def _leaf(self, page: int, data: bytes, count: int) -> Iterator[tuple[bool, bytes, bytes]]:
        for index in range(count):
            start = _PAGE.size + index * _LEAF_ELEMENT.size
            kind, position, key_size, value_size = _LEAF_ELEMENT.unpack_from(data, start)
            key, value = start + position, start + position + key_size
            if value + value_size > len(data):
                raise self._broken(f"page {page} ends early")
            yield bool(kind & _BUCKET), data[key:value], data[value : value + value_size]

    def _content(self, page: int) -> bytes:
        """A page, with those behind it that belong to it."""
        start = page * self._page_size
        if start + _PAGE.size > len(self._data):
            raise self._broken(f"page {page} is not there")
        _, _, _, more = _PAGE.unpack_from(self._data, start)
        return self._data[start : start + (more + 1) * self._page_size]

    def _broken(self, why: str) -> DataLoss:
        return DataLoss(
            f"read {self.path}: {why}", hint="start dockerd, which may mend it, and import through its socket"
        )


def _fnv(data: bytes) -> int:
    """FNV-1a of 64 bits."""
    value = _FNV_BASIS
    for byte in data:
        value = (value ^ byte) * _FNV_PRIME & _64_BITS
    return value
