"""Layers of Docker's own image store, put together again as the tar archives that they came as.

Docker keeps a layer as a directory of files, and beside it (``tar-split.json.gz``) all that was in the archive but the
files' contents: headers, padding, in a line of JSON each. Only both together give the archive with the digest that
the image's configuration names.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import stat
import zlib
from typing import TYPE_CHECKING

from ketch.cli.importing.disk import tars
from ketch.cli.importing.forms import understood
from ketch.errors import DataLoss

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.notation.api_objects import ApiObject

_FILE, _SEGMENT = 1, 2
_MOST_LINKS = 40


class SplitLayer:
    """One layer: the directory with its files, and the path of what Docker noted of its archive."""

    def __init__(self, files: str, notes: str) -> None:
        self._files, self._notes = files, notes

    def size(self) -> int:
        """The bytes of its archive."""
        with understood(self._notes):
            return sum(_length(item) for item in self._items())

    def chunks(self) -> Iterator[bytes]:
        """The archive (DataLoss: a file is missing, or not as long as it was)."""
        with understood(self._notes):
            yield from self._chunks()

    def _chunks(self) -> Iterator[bytes]:
        for item in self._items():
            if item["type"] == _SEGMENT:
                yield base64.b64decode(item["payload"])
            elif item.get("size"):
                yield from self._content(item)

    def _items(self) -> Iterator[ApiObject]:
        try:
            with gzip.open(self._notes, "rt", encoding="utf-8") as f:
                yield from map(json.loads, f)
        except (OSError, EOFError, zlib.error, ValueError) as e:
            raise DataLoss(f"read {self._notes}: {e}") from e

    def _content(self, item: ApiObject) -> Iterator[bytes]:
        name = base64.b64decode(item["name_raw"]) if item.get("name_raw") else item["name"].encode()
        left = item["size"]
        path = inside(os.fsencode(self._files), name)
        try:
            if not stat.S_ISREG(os.lstat(path).st_mode):
                raise DataLoss(f"read {os.fsdecode(path)}: it is no file, and was one")
            for chunk in tars.file_chunks(os.fsdecode(path)):
                left -= len(chunk)
                yield chunk
        except OSError as e:
            raise DataLoss(f"read {os.fsdecode(path)}: {e.strerror}") from e
        if left:
            raise DataLoss(f"read {os.fsdecode(path)}: it has not the {item['size']} bytes that it had")


def _length(item: ApiObject) -> int:
    if item["type"] == _SEGMENT:
        return len(base64.b64decode(item["payload"]))
    return int(item.get("size") or 0)


def inside(root: bytes, name: bytes) -> bytes:
    """The path of a file below ``root``, for which symbolic links lead as if that were the root (DataLoss: a circle).

    An image's maker decides where its links lead; they must not lead to the files of this machine.
    """
    waiting, links = name.split(b"/")[::-1], 0
    path: list[bytes] = []
    while waiting:
        word = waiting.pop()
        if word in (b"", b"."):
            continue
        if word == b"..":
            path = path[:-1]
            continue
        here = b"/".join([root, *path, word])
        if waiting and os.path.islink(here):  # the last one is the file itself
            links += 1
            if links > _MOST_LINKS:
                raise DataLoss(f"read {os.fsdecode(here)}: its links go in a circle")
            target = os.readlink(here)
            path = [] if target.startswith(b"/") else path
            waiting += target.split(b"/")[::-1]
        else:
            path.append(word)
    return b"/".join([root, *path])
