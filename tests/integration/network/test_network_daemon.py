"""The daemon's own network settings, and networks over its restarts."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess

import pytest

SLEEP = ("busybox", "sleep", "1000")


def network(engine, name: str) -> dict:
    return json.loads(engine.docker("network", "inspect", name).out)[0]


def test_address_pools(own_engine):
    engine = own_engine
    engine.extra = shlex.split(
        "--default-address-pool base=10.91.0.0/16,size=24 --default-address-pool base=fd91::/48,size=64 "
        "--bip 10.92.0.1/24 --ipv6 --bip6 fd92::1/64 --fixed-cidr-v6 fd92::100/120 --ip 127.0.0.1 "
        "--default-gateway 10.92.0.9 --default-gateway-v6 fd92::9 --host-gateway-ip 10.92.0.7 "
        "--host-gateway-ip fd92::7 --default-network-opt bridge=com.docker.network.driver.mtu=1400 "
        "--dns-search example.test --dns-opt ndots:3"
    )
    engine.start()
    engine.add_busybox()
    docker = engine.docker
    docker("network", "create", "--ipv6", "back")
    assert [c["Subnet"] for c in network(engine, "back")["IPAM"]["Config"]] == ["10.91.0.0/24", "fd91::/64"]
    assert network(engine, "back")["Options"]["com.docker.network.driver.mtu"] == "1400"
    docker("network", "create", "-o", "com.docker.network.driver.mtu=1300", "narrow")
    assert network(engine, "narrow")["Options"] == {"com.docker.network.driver.mtu": "1300"}
    four = {"Subnet": "10.92.0.0/24", "Gateway": "10.92.0.1", "AuxiliaryAddresses": {"DefaultGatewayIPv4": "10.92.0.9"}}
    six = {"Subnet": "fd92::/64", "IPRange": "fd92::100/120", "Gateway": "fd92::1"}
    six["AuxiliaryAddresses"] = {"DefaultGatewayIPv6": "fd92::9"}
    assert network(engine, "bridge")["IPAM"]["Config"] == [four, six]
    docker("run", "-d", "--name", "one", "-p", "80", "--add-host", "me:host-gateway", *SLEEP)
    assert docker("port", "one").out.split(" -> ")[1].startswith("127.0.0.1:")
    assert "10.92.0.7\tme\nfd92::7\tme\n" in docker("exec", "one", "cat", "/etc/hosts").out
    assert "default via 10.92.0.9 dev eth0" in docker("exec", "one", "ip", "route").out
    assert "default via fd92::9 dev eth0" in docker("exec", "one", "ip", "-6", "route").out
    assert engine.inspect("one")["NetworkSettings"]["Gateway"] == "10.92.0.9"
    resolv = docker("exec", "one", "cat", "/etc/resolv.conf").out
    assert "search example.test" in resolv and "options ndots:3" in resolv
    assert "inet6 fd92::10" in docker("exec", "one", "ip", "addr", "show", "eth0").out


def test_a_router_of_a_network_that_is_not_its_bridge(engine):
    """Named as dockerd's own setting for the default network names it."""
    docker = engine.docker
    docker("network", "create", "--subnet", "10.98.0.0/24", "--aux-address", "DefaultGatewayIPv4=10.98.0.77", "far")
    assert "default via 10.98.0.77 dev eth0" in docker("run", "--rm", "--network", "far", "busybox", "ip", "route").out
    docker("network", "rm", "far")


def test_networks_and_their_containers_survive(own_engine):
    engine = own_engine
    engine.start()
    engine.add_busybox()
    docker = engine.docker
    docker("network", "create", "--label", "a=b", "--subnet", "10.93.0.0/24", "back")
    docker("network", "create", "front")
    docker("run", "-d", "--name", "one", "--network", "back", "--network", "front", "-p", "127.0.0.1:0:80", *SLEEP)
    before = network(engine, "back"), network(engine, "front"), docker("port", "one").out
    engine.stop(signal.SIGKILL)
    engine.start()
    assert (network(engine, "back"), network(engine, "front"), docker("port", "one").out) == before
    docker("run", "--rm", "--network", "back", "busybox", "ping", "-c1", "-W2", "one")
    docker("network", "disconnect", "back", "one")
    assert docker("exec", "one", "ls", "/sys/class/net").out.split() == ["eth1", "lo"]
    docker("rm", "-f", "one")
    docker("network", "rm", "back", "front")


def test_repair_by_the_command_line(own_engine):
    engine = own_engine
    engine.start()
    assert engine.ketch("network", "repair").out == "nothing was missing\n"
    assert "Warnings" in json.loads(engine.docker("info", "--format", "{{json .}}").out)


@pytest.mark.parametrize("how", ["connect", "repair", "restart"])
def test_a_bridge_that_somebody_removed(own_engine, how):
    """It is made again when it is needed, and those who were on it are on it again."""
    engine = own_engine
    engine.start()
    engine.add_busybox()
    docker = engine.docker
    docker("network", "create", "back")
    docker("run", "-d", "--name", "one", "--network", "back", "-p", "127.0.0.1:0:80", *SLEEP)
    docker("run", "-d", "--name", "plain", *SLEEP)
    links = engine.name, "br-" + docker("network", "inspect", "-f", "{{.Id}}", "back").out[:12]
    for link in links:
        subprocess.run(["ip", "link", "delete", link], check=True)
    if how == "repair":
        assert engine.ketch("network", "repair").out.count("attached container ") == 2
    if how == "restart":
        engine.stop(signal.SIGKILL)
        engine.start()
    docker("run", "--rm", "--network", "back", "busybox", "ping", "-c1", "-W2", "one")
    address = docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "plain").out.strip()
    docker("run", "--rm", "busybox", "ping", "-c1", "-W2", address)
    docker("network", "disconnect", "back", "one")
    docker("network", "connect", "back", "one")
    docker("rm", "-f", "one", "plain")
    docker("network", "rm", "back")


def test_without_icc_on_the_default_network(own_engine):
    engine = own_engine
    engine.extra = ["--icc=false"]
    engine.start()
    engine.add_busybox()
    docker = engine.docker
    docker("run", "-d", "--name", "one", *SLEEP)
    address = docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "one").out.strip()
    assert docker("run", "--rm", "busybox", "ping", "-c1", "-W1", address, check=False).code == 1
