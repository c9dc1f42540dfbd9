"""Router advertisements on a network configure neither containers nor the host, unless asked for."""

from __future__ import annotations

import ipaddress
import socket
import struct
import time

import pytest

from ketch.errors import InvalidArgument
from ketch.linux.netlink import addresses, links
from ketch.linux.netlink import client as netlink
from ketch.network.connections import EndpointRequest
from ketch.network.links import interface_sysctls, sysctl
from ketch.network.model import record as r
from ketch.network.model.record import NetworkRecord, Pool
from tests.support.netns import Netns, OneNetwork, in_new_host, network
from tests.support.waiting import patient

PREFIX = ipaddress.ip_network("2001:db8:bad::/64")
_CONF = "/proc/sys/net/ipv6/conf"


def advertisement(mac: bytes) -> bytes:
    """An Ethernet frame: here is a router, and a prefix to make addresses of (RFC 4861, 4.2 and 4.6.2)."""
    source = ipaddress.ip_address("fe80::bad").packed
    target = ipaddress.ip_address("ff02::1").packed
    prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 3600, 3600, 0) + PREFIX.network_address.packed
    body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + b"\x01\x01" + mac + prefix
    data = source + target + struct.pack("!IxxxB", len(body), 58) + body
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    body = body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:]
    header = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + source + target
    return bytes.fromhex("333300000001") + mac + b"\x86\xdd" + header + body


def advertise(sender: Netns, interface: str = "eth0") -> None:
    with netlink.Netlink(sender.rtnl_fd) as rtnl:
        mac = links.get_link(rtnl, interface).mac
    with sender.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((interface, 0))
        for _ in range(3):
            raw.send(advertisement(mac))
            time.sleep(0.05)


def configured(rtnl: netlink.Netlink) -> list[str]:
    """Addresses and routes of the advertised prefix."""
    found = [str(a) for _, a in addresses.list_all_addresses(rtnl) if a.ip in PREFIX]
    return found + [str(n) for _, n in addresses.list_routes(rtnl) if n.version == 6 and n.subnet_of(PREFIX)]


def inside(space: Netns) -> list[str]:
    with netlink.Netlink(space.rtnl_fd) as rtnl:
        return configured(rtnl)


def setting(name: str, interface: str = "eth0") -> str:
    with open(f"{_CONF}/{interface}/{name}", encoding="ascii") as f:
        return f.read().strip()


def hosts_own() -> list[str]:
    return [setting(name, of) for name in ("accept_ra", "disable_ipv6") for of in ("all", "default")]


def strangers(bridge: str) -> Netns:
    """A machine on the bridge that was not connected by us, with the kernel's own settings: it shows what works."""
    space = Netns()
    with netlink.Netlink() as rtnl, netlink.Netlink(space.rtnl_fd) as its:
        index = links.get_link(rtnl, bridge).index
        rtnl.run([links.new_veth("vm0", index, 1500, peer="eth0", peer_mac=b"\x02\0\0\0\0\x55", netns_fd=space.fd)])
        rtnl.run([links.set_up(name="vm0")])
        its.run([links.set_up(index=links.get_link(its, "eth0").index)])
        deadline = time.monotonic() + patient(5)
        while links.get_link(its, "eth0").operstate != links.IF_OPER_UP:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    return space


def dual(manager: OneNetwork) -> NetworkRecord:
    pools = (Pool(subnet="fd97::/64"),)
    wanted = NetworkRecord(id="", name="dual", driver=r.BRIDGE, created=0, pools=pools, ipv6=True, link="kt-dual")
    return manager.manager.create(wanted)


@in_new_host
def test_an_advertisement_changes_nothing(tmp_path) -> None:
    before = hosts_own()
    with network(tmp_path) as manager, Netns() as four, Netns() as six, Netns() as asked, Netns() as sender:
        record = dual(manager)
        asked_for = interface_sysctls.parse("net.ipv6.conf.IFNAME.accept_ra=2")
        manager.connect("four", four.fd, four.rtnl_fd)
        for name, space, sysctls in (("six", six, []), ("asked", asked, asked_for), ("sender", sender, [])):
            manager.manager.connect(record.id, EndpointRequest(name, sysctls=sysctls), space.fd, space.rtnl_fd)
        four_sender = Netns()
        manager.connect("four-sender", four_sender.fd, four_sender.rtnl_fd)
        for bridge, from_ in (("kt-dual", sender), ("ketch0", four_sender)):
            stranger = strangers(bridge)
            deadline = time.monotonic() + patient(10)
            while not inside(stranger):  # its own link-local address is being probed at first
                assert time.monotonic() < deadline, "the advertisement is no good"
                advertise(from_)
            with netlink.Netlink() as rtnl:
                rtnl.run([links.delete_link("vm0")])
            stranger.close()
        assert inside(asked) != []
        assert inside(six) == []
        assert inside(four) == []
        with netlink.Netlink() as rtnl:
            assert configured(rtnl) == []
        with four.entered():
            assert (setting("disable_ipv6"), setting("disable_ipv6", "all"), setting("disable_ipv6", "default")) == (
                "1",
                "0",
                "0",
            )
        with six.entered():
            assert (setting("disable_ipv6"), setting("accept_ra"), setting("accept_ra", "default")) == ("0", "0", "1")
        for name in ("four", "four-sender"):
            manager.disconnect(name)
        for name in ("six", "asked", "sender"):
            manager.manager.disconnect(name)
        assert hosts_own() == before
        manager.manager.remove(record.id)


@in_new_host
def test_the_hosts_links_of_containers_speak_no_ipv6(tmp_path) -> None:
    with network(tmp_path) as manager, Netns() as space:
        record = dual(manager)
        made = manager.manager.connect(record.id, EndpointRequest("six"), space.fd, space.rtnl_fd)
        assert setting("disable_ipv6", made.veth) == "1"
        assert setting("accept_ra", "kt-dual") == "0"
        assert setting("disable_ipv6", "ketch0") == "1"
        manager.manager.disconnect("six")
        manager.manager.remove(record.id)


@in_new_host
def test_the_hosts_own_links_go_on_listening(tmp_path) -> None:
    """Only those that listen, only as long as we forward, and ``all`` and ``default`` not at all."""
    with netlink.Netlink() as rtnl, Netns() as outside:
        rtnl.run([links.new_veth("uplink", 0, 1500, peer="eth0", peer_mac=b"\x02\0\0\0\0\x09", netns_fd=outside.fd)])
        rtnl.run([links.new_veth("deaf", 0, 1500, peer="eth1", peer_mac=b"\x02\0\0\0\0\x0a", netns_fd=outside.fd)])
        with open(f"{_CONF}/deaf/accept_ra", "w", encoding="ascii") as f:
            f.write("0")
        assert not sysctl.forwarding6()
        with network(tmp_path) as manager:
            record = dual(manager)
            assert sysctl.forwarding6()
            found = [setting("accept_ra", name) for name in ("uplink", "deaf", "all", "default")]
            assert found == ["2", "0", "1", "1"]
            manager.manager.remove(record.id)
        assert not sysctl.forwarding6()
        assert [setting("accept_ra", name) for name in ("uplink", "deaf", "all", "default")] == ["1", "0", "1", "1"]


@in_new_host
def test_an_administrators_bridge_keeps_its_ipv6(tmp_path) -> None:
    with netlink.Netlink() as rtnl:
        rtnl.run(links.new_bridge("br0", b"\x02\0\0\0\0\x01", 1500, "mine"))
    before = setting("disable_ipv6", "br0"), setting("accept_ra", "br0")
    with network(tmp_path, bridge="br0", subnet="10.98.0.1/24"):
        assert (setting("disable_ipv6", "br0"), setting("accept_ra", "br0")) == before


@in_new_host
def test_a_setting_that_does_not_exist_leaves_nothing(tmp_path) -> None:
    with network(tmp_path) as manager, Netns() as space:
        request = EndpointRequest("a", sysctls=interface_sysctls.parse("net.ipv6.conf.IFNAME.nosuch=1"))
        with pytest.raises(InvalidArgument, match="/proc/sys/net/ipv6/conf/eth0/nosuch is not a sysctl file"):
            manager.manager.connect(manager.network_id, request, space.fd, space.rtnl_fd)
        with netlink.Netlink(space.rtnl_fd) as its:
            assert [link.name for link in links.list_links(its)] == ["lo"]


@pytest.mark.parametrize("name", ["all", "default", "lo", "..", "a b", "a:b", "a\x1b[2J", "ä"])
@in_new_host
def test_names_that_an_interface_cannot_have(tmp_path, name) -> None:
    with network(tmp_path) as manager, Netns() as space, pytest.raises(InvalidArgument, match="invalid interface name"):
        manager.manager.connect(manager.network_id, EndpointRequest("a", ifname=name), space.fd, space.rtnl_fd)


SHOW = "for k in disable_ipv6 accept_ra; do cat /proc/sys/net/ipv6/conf/eth0/$k; done"
OPTION = "com.docker.network.endpoint.sysctls"


def test_as_a_container_sees_it(engine):
    docker = engine.docker
    assert docker("run", "--rm", "busybox", "sh", "-c", SHOW).out.split()[0] == "1"
    opened = f"name=bridge,driver-opt={OPTION}=net.ipv6.conf.IFNAME.disable_ipv6=0"
    assert docker("run", "--rm", "--network", opened, "busybox", "sh", "-c", SHOW).out.split()[0] == "0"
    docker("network", "create", "--ipv6", "--subnet", "fd97::/64", "six")
    shown = docker("run", "--rm", "--network", "six", "busybox", "sh", "-c", SHOW).out.split()
    assert shown[0] == "0"
    if engine.kind == "ketch":  # dockerd leaves the kernel's 1
        assert shown[1] == "0"
        asked = ("--sysctl", "net.ipv6.conf.eth0.accept_ra=2")
        assert docker("run", "--rm", "--network", "six", *asked, "busybox", "sh", "-c", SHOW).out.split() == ["0", "2"]
        bad = docker("run", "--rm", "--sysctl", "net.ipv6.conf.eth7.accept_ra=2", "busybox", "true", check=False)
        assert "the container has no interface eth7" in bad.err
    asked = f"name=six,driver-opt={OPTION}=net.ipv6.conf.IFNAME.accept_ra=2"
    assert docker("run", "--rm", "--network", asked, "busybox", "sh", "-c", SHOW).out.split() == ["0", "2"]
    docker("run", "-d", "--name", "both", "--network", "six", "busybox", "sleep", "1000")
    docker("network", "connect", "bridge", "both")
    assert docker("exec", "both", "cat", "/proc/sys/net/ipv6/conf/eth1/disable_ipv6").out == "1\n"
    bad = f"name=six,driver-opt={OPTION}=net.ipv6.conf.eth0.accept_ra=2"
    assert "unrecognised network interface sysctl" in docker("create", "--network", bad, "busybox", check=False).err
    docker("rm", "-f", "both")
    docker("network", "rm", "six")
