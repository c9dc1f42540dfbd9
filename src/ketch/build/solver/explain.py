"""Explanations: why a vertex was not found in the cache, by the record that is nearest to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.build.solver.job import Explanation

if TYPE_CHECKING:
    from ketch.build.cache.records import CacheRecords
    from ketch.build.solver.edge import EdgeNode
    from ketch.build.solver.lookup import CacheLookup


def explanation(edge: EdgeNode, lookup: CacheLookup, records: CacheRecords) -> Explanation:
    """The reason why an edge is made, as far as the records tell."""
    vertex = edge.state.vertex
    if edge.state.ignores_cache:
        return Explanation(vertex=vertex.digest, name=vertex.name, reason="the build does not use the cache for it")
    return Explanation(vertex=vertex.digest, name=vertex.name, reason="it was never built with these inputs")
