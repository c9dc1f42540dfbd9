"""References to networks: the predefined ones, ids and their prefixes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from ketch.network.manager import NetworkManager
    from ketch.network.model.record import NetworkRecord


def find(manager: NetworkManager, ref: str) -> NetworkRecord:
    """A network by id, name, or unambiguous id prefix (NotFound, InvalidArgument)."""
    records = manager.list()
    for record in records:
        if ref in (record.id, record.name):
            return record
    matching = [record for record in records if record.id.startswith(ref)]
    if len(matching) > 1:
        raise InvalidArgument(f"network {ref} is ambiguous ({len(matching)} matches found based on ID prefix)")
    if not matching:
        raise NotFound(f"network {ref} not found")
    return matching[0]
