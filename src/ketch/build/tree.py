"""Trees of files that a build makes and uses: layers, one upon the other."""

from __future__ import annotations

from typing import NamedTuple


class Tree(NamedTuple):
    """An immutable tree of files: the ids of its layers, lowest first; none of them: an empty directory.

    A layer's id is the chain id of an image's layer (``sha256:…``), or the name of a layer that was made here
    (``built-…``).  A layer has the form of an overlay's upper directory, so that it means the same whatever it lies on.
    """

    layers: tuple[str, ...] = ()


EMPTY = Tree()
