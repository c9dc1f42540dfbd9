"""A watch for the removal of our table by others: ``nft flush ruleset``, or a reload of the host's firewall service.

Without the table, containers have no way out, published ports are dead and the host's loopback is unguarded, so
it is put back at once.  Other tables are watched, too: a firewall service that loads its own later must be told what
it is to let through, if that was asked for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
from typing import TYPE_CHECKING

from ketch.linux.netlink.client import NETLINK_NETFILTER
from ketch.linux.netlink.messages import attributes, split

if TYPE_CHECKING:
    from collections.abc import Callable

_NFNLGRP_NFTABLES = 7
_SUBSYSTEM = 10 << 8
_NFT_MSG_DELTABLE, _NFT_MSG_NEWCHAIN, _NFT_MSG_DELCHAIN, _NFT_MSG_DELRULE = (_SUBSYSTEM | n for n in (2, 3, 5, 8))
_LOSSES = (_NFT_MSG_DELTABLE, _NFT_MSG_DELCHAIN, _NFT_MSG_DELRULE)
_TABLE = 1  # NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE
_NFPROTO_INET = 1
_RECEIVE_BYTES = 1 << 16


class TableWatch:
    """A watch on the firewall, in a thread of its own; ``close`` ends it.

    It calls ``on_loss`` when a part of the table is deleted, and ``on_others`` when another table gets a chain.
    """

    def __init__(self, table: str, on_loss: Callable[[], None], on_others: Callable[[], None]) -> None:
        self._name = table.encode() + b"\0"
        self._on_loss, self._on_others = on_loss, on_others
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._sock.bind((0, 1 << (_NFNLGRP_NFTABLES - 1)))
        self._sock.setblocking(False)
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="nft-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching; waits for a running call of ``on_loss`` (so hold no lock that it needs)."""
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
            lost, others = self._read()
            if lost:
                self._on_loss()
            if others:
                self._on_others()

    def _read(self) -> tuple[bool, bool]:
        lost = others = False
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    data = self._sock.recv(_RECEIVE_BYTES)
                except OSError as e:
                    if e.errno != errno.ENOBUFS:
                        raise
                    lost = others = True  # events were dropped: let the other side look
                    continue
                for kind, _, _, body in split(data):
                    lost = lost or (kind in _LOSSES and self._is_ours(body))
                    others = others or (kind == _NFT_MSG_NEWCHAIN and not self._is_ours(body))
        return lost, others

    def _is_ours(self, body: bytes) -> bool:
        return body[0] == _NFPROTO_INET and attributes(body[4:]).get(_TABLE) == self._name
