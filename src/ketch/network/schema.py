"""The network's tables.

network    one row a bridge: its subnet, its id, and where the search for the next free address begins
endpoint   one row a connected container, written *before* anything is made in the kernel and deleted
           *after* all of it is gone: a row without a container therefore names what a crash left behind
"""

from __future__ import annotations

from ketch.storage.db import Schema

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
        """
    ],
)
