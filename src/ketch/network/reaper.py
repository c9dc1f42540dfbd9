"""Background thread for removals that no request waits for.

Deleting a veth pair takes some 30 ms (the kernel's grace periods), reading the table of tracked flows 10 ms.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from ketch.linux.netlink import addresses, conntrack
from ketch.linux.netlink.client import NETLINK_NETFILTER, Netlink
from ketch.network.links import endpoint

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

_FORGET_DELAY_S = 0.2


class Reaper:
    """One thread with a socket of the maker's network namespace; a context manager that finishes its work."""

    def __init__(self) -> None:
        self._rtnl = Netlink()
        self._ct = Netlink(protocol=NETLINK_NETFILTER)
        self._thread = ThreadPoolExecutor(1, "veth-reaper")
        self._pending: set[Future[None]] = set()
        self._lock = threading.Lock()  # guards what follows
        self._timer: threading.Timer | None = None
        self._changed_ports: set[int] = set()
        self._changed_ips: set[str] = set()

    def delete(self, veth: str) -> None:
        """Delete a link in the background; a failure is logged, and left to ``reconcile``."""
        self._submit(endpoint.unwire, self._rtnl, veth)

    def forget_udp(self, ports: set[int], container_ip: str) -> None:
        """Make UDP clients that already send to these host ports notice a change soon (see ``conntrack``).

        A moment later, and for all changes of that moment at once: while the kernel walks its table, everything that
        waits for an RCU grace period (the end of a container does) waits with it.
        """
        with self._lock:
            self._changed_ports |= ports
            self._changed_ips.add(container_ip)
            if self._timer is None:
                self._timer = threading.Timer(_FORGET_DELAY_S, self._forget_changed)
                self._timer.daemon = True
                self._timer.start()

    def _forget_changed(self) -> None:
        with self._lock:
            if self._timer is None:
                return
            self._timer.cancel()
            self._timer = None
            ports, ips = self._changed_ports, self._changed_ips
            self._changed_ports, self._changed_ips = set(), set()
            self._submit(self._forget_udp, ports, ips)

    def _forget_udp(self, ports: set[int], ips: set[str]) -> None:
        local = {str(address.ip) for _, address in addresses.list_addresses(self._rtnl)}
        conntrack.forget_udp(self._ct, ports, local, ips)

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
        """Wait until all requested removals are done."""
        self._forget_changed()
        wait(list(self._pending))

    def __enter__(self) -> Reaper:
        return self

    def __exit__(self, *_: object) -> None:
        self._forget_changed()
        self._thread.shutdown()
        self._rtnl.close()
        self._ct.close()
