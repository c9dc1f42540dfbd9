"""The registry's files: directories that one request empties while another one writes into them; lists in order."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from typing import TYPE_CHECKING

import pytest

from ketch import failpoints
from ketch.registry.objects.disk import Disk
from ketch.registry.objects.store import ObjectMissing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def test_a_directory_that_is_taken_away_under_a_writer(tmp_path):
    ended = threading.Event()

    async def come_and_go() -> None:
        disk = Disk(str(tmp_path))
        while not ended.is_set():
            disk._put("deep/er/one", b"")
            await disk.delete("deep/er/one")

    other = threading.Thread(target=lambda: asyncio.run(come_and_go()))
    other.start()
    try:
        disk = Disk(str(tmp_path))
        for _ in range(300):
            disk._put("deep/er/two", b"x")
            asyncio.run(disk.delete("deep/er/two"))
    finally:
        ended.set()
        other.join()


async def test_a_list_is_in_order_and_begins_where_it_is_told(tmp_path):
    disk = Disk(str(tmp_path))
    keys = ["a/b", "a/b-c/d", "a/b0", "a/z", "b/a", "a/b.x"]
    for key in keys:
        await disk.put(key, key.encode())
    assert [one.key async for one in disk.list("a/")] == sorted(key for key in keys if key.startswith("a/"))
    assert [one.key async for one in disk.list("a/", "a/b.x")] == ["a/b0", "a/z"]
    assert [one.key async for one in disk.list("a/b")] == ["a/b", "a/b-c/d", "a/b.x", "a/b0"]
    assert [one.key async for one in disk.list("none/")] == []
    assert await disk.get("b/a") == b"b/a"
    with pytest.raises(ObjectMissing):
        await disk.get("a")


async def test_directories_above_the_store_stay(tmp_path):
    """Also when nothing else is in it."""
    root = tmp_path / "empty" / "store"
    disk = Disk(str(root))
    (root / "blobs").rmdir()
    await disk.put("blobs/one", b"x")
    await disk.delete("blobs/one")
    assert root.is_dir()


async def test_an_upload_that_does_not_reach_the_disk(tmp_path, monkeypatch):
    """It is gone, and no second request makes a blob of it: the kernel tells of the failure once."""
    disk, data = Disk(str(tmp_path)), b"x" * 10000

    async def pieces() -> AsyncIterator[bytes]:
        yield data

    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    os.makedirs(tmp_path / "uploads" / "one")
    assert await disk.append("one", 0, pieces()) == len(data)
    monkeypatch.setattr(failpoints, "_fault", failpoints.Fault("registry.upload-sync=EIO:1", ""))
    with pytest.raises(OSError, match="Input/output error"):
        await disk.finish("one", digest, "blobs/one")
    assert await disk.length("one") == 0
    with pytest.raises(FileNotFoundError):
        await disk.finish("one", digest, "blobs/one")
    os.makedirs(tmp_path / "uploads" / "two")
    await disk.append("two", 0, pieces())
    assert await disk.finish("two", digest, "blobs/one")
    assert await disk.get("blobs/one") == data
