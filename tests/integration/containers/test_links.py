"""``--link``: names, addresses and variables of one container in another, on the default network and on others."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal

import pytest

from tests.support.waiting import until

SLEEP = ("busybox", "sleep", "1000")


@pytest.fixture
def pair(engine):
    """``web`` links to ``store`` as ``db``."""
    engine.docker(
        *shlex.split(
            "run -d --name store --stop-signal KILL --expose 80 --expose 81 --expose 82 --expose 53/udp "
            "-e COLOUR=red -e WITH=a=b"
        ),
        *SLEEP,
    )
    engine.docker("run", "-d", "--name", "web", "--stop-signal", "KILL", "--link", "store:db", *SLEEP)
    return engine


def address(engine, name: str) -> str:
    return engine.docker("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", name).out.strip()


def hosts(engine, name: str) -> list[list[str]]:
    return [line.split() for line in engine.docker("exec", name, "cat", "/etc/hosts").out.splitlines()]


def test_hosts_and_names(pair):
    store = address(pair, "store")
    short = pair.docker("inspect", "-f", "{{.Config.Hostname}}", "store").out.strip()
    assert [store, "db", short, "store"] in hosts(pair, "web")
    assert pair.docker("exec", "web", "ping", "-c", "1", "-W", "2", "db").out
    for client in (pair.docker, pair.ketch if pair.kind == "ketch" else pair.docker):
        names = client("ps", "--no-trunc", "--filter", "name=store", "--format", "{{.Names}}").out.strip()
        assert sorted(names.split(",")) == ["store", "web/db"]
        assert client("ps", "--filter", "name=store", "--format", "{{.Names}}").out == "store\n"
    assert pair.docker("ps", "-q", "--filter", "name=web/db").out == ""
    assert json.loads(pair.docker("inspect", "-f", "{{json .HostConfig.Links}}", "web").out) == ["/store:/web/db"]
    assert pair.docker("inspect", "-f", "{{.Name}}", "/web/db").out == "/store\n"
    pair.docker("rename", "web", "site")
    assert json.loads(pair.docker("inspect", "-f", "{{json .HostConfig.Links}}", "site").out) == ["/store:/site/db"]


def test_variables(pair):
    store = address(pair, "store")
    told = pair.docker("exec", "web", "env").out.split()
    wanted = {"DB_PORT": f"tcp://{store}:80", "DB_NAME": "/web/db", "DB_ENV_COLOUR": "red", "DB_ENV_WITH": "a=b"}
    for number, proto in ((80, "tcp"), (81, "tcp"), (82, "tcp"), (53, "udp")):
        one = f"DB_PORT_{number}_{proto.upper()}"
        wanted |= {one: f"{proto}://{store}:{number}", f"{one}_ADDR": store, f"{one}_PORT": str(number)}
        wanted[f"{one}_PROTO"] = proto
    wanted |= {
        "DB_PORT_80_TCP_START": f"tcp://{store}:80",
        "DB_PORT_80_TCP_PORT_START": "80",
        "DB_PORT_80_TCP_END": f"tcp://{store}:82",
        "DB_PORT_80_TCP_PORT_END": "82",
    }
    assert {line for line in told if line.startswith("DB_")} == {f"{k}={v}" for k, v in wanted.items()}
    own = pair.docker("run", "--rm", "--link", "store:db", "-e", "DB_NAME=mine", "busybox", "env").out
    assert "DB_NAME=mine" in own and "DB_ENV_COLOUR=red" in own


def test_the_address_follows_the_target(pair):
    old = address(pair, "store")
    pair.docker("stop", "store")
    pair.docker("run", "-d", "--name", "between", *SLEEP)
    if address(pair, "between") != old:  # addresses go in a ring: take what comes next, too
        pair.docker("run", "-d", "--name", "between2", *SLEEP)
    pair.docker("start", "store")
    new = address(pair, "store")
    lines = [line for line in hosts(pair, "web") if "db" in line]
    assert [line[0] for line in lines] == [new]


def test_the_target_must_run(pair):
    pair.docker("stop", "-t", "0", "web", "store")
    failed = pair.docker("start", "web", check=False)
    assert failed.code == 1
    assert "Cannot link to a non running container: /store AS /web/db" in failed.err
    pair.docker("start", "store")
    pair.docker("start", "web")


def test_removing_a_link(pair):
    wrong = pair.docker("rm", "--link", "store", check=False)
    assert wrong.code == 1 and "Conflict, cannot remove the default link name of the container" in wrong.err
    pair.docker("rm", "--link", "/web/db")
    assert pair.docker("inspect", "-f", "{{json .HostConfig.Links}}", "web").out == "null\n"
    assert pair.docker("ps", "-a", "--no-trunc", "--filter", "name=store", "--format", "{{.Names}}").out == "store\n"
    assert pair.docker("inspect", "-f", "{{.State.Running}}", "web", "store").out == "true\ntrue\n"
    assert pair.docker("inspect", "/web/db", check=False).code == 1


@pytest.mark.ketch_only
def test_removing_the_target(pair):
    pair.docker("rm", "-f", "store")
    assert pair.docker("inspect", "-f", "{{json .HostConfig.Links}}", "web").out == "null\n"
    pair.docker("restart", "web")
    assert not any("db" in line for line in hosts(pair, "web"))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--link", "none:db"), "could not get container for none: No such container: none"),
        (("--name", "self", "--link", "self:me"), "could not get container for self"),
        (("--link", "a:b:c"), "bad format for links: a:b:c"),
        (
            ("--userns", "host", "--network", "host", "--link", "web"),
            "conflicting options: host type networking can't be used with links",
        ),
        (("--network", "container:web", "--link", "web"), "conflicting options: container type network"),
        (("--link", "hosted:db"), "conflicting options: host type networking can't be used with links"),
    ],
)
def test_refused(engine, args, message):
    engine.docker("run", "-d", "--name", "web", *SLEEP)
    engine.docker("run", "-d", "--name", "hosted", "--userns", "host", "--network", "host", *SLEEP)
    result = engine.docker("create", *args, "busybox", check=False)
    assert result.code != 0
    assert message in result.err


def test_in_a_network_of_ones_own(engine):
    """A name that the linking container alone has, whenever the target comes."""
    engine.docker("network", "create", "back")
    engine.docker("run", "-d", "--name", "web", "--network", "back", "--link", "store:db", *SLEEP)
    engine.docker("run", "-d", "--name", "store", "--network", "back", *SLEEP)
    engine.docker("run", "-d", "--name", "other", "--network", "back", *SLEEP)
    assert re.search(r"^PING db ", engine.docker("exec", "web", "ping", "-c", "1", "-W", "2", "db").out)
    assert engine.docker("exec", "other", "ping", "-c", "1", "-W", "2", "db", check=False).code == 1
    shown = json.loads(engine.docker("inspect", "web").out)[0]
    assert shown["HostConfig"]["Links"] is None
    assert shown["NetworkSettings"]["Networks"]["back"]["Links"] == ["store:db"]


@pytest.mark.ketch_only
def test_links_at_the_daemon_s_start(own_engine):
    """Targets come up before those that link to them, and the links are as they were."""
    own_engine.start()
    own_engine.add_busybox()
    always = ("--restart", "always", "--stop-signal", "KILL")
    own_engine.docker("run", "-d", "--name", "store", *always, *SLEEP)
    own_engine.docker("run", "-d", "--name", "web", *always, "--link", "store:db", *SLEEP)
    own_engine.docker("run", "-d", "--name", "front", *always, "--link", "web", *SLEEP)
    pids = own_engine.docker("inspect", "-f", "{{.State.Pid}}", "store", "web", "front").out.split()
    own_engine.stop(9)
    for pid in map(int, pids):
        os.kill(pid, signal.SIGKILL)
    own_engine.start()
    for name in ("store", "web", "front"):
        state = ("inspect", "-f", "{{.State.Status}} {{.RestartCount}}", name)
        until(lambda state=state: own_engine.docker(*state).out == "running 1\n", f"{name} is back at the first try")
    assert [address(own_engine, "store"), "db"] in [line[:2] for line in hosts(own_engine, "web")]
    assert own_engine.docker("exec", "front", "ping", "-c", "1", "-W", "2", "web").out
