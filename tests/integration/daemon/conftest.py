"""Engines that listen on TCP."""

from __future__ import annotations

import contextlib
import socket

import pytest

from tests.support.tls import certificate


@pytest.fixture
def secured(own_engine, tmp_path):
    """An engine that listens with TLS, and the flags with which a client may use it."""
    certificate(tmp_path, "authority")
    certificate(tmp_path, "stranger")
    for name, authority in (("server", "authority"), ("client", "authority"), ("intruder", "stranger")):
        certificate(tmp_path, name, signed_by=authority)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as s:
        port = s.getsockname()[1]
    own_engine.extra = [
        "-H",
        f"tcp://127.0.0.1:{port}",
        "--tlsverify",
        "--tlscacert",
        f"{tmp_path}/authority.pem",
        "--tlscert",
        f"{tmp_path}/server.pem",
        "--tlskey",
        f"{tmp_path}/server.key",
    ]
    own_engine.start()
    own_engine.add_busybox()

    def flags(name: str) -> list[str]:
        return [
            "-H",
            f"tcp://127.0.0.1:{port}",
            "--tlsverify",
            "--tlscacert",
            f"{tmp_path}/authority.pem",
            "--tlscert",
            f"{tmp_path}/{name}.pem",
            "--tlskey",
            f"{tmp_path}/{name}.key",
        ]

    return own_engine, flags
