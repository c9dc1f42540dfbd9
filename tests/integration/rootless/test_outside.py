"""What a user's containers reach of other machines and of their own, and who reaches them; by each way outside."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from ketch.linux import ns
from ketch.linux.netlink import addresses, links
from ketch.linux.netlink import client as netlink
from ketch.pidfd import start_time
from tests.support import netns
from tests.support.programs import need
from tests.support.run import daemons, unprivileged, users_machine
from tests.support.run.users_machine import FAR, FAR6, HERE, HERE6, THERE, in_namespace
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.engines import Engine
    from tests.support.run.users_machine import UsersMachine

pytestmark = [
    pytest.mark.ketch_only,
    pytest.mark.skipif(os.geteuid() != 0, reason="the user is made by root"),
]


class Outside:
    """A user's engine with one way outside, on a machine with a wire to another one; a container with both families."""

    def __init__(self, engine: Engine, machine: UsersMachine, way: str) -> None:
        self.engine, self.machine, self.way = engine, machine, way
        engine.docker("network", "create", "--ipv6", "six")
        host = ("--add-host", "machine:host-gateway")
        engine.docker("run", "-d", "--name", "box", "--network", "six", *host, "busybox", "sleep", "1000")
        self.pid = engine.inspect("box")["State"]["Pid"]
        with in_namespace(machine.there, netns.listen, FAR6, 7999):  # slirp4netns is ready before its IPv6 is
            until(lambda: not self.refused(FAR6, 7999), "there is a route for IPv6")

    def inside(self, function, *args, **options):
        """The result of a call in the container's network."""

        def called():
            with open(f"/proc/{self.pid}/ns/net", "rb") as namespace:
                ns.setns(namespace.fileno(), ns.CLONE_NEWNET)
            return function(*args, **options)

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(called).result()

    def connected(self, address: str, port: int) -> socket.socket:
        return self.inside(socket.create_connection, (address, port), timeout=netns.TIMEOUT_S)

    def refused(self, address: str, port: int) -> bool:
        return self.inside(netns.refused, address, port)

    def program(self) -> dict:
        """The program that leads outside, as the engine has recorded it."""
        with open(f"{self.engine.exec_root}/network.json", encoding="utf-8") as f:
            return json.load(f)


@contextlib.contextmanager
def only(engine: Engine, *names: str) -> Iterator[None]:
    """Have a daemon find these programs alone."""
    directory = f"{engine.root}/programs"
    os.mkdir(directory)
    for name in names:
        os.symlink(need(name), f"{directory}/{name}")
    engine.settings["PATH"] = directory
    yield
    shutil.rmtree(directory)


@pytest.fixture(scope="module", params=["pasta", "slirp4netns"])
def outside(request):
    need("newuidmap")
    need(request.param)
    unprivileged.user()  # before the census of what is left
    with users_machine.users_machine() as machine, daemons.one_of_its_own("o") as one:
        machine.setting("ipv4/ping_group_range", "0 2147483647")
        one.rootless()
        one.prefix = machine.prefix
        with only(one, "newuidmap", "newgidmap", request.param):
            one.start()
            one.add_busybox()
            yield Outside(one, machine, request.param)


def exchanged(client: socket.socket, server: socket.socket) -> str:
    """Pass several packets' bytes both ways; returns the client's address as the server sees it."""
    accepted, peer = server.accept()
    data = os.urandom(10_000)
    with client, accepted, ThreadPoolExecutor(1) as thread:
        for one, other in ((client, accepted), (accepted, client)):
            other.settimeout(netns.TIMEOUT_S)
            sending = thread.submit(one.sendall, data)
            got = b""
            while len(got) < len(data):
                got += other.recv(1 << 20)
            assert got == data
            sending.result()
    return str(peer[0])


@pytest.mark.parametrize(("address", "source"), [(FAR, HERE), (FAR6, HERE6)])
def test_connections_to_other_machines(outside, address, source):
    """They come from the machine's own address."""
    with in_namespace(outside.machine.there, netns.listen, address, 8000) as server:
        assert exchanged(outside.connected(address, 8000), server) == source


@pytest.mark.parametrize(("address", "source"), [(FAR, HERE), (FAR6, HERE6)])
@pytest.mark.parametrize("size", [1, 1400, 30000])
def test_datagrams_to_other_machines(outside, address, source, size):
    """Also those that are longer than a packet of the wire, or of the container's link."""
    with (
        in_namespace(outside.machine.there, users_machine.datagrams, address, 8001) as server,
        outside.inside(users_machine.datagrams, "::" if ":" in address else "0.0.0.0", 0) as client,
    ):
        client.sendto(bytes(size), (address, 8001))
        data, peer = server.recvfrom(1 << 16)
        assert (len(data), peer[0]) == (size, source)
        server.sendto(data, peer)
        assert client.recv(1 << 16) == data


def test_echoes(outside):
    for address in [FAR] if outside.way == "slirp4netns" else [FAR, FAR6]:  # slirp4netns knows no IPv6 ones
        outside.engine.docker("exec", "box", "ping", "-c1", "-W5", address)


def test_the_machine_itself(outside):
    """Its address, which ``host-gateway`` is; what listens on its loopback alone is out of reach."""
    said = outside.engine.docker("exec", "box", "grep", "machine", "/etc/hosts").out
    assert said.split() == [HERE, "machine"]
    here = outside.machine.here
    with in_namespace(here, netns.listen, "0.0.0.0", 8002) as server:
        assert exchanged(outside.connected(HERE, 8002), server) == HERE
    with in_namespace(here, netns.listen, "127.0.0.1", 8003) as server:
        for address in (HERE, "127.0.0.1", "169.254.2.2", "10.0.2.2", "172.17.0.1"):
            assert outside.refused(address, 8003), address
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_build_knows_the_machine(outside):
    dockerfile = b"FROM busybox\nRUN grep machine /etc/hosts\n"
    flags = ("--no-cache", "--progress=plain", "--add-host", "machine:host-gateway")
    built = outside.engine.ketch("build", *flags, "-", stdin=dockerfile)
    assert f"{HERE}\tmachine" in built.out + built.err


def answer_names(server: socket.socket, address: str) -> None:
    """Answer each question about a name with an IPv4 address, until an empty datagram comes."""
    while True:
        question, peer = server.recvfrom(512)
        if not question:
            return
        end = question.index(b"\0", 12) + 5
        found = question[end - 4 : end - 2] == b"\0\1"
        head = question[:2] + b"\x81\x80\0\1\0" + (b"\1" if found else b"\0") + bytes(4)
        answer = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + socket.inet_aton(address) if found else b""
        server.sendto(head + question[12:end] + answer, peer)


@pytest.mark.parametrize("network", ["bridge", "six"])
def test_names(outside, network):
    """Of a server on another machine; asked by the container itself, or by its networks' resolver."""
    with in_namespace(outside.machine.there, users_machine.datagrams, THERE, 53) as server:
        server.settimeout(None)
        thread = threading.Thread(target=answer_names, args=(server, "198.51.100.99"))
        thread.start()
        try:
            run = ("run", "--rm", "--network", network, "--dns", THERE, "busybox")
            shown = outside.engine.docker(*run, "nslookup", "somebody.example.", check=False).out
        finally:
            server.sendto(b"", (THERE, 53))
            thread.join()
    assert "198.51.100.99" in shown


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("address", [HERE, HERE6])
def test_published_ports_from_other_machines(outside, kind, address):
    """The container sees the bridge's address as the client's."""
    publish = ("-p", f"{'[' + address + ']' if ':' in address else address}:18100:7000/{kind}")
    outside.engine.docker("run", "-d", "--name", "server", "--network", "six", *publish, "busybox", "sleep", "1000")
    try:
        inspected = outside.engine.inspect("server")
        network = inspected["NetworkSettings"]["Networks"]["six"]
        with open(f"/proc/{inspected['State']['Pid']}/ns/net", "rb") as namespace, ThreadPoolExecutor(1) as thread:
            thread.submit(ns.setns, namespace.fileno(), ns.CLONE_NEWNET).result()
            own = network["GlobalIPv6Address" if ":" in address else "IPAddress"]
            gateway = network["IPv6Gateway" if ":" in address else "Gateway"]
            if kind == "tcp":
                with thread.submit(netns.listen, own, 7000).result() as server:
                    there = outside.machine.there
                    client = in_namespace(there, socket.create_connection, (address, 18100), netns.TIMEOUT_S)
                    assert exchanged(client, server) == gateway
                return
            with (
                thread.submit(users_machine.datagrams, own, 7000).result() as server,
                in_namespace(
                    outside.machine.there, users_machine.datagrams, "::" if ":" in address else "0.0.0.0", 0
                ) as client,
            ):
                client.sendto(b"asked", (address, 18100))
                data, peer = server.recvfrom(100)
                assert (data, peer[0]) == (b"asked", gateway)
                server.sendto(b"answered", peer)
                data, peer = client.recvfrom(100)
                assert (data, peer[:2]) == (b"answered", (address, 18100))
    finally:
        outside.engine.docker("rm", "-f", "server")


def test_ports_of_the_loopback(outside):
    """What is published on the loopback's addresses is there, and nowhere else; `ps` says where."""
    ports = [word for host in ("127.0.0.1", "[::1]") for word in ("-p", f"{host}:18101:7000")]
    serve = "echo page >/tmp/p; while :; do nc -l -p 7000 </tmp/p; done"
    outside.engine.docker("run", "-d", "--name", "near", "--network", "six", *ports, "busybox", "sh", "-c", serve)
    try:
        shown = outside.engine.docker("ps", "--filter", "name=near", "--format", "{{.Ports}}").out.strip()
        assert set(shown.split(", ")) == {"127.0.0.1:18101->7000/tcp", "[::1]:18101->7000/tcp"}
        for address in ("127.0.0.1", "::1"):
            until(lambda here=address: page(outside, here) == b"page\n", f"it is published at {address}")
        for address in (HERE, HERE6):
            assert in_namespace(outside.machine.there, netns.refused, address, 18101)
            assert in_namespace(outside.machine.here, netns.refused, address, 18101)
    finally:
        outside.engine.docker("rm", "-f", "near")


def page(outside, address: str) -> bytes:
    """What a port of the machine answers."""
    with (
        contextlib.suppress(ConnectionError, TimeoutError),
        in_namespace(outside.machine.here, socket.create_connection, (address, 18101), netns.TIMEOUT_S) as client,
    ):
        client.settimeout(netns.TIMEOUT_S)
        return client.recv(100)
    return b""


def test_low_ports(outside):
    """They are refused with the setting that forbids them, and published when it does not."""
    run = ("run", "--rm", "-p", "80:80", "busybox", "true")
    refused = outside.engine.docker(*run, check=False).err
    assert "Bind for 0.0.0.0:80 failed: permission denied: this user may have ports from 1024 on" in refused
    assert "net.ipv4.ip_unprivileged_port_start" in refused
    outside.machine.setting("ipv4/ip_unprivileged_port_start", "80")
    try:
        outside.engine.docker(*run)
    finally:
        outside.machine.setting("ipv4/ip_unprivileged_port_start", "1024")


def test_subnets_that_the_machine_uses(outside):
    """A new network has another one, although the bridges' own namespace does not know them."""
    used = ipaddress.ip_network("172.16.0.0/12")
    with outside.machine.here.entered(), netlink.Netlink() as rtnl:
        rtnl.run([addresses.add_address(links.LOOPBACK_INDEX, ipaddress.ip_interface("172.19.5.1/12"))])
        try:
            outside.engine.docker("network", "create", "apart")
        finally:
            rtnl.run([addresses.delete_address(links.LOOPBACK_INDEX, ipaddress.ip_interface("172.19.5.1/12"))])
    shown = outside.engine.docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "apart").out
    outside.engine.docker("network", "rm", "apart")
    assert not ipaddress.ip_network(shown.strip()).overlaps(used)


def test_closed_in_one_direction(outside):
    """Who has said all may still be answered, and who is refused hears of it at once."""
    help_ = subprocess.run([need("pasta"), "--help"], capture_output=True).stdout if outside.way == "pasta" else b""
    if outside.way == "pasta" and b"--map-guest-addr" not in help_:
        pytest.skip("this pasta is of before August 2024, and does not")
    with in_namespace(outside.machine.there, netns.listen, FAR, 8004) as server, outside.connected(FAR, 8004) as one:
        one.shutdown(socket.SHUT_WR)
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(1) == b""
            accepted.sendall(b"answer")
        assert one.recv(100) == b"answer"
    with pytest.raises(ConnectionRefusedError):
        outside.connected(FAR, 8005)


def test_deaths(outside):
    """Of the program, of ketchd, of the keeper: a container that runs meanwhile reaches others again, or still."""
    engine = outside.engine

    def reaches() -> bool:
        with in_namespace(outside.machine.there, netns.listen, FAR, 8006):
            return not outside.inside(netns.refused, FAR, 8006, 2)

    assert reaches()
    first = outside.program()["pid"]
    os.kill(first, signal.SIGKILL)
    until(lambda: outside.program()["pid"] != first, "there is another")
    until(reaches, "the new program leads outside")
    second = outside.program()
    engine.stop(signal.SIGKILL)
    assert reaches()
    with open(f"{engine.exec_root}/namespaces.json", encoding="utf-8") as f:
        os.kill(json.load(f)["pid"], signal.SIGKILL)
    assert reaches()
    engine.start()
    assert outside.program() == second
    assert reaches()
    if outside.way == "pasta":
        engine.stop(signal.SIGKILL)
        os.unlink(f"{engine.exec_root}/network.json")  # as when it was killed before it had written that
        engine.start()
        third = outside.program()["pid"]
        assert third != second["pid"]
        until(lambda: not start_time(second["pid"]), "what nobody knows of has ended")
        until(reaches, "the new program leads outside")
    engine.stop(signal.SIGKILL)
    with open(f"{engine.exec_root}/namespaces.json", encoding="utf-8") as f:
        os.kill(json.load(f)["pid"], signal.SIGKILL)
    os.kill(outside.pid, signal.SIGKILL)
    until(lambda: not start_time(outside.pid), "the container has ended")
    engine.start()  # in other namespaces, or in those that the container's monitor still holds
    until(lambda: start_time(outside.program()["pid"]), "there is a program")
    with open(f"{engine.exec_root}/namespaces.json", encoding="utf-8") as f:
        assert json.load(f)["name"] == outside.program()["namespaces"]
    last = outside.program()["pid"]
    engine.docker("rm", "-f", "box")
    engine.stop()
    assert not start_time(last)
