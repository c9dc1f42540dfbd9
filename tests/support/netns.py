"""Network namespaces for tests: a "host" of our own in a thread, "containers" and "outside" machines beside it.

setns(2) and unshare(2) with CLONE_NEWNET move only the calling thread, so a test's body runs in a thread
that has left the machine's own namespace; nothing it does can reach the real host's interfaces or firewall.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import ipaddress
import os
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

from ketch.linux import ns
from ketch.linux.libnftables import Nftables
from ketch.linux.netlink import addresses, links
from ketch.linux.netlink import client as netlink
from ketch.network.connections import EndpointRequest
from ketch.network.host import HostSettings
from ketch.network.manager import NetworkManager
from ketch.network.model import record as records
from ketch.network.model.schema import SCHEMA
from ketch.network.ports import requests
from ketch.storage.database.db import Database
from tests.support.waiting import patient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ketch.network.model.record import Endpoint
    from ketch.network.ports.requests import PortRequest

TIMEOUT_S = patient(5.0)


def in_new_host(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test in a thread with a network namespace of its own (loopback up, as on any host)."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        failure: list[BaseException] = []

        def body() -> None:
            try:
                ns.unshare(ns.CLONE_NEWNET)
                with netlink.Netlink() as rtnl:
                    rtnl.run([links.set_up(index=links.LOOPBACK_INDEX)])
                test(*args, **kwargs)
            except BaseException as e:
                failure.append(e)

        thread = threading.Thread(target=body, name=test.__name__, daemon=True)
        thread.start()
        thread.join(patient(30))
        assert not thread.is_alive(), "the test hangs"
        if failure:
            raise failure[0]

    return run


class Netns:
    """A network namespace that lives as long as this object is open; what a container's first process would have."""

    def __init__(self) -> None:
        made: list[tuple[int, socket.socket]] = []

        def enter() -> None:
            ns.unshare(ns.CLONE_NEWNET)
            rtnl = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink.NETLINK_ROUTE)
            made.append((os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC), rtnl))

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        self.fd, self._rtnl = made[0]
        self.rtnl_fd = self._rtnl.fileno()

    def close(self) -> None:
        os.close(self.fd)
        self._rtnl.close()

    def __enter__(self) -> Netns:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Move this thread in, and back."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            ns.setns(self.fd, ns.CLONE_NEWNET)
            try:
                yield
            finally:
                ns.setns(home, ns.CLONE_NEWNET)
        finally:
            os.close(home)


def outside_machine(address: str = "192.0.2.2/24", host_address: str = "192.0.2.1/24", link: str = "uplink") -> Netns:
    """Another machine, on a wire with this host; its only route is the wire's subnet."""
    machine = Netns()
    with netlink.Netlink() as rtnl, netlink.Netlink(machine.rtnl_fd) as inside:
        mac = b"\x02\x00" + ipaddress.ip_interface(address).ip.packed[-4:]
        rtnl.run([links.new_veth(link, 0, 1500, peer="eth0", peer_mac=mac, netns_fd=machine.fd)])
        index = links.get_link(inside, "eth0").index
        inside.run([links.set_up(index=links.LOOPBACK_INDEX), links.set_up(index=index)])
        inside.run([addresses.add_address(index, ipaddress.ip_interface(address))])
        index = links.get_link(rtnl, link).index
        rtnl.run([links.set_up(index=index), addresses.add_address(index, ipaddress.ip_interface(host_address))])
        for end, name in ((inside, "eth0"), (rtnl, link)):
            while links.get_link(end, name).operstate != links.IF_OPER_UP:
                time.sleep(0.001)  # the kernel raises the carrier a moment later
    return machine


def default_route(machine: Netns, gateway: str) -> None:
    """Send everything that a machine does not know to this host."""
    with netlink.Netlink(machine.rtnl_fd) as rtnl:
        index = links.get_link(rtnl, "eth0").index
        rtnl.run([addresses.default_route(index, ipaddress.ip_address(gateway))])


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread is about to do."""
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)


def listen(address: str, port: int) -> socket.socket:
    """A TCP listener in this thread's present namespace."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    sock.settimeout(TIMEOUT_S)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    sock.listen()
    return sock


def talk(server: socket.socket, address: str, port: int) -> str:
    """Connect from this thread's present namespace, pass a word both ways; return the client's address seen there."""
    with socket.create_connection((address, port), timeout=TIMEOUT_S) as client:
        accepted, peer = server.accept()
        with accepted:
            accepted.settimeout(TIMEOUT_S)
            client.sendall(b"ping")
            assert accepted.recv(16) == b"ping"
            accepted.sendall(b"pong")
            assert client.recv(16) == b"pong"
            return str(peer[0])


def tcp_counter(name: str) -> int:
    """A counter of this thread's namespace (``TcpExt`` in /proc/net/netstat)."""
    with open("/proc/thread-self/net/netstat", encoding="ascii") as f:
        names, values = (line.split() for line in f if line.startswith("TcpExt:"))
    return int(values[names.index(name)])


@contextlib.contextmanager
def ruleset_changes() -> Iterator[Callable[[], int]]:
    """Count the transactions that change this thread's nftables: each ends with a NFT_MSG_NEWGEN notice."""
    netlink_netfilter, nfnlgrp_nftables, newgen = 12, 7, 10 << 8 | 15
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink_netfilter) as notices:
        notices.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE: room for each element's notice
        notices.bind((0, 0))
        notices.setsockopt(270, 1, nfnlgrp_nftables)  # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP

        def count() -> int:
            found = 0
            with contextlib.suppress(BlockingIOError):
                while data := notices.recv(1 << 20, socket.MSG_DONTWAIT):
                    while data:
                        size, kind = struct.unpack_from("=IH", data)
                        found += kind == newgen
                        data = data[size + 3 & ~3 :]
            return found

        yield count


def send_to_loopback(sender: Netns, host_link: str, port: int) -> None:
    """Send a hand-made datagram for 127.0.0.1:port to this host's link, as somebody with CAP_NET_RAW can."""
    with netlink.Netlink() as rtnl, netlink.Netlink(sender.rtnl_fd) as inside:
        there = links.get_link(rtnl, host_link).mac
        here = links.get_link(inside, "eth0")
        source = next(a for i, a in addresses.list_addresses(inside) if i == here.index).ip.packed
    payload = b"hello"
    udp = struct.pack("!HHHH", 1234, port, 8 + len(payload), 0) + payload
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, source, bytes([127, 0, 0, 1]))
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + head[12:]
    with sender.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eth0", 0))
        raw.send(there + here.mac + b"\x08\x00" + head + udp)


def udp_server(address: str, port: int, timeout_s: float = TIMEOUT_S) -> socket.socket:
    """A bound UDP socket in this thread's present namespace."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(timeout_s)
    sock.bind((address, port))
    return sock


def refused(address: str, port: int, timeout_s: float = 0.3) -> bool:
    """Whether nobody answers there (refused, unreachable or silence)."""
    try:
        socket.create_connection((address, port), timeout=timeout_s).close()
    except OSError:
        return True
    return False


class OneNetwork:
    """A manager with the default network, as a daemon has that was started with these flags."""

    def __init__(
        self, db: Database, bridge: str = "ketch0", subnet: str | None = None, mtu: int = 1500, **options: Any
    ) -> None:
        table = "ketch" if bridge == "ketch0" else f"ketch-{bridge}"
        settings = HostSettings(table, hashlib.sha256(db.path.encode()).hexdigest(), **options)
        self.manager = NetworkManager(db, settings)
        self.flags = (bridge, subnet, mtu)
        self.close, self.teardown = self.manager.close, self.manager.teardown
        self.reconcile, self.counters, self.loopback_up = (
            self.manager.reconcile,
            self.manager.counters,
            self.manager.loopback_up,
        )

    def setup(self) -> None:
        self.manager.setup()
        try:
            wanted = records.NetworkRecord(id="", name="bridge", driver=records.BRIDGE, created=0)
            self.record = self.manager.set_default(*self.flags, wanted)
        except BaseException:
            self.manager.close()
            raise
        pool = self.record.pool(4)
        assert pool is not None
        self.network_id, self.subnet = self.record.id, pool.network
        self.gateway = ipaddress.ip_address(pool.gateway)

    def connect(
        self, name: str, netns_fd: int, rtnl_fd: int | None, hostname: str = "", ports=(), mac: str = "", ip: str = ""
    ) -> Endpoint:
        request = EndpointRequest(name, label=hostname or name, ip=ip, mac=mac, gateway4=True, ports=ports)
        return self.manager.connect(self.network_id, request, netns_fd, rtnl_fd)

    def disconnect(self, name: str) -> None:
        self.manager.disconnect(name)

    def endpoint(self, name: str) -> Endpoint | None:
        return next(iter(self.manager.endpoints_of(name)), None)


@contextlib.contextmanager
def network(tmp_path: Path, **options: object) -> Iterator[OneNetwork]:
    """A set-up network that is torn down at the end."""
    db = Database(str(tmp_path / "ketch.db"), [SCHEMA])
    manager = OneNetwork(db, **options)  # type: ignore[arg-type]
    manager.setup()
    try:
        yield manager
    finally:
        manager.teardown()
        db.close()


@contextlib.contextmanager
def member(
    manager: NetworkManager, network_id: str, name: str, *publish: PortRequest, gateway: bool = True, **fields: Any
) -> Iterator[tuple[Netns, Endpoint]]:
    """A namespace connected to one network of several."""
    with Netns() as space:
        wanted = EndpointRequest(name, label=name, gateway4=gateway, gateway6=gateway, ports=publish, **fields)
        connected = manager.connect(network_id, wanted, space.fd, space.rtnl_fd)
        try:
            yield space, connected
        finally:
            manager.disconnect(name)


@contextlib.contextmanager
def container(manager: OneNetwork, name: str, *publish: str) -> Iterator[tuple[Netns, Endpoint]]:
    """A connected namespace; ``publish`` are ``HOST_IP:HOST_PORT:PORT/PROTO``."""
    bindings: dict[str, list[dict[str, str]] | None] = {}
    for text in publish:
        ip, host_port, key = text.rsplit(":", 2)
        entries = bindings.setdefault(key, [])
        assert entries is not None
        entries.append({"HostIp": ip, "HostPort": host_port})
    with Netns() as space:
        wanted = requests.requests(bindings, None, False)
        connected = manager.connect(name, space.fd, space.rtnl_fd, hostname=name, ports=wanted)
        try:
            yield space, connected
        finally:
            manager.disconnect(name)


def nft(commands: str) -> str:
    """Run nftables commands in this thread's namespace."""
    reply = Nftables().run(commands)
    assert reply.code == 0, reply.error
    return reply.output


def ruleset() -> str:
    """This thread's namespace's whole nftables ruleset."""
    return nft("list ruleset")


def link_names() -> set[str]:
    """Names of the links in this thread's namespace."""
    with netlink.Netlink() as rtnl:
        return {link.name for link in links.list_links(rtnl)}
