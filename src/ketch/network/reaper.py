"""Tidying that nobody need wait for.

Deleting a veth pair takes some 30 ms (the kernel's grace periods), reading the table of tracked flows 10 ms.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from ketch.network import conntrack, endpoint, links
from ketch.network.netlink import NETLINK_NETFILTER, Netlink

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)


class Reaper:
    """One thread with a socket of the maker's network namespace; a context manager that finishes its work."""

    def __init__(self) -> None:
        self._rtnl = Netlink()
        self._ct = Netlink(protocol=NETLINK_NETFILTER)
        self._thread = ThreadPoolExecutor(1, "veth-reaper")
        self._pending: set[Future[None]] = set()

    def delete(self, veth: str) -> None:
        """Delete soon; a failure is logged, and ``reconcile`` would find what is left."""
        self._submit(endpoint.unwire, self._rtnl, veth)

    def forget_udp(self, ports: set[int], container_ip: str) -> None:
        """Make UDP clients that already send to these host ports notice a change soon (see ``conntrack``)."""
        self._submit(self._forget_udp, ports, container_ip)

    def _forget_udp(self, ports: set[int], container_ip: str) -> None:
        local = {str(address.ip) for _, address in links.list_addresses(self._rtnl)}
        conntrack.forget_udp(self._ct, ports, local, container_ip)

    def _submit(self, call: Callable[..., None], *args: object) -> None:
        def run() -> None:
            try:
                call(*args)
            except OSError as e:
                log.warning("network: %s", e)

        future = self._thread.submit(run)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)

    def drain(self) -> None:
        """Wait until everything asked for is gone."""
        wait(list(self._pending))

    def __enter__(self) -> Reaper:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()
        self._rtnl.close()
        self._ct.close()
