"""Digests: ``sha256:`` and 64 lower-case hexadecimal digits (image-spec v1.1 §descriptor).

The engine's own are sha256; a registry also keeps what has the other registered algorithm, ``sha512:`` and 128 digits.
"""

from __future__ import annotations

import hashlib
import re

from ketch.errors import InvalidArgument

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_REGISTERED = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")


def of(data: bytes) -> str:
    """The digest of some bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def matches(digest: str, data: bytes) -> bool:
    """Whether a `registered` digest is that of some bytes."""
    return hashlib.new(algorithm(digest), data).hexdigest() == hexadecimal(digest)


def valid(text: str) -> bool:
    """Whether ``text`` is a digest that this engine can verify."""
    return _DIGEST.match(text) is not None


def registered(text: str) -> bool:
    """Whether ``text`` is a digest by one of the registered algorithms: sha256 or sha512."""
    return _REGISTERED.match(text) is not None


def check(text: str) -> str:
    """``text``, when it is a digest (InvalidArgument otherwise)."""
    if registered(text) and not valid(text):
        raise InvalidArgument(
            f"digest `{text[:80]}…`: images whose content is named by sha512 are not supported",
            hint="have the image pushed with sha256 digests",
        )
    if not valid(text):
        raise InvalidArgument(f"invalid digest `{text[:80]}`", hint="a digest is sha256: and 64 hexadecimal digits")
    return text


def algorithm(digest: str) -> str:
    """The algorithm of a digest, by hashlib's name."""
    return digest.partition(":")[0]


def hexadecimal(digest: str) -> str:
    """The hexadecimal part of a digest."""
    return digest.partition(":")[2]


def chain_ids(diff_ids: list[str]) -> list[str]:
    """The chain ids of layers: for each the digest of it and all below it (image-spec v1.1 §layer-chainid)."""
    result: list[str] = []
    for diff_id in diff_ids:
        result.append(of(f"{result[-1]} {diff_id}".encode()) if result else diff_id)
    return result
