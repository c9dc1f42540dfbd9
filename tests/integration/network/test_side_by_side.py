"""``docker network`` and ``docker volume`` against Ketch and against a dockerd: the same columns, the same answers."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.engines import Engine

pytestmark = pytest.mark.ketch_only


def same(text: str, engine: Engine) -> str:
    """What may differ taken out: ids, times, places, and sizes of columns that follow from them."""
    text = text.replace(engine.root, "ROOT").replace("ROOT/data", "ROOT")
    text = re.sub(r"\b[0-9a-f]{64}\b", "LONGID", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "SHORTID", text)
    return re.sub(r"\d{4}-\d\d-\d\dT[0-9:.]+(Z|[+-][0-9:]+)", "TIME", text)


# In this order: each line may build on those before it.  (A person's words about an error differ in places.)
ANSWERS = [
    "network ls",
    "network create --subnet 10.55.0.0/24 --label a=b back",
    "network ls --filter driver=bridge --format {{.ID}};{{.Name}};{{.Driver}};{{.Scope}};{{.IPv6}};{{.Internal}}",
    "network ls --filter name=back --format {{.Labels}}",
    "network ls --filter name=back --filter label=a --no-trunc",
    "network ls --filter type=custom -q",
    "network ls --filter type=builtin --format {{.Name}}",
    "run -d --name one --network back --ip 10.55.0.9 --network-alias uno busybox sleep 1000",
    "inspect -f {{json.NetworkSettings.Networks.back.IPAddress}}{{json.NetworkSettings.Networks.back.Aliases}} one",
    "network create --internal --subnet 10.56.0.0/24 inside",
    "network connect inside one",
    "exec one ls /sys/class/net",
    "network create --subnet 10.57.0.0/24 --ip-range 10.57.0.128/25 ranged",
    "run --rm --network ranged busybox ip route",
    "network rm ranged",
    "exec one ip route",
    "network disconnect inside one",
    "network rm inside",
    "rm -f one",
    "network prune -f",
    "network ls -q --filter name=back",
    "volume create --label a=b first",
    "volume create first",
    "volume create second",
    "volume ls",
    "volume ls --filter label=a --format {{.Name}};{{.Driver}};{{.Mountpoint}};{{.Labels}};{{.Scope}}",
    "volume inspect first",
    "run --rm -v second:/d busybox touch /d/x",
    "volume ls --filter dangling=true -q",
    "volume rm first",
    "volume rm -f never",
    "volume rm second",
]
ERRORS = [
    "network inspect never",
    "network rm never",
    "network rm bridge",
    "network create bridge",
    "network connect never one",
    "network create --subnet 10.0.0.0/33 wrong",
    "volume inspect never",
    "volume rm never",
    "volume create wro/ng",
    "volume create --opt type=tmpfs wrong",
    "volume create --opt colour=red wrong",
    "volume create --driver never wrong",
    "run --rm -v wro/ng:/d busybox",
    "run --rm --mount type=bind,src=/never/there,dst=/d busybox",
    "run --rm --network never busybox",
]


def test_the_same_answers(engine, dockerd):
    for line in ANSWERS:
        ours, theirs = engine.docker(*line.split(), check=False), dockerd.docker(*line.split(), check=False)
        assert (ours.code, _lines(ours.out, engine)) == (theirs.code, _lines(theirs.out, dockerd)), line


def _lines(text: str, engine: Engine) -> list[str]:
    lines = [re.sub(r" +", " ", line).rstrip() for line in same(text, engine).splitlines()]
    return lines if lines and lines[0].startswith(("[", "{")) else sorted(lines)


@pytest.mark.parametrize("line", ERRORS)
def test_the_same_failures(engine, dockerd, line):
    ours, theirs = engine.docker(*line.split(), check=False), dockerd.docker(*line.split(), check=False)
    assert (ours.code != 0, ours.code) == (True, theirs.code), (ours.err, theirs.err)


def test_the_same_fields(engine, dockerd):
    """All that a dockerd shows of a network is there, with the same values."""
    shown = []
    for one in (engine, dockerd):
        one.docker("network", "create", "--subnet", "10.55.0.0/24", "--ip-range", "10.55.0.128/25", "-o", "x=y", "full")
        one.docker("run", "-d", "--name", "one", "--network", "full", "busybox", "sleep", "1000")
        shown.append(json.loads(same(one.docker("network", "inspect", "full").out, one))[0])
        one.docker("rm", "-f", "one")
        one.docker("network", "rm", "full")
    ours, theirs = shown
    for key, value in theirs.items():
        if key != "Containers":
            assert ours[key] == value, key
    (mine,), (other,) = ours["Containers"].values(), theirs["Containers"].values()
    assert {k: v for k, v in mine.items() if k != "MacAddress"} == {k: v for k, v in other.items() if k != "MacAddress"}


SUBNETS = [
    "--subnet 10.55.0.0/24",
    "--subnet 10.55.0.0/24 --gateway 10.55.0.1",
    "--subnet 10.55.0.0/24 --ip-range 10.55.0.128/25 --aux-address a=10.55.0.200",
    "--internal --subnet 10.55.0.0/24",
    "--ipv6 --subnet 10.55.0.0/24",
    "--ipv6 --subnet fd55::/64",
    "--ipv6 --subnet 10.55.0.0/24 --subnet fd55::/64 --gateway fd55::7",
    "--config-only --subnet 10.55.0.0/24",
    "--label a=b",
]


def test_the_gateways_that_are_shown(engine, dockerd):
    """That of a subnet is shown if somebody chose it, or if nobody chose the subnet either."""
    for line in SUBNETS:
        shown = []
        for one in (engine, dockerd):
            one.docker("network", "create", *line.split(), "shown")
            text = one.docker("network", "inspect", "-f", "{{json .IPAM.Config}}", "shown").out
            shown.append([_asked_for(config) for config in json.loads(text)])
            one.docker("network", "rm", "shown")
        assert shown[0] == shown[1], line


def _asked_for(config: dict[str, Any]) -> dict[str, Any]:
    """A subnet with what nobody has asked for called so."""
    asked = config["Subnet"].startswith(("10.55.", "fd55:"))
    return config if asked else dict.fromkeys(config, "chosen")


LIFE = [
    "network create evt",
    "run --rm --network evt busybox true",
    "network rm evt",
    "volume create evt",
    "run --rm -v evt:/d busybox true",
    "volume rm evt",
    "run --rm -v /anonymous busybox true",
]


def test_the_same_events(engine, dockerd):
    """What a network's life tells those who listen."""
    seen = []
    for one in (engine, dockerd):
        since = one.docker("info", "-f", "{{.SystemTime}}").out.strip()
        for line in LIFE:
            one.docker(*line.split())
        until = one.docker("info", "-f", "{{.SystemTime}}").out.strip()
        events = one.docker(
            "events",
            "--since",
            since,
            "--until",
            until,
            "--filter",
            "type=network",
            "--filter",
            "type=volume",
            "--format",
            "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}",
        ).out
        lines = [line.replace("<no value>", "").strip() for line in events.splitlines()]
        seen.append([line for line in lines if not line.endswith("bridge")])
    assert seen[0] == seen[1]


def test_our_stats_of_a_dockerd(engine, dockerd):
    """A dockerd has no stream for many containers: `ketch stats` does with what there is."""
    for one in (engine, dockerd):
        one.docker("run", "-d", "--name", "idle", "busybox", "sleep", "1000")
        one.docker("run", "--name", "done", "busybox", "true")
        shown = one.ketch("stats", "--no-stream", "--all", "--format", "{{.Name}} {{.CPUPerc}} {{.PIDs}}").out
        assert shown.splitlines() == ["done 0.00% 0", "idle 0.00% 1"]
        with one.ketch.piped("stats", "--format", "<{{.Name}}>") as stats:
            stats.expect(r"<idle>\s+<idle>")
        assert "No such container" in one.ketch("stats", "never", check=False).err
        one.docker("rm", "-f", "idle", "done")
