"""Networks that users make, through both command lines and docker-py."""

from __future__ import annotations

import json
import os
import shlex
import time

import docker
import pytest

from tests.support.programs import need_links

SLEEP = ("busybox", "sleep", "1000")


def inspect(client, name: str) -> dict:
    return json.loads(client("network", "inspect", name).out)[0]


def address(client, container: str, network: str, field: str = "IPAddress") -> str:
    return json.loads(client("inspect", container).out)[0]["NetworkSettings"]["Networks"][network][field]


def reaches(client, container: str, target: str) -> bool:
    return client("exec", container, "ping", "-c1", "-W1", target, check=False).code == 0


def test_create_look_at_and_remove(client):
    identity = client(
        *shlex.split(
            "network create --label a=b --subnet 10.77.0.0/24 --gateway 10.77.0.9 --ip-range 10.77.0.128/25 "
            "--aux-address printer=10.77.0.129 back"
        ),
    ).out.strip()
    shown = inspect(client, "back")
    assert shown["Id"] == identity and shown["Driver"] == "bridge" and shown["Scope"] == "local"
    assert shown["Labels"] == {"a": "b"} and not shown["Internal"] and shown["EnableIPv4"] and not shown["EnableIPv6"]
    assert shown["IPAM"]["Config"] == [
        {
            "Subnet": "10.77.0.0/24",
            "IPRange": "10.77.0.128/25",
            "Gateway": "10.77.0.9",
            "AuxiliaryAddresses": {"printer": "10.77.0.129"},
        }
    ]
    client("run", "-d", "--name", "one", "--network", "back", *SLEEP)
    assert address(client, "one", "back") == "10.77.0.128"
    assert address(client, "one", "back", "Gateway") == "10.77.0.9"
    client("run", "-d", "--name", "two", "--network", "back", *SLEEP)
    assert address(client, "two", "back") == "10.77.0.130"
    assert [c["Name"] for c in sorted(inspect(client, "back")["Containers"].values(), key=lambda c: c["Name"])] == [
        "one",
        "two",
    ]
    row = client("network", "ls", "--filter", "name=back", "--format", "{{.Name}} {{.Driver}} {{.Scope}}").out
    assert row == "back bridge local\n"
    refused = client("network", "rm", "back", check=False)
    assert refused.code == 1 and "has active endpoints" in refused.err
    client("rm", "-f", "one", "two")
    assert client("network", "rm", "back").out == "back\n"
    assert client("network", "inspect", "back", check=False).code == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--subnet", "10.77.0.1/24"], "invalid subnet 10.77.0.1/24: it should be 10.77.0.0/24"),
        (["--subnet", "10.77.0.0/24", "--gateway", "10.78.0.1"], "10.78.0.1"),
        (["--subnet", "10.77.0.0/24", "--ip-range", "10.77.0.0/16"], "is bigger than its parent subnet"),
        (["-d", "nothing"], 'plugin "nothing" not found'),
        (["--ipam-driver", "nope"], 'plugin "nope" not found'),
        (["--ipam-driver", "null"], "ipv4 pool is empty"),
        (["-o", "com.docker.network.driver.mtu=many"], "mtu"),
        (["-o", "com.docker.network.bridge.host_binding_ipv4=x"], "value: x (nil ip)"),
        (["-o", "com.docker.network.enable_ipv6=x"], 'driver-opt "com.docker.network.enable_ipv6" is not a valid bool'),
        (["-o", "com.docker.network.enable_ipv4=false"], "IPv4 or IPv6 must be enabled"),
        (["--subnet", "10.77.0.0/24", "--subnet", "10.78.0.0/24"], "bridge driver doesn't support multiple subnets"),
        (["--subnet", "10.77.0.0/24", "--gateway", "10.77.0.255"], "failed to allocate gateway (10.77.0.255): Address"),
        (["--ipv6", "--subnet", "fd00:77::/128"], "failed to allocate gateway (): no available addresses on this pool"),
        (
            ["--subnet", "10.77.0.0/24", "--aux-address", "a=10.77.0.1"],
            "failed to allocate secondary ip address (a:10.77.0.1): Address already in use",
        ),
    ],
)
def test_invalid_networks(client, options, said):
    result = client("network", "create", *options, "wrong", check=False)
    assert result.code == 1
    assert said in result.err
    assert client("network", "ls", "-q", "--filter", "name=wrong").out == ""


def test_subnets_of_two_addresses_and_of_one(client):
    client("network", "create", "--subnet", "10.77.0.0/31", "pair")
    client("network", "create", "--subnet", "10.77.0.2/32", "single")
    client("run", "-d", "--name", "one", "--network", "pair", *SLEEP)
    assert address(client, "one", "pair") == "10.77.0.1"
    for network in ("pair", "single"):
        full = client("run", "--rm", "--network", network, "busybox", "true", check=False)
        assert full.code == 125 and "no available IPv4 addresses on this network's address pools" in full.err


def test_families_by_the_options_of_older_clients(client):
    for option, fields in (("enable_ipv6=true", "true true"), ("enable_ipv6=false", "true false")):
        client("network", "create", "-o", f"com.docker.network.{option}", "back")
        assert client("network", "inspect", "-f", "{{.EnableIPv4}} {{.EnableIPv6}}", "back").out == fields + "\n"
        client("network", "rm", "back")
    client("network", "create", "--ipv6", "-o", "com.docker.network.enable_ipv4=false", "back")
    assert client("network", "inspect", "-f", "{{.EnableIPv4}} {{len .IPAM.Config}}", "back").out == "false 1\n"


def test_names_and_subnets_are_used_once(client):
    client("network", "create", "--subnet", "10.77.0.0/24", "back")
    again = client("network", "create", "back", check=False)
    assert again.code == 1 and "network with name back already exists" in again.err
    overlap = client("network", "create", "--subnet", "10.77.0.0/16", "other", check=False)
    assert overlap.code == 1 and "Pool overlaps with other one on this address space" in overlap.err
    for name in ("bridge", "host", "none"):
        assert client("network", "create", name, check=False).code == 1
        assert client("network", "rm", name, check=False).code == 1


def test_addresses_that_a_container_asks_for(client):
    client("network", "create", "--subnet", "10.77.0.0/24", "back")
    client(
        *shlex.split("run -d --name one --network back --ip 10.77.0.50 --mac-address 02:42:0a:4d:00:77 --hostname uno"),
        *SLEEP,
    )
    assert address(client, "one", "back") == "10.77.0.50"
    assert address(client, "one", "back", "MacAddress") == "02:42:0a:4d:00:77"
    assert "10.77.0.50\tuno" in client("exec", "one", "cat", "/etc/hosts").out
    taken = client("run", "--rm", "--network", "back", "--ip", "10.77.0.50", "busybox", "true", check=False)
    assert taken.code == 125 and "Address already in use" in taken.err
    outside = client("run", "--rm", "--network", "back", "--ip", "10.88.0.1", "busybox", "true", check=False)
    assert outside.code == 125
    client("restart", "-t", "0", "one")
    assert address(client, "one", "back") == "10.77.0.50"


def test_connect_and_disconnect_a_running_container(client):
    client("network", "create", "--subnet", "10.77.0.0/24", "back")
    client("network", "create", "--subnet", "10.78.0.0/24", "front")
    client("run", "-d", "--name", "one", "--network", "back", *SLEEP)
    client("run", "-d", "--name", "two", "--network", "front", *SLEEP)
    assert not reaches(client, "one", address(client, "two", "front"))
    client("network", "connect", "--ip", "10.78.0.40", "--alias", "uno", "front", "one")
    assert address(client, "one", "front") == "10.78.0.40"
    assert reaches(client, "one", "two") and reaches(client, "two", "uno")
    names = client("exec", "one", "ls", "/sys/class/net").out.split()
    assert names == ["eth0", "eth1", "lo"]
    assert "default via 10.77.0.1 dev eth0" in client("exec", "one", "ip", "route").out
    again = client("network", "connect", "front", "one", check=False)
    assert again.code == 1 and "already exists in network front" in again.err
    client("network", "disconnect", "back", "one")
    assert client("exec", "one", "ls", "/sys/class/net").out.split() == ["eth1", "lo"]
    assert "default via 10.78.0.1 dev eth1" in client("exec", "one", "ip", "route").out
    assert "10.77." not in client("exec", "one", "cat", "/etc/hosts").out
    gone = client("network", "disconnect", "back", "one", check=False)
    assert gone.code == 1 and "is not connected to network back" in gone.err


def test_edits_of_a_container_stay(client):
    client("network", "create", "back")
    client("network", "create", "front")
    client("run", "-d", "--name", "one", "--network", "back", *SLEEP)
    client(
        "exec", "one", "sh", "-c", "echo 192.0.2.9 mine >> /etc/hosts; echo 'nameserver 192.0.2.1' > /etc/resolv.conf"
    )
    client("network", "connect", "front", "one")
    client("network", "disconnect", "back", "one")
    hosts = client("exec", "one", "cat", "/etc/hosts").out
    assert "192.0.2.9 mine" in hosts and address(client, "one", "front") in hosts
    assert client("exec", "one", "cat", "/etc/resolv.conf").out == "nameserver 192.0.2.1\n"


def test_several_networks_and_which_one_leads_outside(client):
    client("network", "create", "--subnet", "10.77.0.0/24", "aaa")
    client("network", "create", "--subnet", "10.78.0.0/24", "bbb")
    client("network", "create", "--internal", "--subnet", "10.79.0.0/24", "inside")
    client("run", "-d", "--name", "one", "--network", "bbb", "--network", "inside", "--network", "aaa", *SLEEP)
    lines = client("exec", "one", "ip", "-o", "-4", "addr").out
    where = {line.split()[1]: line.split()[3].rpartition(".")[0] for line in lines.splitlines()}
    wanted = {"lo": "127.0.0", "eth0": "10.78.0", "eth1": "10.77.0", "eth2": "10.79.0"}
    if client.engine.kind == "ketch":  # in the order in which they were asked for
        assert where == wanted
    assert sorted(where.values()) == sorted(wanted.values())
    assert "default via 10.77.0.1 dev eth" in client("exec", "one", "ip", "route").out
    client("run", "-d", "--name", "two", "--network", "name=aaa", "--network", "name=bbb,gw-priority=1", *SLEEP)
    assert "default via 10.78.0.1" in client("exec", "two", "ip", "route").out


def test_networks_are_apart_and_internal_ones_lead_nowhere(client):
    client("network", "create", "--subnet", "10.77.0.0/24", "back")
    client("network", "create", "--internal", "--subnet", "10.79.0.0/24", "inside")
    client("run", "-d", "--name", "one", "--network", "back", *SLEEP)
    client("run", "-d", "--name", "two", "--network", "inside", *SLEEP)
    client("run", "-d", "--name", "three", "--network", "inside", *SLEEP)
    assert not reaches(client, "one", address(client, "two", "inside"))
    assert not reaches(client, "two", address(client, "one", "back"))
    assert reaches(client, "two", "three")
    assert "default" not in client("exec", "two", "ip", "route").out
    assert not reaches(client, "two", "10.77.0.1")


def test_without_icc_containers_do_not_meet(client):
    client("network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "--subnet", "10.77.0.0/24", "quiet")
    client("run", "-d", "--name", "one", "--network", "quiet", *SLEEP)
    client("run", "-d", "--name", "two", "--network", "quiet", *SLEEP)
    assert not reaches(client, "one", address(client, "two", "quiet"))
    assert reaches(client, "one", "10.77.0.1")


def test_both_families(client):
    client("network", "create", "--ipv6", "--subnet", "10.77.0.0/24", "--subnet", "fd00:77::/64", "dual")
    client("run", "-d", "--name", "one", "--network", "dual", "--ip6", "fd00:77::50", *SLEEP)
    client("run", "-d", "--name", "two", "--network", "dual", "-p", "80", *SLEEP)
    v4, v6 = (line.split(" -> ")[1] for line in client("port", "two").out.splitlines())
    assert v4.startswith("0.0.0.0:") and v6 == v4.replace("0.0.0.0", "[::]")
    assert address(client, "one", "dual", "GlobalIPv6Address") == "fd00:77::50"
    assert address(client, "one", "dual", "IPv6Gateway") == "fd00:77::1"
    assert client("exec", "two", "ping", "-6", "-c1", "-W2", "one").code == 0
    assert "fd00:77::50\t" in client("exec", "one", "cat", "/etc/hosts").out
    assert "default via fd00:77::1 dev eth0" in client("exec", "one", "ip", "-6", "route").out
    client("network", "create", "--ipv6", "chosen")
    subnets = [c["Subnet"] for c in inspect(client, "chosen")["IPAM"]["Config"]]
    assert [s for s in subnets if s.startswith("fd")] and len(subnets) == 2


def test_options_of_a_bridge(client):
    client(
        *shlex.split(
            "network create --subnet 10.77.0.0/24 -o com.docker.network.bridge.name=ktopt0 "
            "-o com.docker.network.driver.mtu=1400 -o com.docker.network.container_iface_prefix=net "
            "-o com.docker.network.bridge.host_binding_ipv4=127.0.0.1 odd"
        ),
    )
    client("run", "-d", "--name", "one", "--network", "odd", "-p", "80", *SLEEP)
    assert "mtu 1400" in client("exec", "one", "ip", "link", "show", "net0").out
    assert client("port", "one").out.split(" -> ")[1].startswith("127.0.0.1:")
    assert os.path.isdir("/sys/class/net/ktopt0")
    client("rm", "-f", "one")
    client("network", "rm", "odd")
    assert not os.path.exists("/sys/class/net/ktopt0")


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan"])
def test_networks_on_a_link(client, driver):
    """Without a parent they get a link of their own: containers meet each other, and nobody else."""
    need_links(driver)
    client("network", "create", "-d", driver, "--subnet", "10.77.0.0/24", "direct")
    client("run", "-d", "--name", "one", "--network", "direct", *SLEEP)
    client("run", "-d", "--name", "two", "--network", "direct", *SLEEP)
    assert reaches(client, "one", "two")
    client("rm", "-f", "one", "two")
    client("network", "rm", "direct")


def test_none_host_and_another_containers(client):
    assert client("run", "--rm", "--network", "none", "busybox", "ls", "/sys/class/net").out.split() == ["lo"]
    client("run", "-d", "--name", "one", *SLEEP)
    there = client("run", "--rm", "--network", "container:one", "busybox", "ip", "-o", "-4", "addr").out
    assert address(client, "one", "bridge") in there
    refused = client("network", "connect", "host", "one", check=False)
    assert refused.code == 1


@pytest.mark.ketch_only  # dockerd removes what only containers that do not run use
def test_prune_keeps_what_is_used(client):
    client("network", "create", "used")
    client("network", "create", "--label", "keep=1", "kept")
    client("network", "create", "idle")
    client("create", "--name", "one", "--network", "used", "busybox")
    assert client("network", "prune", "-f", "--filter", "label!=keep").out.split() == ["Deleted", "Networks:", "idle"]
    assert client("network", "ls", "-q", "--filter", "name=kept").out != ""
    client("network", "rm", "kept")


def test_a_removed_network_stops_a_start(client):
    client("network", "create", "gone")
    client("create", "--name", "one", "--network", "gone", "busybox", "true")
    client("network", "rm", "gone")
    result = client("start", "-a", "one", check=False)
    assert result.code == 1 and "not found" in result.err


def test_host_gateway(client):
    out = client("run", "--rm", "--add-host", "host.docker.internal:host-gateway", "busybox", "cat", "/etc/hosts").out
    gateway = client("network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}").out.strip()
    assert f"{gateway}\thost.docker.internal" in out


def test_events_and_stats(client):
    since = str(time.time())
    client("network", "create", "back")
    client("run", "-d", "--name", "one", "--network", "back", *SLEEP)
    client("network", "connect", "bridge", "one")
    client("network", "disconnect", "bridge", "one")
    client("rm", "-f", "one")
    client("network", "rm", "back")
    seen = client(
        "events",
        "--since",
        since,
        "--until",
        str(time.time() + 0.5),
        "--filter",
        "type=network",
        "--format",
        "{{.Action}} {{.Actor.Attributes.name}}",
    ).out.splitlines()
    assert seen == [
        "create back",
        "connect back",
        "connect bridge",
        "disconnect bridge",
        "disconnect back",
        "destroy back",
    ]


def test_stats_count_each_interface(docker_py):
    nets = [docker_py.networks.create(f"n{i}") for i in range(2)]
    box = docker_py.containers.run("busybox", ["sleep", "1000"], detach=True, network="n0", name="one")
    try:
        nets[1].connect(box)
        box.exec_run(["ping", "-c1", "-W1", nets[1].attrs["IPAM"]["Config"][0].get("Gateway", "127.0.0.1")])
        counters = box.stats(stream=False)["networks"]
        assert sorted(counters) == ["eth0", "eth1"]
        assert all({"rx_bytes", "tx_bytes", "rx_packets", "tx_packets"} <= set(c) for c in counters.values())
    finally:
        box.remove(force=True)


def test_docker_py(docker_py):
    pool = docker.types.IPAMPool(subnet="10.77.0.0/24", gateway="10.77.0.1")
    net = docker_py.networks.create("back", ipam=docker.types.IPAMConfig(pool_configs=[pool]), labels={"a": "b"})
    assert docker_py.networks.get(net.id).name == "back"
    assert [n.name for n in docker_py.networks.list(filters={"label": "a=b"})] == ["back"]
    box = docker_py.containers.run("busybox", ["sleep", "1000"], detach=True, name="one")
    net.connect(box, ipv4_address="10.77.0.40", aliases=["uno"])
    net.reload()
    assert [c.name for c in net.containers] == ["one"]
    net.disconnect(box)
    box.remove(force=True)
    net.remove()
    with pytest.raises(docker.errors.NotFound):
        docker_py.networks.get(net.id)


def test_joining_again_what_was_left(engine):
    """The sockets for names are still with the container's monitor then."""
    engine.docker("network", "create", "again")
    engine.docker("run", "-d", "--name", "other", "--network", "again", "busybox", "sleep", "1000")
    engine.docker("run", "-d", "--name", "first", "busybox", "sleep", "1000")
    for _ in range(3):
        engine.docker("network", "connect", "again", "first")
        assert engine.docker("exec", "first", "ping", "-c", "1", "-W", "2", "other").out
        engine.docker("network", "disconnect", "again", "first")
        assert engine.docker("exec", "first", "ping", "-c", "1", "-W", "1", "other", check=False).code == 1


def test_networks_of_a_configuration(client):
    client("network", "create", "--config-only", "--subnet", "10.231.0.0/24", "--label", "a=b", "settings")
    client("network", "create", "--config-from", "settings", "made")
    made = json.loads(client("network", "inspect", "-v", "settings", "made").out)
    assert [one["ConfigOnly"] for one in made] == [True, False]
    assert [one["ConfigFrom"]["Network"] for one in made] == ["", "settings"]
    assert [one["IPAM"]["Config"][0]["Subnet"] for one in made] == ["10.231.0.0/24"] * 2
    assert made[1]["Labels"] == {"a": "b"}
    client("network", "rm", "made", "settings")
