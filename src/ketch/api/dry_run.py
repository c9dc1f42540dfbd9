"""The ``dry-run`` parameter of removals (Ketch's own): the answer lists what would be removed; nothing is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch.api import query

if TYPE_CHECKING:
    from ketch.api.call import Call


class Body(msgspec.Struct, rename="pascal"):
    """``without``: ids of containers that are taken as gone already."""

    without: list[str] = []


async def wanted(call: Call) -> tuple[bool, list[str]]:
    """(whether it is a dry run, ids of containers that are taken as gone); the latter only then."""
    if not query.flag(call.query, "dry-run"):
        return False, []
    body: Body = await call.body(Body, optional=True)
    return True, body.without
