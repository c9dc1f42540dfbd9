"""A client that goes away in the middle of an upload leaves nothing behind, and the daemon does not mind."""

from __future__ import annotations

import os
import socket

import pytest

from tests.support.engines import busybox_tar
from tests.support.waiting import patient, until

pytestmark = pytest.mark.ketch_only  # looks into Ketch's directories


def upload_half(path: str, address: str) -> socket.socket:
    """Begin a chunked upload and send half of an archive."""
    data = busybox_tar()
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(patient(10))
    connection.connect(path)
    connection.sendall(
        f"POST {address} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        "Content-Type: application/x-tar\r\n\r\n".encode()
    )
    half = data[: len(data) // 2]
    connection.sendall(b"%x\r\n%s\r\n" % (len(half), half))
    return connection


def unfinished(data_root: str) -> list[str]:
    """What is being written there now."""
    layers = [n for n in os.listdir(os.path.join(data_root, "layers")) if n.startswith(".")]
    return layers + os.listdir(os.path.join(data_root, "content", "ingest"))


@pytest.mark.parametrize("address", ["/images/load", "/images/create?fromSrc=-&repo=half"])
def test_half_an_upload(engine, address):
    connection = upload_half(engine.socket, address)
    until(lambda: unfinished(engine.data_root), "an upload has begun")
    connection.close()
    until(lambda: not unfinished(engine.data_root), "it is cleaned up")
    assert engine.docker("images", "-q", "half").out == ""
    assert engine.docker("run", "--rm", "busybox", "echo", "well").out == "well\n"
