"""Cache keys: names of what a result depends on.

A root key is a digest of an operation that needs nothing, or of files; other keys are found by links: from a key of
each input, through the operation, to the key.  Made as BuildKit makes them, whose caches name them in the same way.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

CONTENT = -1  # in the place of an output's number: a digest of files, however they came about
RANDOM = "random:"  # a digest that means something once only: nothing is kept by it


class KeySource(NamedTuple):
    """A key of an input, with the part of it that is used; empty: all, or the key is of just that part."""

    key: str
    selector: str = ""


def root_key(digest: str, output: int) -> str:
    """The name of an operation's output: a key where it needs no input, else what links to its keys go through."""
    found = "sha256:" + hashlib.sha256(f"{digest}@{output}".encode()).hexdigest()
    return RANDOM + found.removeprefix("sha256:") if digest.startswith(RANDOM) else found


def content_key(digest: str) -> str:
    """The key of files."""
    return root_key(digest, CONTENT)


def is_random(key: str) -> bool:
    """Whether a key means something once only."""
    return key.startswith(RANDOM)


def derived_key(step: str, inputs: Sequence[Sequence[KeySource]]) -> str:
    """The name of a new key: of a step (`root_key`), and for each input its keys, those of content last.

    Only the last one counts, so that what depends on content has one name whatever it was made of.
    """
    last = [_last(sources) for sources in inputs]
    text = "\n".join([step, *(f"{one.key} {one.selector}" for one in last)])
    digits = hashlib.sha256(text.encode()).hexdigest()
    return (RANDOM if is_random(step) or any(is_random(one.key) for one in last) else "sha256:") + digits


def _last(sources: Sequence[KeySource]) -> KeySource:
    lasting = [one for one in sources if not is_random(one.key)]
    return (lasting or sources or [KeySource(RANDOM)])[-1]
