"""Rows of what the build cache takes: a row for each record, each layer counted in one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch.build.cache.schema import result_id

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from ketch.build.cache.schema import CacheResult
    from ketch.build.providers import KeptRecord

LOCAL_SOURCE = "source.local"


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """A record, as `builder du` shows it; times in ns since 1970, 0: never.

    ``kind`` is BuildKit's: ``regular``, ``source.local``, ``source.git.checkout``, ``exec.cachemount``, ``frontend``,
    ``internal``.  ``size`` is what its removal frees at most: the layers that no older record has.  ``shared``: an
    image has them, too.
    """

    id: str
    kind: str
    description: str
    parents: Sequence[str] = ()
    in_use: bool = False
    mutable: bool = False
    shared: bool = False
    size: int = 0
    created: int = 0
    last_used: int = 0
    usage_count: int = 0


def rows_of_results(
    results: Sequence[CacheResult], in_use: Collection[str], in_images: AbstractSet[str]
) -> list[UsageRow]:
    """Rows of results, those that others stand on first; ``in_images`` are the layers of images.

    A result that others in use stand on is in use.
    """
    ordered = sorted(results, key=lambda one: (len(one.layers), one.created, one.id))
    known = {tuple(one.layers): one.id for one in ordered}
    owners: dict[str, str] = {}  # by a layer: the record that it is counted in
    rows = []
    for one in ordered:
        own = [layer for layer in dict.fromkeys(one.layers) if layer not in owners]
        sizes = dict(zip(one.layers, one.sizes, strict=False))
        below = _below(one.layers, known)
        parents = [below] if below else [owners[layer] for layer in one.layers if layer in owners]
        owners.update(dict.fromkeys(own, one.id))
        rows.append(
            UsageRow(
                id=one.id,
                kind=one.kind,
                description=one.description,
                parents=list(dict.fromkeys(parents)),
                in_use=one.id in in_use,
                shared=bool(one.layers) and in_images >= set(one.layers),
                size=sum(sizes.get(layer, 0) for layer in own),
                created=one.created,
                last_used=one.last_used,
                usage_count=one.usage_count,
            )
        )
    return _used_below(rows)


def _below(layers: Sequence[str], known: Mapping[tuple[str, ...], str]) -> str:
    """The record of the most of these layers, from the lowest, but not of all."""
    for count in range(len(layers) - 1, 0, -1):
        if (found := known.get(tuple(layers[:count]))) is not None:
            return found
    return ""


def _used_below(rows: list[UsageRow]) -> list[UsageRow]:
    used = {row.id for row in rows if row.in_use}
    for row in reversed(rows):
        if row.id in used:
            used.update(row.parents)
    return [msgspec.structs.replace(row, in_use=row.id in used) for row in rows]


def rows_of_kept(kept: Sequence[KeptRecord], sizes: Mapping[str, int]) -> list[UsageRow]:
    """Rows of cache mounts, repositories and the like."""
    return [
        UsageRow(
            id=one.name,
            kind=one.kind,
            description=one.description,
            in_use=one.in_use,
            mutable=True,
            size=sizes.get(one.name, 0),
            created=one.created,
            last_used=one.last_used,
            usage_count=one.usage_count,
        )
        for one in kept
    ]


def rows_of_copies(copies: Mapping[str, int], sizes: Mapping[str, int]) -> list[UsageRow]:
    """Rows of the copies of clients' directories: by their layers, when they were used last."""
    return [
        UsageRow(
            id=result_id([layer]),
            kind=LOCAL_SOURCE,
            description="local source for context",
            mutable=True,
            size=sizes.get(layer, 0),
            created=used,
            last_used=used,
            usage_count=1,
        )
        for layer, used in sorted(copies.items())
    ]
