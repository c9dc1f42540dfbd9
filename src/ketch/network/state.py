"""The network's rows: see ``schema``."""

from __future__ import annotations

import ipaddress
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ketch.network.endpoint import Binding, Endpoint

if TYPE_CHECKING:
    from ketch.storage.db import Database


@dataclass
class NetworkRow:
    """What is remembered of one bridge; ``unforwarded`` is ``BOOT_ID:name,name``, see ``manager``."""

    id: str
    gateway: ipaddress.IPv4Interface
    last_ip: int
    unforwarded: str


class NetworkState:
    """Rows of one bridge in the daemon's database; every method is one transaction.

    Endpoints are not written durably: no container outlives a power cut.
    """

    def __init__(self, db: Database, bridge: str) -> None:
        self._db = db
        self._bridge = bridge

    def load(self) -> NetworkRow | None:
        """The bridge's row, when it has been set up before."""
        rows = self._db.query("SELECT * FROM network WHERE bridge = ?", (self._bridge,))
        if not rows:
            return None
        row = rows[0]
        return NetworkRow(row["id"], ipaddress.IPv4Interface(row["subnet"]), row["last_ip"], row["unforwarded"])

    def create(self, gateway: ipaddress.IPv4Interface) -> NetworkRow:
        """Give the bridge an id and a subnet."""
        row = NetworkRow(secrets.token_hex(32), gateway, int(gateway.ip), "")
        with self._db.transaction() as tx:
            tx.execute(
                "INSERT INTO network (bridge, id, subnet, last_ip) VALUES (?, ?, ?, ?)",
                (self._bridge, row.id, str(gateway), row.last_ip),
            )
        return row

    def save(self, row: NetworkRow) -> None:
        """Store a changed row."""
        with self._db.transaction() as tx:
            tx.execute(
                "UPDATE network SET subnet = ?, last_ip = ?, unforwarded = ? WHERE bridge = ?",
                (str(row.gateway), row.last_ip, row.unforwarded, self._bridge),
            )

    def endpoints(self, row: NetworkRow) -> dict[str, Endpoint]:
        """The stored endpoints by container id."""
        result = {}
        for r in self._db.query("SELECT * FROM endpoint WHERE bridge = ?", (self._bridge,)):
            result[r["container_id"]] = Endpoint(
                container_id=r["container_id"],
                endpoint_id=r["id"],
                network_id=row.id,
                ip=str(ipaddress.IPv4Address(r["ip"])),
                prefix_len=row.gateway.network.prefixlen,
                gateway=str(row.gateway.ip),
                mac=r["mac"],
                veth=r["veth"],
                bindings=tuple(Binding(*b) for b in json.loads(r["ports"])),
            )
        return result

    def add(self, endpoint: Endpoint, last_ip: int) -> None:
        """Store an endpoint and where the search for the next address begins."""
        ports = json.dumps([[b.proto, b.container_port, b.host_ip, b.host_port] for b in endpoint.bindings])
        with self._db.transaction(durable=False) as tx:
            tx.execute(
                "INSERT INTO endpoint (container_id, bridge, id, ip, mac, veth, ports) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    endpoint.container_id,
                    self._bridge,
                    endpoint.endpoint_id,
                    int(ipaddress.IPv4Address(endpoint.ip)),
                    endpoint.mac,
                    endpoint.veth,
                    ports,
                ),
            )
            tx.execute("UPDATE network SET last_ip = ? WHERE bridge = ?", (last_ip, self._bridge))

    def remove(self, container_id: str) -> None:
        """Delete an endpoint's row; no error when there is none."""
        with self._db.transaction(durable=False) as tx:
            tx.execute("DELETE FROM endpoint WHERE container_id = ?", (container_id,))
