"""Noticing that somebody removed our table: ``nft flush ruleset``, or a reload of the host's firewall service.

Without the table, containers have no way out, published ports are dead and the host's loopback is unguarded, so
it is put back at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
from typing import TYPE_CHECKING

from ketch.network.netlink import NETLINK_NETFILTER, attributes, split

if TYPE_CHECKING:
    from collections.abc import Callable

_NFNLGRP_NFTABLES = 7
_NFT_MSG_DELTABLE = (10 << 8) | 2
_NFTA_TABLE_NAME = 1
_NFPROTO_INET = 1
_RECEIVE_BYTES = 1 << 16


class TableWatch:
    """Calls ``on_loss`` on a thread of its own when the table is deleted, by whomever; ``close`` ends it."""

    def __init__(self, table: str, on_loss: Callable[[], None]) -> None:
        self._name = table.encode() + b"\0"
        self._on_loss = on_loss
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._sock.bind((0, 1 << (_NFNLGRP_NFTABLES - 1)))
        self._sock.setblocking(False)
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="nft-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching; waits for a call of ``on_loss`` that is under way (so hold no lock that it needs)."""
        if self._thread.is_alive():
            os.eventfd_write(self._stop, 1)
            self._thread.join()
            self._sock.close()
            os.close(self._stop)

    def _run(self) -> None:
        while True:
            readable, _, _ = select.select([self._sock.fileno(), self._stop], [], [])
            if self._stop in readable:
                return
            if self._lost():
                self._on_loss()

    def _lost(self) -> bool:
        lost = False
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    data = self._sock.recv(_RECEIVE_BYTES)
                except OSError as e:
                    if e.errno != errno.ENOBUFS:
                        raise
                    lost = True  # events were dropped: let the other side look
                    continue
                lost = lost or any(self._is_ours(kind, body) for kind, _, _, body in split(data))
        return lost

    def _is_ours(self, kind: int, body: bytes) -> bool:
        if kind != _NFT_MSG_DELTABLE or body[0] != _NFPROTO_INET:
            return False
        return attributes(body[4:]).get(_NFTA_TABLE_NAME) == self._name
