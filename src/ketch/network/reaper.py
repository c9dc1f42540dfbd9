"""Deletion of veth pairs in the background: the kernel's grace periods take some 30 ms, and nobody need wait."""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor, wait

from ketch.network import endpoint
from ketch.network.netlink import Netlink

log = logging.getLogger(__name__)


class Reaper:
    """One thread with a socket of the maker's network namespace; a context manager that finishes its work."""

    def __init__(self) -> None:
        self._rtnl = Netlink()
        self._thread = ThreadPoolExecutor(1, "veth-reaper")
        self._pending: set[Future[None]] = set()

    def delete(self, veth: str) -> None:
        """Delete soon; a failure is logged, and ``reconcile`` would find what is left."""
        future = self._thread.submit(self._delete, veth)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)

    def _delete(self, veth: str) -> None:
        try:
            endpoint.unwire(self._rtnl, veth)
        except OSError as e:
            log.warning("network: %s", e)

    def drain(self) -> None:
        """Wait until everything asked for is gone."""
        wait(list(self._pending))

    def __enter__(self) -> Reaper:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()
        self._rtnl.close()
