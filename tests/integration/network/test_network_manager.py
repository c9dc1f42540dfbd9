"""The life of the network: setup, connect, disconnect, crash, adoption, teardown; nothing is left behind."""

from __future__ import annotations

import contextlib
import gc
import ipaddress
import os
import socket
import threading
import time
from typing import TYPE_CHECKING

import msgspec
import pytest

from ketch.errors import (
    Conflict,
    FailedPrecondition,
    InvalidArgument,
    KetchError,
    PermissionDenied,
    ResourceExhausted,
)
from ketch.linux.netlink import addresses, links, messages
from ketch.linux.netlink import client as netlink
from ketch.network.model.schema import SCHEMA
from ketch.network.ports.requests import PortRequest
from ketch.storage.database.db import Database
from tests.support import netns
from tests.support.netns import (
    Netns,
    OneNetwork,
    container,
    in_new_host,
    link_names,
    listen,
    network,
    nft,
    refused,
    ruleset,
    ruleset_changes,
    talk,
    tcp_counter,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def database(tmp_path: Path) -> Iterator[Database]:
    db = Database(str(tmp_path / "ketch.db"), [SCHEMA])
    try:
        yield db
    finally:
        db.close()


def rows(db: Database) -> int:
    return len(db.query("SELECT * FROM network_endpoints"))


@in_new_host
def test_setup_is_idempotent_and_teardown_leaves_nothing(tmp_path: Path) -> None:
    before = link_names()
    with database(tmp_path) as db:
        manager = OneNetwork(db)
        manager.setup()
        manager.setup()
        assert str(manager.subnet) == "172.17.0.0/16"
        assert str(manager.gateway) == "172.17.0.1"
        assert len(manager.network_id) == 64
        assert "table inet ketch" in ruleset()
        first_id = manager.network_id
        manager.teardown()
        assert ruleset() == ""
        assert link_names() == before
        manager = OneNetwork(db)
        manager.setup()
        assert manager.network_id == first_id
        manager.teardown()


@in_new_host
def test_a_container_sees_its_interface(tmp_path: Path) -> None:
    with network(tmp_path, mtu=1400) as manager, container(manager, "a") as (a, ea):
        with netlink.Netlink(a.rtnl_fd) as inside:
            eth0, lo = links.get_link(inside, "eth0"), links.get_link(inside, "lo")
            found = [str(address) for index, address in addresses.list_addresses(inside) if index == eth0.index]
        assert eth0.up and lo.up
        assert (eth0.mtu, eth0.mac.hex(":")) == (1400, ea.mac)
        assert found == [f"{ea.ip}/16"] == ["172.17.0.2/16"]
        assert (ea.mac, ea.gateway, ea.ifname) == ("02:42:ac:11:00:02", "172.17.0.1", "eth0")
        assert len(ea.endpoint_id) == 64
        assert manager.endpoint("a") == ea


@in_new_host
def test_without_a_socket_of_the_namespace_one_is_opened(tmp_path: Path) -> None:
    with network(tmp_path) as manager, Netns() as space:
        made = manager.connect("a", space.fd, None)
        with space.entered():
            server = listen("0.0.0.0", 80)
        talk(server, made.ip, 80)
        manager.disconnect("a")


@in_new_host
def test_links_too_small_for_ipv6(tmp_path: Path) -> None:
    with network(tmp_path, mtu=1000) as manager, container(manager, "a") as (a, ea):
        with a.entered():
            server = listen("0.0.0.0", 80)
        talk(server, ea.ip, 80)


@in_new_host
def test_daemons_that_start_together_choose_different_subnets(tmp_path: Path) -> None:
    managers: list[OneNetwork] = []
    databases = [Database(str(tmp_path / f"{number}.db"), [SCHEMA]) for number in range(5)]

    def start(number: int) -> None:
        manager = OneNetwork(databases[number], bridge=f"ketch{number}")
        manager.setup()
        managers.append(manager)

    threads = [threading.Thread(target=start, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(netns.TIMEOUT_S)
    assert len({m.subnet for m in managers}) == 5
    for manager in managers:
        manager.teardown()
    for db in databases:
        db.close()
    assert link_names() == {"lo"}


@in_new_host
def test_network_none_gets_a_loopback(tmp_path: Path) -> None:
    with network(tmp_path) as manager, Netns() as space:
        manager.loopback_up(space.rtnl_fd)
        with space.entered():
            talk(listen("127.0.0.1", 80), "127.0.0.1", 80)


@in_new_host
def test_the_first_packet_is_not_lost(tmp_path: Path) -> None:
    host = listen("0.0.0.0", 81)
    for _ in range(6):
        with network(tmp_path) as manager, container(manager, "a") as (a, ea):
            with a.entered():
                talk(host, ea.gateway, 81)
                assert tcp_counter("TCPSynRetrans") == 0, "the first SYN had to be sent again"


@in_new_host
def test_requested_addresses(tmp_path: Path) -> None:
    with network(tmp_path) as manager, Netns() as a, Netns() as b:
        made = manager.connect("a", a.fd, a.rtnl_fd, ip="172.17.7.7", mac="02:00:00:00:00:99")
        assert (made.ip, made.mac) == ("172.17.7.7", "02:00:00:00:00:99")
        for taken in ("172.17.7.7", "172.17.0.0", "172.17.255.255"):
            with pytest.raises(PermissionDenied, match="in use"):
                manager.connect("b", b.fd, b.rtnl_fd, ip=taken)
        for wrong in ("10.0.0.1", "x"):
            with pytest.raises(InvalidArgument):
                manager.connect("b", b.fd, b.rtnl_fd, ip=wrong)
        with pytest.raises(InvalidArgument):
            manager.connect("b", b.fd, b.rtnl_fd, mac="01:00:00:00:00:01")
        assert manager.endpoint("b") is None
        again = manager.connect("b", b.fd, b.rtnl_fd, mac="02:42:ac:1c:99:99")
        assert again.mac == "02:42:ac:1c:99:99"


def descriptors() -> int:
    """How many this process has open, but for those of objects that nobody has any more."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@in_new_host
def test_a_hundred_connections_leave_nothing(tmp_path: Path) -> None:
    with network(tmp_path) as manager, database(tmp_path) as db, Netns() as space:
        port = [PortRequest("tcp", 80, "0.0.0.0", 8080), PortRequest("udp", 53)]
        manager.connect("warm", space.fd, space.rtnl_fd, ports=port)
        manager.disconnect("warm")
        manager.reconcile([])
        links_before, rules_before, fds_before = link_names(), ruleset(), descriptors()
        addresses = set()
        for i in range(100):
            addresses.add(manager.connect(f"c{i}", space.fd, space.rtnl_fd, ports=port).ip)
            manager.disconnect(f"c{i}")
            manager.reconcile([])  # waits for the interface to be gone, as it would be with its namespace
        assert len(addresses) == 100
        assert (link_names(), ruleset()) == (links_before, rules_before)
        assert descriptors() <= fds_before
        assert rows(db) == 0


@in_new_host
def test_host_port_conflicts(tmp_path: Path) -> None:
    def publish(name: str, *wanted: PortRequest) -> None:
        manager.connect(name, space.fd, space.rtnl_fd, hostname=name, ports=wanted)

    with network(tmp_path) as manager, database(tmp_path) as db, Netns() as space:
        with container(manager, "a", "0.0.0.0:8080:80/tcp"):
            clean = link_names(), ruleset()
            with pytest.raises(
                KetchError,
                match=r"endpoint b: Bind for 0\.0\.0\.0:8080 failed: port is already allocated: container a ",
            ):
                publish("b", PortRequest("tcp", 81, host_port=8081), PortRequest("tcp", 80, host_port=8080))
            with pytest.raises(KetchError, match="already allocated"):
                publish("b", PortRequest("tcp", 80, "127.0.0.1", 8080))
            program = listen("127.0.0.1", 9000)
            with pytest.raises(KetchError, match=r"Bind for 0\.0\.0\.0:9000 failed: port is already allocated.*in use"):
                publish("b", PortRequest("tcp", 80, host_port=9000))
            with pytest.raises(KetchError, match="cannot assign requested address"):
                publish("b", PortRequest("tcp", 80, "203.0.113.1", 9001))
            with pytest.raises(KetchError, match="all ports are allocated"):
                publish("b", *(PortRequest("tcp", port, "127.0.0.1", 8999, 9000) for port in (80, 81)))
            program.close()
            assert (link_names(), ruleset(), rows(db)) == (*clean, 1)
            with pytest.raises(OSError, match="in use"):
                listen("0.0.0.0", 8080)  # a program that comes later cannot take it
            assert refused("127.0.0.1", 8081)  # given back after the failure
            listen("127.0.0.1", 8081).close()
        listen("0.0.0.0", 8080).close()


@in_new_host
def test_free_ports_and_ranges(tmp_path: Path) -> None:
    with network(tmp_path) as manager, Netns() as space:
        wanted = [PortRequest("tcp", 80), PortRequest("tcp", 80, "127.0.0.1", 8000, 8002)]
        taken = listen("127.0.0.1", 8000)
        made = manager.connect("a", space.fd, space.rtnl_fd, ports=wanted)
        taken.close()
        anywhere, anywhere6, here = made.ports["80/tcp"]
        assert anywhere6 == {"HostIp": "::", "HostPort": anywhere["HostPort"]}
        assert here == {"HostIp": "127.0.0.1", "HostPort": "8001"}
        assert int(anywhere["HostPort"]) > 1024
        with space.entered():
            server = listen("0.0.0.0", 80)
        talk(server, "127.0.0.1", int(anywhere["HostPort"]))
        talk(server, "127.0.0.1", 8001)
        manager.disconnect("a")


@in_new_host
def test_many_ports_are_one_transaction(tmp_path: Path) -> None:
    with network(tmp_path) as manager, Netns() as space:
        wanted = [PortRequest("tcp", p, "0.0.0.0", p, p) for p in range(10000, 10600)]
        with ruleset_changes() as changes:
            manager.connect("a", space.fd, space.rtnl_fd, ports=wanted)
            assert changes() == 1
        with space.entered():
            server = listen("0.0.0.0", 10599)
        talk(server, "127.0.0.1", 10599)
        manager.disconnect("a")
        assert "10599" not in ruleset()


@in_new_host
def test_a_failed_connection_leaves_nothing(tmp_path: Path) -> None:
    with network(tmp_path) as manager, database(tmp_path) as db, Netns() as space:
        with netlink.Netlink(space.rtnl_fd) as inside:
            body = links.ifinfo() + messages.text(links.IFLA_IFNAME, "eth0")
            body += messages.nest(links.IFLA_LINKINFO, messages.text(links.IFLA_INFO_KIND, "bridge"))
            inside.run([messages.NetlinkRequest(links.RTM_NEWLINK, messages.NLM_F_CREATE, body, "occupy eth0")])
        before = link_names(), ruleset()
        with pytest.raises(KetchError, match="connect container a "):
            manager.connect("a", space.fd, space.rtnl_fd, hostname="a", ports=[PortRequest("tcp", 80, host_port=8080)])
        assert (link_names(), ruleset(), rows(db)) == (*before, 0)
        assert manager.endpoint("a") is None
        listen("0.0.0.0", 8080).close()


@in_new_host
def test_connected_containers_outlive_the_daemon(tmp_path: Path) -> None:
    with database(tmp_path) as db, Netns() as space:
        manager = OneNetwork(db)
        manager.setup()
        made = manager.connect("a", space.fd, space.rtnl_fd, ports=[PortRequest("tcp", 80, host_port=8080)])
        with space.entered():
            server = listen("0.0.0.0", 80)
        established = socket.create_connection(("127.0.0.1", 8080), timeout=netns.TIMEOUT_S)
        accepted, _ = server.accept()
        manager.close()  # what the kernel does when the process dies
        talk(server, "127.0.0.1", 8080)

        manager = OneNetwork(db)
        manager.setup()
        manager.reconcile(["a"])
        assert manager.endpoint("a") == made
        established.sendall(b"still here")
        assert accepted.recv(100) == b"still here"
        talk(server, "127.0.0.1", 8080)
        with pytest.raises(OSError, match="in use"):
            listen("0.0.0.0", 8080)
        with pytest.raises(KetchError, match="already allocated"), Netns() as other:
            manager.connect("b", other.fd, other.rtnl_fd, ports=[PortRequest("tcp", 80, host_port=8080)])
        assert manager.counters({"a": 0})["a"]["eth0"]["rx_packets"] > 0
        manager.teardown()
        assert ruleset() == ""
        assert link_names() == {"lo"}


@in_new_host
def test_reconcile_removes_what_a_crash_left(tmp_path: Path) -> None:
    with database(tmp_path) as db, Netns() as live, Netns() as dead:
        manager = OneNetwork(db)
        manager.setup()
        kept = manager.connect("live", live.fd, live.rtnl_fd)
        lost = manager.connect("dead", dead.fd, dead.rtnl_fd, ports=[PortRequest("tcp", 80, host_port=8080)])
        # A crash between the row and the interface, one of ours without a row, and one of another program.
        with db.transaction() as tx:
            half = msgspec.structs.replace(kept, container_id="half", ip="172.17.0.99", veth="vethnone")
            tx.execute(
                "INSERT INTO network_endpoints VALUES ('half', ?, ?)", (kept.network_id, msgspec.json.encode(half))
            )
        with netlink.Netlink() as rtnl:
            index = links.get_link(rtnl, "ketch0").index
            for name, peer in (("vethstray", "x"), ("vethother", "y"), ("vethforeign", "z")):
                mac = b"\x02\0\0\0\0\x09"
                rtnl.run([links.new_veth(name, index, 1500, peer=peer, peer_mac=mac, netns_fd=dead.fd)])
            mine = links.get_link(rtnl, kept.veth).alias
            rtnl.run(links.mark("vethstray", mine))
            rtnl.run(links.mark("vethforeign", mine.rpartition(":")[0] + ":another"))
        manager.close()

        manager = OneNetwork(db)
        manager.setup()
        assert lost.veth in link_names()
        manager.reconcile(["live"])
        assert link_names() == {"lo", "ketch0", kept.veth, "vethother", "vethforeign"}
        assert "8080" not in ruleset()
        assert [r["container_id"] for r in db.query("SELECT container_id FROM network_endpoints")] == ["live"]
        manager.teardown()


@in_new_host
def test_addresses_rest_before_they_are_used_again(tmp_path: Path) -> None:
    with database(tmp_path) as db, Netns() as space:
        seen = []
        for i in range(6):
            manager = OneNetwork(db, subnet="10.99.0.1/29")
            manager.setup()
            seen.append(manager.connect("a", space.fd, space.rtnl_fd).ip)
            manager.disconnect("a")
            manager.teardown() if i % 2 else manager.close()
        assert seen == [f"10.99.0.{n}" for n in (2, 3, 4, 5, 6, 2)]


@in_new_host
def test_a_full_subnet_is_said_so(tmp_path: Path) -> None:
    with network(tmp_path, subnet="10.99.0.1/29") as manager, contextlib.ExitStack() as stack:
        for i in range(5):
            stack.enter_context(container(manager, f"c{i}"))
        with pytest.raises(ResourceExhausted, match=r"no available IPv4 addresses.*10\.99\.0\.0/29"), Netns() as space:
            manager.connect("one more", space.fd, space.rtnl_fd)


@in_new_host
def test_several_daemons_share_a_machine(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with network(tmp_path / "a") as one, network(tmp_path / "b", bridge="ketch1") as two:
        assert not one.subnet.overlaps(two.subnet)
        assert "table inet ketch-ketch1" in ruleset()
        with (
            container(one, "a", "0.0.0.0:8080:80/tcp") as (a, ea),
            container(two, "a", "0.0.0.0:8081:80/tcp") as (b, eb),
        ):
            with a.entered():
                first = listen("0.0.0.0", 80)
            with b.entered():
                second = listen("0.0.0.0", 80)
            talk(first, "127.0.0.1", 8080)
            talk(second, "127.0.0.1", 8081)
            with a.entered():
                talk(second, eb.gateway, 8081)  # the other daemon's published port, as from any neighbour
                assert refused(eb.ip, 80)  # the container itself, not
            with Netns() as space, pytest.raises(KetchError, match="in use"):
                two.connect("b", space.fd, space.rtnl_fd, ports=[PortRequest("tcp", 80, host_port=8080)])
            assert ea.ip != eb.ip
        with database(tmp_path / "a") as db, pytest.raises(Conflict, match="another ketchd"):
            OneNetwork(db).setup()


@in_new_host
def test_foreign_links_are_not_taken(tmp_path: Path) -> None:
    with database(tmp_path) as db, Netns() as space:
        with netlink.Netlink() as rtnl:
            rtnl.run([links.new_veth("notabridge", 0, 1500, peer="x", peer_mac=b"\x02\0\0\0\0\x09", netns_fd=space.fd)])
        with pytest.raises(FailedPrecondition, match="is not a bridge"):
            OneNetwork(db, bridge="notabridge").setup()
        first = OneNetwork(db)
        first.setup()
        first.connect("a", space.fd, space.rtnl_fd)
        first.close()
        (tmp_path / "other").mkdir()
        with database(tmp_path / "other") as other, pytest.raises(Conflict, match="another data root"):
            OneNetwork(other).setup()
        first.setup()
        first.teardown()
        with pytest.raises(InvalidArgument):
            OneNetwork(db, bridge='x";drop')
        with pytest.raises(InvalidArgument):
            OneNetwork(db, bridge="a-name-that-is-too-long").setup()


@in_new_host
def test_an_administrators_bridge_is_used_and_left_in_place(tmp_path: Path) -> None:
    with netlink.Netlink() as rtnl:
        rtnl.run(links.new_bridge("br0", b"\x02\0\0\0\0\x01", 1500, "mine"))
    with network(tmp_path, bridge="br0", subnet="10.98.0.1/24") as manager, container(manager, "a") as (a, ea):
        with a.entered():
            talk(listen("0.0.0.0", 80), ea.ip, 80)
    assert link_names() == {"lo", "br0"}


@in_new_host
def test_a_subnet_in_use_is_avoided_and_the_choice_is_kept(tmp_path: Path) -> None:
    with netns.outside_machine("172.17.9.2/24", "172.17.9.1/24"):
        with network(tmp_path) as manager:
            assert str(manager.subnet) == "172.18.0.0/16"
    with network(tmp_path) as manager:
        assert str(manager.subnet) == "172.18.0.0/16"
    with network(tmp_path, subnet="172.20.0.1/24") as manager, container(manager, "a") as (_, ea):
        assert (ea.ip, ea.prefix_len) == ("172.20.0.2", 24)
        with netlink.Netlink() as rtnl:
            index = links.get_link(rtnl, "ketch0").index
            assert [a for i, a in addresses.list_addresses(rtnl) if i == index] == [
                ipaddress.IPv4Interface("172.20.0.1/24")
            ]


@in_new_host
def test_the_table_comes_back_when_the_ruleset_is_flushed(tmp_path: Path) -> None:
    with network(tmp_path) as manager, container(manager, "a", "0.0.0.0:8080:80/tcp") as (a, _):
        with a.entered():
            server = listen("0.0.0.0", 80)
        for _ in range(3):
            nft("flush ruleset")
            deadline = time.monotonic() + netns.TIMEOUT_S
            while refused("127.0.0.1", 8080):
                assert time.monotonic() < deadline
        server.close()
        with a.entered():
            server = listen("0.0.0.0", 80)  # without the trial connections
        nft("add table ip other")  # others' tables are others' business
        nft("delete table ip other")
        talk(server, "127.0.0.1", 8080)
    assert ruleset() == ""


@in_new_host
def test_publishing_does_not_wait_for_the_watch(tmp_path: Path) -> None:
    with network(tmp_path) as manager:
        for _ in range(5):
            nft("flush ruleset")
            with container(manager, "a", "0.0.0.0:8080:80/tcp") as (a, _):
                with a.entered():
                    server = listen("0.0.0.0", 80)
                talk(server, "127.0.0.1", 8080)
                nft("flush ruleset")


@in_new_host
def test_links_of_a_version_without_marks_are_taken_over(tmp_path: Path) -> None:
    with database(tmp_path) as db, Netns() as live, Netns() as dead:
        manager = OneNetwork(db)
        manager.setup()
        kept = manager.connect("live", live.fd, live.rtnl_fd, ports=[PortRequest("tcp", 80, host_port=8080)])
        lost = manager.connect("dead", dead.fd, dead.rtnl_fd)
        manager.close()
        with netlink.Netlink() as rtnl:
            new = links.get_link(rtnl, "ketch0").alias
            rtnl.run(links.mark("ketch0", f"ketch:{kept.network_id}"))
            rtnl.run([*links.mark(kept.veth, ""), *links.mark(lost.veth, "")])
        nft("delete table inet ketch; add table inet ketch")
        with db.transaction() as tx:
            tx.execute("DELETE FROM network_host WHERE key = 'table'")

        manager = OneNetwork(db)
        manager.setup()
        manager.reconcile(["live"])
        assert link_names() == {"lo", "ketch0", kept.veth}
        assert "8080" in ruleset()
        assert 'comment "ketch:' in ruleset()
        with netlink.Netlink() as rtnl:
            assert links.get_link(rtnl, "ketch0").alias == new
        manager.teardown()
        assert link_names() == {"lo"}
