"""Rows of the build cache: keys with the links that lead to them, and results.

CREATE TABLE build_keys (id, record)        CacheKey: a key, found by its links
CREATE TABLE build_results (id, record)     CacheResult: a tree of layers that is kept
CREATE TABLE build_operations (id, data)    operations' bytes without their inputs, to explain later what has changed
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from ketch.storage.database.db import Schema
from ketch.storage.database.records import Form

if TYPE_CHECKING:
    from collections.abc import Sequence


class InputLink(msgspec.Struct, frozen=True, array_like=True):
    """A key of an input from which a link leads to a key."""

    source: str
    selector: str = ""


class KeyResult(msgspec.Struct, frozen=True, array_like=True):
    """A result of a key, by its id, and when it was made (ns since 1970)."""

    result: str
    created: int


class CacheKey(msgspec.Struct, kw_only=True):
    """A key: the step that makes its results (`keys.root_key`), and for each input the keys from which links lead here.

    ``name`` and ``operation`` (a digest of the operation's bytes without its inputs) tell what was built, to explain
    later why something else was not found.
    """

    id: str
    step: str
    inputs: list[list[InputLink]] = []
    results: list[KeyResult] = []
    name: str = ""
    operation: str = ""
    created: int = 0


class CacheResult(msgspec.Struct, kw_only=True):
    """A tree that is kept; ``sizes`` has the bytes of each of its layers; times in ns since 1970."""

    id: str
    layers: list[str]
    sizes: list[int] = []
    description: str = ""
    kind: str = "regular"
    created: int = 0
    last_used: int = 0
    usage_count: int = 0


def result_id(layers: Sequence[str]) -> str:
    """The id of a tree's record: 25 letters and digits, as BuildKit's ids are."""
    number = int.from_bytes(hashlib.sha256("\n".join(layers).encode()).digest(), "big")
    digits = ""
    for _ in range(25):
        number, digit = divmod(number, 36)
        digits += "0123456789abcdefghijklmnopqrstuvwxyz"[digit]
    return digits


KEYS = Form(CacheKey)
RESULTS = Form(CacheResult)
SCHEMA = Schema(
    "build_cache",
    (
        "CREATE TABLE build_keys (id TEXT PRIMARY KEY, record BLOB NOT NULL);"
        "CREATE TABLE build_results (id TEXT PRIMARY KEY, record BLOB NOT NULL)",
        "CREATE TABLE build_operations (id TEXT PRIMARY KEY, data BLOB NOT NULL)",
    ),
    {"build_keys": KEYS.version, "build_results": RESULTS.version},
)
