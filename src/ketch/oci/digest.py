"""Digests: ``sha256:`` and 64 lower-case hexadecimal digits (image-spec v1.1 §descriptor)."""

from __future__ import annotations

import hashlib
import re

from ketch.errors import InvalidArgument

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


def of(data: bytes) -> str:
    """The digest of some bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def valid(text: str) -> bool:
    """Whether ``text`` is a digest that this engine can verify."""
    return _DIGEST.match(text) is not None


def check(text: str) -> str:
    """``text``, when it is a digest (InvalidArgument otherwise)."""
    if not valid(text):
        raise InvalidArgument(f"invalid digest `{text[:80]}`", hint="a digest is sha256: and 64 hexadecimal digits")
    return text


def hexadecimal(digest: str) -> str:
    """The hexadecimal part of a digest."""
    return digest.partition(":")[2]


def chain_ids(diff_ids: list[str]) -> list[str]:
    """The chain ids of layers: for each the digest of it and all below it (image-spec v1.1 §layer-chainid)."""
    result: list[str] = []
    for diff_id in diff_ids:
        result.append(of(f"{result[-1]} {diff_id}".encode()) if result else diff_id)
    return result
