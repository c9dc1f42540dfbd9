"""The network's rows: see ``schema``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec

from ketch.network.record import Endpoint, NetworkRecord

if TYPE_CHECKING:
    from ketch.storage.db import Database

_encode = msgspec.json.Encoder().encode
_network = msgspec.json.Decoder(NetworkRecord).decode
_endpoint = msgspec.json.Decoder(Endpoint).decode


class NetworkState:
    """Rows in the daemon's database; every method is one transaction.

    Endpoints are not written durably: no container outlives a power cut.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    def note(self, key: str) -> str:
        """Something remembered of the host; empty when there is nothing."""
        rows = self._db.query("SELECT value FROM network_host WHERE key = ?", (key,))
        return str(rows[0]["value"]) if rows else ""

    def set_note(self, key: str, value: str) -> None:
        """Remember something of the host."""
        with self._db.transaction() as tx:
            tx.execute("INSERT OR REPLACE INTO network_host VALUES (?, ?)", (key, value))

    def networks(self) -> list[tuple[NetworkRecord, dict[str, int]]]:
        """Every network with the address given last in each of its subnets (subnet → number)."""
        rows = self._db.query("SELECT record, last FROM networks ORDER BY rowid")
        return [(_network(row["record"]), json.loads(row["last"])) for row in rows]

    def save(self, record: NetworkRecord) -> None:
        """Add a network, or change it."""
        with self._db.transaction() as tx:
            tx.execute(
                "INSERT INTO networks (id, name, record) VALUES (?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET record = excluded.record",
                (record.id, record.name, _encode(record)),
            )

    def delete(self, network_id: str) -> None:
        """Forget a network that has no endpoints."""
        with self._db.transaction() as tx:
            tx.execute("DELETE FROM networks WHERE id = ?", (network_id,))

    def endpoints(self) -> list[Endpoint]:
        """Every stored connection, oldest first."""
        rows = self._db.query("SELECT record FROM network_endpoints ORDER BY rowid")
        return [_endpoint(row["record"]) for row in rows]

    def add(self, endpoint: Endpoint, last: dict[str, int] | None = None) -> None:
        """Store a connection, or its change, and where the search for the next address of its network begins."""
        with self._db.transaction(durable=False) as tx:
            tx.execute(
                "INSERT INTO network_endpoints VALUES (?, ?, ?) "
                "ON CONFLICT (container_id, network_id) DO UPDATE SET record = excluded.record",
                (endpoint.container_id, endpoint.network_id, _encode(endpoint)),
            )
            if last is not None:
                tx.execute("UPDATE networks SET last = ? WHERE id = ?", (json.dumps(last), endpoint.network_id))

    def remove(self, endpoint: Endpoint) -> None:
        """Delete a connection's row; no error when there is none."""
        with self._db.transaction(durable=False) as tx:
            tx.execute(
                "DELETE FROM network_endpoints WHERE container_id = ? AND network_id = ?",
                (endpoint.container_id, endpoint.network_id),
            )
