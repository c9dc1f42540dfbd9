"""The build cache on the wire: rows of ``system df``, the query and the answer of ``POST /build/prune``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.api import query
from ketch.engine.model.building.builds import CachePrune
from ketch.errors import InvalidArgument
from ketch.notation import integers, times

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.build.cache.pruning.usage import UsageRow
    from ketch.engine.model.building.builds import CachePruned
    from ketch.notation.api_objects import ApiObject

_SIZES = {"reserved-space": "reserved", "max-used-space": "max_used", "min-free-space": "min_free"}
_KEPT = "keep-storage"  # what older clients call reserved space


def prune_options(asked: Mapping[str, str]) -> CachePrune:
    """The request in a query (InvalidArgument in Docker's words)."""
    sizes = {field: _size(asked, name) for name, field in _SIZES.items()}
    sizes["reserved"] = sizes["reserved"] or _size(asked, _KEPT)
    return CachePrune(everything=query.flag(asked, "all"), filters=query.filters(asked), **sizes)


def _size(asked: Mapping[str, str], name: str) -> int:
    text = asked.get(name)
    if not text:
        return 0
    try:
        return integers.signed(text)
    except integers.NotAnIntegerError as e:
        message = f'{name} is in bytes and expects an integer, got {text}: strconv.Atoi: parsing "{text}": {e}'
        raise InvalidArgument(message) from e


def pruned(done: CachePruned) -> ApiObject:
    """The answer of ``POST /build/prune``."""
    return {"CachesDeleted": [row.id for row in done.rows] or None, "SpaceReclaimed": done.freed}


def row(record: UsageRow) -> ApiObject:
    """A record in ``system df``."""
    return {
        "ID": record.id,
        "Parents": list(record.parents) or None,
        "Type": record.kind,
        "Description": record.description,
        "InUse": record.in_use,
        "Shared": record.shared,
        "Size": record.size,
        "CreatedAt": times.rfc3339_or_never(record.created),
        "LastUsedAt": times.rfc3339(record.last_used) if record.last_used else None,
        "UsageCount": record.usage_count,
    }
