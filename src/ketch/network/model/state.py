"""The network's rows: see ``schema``."""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
from typing import TYPE_CHECKING

import msgspec

from ketch.errors import DataLoss
from ketch.network.model.record import Endpoint, NetworkRecord
from ketch.storage.database.db import REPAIR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.storage.database.db import Database

log = logging.getLogger(__name__)
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
        rows = self._db.query("SELECT name, record, last FROM networks ORDER BY rowid")
        found = []
        for row in rows:
            try:
                found.append((_network(row["record"]), json.loads(row["last"])))
            except (msgspec.DecodeError, ValueError, TypeError) as e:
                log.error("the row of network %s cannot be read and is left alone: %s", row["name"], e)
        return found

    def save(self, record: NetworkRecord) -> None:
        """Add a network, or change it."""
        with self._unique(record.name), self._db.transaction(grows=True) as tx:
            tx.execute(
                "INSERT INTO networks (id, name, record) VALUES (?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET name = excluded.name, record = excluded.record",
                # The name of a retired one is another's by now.
                (record.id, f"{record.name}@{record.id}" if record.retired else record.name, _encode(record)),
            )

    @staticmethod
    @contextlib.contextmanager
    def _unique(name: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError as e:  # the manager knows all others
            raise DataLoss(
                f"make network {name}: there is one of this name whose row cannot be read", hint=REPAIR
            ) from e

    def delete(self, network_id: str) -> None:
        """Forget a network that has no endpoints."""
        with self._db.transaction() as tx:
            tx.execute("DELETE FROM networks WHERE id = ?", (network_id,))

    def endpoints(self) -> list[Endpoint]:
        """Every stored connection, oldest first."""
        rows = self._db.query("SELECT container_id, record FROM network_endpoints ORDER BY rowid")
        found = []
        for row in rows:
            try:
                found.append(_endpoint(row["record"]))
            except (msgspec.DecodeError, ValueError, TypeError) as e:
                log.error("the row of container %s's endpoint cannot be read: %s", row["container_id"][:12], e)
        return found

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
