"""The database tables of networks and endpoints.

network_host       what was found on this host before the engine changed it (see ``forwarding``)
networks           one row a network: its record as JSON, and where the search for the next free address begins
network_endpoints  one row a connection of a container to a network, written *before* anything is made in the kernel
                   and deleted *after* all of it is gone: a row without a container names what a crash left behind
"""

from __future__ import annotations

from ketch.network.model.record import Endpoint, NetworkRecord
from ketch.storage.database.db import Schema
from ketch.storage.database.records import Form

NETWORKS = Form(NetworkRecord, identify={"pools": "subnet"})
ENDPOINTS = Form(Endpoint)

SCHEMA = Schema(
    "network",
    [
        """
        CREATE TABLE network (
            bridge TEXT PRIMARY KEY,
            id TEXT NOT NULL,
            subnet TEXT NOT NULL,
            last_ip INTEGER NOT NULL,
            unforwarded TEXT NOT NULL DEFAULT ''
        );
        CREATE TABLE endpoint (
            container_id TEXT PRIMARY KEY,
            bridge TEXT NOT NULL REFERENCES network(bridge),
            id TEXT NOT NULL,
            ip INTEGER NOT NULL,
            mac TEXT NOT NULL,
            veth TEXT NOT NULL,
            ports TEXT NOT NULL,
            UNIQUE (bridge, ip)
        );
        """,
        # One network became many; no release wrote the first form, so nothing is carried over.
        """
        DROP TABLE endpoint;
        DROP TABLE network;
        CREATE TABLE network_host (key TEXT PRIMARY KEY, value TEXT NOT NULL);
        CREATE TABLE networks (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            record BLOB NOT NULL,
            last TEXT NOT NULL DEFAULT '{}'
        );
        CREATE TABLE network_endpoints (
            container_id TEXT NOT NULL,
            network_id TEXT NOT NULL REFERENCES networks(id),
            record BLOB NOT NULL,
            PRIMARY KEY (container_id, network_id)
        );
        """,
    ],
    {"networks": NETWORKS.version, "network_endpoints": ENDPOINTS.version},
)
