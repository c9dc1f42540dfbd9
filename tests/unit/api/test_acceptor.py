"""Acceptance of connections, and its end."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from ketch.api import acceptor
from ketch.api.acceptor import Acceptor

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("hands_over", [True, False])
async def test_connections_that_have_only_begun_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hands_over: bool
) -> None:
    """No time that has passed cuts off one that is being handed over; of others the end does not wait for long."""
    monkeypatch.setattr(acceptor, "_BEGIN_S", 0.0)  # as if the machine had stood still meanwhile
    begun, served = asyncio.Event(), []

    async def serve(connection: socket.socket) -> None:
        with connection:
            begun.set()
            for _ in range(20):  # turns of the event loop
                await asyncio.sleep(0)
            served.append(connection)

    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(tmp_path / "s"))
        one = Acceptor(listener, serve, hands_over=hands_over)
        one.start()
        client.connect(str(tmp_path / "s"))
        await begun.wait()
        await one.close()
    assert len(served) == hands_over
