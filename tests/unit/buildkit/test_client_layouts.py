"""Blobs that clients keep, read and written over a connection."""

from __future__ import annotations

import asyncio
import hashlib
import os

import pytest

from ketch.buildkit.session.sessions import Sessions
from ketch.errors import DataLoss, InvalidArgument, NotFound, Unavailable
from ketch.oci import manifest as oci
from tests.support.building.session_client import SessionClient


def described(data, size=None):
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    return oci.Descriptor(media_type="", digest=digest, size=len(data) if size is None else size)


@pytest.fixture
def sessions(tmp_path):
    return Sessions(str(tmp_path / "sockets"))


SMALL, LARGE = b'{"a": 1}', os.urandom(9_000_000)


async def test_reading(sessions):
    blobs = {described(one).digest: one for one in (SMALL, LARGE, b"")}
    async with SessionClient(blobs={"local:/x": blobs}).connected(sessions) as session:
        layout = await session.layout("local:/x")

        def work():
            for one in (SMALL, LARGE, b""):
                found = layout.described(described(one).digest)
                assert (found.digest, found.size) == (described(one).digest, len(one))
                assert layout.named("latest", found.digest) == found
                assert layout.has(found)
                copied = bytearray()
                layout.copy(found, copied.extend)
                assert bytes(copied) == one
            assert layout.read(described(SMALL), 100) == SMALL
            with pytest.raises(InvalidArgument, match="larger than 100 bytes"):
                layout.read(described(LARGE), 100)
            with pytest.raises(InvalidArgument):
                layout.copy(described(SMALL, 100), copied.extend)
            with pytest.raises(InvalidArgument, match="names no digest"):
                layout.named("latest", "")
            assert not layout.has(described(b"another"))
            with pytest.raises(NotFound, match="`local:/x`: content sha256:"):
                layout.described(described(b"another").digest)
            blobs[described(SMALL).digest] = b'{"a": 2}'
            with pytest.raises(DataLoss, match="does not match its digest"):
                layout.read(described(SMALL), 100)

        await asyncio.to_thread(work)
        other = await session.layout("y")
        with pytest.raises(NotFound, match="of oci:y"):
            await asyncio.to_thread(other.described, described(SMALL).digest)
    async with SessionClient().connected(sessions) as session:
        with pytest.raises(NotFound, match="keeps no layouts"):
            await session.layout("local:/x")


async def test_writing(sessions):
    client = SessionClient(blobs={"local:/x": {}})
    async with client.connected(sessions) as session:
        layout = await session.layout("local:/x")

        def work():
            layout.put(described(LARGE), (LARGE[at : at + 3_000_000] for at in range(0, len(LARGE), 3_000_000)))
            layout.put(described(SMALL), [SMALL])
            layout.put(described(SMALL), iter([]))  # it is there, and nothing is read
            layout.name(described(SMALL), "latest")
            with pytest.raises(Unavailable, match="unexpected commit digest"):
                layout.put(described(b"expected"), [b"another."])
            with pytest.raises(ZeroDivisionError):
                layout.put(described(b"broken"), (1 // 0 for _ in range(1)))

        await asyncio.to_thread(work)
    assert client.blobs == {"local:/x": {described(one).digest: one for one in (LARGE, SMALL)}}


async def test_a_client_that_has_the_blob_meanwhile(sessions):
    client = SessionClient(blobs={"local:/x": {described(SMALL).digest: SMALL}})
    async with client.connected(sessions) as session:
        layout = await session.layout("local:/x")
        await asyncio.to_thread(layout.put, described(SMALL, 100), [SMALL])


async def test_a_client_that_vanishes(sessions):
    client = SessionClient(blobs={"local:/x": {}})
    async with client.connected(sessions) as session:
        layout = await session.layout("local:/x")

        def pieces():
            yield SMALL
            asyncio.run_coroutine_threadsafe(client.connection.close(), loop).result()
            yield SMALL

        loop = asyncio.get_running_loop()
        with pytest.raises(Unavailable, match="the client's layout `local:/x`"):
            await asyncio.to_thread(layout.put, described(SMALL + SMALL), pieces())
