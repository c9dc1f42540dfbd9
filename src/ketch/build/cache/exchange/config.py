"""The list of an exchanged cache's records, ``application/vnd.buildkit.cacheconfig.v0`` (BuildKit's remotecache/v1).

Layers are blobs, each upon a parent; records are keys with links from the keys of their inputs, and the layers of their
results.  They refer to each other by their numbers.
"""

from __future__ import annotations

import msgspec

from ketch.errors import InvalidArgument
from ketch.oci import digest

MEDIA_TYPE = "application/vnd.buildkit.cacheconfig.v0"
LARGEST = 32 << 20  # bytes
NO_PARENT = -1
_ON_THE_WAY = -1
NEVER = "0001-01-01T00:00:00Z"


class CacheLayer(msgspec.Struct, omit_defaults=True, frozen=True):
    """A layer: the digest of its blob, and the number of the layer below it."""

    blob: str
    parent: int = 0  # as Go writes it: left out when it is 0


class LayerResult(msgspec.Struct, rename="camel", frozen=True):
    """A result: its topmost layer; when it was made."""

    layer: int
    created_at: str = NEVER


class ChainResult(msgspec.Struct, rename="camel", frozen=True):
    """A result: all of its layers, lowest first."""

    layers: list[int]
    created_at: str = NEVER


class RecordInput(msgspec.Struct, omit_defaults=True, frozen=True):
    """A link: the part of the input that is used, and the number of the input's record."""

    link: int
    selector: str = ""


class CacheConfigRecord(msgspec.Struct, omit_defaults=True, frozen=True):
    """A key: the digest of what makes its results, its links for each input, its results."""

    digest: str = ""
    inputs: list[list[RecordInput]] = []
    layers: list[LayerResult] = []
    chains: list[ChainResult] = []


class CacheConfig(msgspec.Struct, omit_defaults=True, frozen=True):
    """All layers and records of a cache."""

    layers: list[CacheLayer] = []
    records: list[CacheConfigRecord] = []


def decode(data: bytes) -> CacheConfig:
    """A cache's configuration as it was exported, with numbers that lead somewhere (InvalidArgument)."""
    try:
        found = msgspec.json.decode(data, type=CacheConfig)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise InvalidArgument(f"the list of an imported cache's records cannot be read: {e}") from e
    check(found)
    return found


def decode_records(data: bytes, layers: list[CacheLayer]) -> CacheConfig:
    """The records that an image has within itself, whose layers are the image's (InvalidArgument)."""
    try:
        records = msgspec.json.decode(data, type=list[CacheConfigRecord])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise InvalidArgument(f"the records of an image's cache cannot be read: {e}") from e
    found = CacheConfig(layers, records)
    check(found)
    return found


def check(config: CacheConfig) -> None:
    """Refuse a configuration whose numbers lead nowhere (InvalidArgument)."""
    layers, records = range(len(config.layers)), range(len(config.records))
    for layer in config.layers:
        digest.check(layer.blob)
        if layer.parent != NO_PARENT and layer.parent not in layers:
            raise InvalidArgument(
                f"layer {layer.blob} of an imported cache lies upon layer {layer.parent}: there is none"
            )
    for one in config.records:
        digest.check(one.digest)
        numbers = [result.layer for result in one.layers] + [at for chain in one.chains for at in chain.layers]
        if any(number not in layers for number in numbers):
            raise InvalidArgument(f"record {one.digest} of an imported cache names a layer that is not there")
        if any(link.link not in records for links in one.inputs for link in links):
            raise InvalidArgument(f"record {one.digest} of an imported cache names a record that is not there")


def depths(config: CacheConfig) -> list[int]:
    """Of each layer, how many lie upon each other up to it (InvalidArgument: they lie in a circle).

    The time that it takes grows with the number of layers alone, however they lie.
    """
    found = [0] * len(config.layers)
    for start in range(len(config.layers)):
        way: list[int] = []
        at = start
        while at != NO_PARENT and not found[at]:
            found[at] = _ON_THE_WAY
            way.append(at)
            at = config.layers[at].parent
        depth = 0 if at == NO_PARENT else found[at]
        if depth == _ON_THE_WAY:
            raise InvalidArgument("the layers of an imported cache lie upon each other in a circle")
        for above, number in enumerate(reversed(way), 1):
            found[number] = depth + above
    return found


def chain(config: CacheConfig, top: int) -> list[str]:
    """The blobs of a layer and all below it, lowest first; `depths` has found no circle."""
    found: list[str] = []
    while top != NO_PARENT:
        layer = config.layers[top]
        found.append(layer.blob)
        top = layer.parent
    return found[::-1]
