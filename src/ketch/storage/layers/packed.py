"""Compressed forms of layers' tars: their digests, so that what others have already is not compressed to find that out.

    layers/<id>/packed.json    of each compression, by the name of what made it: digest and size

The same version of a compressor gives the same bytes again; a newer one has a name of its own.
"""

from __future__ import annotations

import os
import secrets
import threading
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from ketch.storage.layers.store import Layers

_RECORD = "packed.json"
_lock = threading.Lock()


class PackedFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A compressed tar: its digest and size."""

    digest: str
    size: int


def known(layers: Layers, layer: str, name: str) -> PackedFacts | None:
    """The facts of a layer's tar compressed by ``name`` (`Compression.name`), if they have been kept."""
    return _read(layers, layer).get(name)


def keep(layers: Layers, layer: str, name: str, found: PackedFacts) -> None:
    """Keep them for those who ask; of a layer that is gone nothing is kept."""
    path = os.path.join(layers.path(layer), _RECORD)
    new = f"{path}.{secrets.token_hex(4)}"
    with _lock:
        try:
            with open(new, "xb") as f:
                f.write(msgspec.json.encode(_read(layers, layer) | {name: found}))
            os.rename(new, path)
        except (FileNotFoundError, NotADirectoryError):
            return


def _read(layers: Layers, layer: str) -> dict[str, PackedFacts]:
    try:
        with open(os.path.join(layers.path(layer), _RECORD), "rb") as f:
            return msgspec.json.decode(f.read(), type=dict[str, PackedFacts])
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return {}
