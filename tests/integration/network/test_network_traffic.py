"""Reachability: real packets between real network namespaces."""

from __future__ import annotations

import contextlib
import ipaddress
from typing import TYPE_CHECKING

import pytest

from ketch.linux.netlink import addresses, links
from ketch.linux.netlink import client as netlink
from tests.support import netns
from tests.support.netns import (
    container,
    in_new_host,
    listen,
    network,
    nft,
    refused,
    send_to_loopback,
    talk,
    udp_server,
)

if TYPE_CHECKING:
    import socket
    from pathlib import Path


@in_new_host
def test_containers_reach_each_other_and_the_host(tmp_path: Path) -> None:
    with network(tmp_path) as manager, container(manager, "a") as (a, ea), container(manager, "b") as (b, eb):
        with b.entered():
            server = listen("0.0.0.0", 80)
        with a.entered():
            assert talk(server, eb.ip, 80) == ea.ip
        assert talk(server, eb.ip, 80) == str(manager.gateway)
        host = listen("0.0.0.0", 81)
        with a.entered():
            assert talk(host, ea.gateway, 81) == ea.ip
        with b.entered():
            assert talk(listen("127.0.0.1", 82), "127.0.0.1", 82) == "127.0.0.1"


@pytest.mark.parametrize("host_ip", ["0.0.0.0", "127.0.0.1", "172.28.0.1"])
@in_new_host
def test_the_host_reaches_a_published_port(tmp_path: Path, host_ip: str) -> None:
    with open("/proc/sys/net/ipv4/conf/all/rp_filter", "w", encoding="ascii") as f:
        f.write("1")
    with netns.outside_machine(), network(tmp_path, subnet="172.28.0.1/16") as manager:
        with container(manager, "a", f"{host_ip}:8080:80/tcp") as (a, ea):
            with a.entered():
                server = listen("0.0.0.0", 80)
            for address in ("127.0.0.1", "127.0.0.2", "172.28.0.1", "192.0.2.1"):
                if host_ip in ("0.0.0.0", address):
                    talk(server, address, 8080)
                else:
                    assert refused(address, 8080)
            assert ea.ports == {"80/tcp": [{"HostIp": host_ip, "HostPort": "8080"}]}
        assert refused("127.0.0.1", 8080)


@in_new_host
def test_an_outside_machine_reaches_published_ports_only(tmp_path: Path) -> None:
    with netns.outside_machine() as outside, network(tmp_path) as manager:
        with netlink.Netlink(outside.rtnl_fd) as rtnl:
            # A neighbour may point any route at us: at the containers' subnet, even at our loopback.
            index = links.get_link(rtnl, "eth0").index
            rtnl.run([addresses.default_route(index, ipaddress.IPv4Address("192.0.2.1"))])
        with container(manager, "a", "0.0.0.0:8080:80/tcp", "127.0.0.1:8081:80/tcp") as (a, ea):
            with a.entered():
                server = listen("0.0.0.0", 80)
            with outside.entered():
                assert talk(server, "192.0.2.1", 8080) == "192.0.2.2"
                assert refused("192.0.2.1", 8081)
                assert refused(ea.ip, 80)
                assert refused("192.0.2.1", 80)
            assert talk(server, "127.0.0.1", 8081) == str(manager.gateway)


@in_new_host
def test_a_neighbour_cannot_reach_a_port_published_on_loopback(tmp_path: Path) -> None:
    with netns.outside_machine() as outside, network(tmp_path) as manager:
        with container(manager, "a", "127.0.0.1:8081:80/udp") as (a, _):
            with a.entered():
                server = udp_server("0.0.0.0", 80, timeout_s=0.3)
            send_to_loopback(outside, "uplink", 8081)
            with pytest.raises(TimeoutError):
                server.recv(100)
            nft("insert rule inet ketch prerouting jump publish4")  # the test can fail: without it, it arrives
            server.settimeout(netns.TIMEOUT_S)
            send_to_loopback(outside, "uplink", 8081)
            assert server.recv(100) == b"hello"


@in_new_host
def test_a_container_cannot_reach_the_hosts_loopback(tmp_path: Path) -> None:
    with network(tmp_path) as manager, container(manager, "a") as (a, _):
        server = udp_server("127.0.0.1", 8082, timeout_s=0.3)
        send_to_loopback(a, "ketch0", 8082)
        with pytest.raises(TimeoutError):
            server.recv(100)
        assert any(_arrives_without_guard(server, a) for _ in range(50))


def _arrives_without_guard(server: socket.socket, sender: netns.Netns) -> bool:
    """The test can fail: without the guard it arrives, unless the table's watch has put the guard back meanwhile."""
    nft("flush chain inet ketch guard")
    send_to_loopback(sender, "ketch0", 8082)
    with contextlib.suppress(TimeoutError):
        return server.recv(100) == b"hello"
    return False


@in_new_host
def test_connections_out_have_the_hosts_address(tmp_path: Path) -> None:
    with netns.outside_machine() as outside, network(tmp_path) as manager, container(manager, "a") as (a, _):
        with outside.entered():
            server = listen("0.0.0.0", 80)
        with a.entered():
            assert talk(server, "192.0.2.2", 80) == "192.0.2.1"


@pytest.mark.parametrize("bridged_packets_are_filtered", ["0", "1"])
@in_new_host
def test_a_container_reaches_its_own_and_others_published_ports(
    tmp_path: Path, bridged_packets_are_filtered: str
) -> None:
    with netns.outside_machine(), network(tmp_path) as manager:
        with open("/proc/sys/net/bridge/bridge-nf-call-iptables", "w", encoding="ascii") as f:
            f.write(bridged_packets_are_filtered)
        with container(manager, "a", "0.0.0.0:8080:80/tcp") as (a, ea), container(manager, "b") as (b, _):
            with a.entered():
                server = listen("0.0.0.0", 80)
                for address in ("192.0.2.1", ea.gateway):
                    talk(server, address, 8080)
            with b.entered():
                for address in ("192.0.2.1", ea.gateway):
                    talk(server, address, 8080)


@in_new_host
def test_udp_is_published_and_an_old_flow_moves_to_the_container(tmp_path: Path) -> None:
    with netns.outside_machine() as outside, network(tmp_path) as manager:
        with outside.entered():
            client = udp_server("0.0.0.0", 5000)
            client.sendto(b"nobody is there yet", ("192.0.2.1", 53))
        for name in ("first", "second"):
            with container(manager, name, "0.0.0.0:53:5353/udp") as (space, _):
                with space.entered():
                    server = udp_server("0.0.0.0", 5353)
                data, peer = send_until_received(client, name.encode(), server)
                assert (data, peer) == (name.encode(), ("192.0.2.2", 5000))
                server.sendto(b"answer", peer)
                assert client.recvfrom(100) == (b"answer", ("192.0.2.1", 53))
                server.close()


@in_new_host
def test_the_hosts_own_firewall_keeps_its_say(tmp_path: Path) -> None:
    with netns.outside_machine() as outside, network(tmp_path) as manager:
        with container(manager, "a", "0.0.0.0:8080:80/tcp", "0.0.0.0:8081:80/tcp") as (a, _):
            with a.entered():
                server = listen("0.0.0.0", 80)
            nft("add table ip admin")
            nft("add chain ip admin f { type filter hook forward priority 10; policy accept; }")
            nft("add rule ip admin f meta l4proto tcp ct original proto-dst 8081 drop")
            with outside.entered():
                talk(server, "192.0.2.1", 8080)
                assert refused("192.0.2.1", 8081)
        nft("delete table ip admin")


@in_new_host
def test_a_host_that_forwards_nothing_must_allow_the_bridge(tmp_path: Path) -> None:
    """What docs/networking.md says about a `forward` policy of drop (dockerd sets it, too)."""
    with netns.outside_machine() as outside, network(tmp_path) as manager:
        with container(manager, "a", "0.0.0.0:8080:80/tcp") as (a, _):
            with a.entered():
                server = listen("0.0.0.0", 80)
            with outside.entered():
                elsewhere = listen("0.0.0.0", 81)
            nft("add table ip admin")
            nft("add chain ip admin forward { type filter hook forward priority 0; policy drop; }")
            talk(server, "127.0.0.1", 8080)
            with outside.entered():
                assert refused("192.0.2.1", 8080)
            with a.entered():
                assert refused("192.0.2.2", 81)
            nft('add rule ip admin forward iifname "ketch0" accept; add rule ip admin forward oifname "ketch0" accept')
            with outside.entered():
                talk(server, "192.0.2.1", 8080)
            with a.entered():
                talk(elsewhere, "192.0.2.2", 81)
            nft("delete table ip admin")


@in_new_host
def test_turning_forwarding_on_does_not_make_a_router_of_the_host(tmp_path: Path) -> None:
    forwarding = "/proc/sys/net/ipv4/ip_forward"
    with open(forwarding, "w", encoding="ascii") as f:
        f.write("0")
    with (
        netns.outside_machine() as left,
        netns.outside_machine("198.51.100.2/24", "198.51.100.1/24", "uplink1") as right,
    ):
        for machine, gateway in ((left, "192.0.2.1"), (right, "198.51.100.1")):
            with netlink.Netlink(machine.rtnl_fd) as rtnl:
                index = links.get_link(rtnl, "eth0").index
                rtnl.run([addresses.default_route(index, ipaddress.IPv4Address(gateway))])
        with right.entered():
            server = listen("0.0.0.0", 80)
        with network(tmp_path) as manager, container(manager, "a") as (a, _):
            with left.entered():
                assert refused("198.51.100.2", 80)
            with a.entered():
                assert talk(server, "198.51.100.2", 80) == "198.51.100.1"
            with open(forwarding, encoding="ascii") as f:
                assert f.read().strip() == "1"
        with open(forwarding, encoding="ascii") as f:
            assert f.read().strip() == "0"


def send_until_received(client: socket.socket, data: bytes, server: socket.socket) -> tuple[bytes, tuple[str, int]]:
    """As any UDP client does: send again when nothing comes (the old flow is forgotten a few milliseconds later)."""
    server.settimeout(0.1)
    for _ in range(30):
        client.sendto(data, ("192.0.2.1", 53))
        with contextlib.suppress(TimeoutError):
            return server.recvfrom(100)
    raise AssertionError("the container never got the datagram")
