"""Rows of networks and endpoints (tables: `schema`)."""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
from typing import TYPE_CHECKING

import msgspec

from ketch.errors import DataLoss
from ketch.network.model import schema
from ketch.storage.database.db import REPAIR
from ketch.storage.database.records import Records

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.network.model.record import Endpoint, NetworkRecord
    from ketch.storage.database.db import Database

log = logging.getLogger(__name__)


class NetworkState:
    """Rows in the daemon's database; every method is one transaction.

    Endpoints are not written durably: no container outlives a power cut.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._networks = Records(schema.NETWORKS)
        self._endpoints = Records(schema.ENDPOINTS)

    def note(self, key: str) -> str:
        """A stored note about the host; empty when there is none."""
        rows = self._db.query("SELECT value FROM network_host WHERE key = ?", (key,))
        return str(rows[0]["value"]) if rows else ""

    def set_note(self, key: str, value: str) -> None:
        """Store a note about the host."""
        with self._db.transaction() as tx:
            tx.execute("INSERT OR REPLACE INTO network_host VALUES (?, ?)", (key, value))

    def networks(self) -> list[tuple[NetworkRecord, dict[str, int]]]:
        """Every network with the address given last in each of its subnets (subnet → number)."""
        rows = self._db.query("SELECT id, name, record, last FROM networks ORDER BY rowid")
        found = []
        for row in rows:
            try:
                found.append((self._networks.read(row["id"], row["record"]), json.loads(row["last"])))
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
                (
                    record.id,
                    f"{record.name}@{record.id}" if record.retired else record.name,
                    self._networks.write(record.id, record),
                ),
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
        """Delete a network that has no endpoints."""
        with self._db.transaction() as tx:
            tx.execute("DELETE FROM networks WHERE id = ?", (network_id,))
        self._networks.forget(network_id)

    def endpoints(self) -> list[Endpoint]:
        """Every stored connection, oldest first."""
        rows = self._db.query("SELECT container_id, network_id, record FROM network_endpoints ORDER BY rowid")
        found = []
        for row in rows:
            try:
                found.append(self._endpoints.read((row["container_id"], row["network_id"]), row["record"]))
            except (msgspec.DecodeError, ValueError, TypeError) as e:
                log.error("the row of container %s's endpoint cannot be read: %s", row["container_id"][:12], e)
        return found

    def add(self, endpoint: Endpoint, last: dict[str, int] | None = None) -> None:
        """Store an endpoint, and the last assigned address of its network."""
        key = (endpoint.container_id, endpoint.network_id)
        with self._db.transaction(durable=False) as tx:
            tx.execute(
                "INSERT INTO network_endpoints VALUES (?, ?, ?) "
                "ON CONFLICT (container_id, network_id) DO UPDATE SET record = excluded.record",
                (*key, self._endpoints.write(key, endpoint)),
            )
            if last is not None:
                tx.execute("UPDATE networks SET last = ? WHERE id = ?", (json.dumps(last), endpoint.network_id))

    def remove(self, endpoint: Endpoint) -> None:
        """Delete a connection's row; no error when there is none."""
        key = (endpoint.container_id, endpoint.network_id)
        with self._db.transaction(durable=False) as tx:
            tx.execute("DELETE FROM network_endpoints WHERE container_id = ? AND network_id = ?", key)
        self._endpoints.forget(key)
