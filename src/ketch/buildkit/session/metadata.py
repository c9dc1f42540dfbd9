"""Metadata of the calls to a client."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def encoded(values: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Values that may be any text: where one of a key is not plain ASCII, all of them are quoted, which is told."""
    found: dict[str, list[str]] = {}
    for key, texts in values.items():
        if all(text.isascii() and text.isprintable() for text in texts):
            found[key] = list(texts)
        else:
            found[key] = [quote_plus(os.fsencode(text)) for text in texts]
            found[f"{key}-encoded"] = ["1"]
    return found
