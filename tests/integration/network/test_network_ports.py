"""Published ports of both families, who holds them, and how the networks meet the world: real packets."""

from __future__ import annotations

import contextlib
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from ketch.errors import KetchError
from ketch.linux.netlink import addresses
from ketch.network.connections import EndpointRequest
from ketch.network.model import record as r
from ketch.network.model.record import NetworkRecord, Pool
from ketch.network.ports.requests import PortRequest
from tests.support import netns
from tests.support.netns import TIMEOUT_S, in_new_host, listen, member, network, nft, refused, talk
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ketch.network.manager import NetworkManager

V4 = Pool(subnet="10.9.0.0/24")
V6 = Pool(subnet="fd00:9::/64")


@contextlib.contextmanager
def dual(tmp_path: Path, *, direct: bool = False, **settings: Any) -> Iterator[tuple[NetworkManager, NetworkRecord]]:
    """A host with one network of both families beside the default one."""
    with network(tmp_path, direct=direct) as one:
        wanted = NetworkRecord(id="", name="dual", driver=r.BRIDGE, created=0, pools=(V4, V6), ipv6=True, **settings)
        yield one.manager, one.manager.create(wanted)


def everywhere(number: int, proto: str = "tcp") -> PortRequest:
    return PortRequest(proto, 80, "", number, number)


@in_new_host
def test_a_port_is_published_on_both_families(tmp_path: Path) -> None:
    with netns.outside_machine("fd01::2/64", "fd01::1/64") as outside, netns.outside_machine(link="up4") as outside4:
        with dual(tmp_path) as (manager, record), member(manager, record.id, "web", everywhere(8080)) as (web, made):
            assert made.ports == {
                "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}]
            }
            with web.entered():
                server = listen("::", 80)
            with outside.entered():
                assert talk(server, "fd01::1", 8080) == "fd01::2"
                assert refused(made.ip6, 80)
            with outside4.entered():
                assert talk(server, "192.0.2.1", 8080) == "::ffff:192.0.2.2"
            talk(server, "fd01::1", 8080)
            talk(server, "127.0.0.1", 8080)
            with web.entered():  # to itself through the host's port, and out of the hairpin
                talk(server, "10.9.0.1", 8080)
                talk(server, "fd00:9::1", 8080)
        assert refused("fd01::1", 8080)


@in_new_host
def test_one_address_of_ipv6(tmp_path: Path) -> None:
    with open("/proc/sys/net/ipv6/conf/default/dad_transmits", "w", encoding="ascii") as f:
        f.write("255")  # for so many seconds an address would be tentative, if it were probed for
    with netns.outside_machine("fd01::2/64", "fd01::1/64"), dual(tmp_path) as (manager, record):
        wanted = PortRequest("tcp", 80, "fd01::1", 8080, 8080)
        with member(manager, record.id, "web", wanted) as (web, made):
            with web.entered():
                server = listen("::", 80)
            until(lambda: _settled(record.link), "no address is tentative: what is, asks nobody")
            talk(server, "fd01::1", 8080)
            assert refused("fd00:9::1", 8080)
            assert refused("127.0.0.1", 8080)
            assert made.ports == {"80/tcp": [{"HostIp": "fd01::1", "HostPort": "8080"}]}


def _settled(link: str) -> bool:
    """Whether a link has its own address of IPv6 and none is tentative.

    The kernel makes the link-local one when the first port is up, and takes the mark off it in a worker of its own.
    """
    with open("/proc/thread-self/net/if_inet6", encoding="ascii") as f:
        flags = [int(row[4], 16) for row in map(str.split, f) if row[5] == link]
    return len(flags) == 2 and not any(one & addresses.IFA_F_TENTATIVE for one in flags)


@in_new_host
def test_a_free_port_is_the_same_in_both_families(tmp_path: Path) -> None:
    with dual(tmp_path) as (manager, record), member(manager, record.id, "web", PortRequest("tcp", 80)) as (_, made):
        v4, v6 = made.ports["80/tcp"]
        assert v4["HostPort"] == v6["HostPort"] != "0"


@in_new_host
def test_ipv6_of_the_host_leads_to_a_container_without(tmp_path: Path) -> None:
    wanted = [everywhere(8080), PortRequest("tcp", 80, "::1"), PortRequest("tcp", 80), everywhere(5353, "udp")]
    with netns.outside_machine("fd01::2/64", "fd01::1/64") as outside, network(tmp_path) as one:
        with member(one.manager, one.network_id, "web", *wanted) as (web, made):
            shown = made.ports["80/tcp"]
            assert shown[:2] == [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}]
            assert shown[3]["HostPort"] == shown[4]["HostPort"] and [b["HostIp"] for b in shown[2:]] == [
                "::1",
                "0.0.0.0",
                "::",
            ]
            with web.entered():
                server, datagrams = listen("0.0.0.0", 80), _datagrams(("0.0.0.0", 80))
            assert talk(server, "::1", 8080) == "172.17.0.1"
            talk(server, "::1", int(shown[2]["HostPort"]))
            talk(server, "::1", int(shown[3]["HostPort"]))
            _ask(datagrams, "::1", 5353)
            with outside.entered():
                talk(server, "fd01::1", 8080)
                _ask(datagrams, "fd01::1", 5353)
            _much(server, "::1", 8080)
            server.close()
            with socket.create_connection(("::1", 8080), TIMEOUT_S) as client:
                assert client.recv(1) == b""  # nobody listens in the container
            with pytest.raises(OSError, match="in use"):
                listen("::", 8080)
        assert refused("::1", 8080)
        listen("::", 8080).close()


@in_new_host
def test_the_loopback_of_ipv6_leads_to_a_container_with_ipv6(tmp_path: Path) -> None:
    with dual(tmp_path) as (manager, record), member(manager, record.id, "web", everywhere(8080)) as (web, made):
        with web.entered():
            server = listen(made.ip6, 80)
        assert talk(server, "::1", 8080) == "fd00:9::1"


@in_new_host
def test_relayed_ports_come_back_after_the_daemon(tmp_path: Path) -> None:
    with network(tmp_path) as one, member(one.manager, one.network_id, "web", everywhere(8080)) as (web, _):
        with web.entered():
            server = listen("0.0.0.0", 80)
        talk(server, "::1", 8080)
        one.manager.close()
        assert refused("::1", 8080)
        one.manager.setup()
        one.manager.reconcile(["web"])
        talk(server, "::1", 8080)


@in_new_host
def test_ports_move_when_a_network_with_ipv6_comes_and_goes(tmp_path: Path) -> None:
    with dual(tmp_path) as (manager, record):
        first = manager.list()[0]
        with member(manager, first.id, "web", PortRequest("tcp", 80)) as (web, made):
            shown = made.ports["80/tcp"]
            port = int(shown[1]["HostPort"])
            with web.entered():
                server = listen("::", 80)
            request = EndpointRequest("web", label="web", outside6=True)
            manager.connect(record.id, request, web.fd, web.rtnl_fd)
            for gateway6, source in ((record.id, "fd00:9::1"), ("", "::ffff:172.17.0.1")):
                manager.set_gateways(request, first.id, gateway6, web.rtnl_fd)
                found = [b for e in manager.endpoints_of("web") for b in e.ports.get("80/tcp", ())]
                assert sorted(found, key=str) == shown
                assert talk(server, "::1", port) == source


def _datagrams(address: tuple[str, int]) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(TIMEOUT_S)
    sock.bind(address)
    return sock


def _ask(server: socket.socket, address: str, port: int) -> None:
    """A datagram there and one back; a second client gets its own answer."""
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as two,
    ):
        for client, word in ((one, b"one"), (two, b"two")):
            client.settimeout(TIMEOUT_S)
            client.connect((address, port))
            client.send(word)
        for _ in range(2):
            word, peer = server.recvfrom(100)
            server.sendto(word * 2, peer)
        assert (one.recv(100), two.recv(100)) == (b"oneone", b"twotwo")


def _much(server: socket.socket, address: str, port: int) -> None:
    """More than all buffers hold, in both directions at once, and the end of one of them before the other's."""
    sent = os.urandom(1 << 20) * 8
    with socket.create_connection((address, port), TIMEOUT_S) as client:
        accepted, _ = server.accept()
        with accepted, ThreadPoolExecutor(4) as pool:
            accepted.settimeout(TIMEOUT_S)
            sending = [pool.submit(_send_all, sock, sent) for sock in (client, accepted)]
            got = [pool.submit(_receive_all, sock) for sock in (client, accepted)]
            for one in sending:
                one.result()
            assert all(one.result() == sent for one in got)


def _send_all(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def _receive_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(1 << 16), b""))


@in_new_host
def test_a_conflict_names_the_container(tmp_path: Path) -> None:
    with dual(tmp_path) as (manager, record), member(manager, record.id, "web", everywhere(8080)):
        with pytest.raises(KetchError, match=r"Bind for 0\.0\.0\.0:8080 failed: port is already allocated.*web"):
            with member(manager, record.id, "other", everywhere(8080)):
                pass
        only6 = PortRequest("tcp", 80, "::", 8080, 8080)
        with pytest.raises(KetchError, match=r"Bind for \[::\]:8080 failed: port is already allocated.*web"):
            with member(manager, record.id, "other", only6):
                pass


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
@pytest.mark.parametrize("proto", ["tcp", "udp"])
@in_new_host
def test_a_conflict_names_the_program(tmp_path: Path, family: int, address: str, proto: str) -> None:
    with dual(tmp_path) as (manager, record):
        kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
        with socket.socket(family, kind) as taken:
            taken.bind((address, 8080))
            if proto == "tcp":
                taken.listen()
            with pytest.raises(KetchError, match=rf"address already in use by .*\(pid {os.getpid()}\)"):
                with member(manager, record.id, "web", everywhere(8080, proto)):
                    pass
        # Nothing was kept of the family that was free.
        with member(manager, record.id, "web", everywhere(8080, proto)):
            pass


@in_new_host
def test_routed_containers_are_reached_at_their_own_addresses(tmp_path: Path) -> None:
    options = {r.OPTION_MODE4: "routed", r.OPTION_MODE6: "nat"}
    with netns.outside_machine() as outside, dual(tmp_path, options=options) as (manager, record):
        _default_route(outside)
        with member(manager, record.id, "web", everywhere(8080)) as (web, made):
            with web.entered():
                server, closed = listen("::", 80), listen("::", 81)
            with outside.entered():
                assert talk(server, made.ip, 80) == "::ffff:192.0.2.2"
                assert refused("192.0.2.1", 8080)
                assert refused(made.ip, 81)
            with web.entered():  # its own address stays as it is on the way out
                there = _listen_in(outside, "192.0.2.2", 90)
                assert talk(there, "192.0.2.2", 90) == made.ip
            assert made.ports == {"80/tcp": [{"HostIp": "::", "HostPort": "8080"}]}
            closed.close()


@pytest.mark.parametrize("direct", [False, True])
@in_new_host
def test_published_ports_are_reached_at_containers_own_addresses_where_that_is_wanted(
    tmp_path: Path, direct: bool
) -> None:
    again, private = PortRequest("tcp", 80, "0.0.0.0", 8081, 8081), PortRequest("tcp", 82, "127.0.0.1", 8082, 8082)
    with netns.outside_machine() as outside, dual(tmp_path, direct=direct) as (manager, record):
        _default_route(outside)
        with member(manager, record.id, "web", everywhere(8080), again, private) as (web, made):
            with web.entered():
                server, *others = (listen("0.0.0.0", port) for port in (80, 81, 82))
            with outside.entered():
                talk(server, "192.0.2.1", 8080)
                talk(server, "192.0.2.1", 8081)
                if direct:
                    talk(server, made.ip, 80)
                assert [refused(made.ip, port) for port in (80, 81, 82)] == [not direct, True, True]
            for one in others:
                one.close()
        assert f"{made.ip} . tcp" not in netns.ruleset()  # with the container goes what led to it


@in_new_host
def test_unprotected_containers_are_open_to_who_can_route(tmp_path: Path) -> None:
    options = {r.OPTION_MODE4: "nat-unprotected"}
    with netns.outside_machine() as outside, dual(tmp_path, options=options) as (manager, record):
        _default_route(outside)
        with member(manager, record.id, "web") as (web, made):
            with web.entered():
                server = listen("0.0.0.0", 81)
            with outside.entered():
                talk(server, made.ip, 81)


@in_new_host
def test_an_isolated_network_has_no_address_of_the_host(tmp_path: Path) -> None:
    options = {r.OPTION_MODE4: "isolated", r.OPTION_MODE6: "isolated"}
    with dual(tmp_path, internal=True, options=options) as (manager, record):
        with member(manager, record.id, "a", gateway=False) as (a, ea), member(manager, record.id, "b") as (b, _):
            with a.entered():
                server = listen("0.0.0.0", 80)
            with b.entered():
                assert talk(server, ea.ip, 80)
            assert refused(ea.ip, 80)


# What ufw and firewalld leave behind: chains of other tables that drop or reject what they do not know.
UFW = """
table ip filter {
  chain FORWARD { type filter hook forward priority filter; policy drop; jump ufw-user-forward; }
  chain ufw-user-forward { ct state related,established accept; }
}"""
FIREWALLD = """
table inet firewalld {
  chain filter_FORWARD {
    type filter hook forward priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    reject with icmpx admin-prohibited
  }
}"""
TABLES = {"ip filter FORWARD": UFW, "inet firewalld filter_FORWARD": FIREWALLD}


@pytest.mark.parametrize("chain", TABLES)
@in_new_host
def test_the_hosts_firewall_keeps_its_say(tmp_path: Path, chain: str) -> None:
    with netns.outside_machine() as outside, network(tmp_path) as one:
        nft(TABLES[chain])
        there = _listen_in(outside, "192.0.2.2", 90)
        with member(one.manager, one.network_id, "web") as (web, _):
            with web.entered():
                assert refused("192.0.2.2", 90)
            (said,) = one.manager.blockers()
            assert chain in said
        there.close()
        assert "let through" not in netns.ruleset()


@pytest.mark.parametrize("chain", TABLES)
@in_new_host
def test_the_hosts_firewall_is_opened_when_asked_for(tmp_path: Path, chain: str) -> None:
    nft(TABLES[chain])
    before = netns.ruleset()
    with netns.outside_machine() as outside, network(tmp_path, open_firewall=True) as one:
        assert one.manager.blockers() == []
        there = _listen_in(outside, "192.0.2.2", 90)
        with member(one.manager, one.network_id, "web", everywhere(8080)) as (web, _):
            with web.entered():
                talk(there, "192.0.2.2", 90)
                server = listen("0.0.0.0", 80)
            with outside.entered():
                talk(server, "192.0.2.1", 8080)
            # A reload of the firewall service: it deletes its table and loads it again.
            family, table, _name = chain.split()
            nft(f"delete table {family} {table}\n{TABLES[chain]}")
            netns.eventually(lambda: "let through by ketch" in nft(f"list table {family} {table}"))
            with web.entered():
                talk(there, "192.0.2.2", 90)
        record = one.manager.create(NetworkRecord(id="", name="more", driver=r.BRIDGE, created=0))
        assert record.link in nft(f"list table {family} {table}")
        one.manager.remove(record.id)
        assert record.link not in nft(f"list table {family} {table}")
    assert netns.ruleset() == before


@in_new_host
def test_other_packets_than_containers_stay_refused(tmp_path: Path) -> None:
    """The rules in the host's firewall let pass what our own table lets pass, and no more."""
    nft(UFW)
    with netns.outside_machine() as outside, network(tmp_path, open_firewall=True) as one:
        _default_route(outside)
        with member(one.manager, one.network_id, "web") as (web, made):
            with web.entered():
                server = listen("0.0.0.0", 80)
            with outside.entered():
                assert refused(made.ip, 80)
            server.close()


@pytest.mark.parametrize("damage", ["flush chain inet ketch forward", "flush table inet ketch", "flush ruleset"])
@in_new_host
def test_a_flushed_table_is_restored(tmp_path: Path, damage: str) -> None:
    with network(tmp_path) as one, member(one.manager, one.network_id, "web", everywhere(8080)) as (web, _):
        before = netns.ruleset()
        nft(damage)
        netns.eventually(lambda: netns.ruleset() == before)
        with web.entered():
            server = listen("0.0.0.0", 80)
        talk(server, "127.0.0.1", 8080)


@in_new_host
def test_repair_puts_back_links_and_rules(tmp_path: Path) -> None:
    with network(tmp_path) as one:
        assert one.manager.repair() == []
        one.manager._host.stop_watching()
        nft("delete table inet ketch")
        assert one.manager.repair() == ["put firewall table ketch back"]
        assert "chain forward" in netns.ruleset()


def _default_route(machine: netns.Netns) -> None:
    netns.default_route(machine, "192.0.2.1")


def _listen_in(machine: netns.Netns, address: str, port: int) -> socket.socket:
    with machine.entered():
        return listen(address, port)


@pytest.mark.parametrize("masquerade", ["true", "false"])
@in_new_host
def test_ipv6_leaves_with_the_hosts_address_or_its_own(tmp_path: Path, masquerade: str) -> None:
    """NAT66 on and off."""
    options = {r.OPTION_MASQUERADE: masquerade}
    with (
        netns.outside_machine("fd01::2/64", "fd01::1/64") as outside,
        dual(tmp_path, options=options) as (manager, record),
    ):
        netns.default_route(outside, "fd01::1")
        there = _listen_in(outside, "fd01::2", 90)
        with member(manager, record.id, "web") as (web, made):
            with web.entered():
                seen = talk(there, "fd01::2", 90)
            assert seen == ("fd01::1" if masquerade == "true" else made.ip6)
