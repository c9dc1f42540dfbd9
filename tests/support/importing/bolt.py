"""Files of bbolt, as dockerd and containerd write them, made of pages."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from ketch.cli.importing.disk.bolt import Bolt, _fnv

if TYPE_CHECKING:
    from pathlib import Path

PAGE = 4096
HEAD, _ELEMENT, _BRANCH = struct.Struct("<QHHI"), struct.Struct("<IIII"), struct.Struct("<IIQ")


def leaf(number: int, items: list[tuple[int, bytes, bytes]]) -> bytes:
    """A page of keys and values; the first field of an item is 1 for a bucket."""
    elements, data = b"", b""
    for index, (kind, key, value) in enumerate(items):
        position = _ELEMENT.size * (len(items) - index) + len(data)
        elements += _ELEMENT.pack(kind, position, len(key), len(value))
        data += key + value
    return HEAD.pack(number, 2, len(items), 0) + elements + data


def branch(number: int, below: list[int]) -> bytes:
    """A page that has others below it."""
    return HEAD.pack(number, 1, len(below), 0) + b"".join(_BRANCH.pack(0, 0, page) for page in below)


def meta(number: int, root: int, transaction: int) -> bytes:
    """A page that says where the tree begins."""
    fields = struct.pack("<IIIIQQQQQ", 0xED0CDAED, 2, PAGE, 0, root, 0, 2, 9, transaction)
    return HEAD.pack(number, 4, 0, 0) + fields + struct.pack("<Q", _fnv(fields))


def database(*pages: bytes) -> bytes:
    """The file of these pages."""
    return b"".join(page.ljust(PAGE, b"\0") for page in pages)


def opened(path: Path, data: bytes) -> Bolt:
    """The file with this content, open."""
    path.write_bytes(data)
    return Bolt(str(path))
