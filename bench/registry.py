"""Measurements of our registry beside docker-registry: one client, loopback, in turn."""

from __future__ import annotations

import contextlib
import http.client
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tests.support.registries import made_images as made
from tests.support.registries.registries import ours, registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.registries.registries import Registry

BLOB_BYTES = 100_000_000
_PULLS, _CLIENTS, _MANIFESTS = 8, 4, 2000


@contextlib.contextmanager
def both() -> Iterator[list[tuple[str, Registry]]]:
    """(name, registry) of each, with a blob of 100 MB and a small manifest."""
    blob = os.urandom(BLOB_BYTES)
    image = made.image({"a": b"1"})
    with contextlib.ExitStack() as undo:
        found = [("ketch", undo.enter_context(ours("--access-log", "")))]
        found.append(("dockerd", undo.enter_context(registry())))
        for _, one in found:
            made.put(one.host, "bench/app", image, "1")
            holder = made.Made(image.data, image.media_type, None, {**image.blobs, made.digest(blob): blob})
            made.put(one.host, "bench/app", holder, "2")
            one.blob = made.digest(blob)  # type: ignore[attr-defined]
        yield found


def pulls(one: Registry) -> float:
    """MB/s of several clients that each fetch the large blob, one after the other and all at once."""

    def fetch(_number: int) -> None:
        buffer = bytearray(1 << 20)
        connection = http.client.HTTPConnection(one.host, timeout=60)
        for _ in range(_PULLS // _CLIENTS):
            connection.request("GET", f"/v2/bench/app/blobs/{one.blob}")  # type: ignore[attr-defined]
            answer = connection.getresponse()
            total = 0
            while count := answer.readinto(buffer):
                total += count
            assert total == BLOB_BYTES
        connection.close()

    begin = time.perf_counter()
    with ThreadPoolExecutor(_CLIENTS) as pool:
        list(pool.map(fetch, range(_CLIENTS)))
    return _PULLS * BLOB_BYTES / 1e6 / (time.perf_counter() - begin)


def manifests(one: Registry) -> float:
    """Small manifests a second, by tag, over one connection."""
    connection = http.client.HTTPConnection(one.host, timeout=60)
    begin = time.perf_counter()
    for _ in range(_MANIFESTS):
        connection.request("GET", "/v2/bench/app/manifests/1", headers={"Accept": made.MANIFEST})
        answer = connection.getresponse()
        assert answer.status == 200
        answer.read()
    connection.close()
    return _MANIFESTS / (time.perf_counter() - begin)
