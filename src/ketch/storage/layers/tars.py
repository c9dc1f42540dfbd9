"""Tars of layers that have no blob: their digests, and the tars themselves, made again when somebody needs them.

    layers/<id>/tar.json     digest and size of the tar that `archive.layer` makes of this layer, and its files' bytes

A layer's directory never changes, and the same directory gives the same bytes; whoever gets them is told when not.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from typing import TYPE_CHECKING

import msgspec

from ketch import trees
from ketch.errors import DataLoss
from ketch.failpoints import failpoint
from ketch.storage.archive.layer import write_layer
from ketch.storage.layers.store import is_built

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.storage.layers.store import Layers

    Check = Callable[[], None]
    Write = Callable[[bytes | memoryview], object]

_RECORD = "tar.json"


class TarFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A layer's tar: its digest (the layer's diff id) and size, and the bytes of the layer's files."""

    diff_id: str
    size: int
    files: int


class SeenTar:
    """The digest and the size of a tar that passes through, to whoever gets its bytes."""

    def __init__(self, to: Write = lambda _data: None) -> None:
        self._to = to
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes, and pass them on."""
        self._digest.update(data)
        self._size += len(data)
        self._to(data)

    def facts(self, files: int) -> TarFacts:
        """The facts of the whole tar, of a layer with so many bytes in files."""
        return TarFacts(diff_id="sha256:" + self._digest.hexdigest(), size=self._size, files=files)


def _nothing() -> None:
    """Let work go on."""


def known(layers: Layers, layer: str) -> TarFacts | None:
    """The facts of a layer's tar, if they have been found out (by `facts`)."""
    try:
        with open(os.path.join(layers.path(layer), _RECORD), "rb") as f:
            return msgspec.json.decode(f.read(), type=TarFacts)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None


def facts(layers: Layers, layer: str, check: Check = _nothing) -> TarFacts:
    """The facts of a layer's tar, for which all of the layer is read once.

    Blocking; ``check`` is called now and then, and what it raises ends it.  DataLoss: it is gone.  InvalidArgument: it
    has files that no layer's tar can have.
    """
    found = known(layers, layer)
    if found is None:
        found = _found_out(layers, layer, check)
        keep(layers, layer, found)
    return found


def keep(layers: Layers, layer: str, found: TarFacts) -> None:
    """Keep the facts of a layer's tar for those who ask."""
    path = os.path.join(layers.path(layer), _RECORD)
    new = f"{path}.{secrets.token_hex(4)}"
    with open(new, "xb") as f:
        f.write(msgspec.json.encode(found))
    failpoint("layer.hashed")
    os.rename(new, path)


def write(layers: Layers, layer: str, expected: str, to: Write) -> None:
    """Write a layer's tar; ``to`` gets buffers that are used again.

    DataLoss, when all is written, for a tar with another digest than ``expected``; or the layer is gone.
    """
    found = _written(layers, layer, to)
    if found.diff_id != expected:
        raise DataLoss(
            f"the files of layer {expected[:19]} in `{layers.diff(layer)}` are not those that it was made of",
            hint="somebody or a damaged disk has changed them: build, commit, pull or load the image again",
        )


def _found_out(layers: Layers, layer: str, check: Check) -> TarFacts:
    if not is_built(layer):
        return _written(layers, layer, lambda _data: check())
    [directory] = layers.directories([layer])
    seen = SeenTar(lambda _data: check())
    fd = os.open(directory, trees.DIRECTORY)
    try:
        return seen.facts(layers.kept_tars.write(layer, fd, seen.write))
    finally:
        os.close(fd)


def _written(layers: Layers, layer: str, to: Write = lambda _data: None) -> TarFacts:
    [directory] = layers.directories([layer])
    seen = SeenTar(to)
    fd = os.open(directory, trees.DIRECTORY)
    try:
        return seen.facts(write_layer(fd, seen.write))
    finally:
        os.close(fd)
