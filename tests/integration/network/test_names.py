"""The name server that containers see at 127.0.0.11: real questions from real containers."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

import pytest

from ketch.linux import ns
from ketch.network.dns import message, upstream
from ketch.network.dns.directory import Directory
from ketch.network.dns.server import Resolver
from ketch.network.dns.sockets import open_sockets
from ketch.network.dns.upstream import NameServer
from ketch.network.ports.outside import Outside
from tests.support.netns import Netns, in_new_host
from tests.support.waiting import patient

if TYPE_CHECKING:
    from collections.abc import Iterator

SLEEP = ("busybox", "sleep", "1000")
SERVER = ("127.0.0.11", 53)


def lookup(client, container: str, name: str) -> list[str]:
    """The addresses (or names) that busybox's nslookup is told; none for an error."""
    out = client("exec", container, "nslookup", name, check=False).out
    found = [line.split()[-1] for line in out.splitlines()[3:] if line.startswith("Address") or "name =" in line]
    return sorted(found)


def address(client, container: str, network: str = "back") -> str:
    return client("inspect", "-f", f"{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}", container).out.strip()


def test_names_ids_aliases_and_addresses(client):
    client("network", "create", "back")
    identity = client("run", "-d", "--name", "one", "--network", "back", "--network-alias", "web", *SLEEP).out.strip()
    client("run", "-d", "--name", "two", "--network", "back", "--network-alias", "web", *SLEEP)
    one, two = address(client, "one"), address(client, "two")
    for name in ("one", identity[:12], "ONE", "one.back"):
        assert lookup(client, "two", name) == [one]
    assert lookup(client, "one", "web") == sorted([one, two])
    assert lookup(client, "one", two) == ["two.back"]
    assert "nameserver 127.0.0.11" in client("exec", "one", "cat", "/etc/resolv.conf").out
    client("rm", "-f", "two")
    assert lookup(client, "one", "web") == [one]
    client("rename", "one", "uno")
    client("run", "-d", "--name", "late", "--network", "back", *SLEEP)
    assert lookup(client, "late", "uno") == [one]


def test_names_end_at_their_network(client):
    client("network", "create", "back")
    client("network", "create", "front")
    client("run", "-d", "--name", "one", "--network", "back", *SLEEP)
    client("run", "-d", "--name", "two", "--network", "front", *SLEEP)
    assert lookup(client, "two", "one") == []
    client("network", "connect", "back", "two")
    assert lookup(client, "two", "one") == [address(client, "one")]
    assert lookup(client, "one", "two") == [address(client, "two")]


def test_unknown_names_are_answered_at_once(client):
    client("network", "create", "--internal", "inside")
    ask = ("busybox", "nslookup", "nobody")
    result = client("run", "--rm", "--network", "inside", "--dns", "127.0.0.1", *ask, check=False)
    assert result.code != 0
    said = result.out + result.err
    assert "can't find nobody" in said or "can't resolve" in said, said
    assert "timed out" not in said


def test_the_containers_own_settings(client):
    client("network", "create", "back")
    text = client(
        *shlex.split(
            "run --rm --network back --dns 127.0.0.9 --dns-search example.test "
            "--dns-option timeout:1 busybox cat /etc/resolv.conf"
        ),
    ).out
    assert "nameserver 127.0.0.11" in text and "search example.test" in text and "timeout:1" in text
    plain = client("run", "--rm", "--dns", "127.0.0.9", "busybox", "cat", "/etc/resolv.conf").out
    assert "nameserver 127.0.0.9" in plain


def test_names_survive_a_killed_daemon(own_engine):
    engine = own_engine
    engine.start()
    engine.add_busybox()
    engine.docker("network", "create", "back")
    engine.docker("run", "-d", "--name", "one", "--network", "back", *SLEEP)
    engine.docker("run", "-d", "--name", "two", "--network", "back", *SLEEP)
    wanted = [address(engine.docker, "two")]
    assert lookup(engine.docker, "one", "two") == wanted
    pid = int(engine.docker("inspect", "-f", "{{.State.Pid}}", "one").out)
    asked: list[bytes] = []
    with _in_namespace_of(pid):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(patient(20))
        sock.connect(SERVER)
        assert engine.stop(signal.SIGKILL) == -signal.SIGKILL
        sock.send(question("two", 7))  # while nobody is there to answer: it waits in the socket that was kept
        engine.start()
        asked.append(sock.recv(512))
    assert asked[0][:2] == b"\0\7" and socket.inet_ntoa(asked[0][-4:]) == wanted[0]
    assert lookup(engine.docker, "one", "two") == wanted
    engine.docker("run", "-d", "--name", "three", "--network", "back", *SLEEP)
    assert lookup(engine.docker, "one", "three") == [address(engine.docker, "three")]
    engine.docker("rm", "-f", "one", "two", "three")


@contextlib.contextmanager
def _in_namespace_of(pid: int) -> Iterator[None]:
    from ketch.linux import ns

    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        ns.setns(there, ns.CLONE_NEWNET)
        try:
            yield
        finally:
            ns.setns(home, ns.CLONE_NEWNET)
    finally:
        os.close(home)
        os.close(there)


# -- the resolver itself, in a namespace without containers --------------------------------------


def question(name: str, number: int = 1, kind: int = message.A) -> bytes:
    return struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + message.write_name(name) + struct.pack("!HH", kind, 1)


def code(answer: bytes) -> int:
    return answer[3] & 0xF


@contextlib.contextmanager
def resolver(
    directory: Directory, *servers: NameServer, outside: Outside | None = None
) -> Iterator[tuple[Resolver, Netns]]:
    """A container's namespace with a name server in it."""
    with Netns() as space:
        from ketch.linux.netlink import client as netlink
        from ketch.linux.netlink import links

        with netlink.Netlink(space.rtnl_fd) as inside:
            inside.run([links.set_up(index=links.LOOPBACK_INDEX)])
        one = Resolver(directory, outside)
        one.start()
        try:
            one.serve("c1", open_sockets(space.fd), servers=servers, netns_fd=space.fd)
            yield one, space
        finally:
            one.close()


def client_of(space: Netns, kind: int = socket.SOCK_DGRAM) -> socket.socket:
    with space.entered():
        sock = socket.socket(socket.AF_INET, kind)
    sock.settimeout(patient(5))
    sock.connect(SERVER)
    return sock


def named(count: int = 1) -> Directory:
    directory = Directory()
    for i in range(count):
        directory.join("n1", "back", f"c{i + 1}", [f"box{i + 1}", "all"], [f"10.0.{i // 250}.{i % 250 + 1}"])
    return directory


@in_new_host
def test_ten_thousand_questions_none_lost() -> None:
    with resolver(named(50)) as (_, space):
        socks = [client_of(space) for _ in range(20)]
        got = [0] * len(socks)

        def ask(index: int) -> None:
            for number in range(500):
                socks[index].send(question(f"box{number % 50 + 1}", number))
                answer = socks[index].recv(512)
                assert answer[:2] == struct.pack("!H", number) and code(answer) == 0
                assert answer[-4:] == socket.inet_aton(f"10.0.0.{number % 50 + 1}")
                got[index] += 1

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(socks))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(patient(25))
        assert got == [500] * 20
        for sock in socks:
            sock.close()


@in_new_host
def test_a_burst_waits_in_the_socket() -> None:
    with resolver(named()) as (_, space), client_of(space) as sock:
        sock.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE: our own end must not lose answers either
        for number in range(3000):
            sock.send(question("box1", number))
        assert {struct.unpack("!H", sock.recv(512)[:2])[0] for _ in range(3000)} == set(range(3000))


@in_new_host
def test_many_answers_by_tcp() -> None:
    with resolver(named(200)) as (_, space):
        with client_of(space) as udp:
            udp.send(question("all"))
            short = udp.recv(4096)
            assert len(short) <= 512 and short[2] & 0x02  # truncated: ask again by TCP
        with client_of(space, socket.SOCK_STREAM) as tcp:
            for number in (1, 2):  # several on one connection
                data = question("all", number)
                tcp.sendall(struct.pack("!H", len(data)) + data)
                with tcp.makefile("rb") as f:
                    size = struct.unpack("!H", f.read(2))[0]
                    answer = f.read(size)
                assert struct.unpack("!H", answer[6:8])[0] == 200


@in_new_host
def test_shared_names_take_turns() -> None:
    with resolver(named(3)) as (_, space), client_of(space) as sock:
        first = set()
        for _ in range(100):
            sock.send(question("all"))
            answer = sock.recv(512)
            first.add(answer[len(question("all")) + 12 :][:4])
        assert len(first) == 3


@in_new_host
def test_other_names_are_asked_elsewhere() -> None:
    kind = (socket.AF_INET, socket.SOCK_DGRAM)
    with socket.socket(*kind) as silent, socket.socket(*kind) as up:
        silent.bind(("127.0.0.1", 0))
        up.bind(("127.0.0.1", 0))
        up.settimeout(patient(5))
        servers = [NameServer("127.0.0.1", silent.getsockname()[1]), NameServer("127.0.0.1", up.getsockname()[1])]

        def serve() -> None:
            for _ in range(2):
                data, sender = up.recvfrom(512)
                query = message.parse(data)
                assert query.name == "elsewhere.test"
                up.sendto(message.answer(data, query, [message.address("192.0.2.7")]), sender)

        thread = threading.Thread(target=serve)
        thread.start()
        with resolver(named(), *servers) as (one, space), client_of(space) as sock:
            sock.send(question("elsewhere.test", 77))
            answer = sock.recv(512)  # from the second server, when the first has been silent long enough
            assert answer[:2] == struct.pack("!H", 77) and answer[-4:] == socket.inet_aton("192.0.2.7")
            one.update("c1", servers[1:])
            time.sleep(0.05)
            assert silent.recv(512, socket.MSG_DONTWAIT)
            sock.send(question("elsewhere.test", 78))
            assert sock.recv(512)[:2] == struct.pack("!H", 78)
            with pytest.raises(BlockingIOError):  # it was not asked again
                silent.recv(512, socket.MSG_DONTWAIT)
        thread.join()


@in_new_host
def test_the_machines_servers_are_asked_from_there() -> None:
    """A rootless daemon's bridges are in another namespace, where the machine's 127.0.0.53 is nobody."""
    outside = Outside()
    with contextlib.closing(outside), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as up:
        up.bind(("127.0.0.1", 0))
        up.settimeout(patient(5))
        server = NameServer("127.0.0.1", up.getsockname()[1], inside=False)
        ns.unshare(ns.CLONE_NEWNET)
        with resolver(named(), server, outside=outside) as (_, space), client_of(space) as sock:
            sock.send(question("elsewhere.test", 77))
            data, sender = up.recvfrom(512)
            up.sendto(message.answer(data, message.parse(data), [message.address("192.0.2.7")]), sender)
            assert sock.recv(512)[-4:] == socket.inet_aton("192.0.2.7")


@in_new_host
def test_an_answer_without_upstream_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "TRY_S", 600.0)  # only the refusal itself can be why it is answered
    refused = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    refused.bind(("127.0.0.1", 0))
    port = refused.getsockname()[1]
    refused.close()
    with resolver(named()) as (one, space), client_of(space) as sock:
        sock.send(question("elsewhere.test"))
        assert code(sock.recv(512)) == message.NXDOMAIN
        sock.send(question("box1", kind=message.AAAA))  # a name of ours without such an address
        assert code(sock.recv(512)) == message.NOERROR
        one.update("c1", [NameServer("127.0.0.1", port)])
        time.sleep(0.05)
        sock.send(question("elsewhere.test"))
        assert code(sock.recv(512)) == message.SERVFAIL


@in_new_host
def test_garbage_is_answered_or_ignored() -> None:
    with resolver(named()) as (_, space), client_of(space) as sock:
        for data in (b"", b"x", bytes(11), question("box1")[:-3], b"\0\1\1\0\0\2" + bytes(20), os.urandom(300)):
            sock.send(data)
        sock.send(question("box1", 999))
        while (answer := sock.recv(512))[:2] != struct.pack("!H", 999):
            pass
        assert code(answer) == 0
        with client_of(space, socket.SOCK_STREAM) as tcp:
            tcp.sendall(b"\xff\xff" + b"x" * 100)
        with client_of(space, socket.SOCK_STREAM) as tcp:
            tcp.sendall(struct.pack("!H", len(question("box1"))) + question("box1"))
            assert tcp.recv(512)


@pytest.mark.ketch_only  # dockerd's resolver answers with a name that is none
@pytest.mark.parametrize("name", ["a" * 70, "x..y", "dot."])
def test_a_container_whose_name_dns_does_not_have(engine, name):
    """Its address is asked for: an answer without a name, and no trace in the log for each question."""
    engine.docker("network", "create", "odd")
    try:
        engine.docker("run", "-d", "--name", name, "--network", "odd", "busybox", "sleep", "1000")
        address = engine.docker("inspect", "-f", "{{.NetworkSettings.Networks.odd.IPAddress}}", name).out.strip()
        done = engine.docker("exec", name, "nslookup", address, check=False)
        assert "no servers could be reached" not in done.out + done.err, done
        assert "answer names" not in engine.log()
    finally:
        engine.docker("rm", "-f", name)
        engine.docker("network", "rm", "odd")
