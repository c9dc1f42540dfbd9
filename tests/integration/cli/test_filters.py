"""``ps``, ``prune`` and ``events`` with every filter, in one scene; dockerd keeps the same."""

from __future__ import annotations

import json
import shlex
import time

import docker
import pytest

from tests.support.engines import API
from tests.support.waiting import patient

SLEEP = ("busybox", "sleep", "1000")


@pytest.fixture(scope="module")
def scene(engine):
    """Containers that differ in all that can be asked for; made once, looked at by all tests of the module."""
    run = engine.docker
    run("network", "create", "fnet")
    run("volume", "create", "fvol")
    run("tag", "busybox", "fother")
    kill = ("--stop-signal", "KILL")
    run("run", "-d", "--name", "alpha", "-l", "tier=front", "-l", "x", "-p", "127.0.0.1:18080:80", *kill, *SLEEP)
    run("run", "-d", "--name", "beta", "-l", "tier=back", "--network", "fnet", "--expose", "90/udp", *kill, *SLEEP)
    run(
        *shlex.split("run -d --name gamma -v fvol:/data --health-cmd true --health-interval 100ms"),
        *(*kill, "fother", "sleep", "1000"),
    )
    run("run", "--name", "delta", "busybox", "sh", "-c", "exit 3", check=False)
    run("create", "--name", "epsilon", "-v", "/tmp:/host:ro", "busybox")
    run("run", "-d", "--name", "zeta", *kill, *SLEEP)
    run("pause", "zeta")
    yield engine
    engine.remove_all()
    run("volume", "rm", "fvol")
    run("rmi", "fother")


@pytest.fixture(autouse=True)
def _clean():
    """(In place of the one that leaves no container to the next test.)"""


def names(engine, *args: str) -> str:
    return " ".join(engine.docker("ps", *args, "--format", "{{.Names}}").out.split())


@pytest.mark.parametrize(
    ("args", "kept"),
    [
        ("", "zeta gamma beta alpha"),
        ("-a", "zeta epsilon delta gamma beta alpha"),
        ("-n 2", "zeta epsilon"),
        ("-l", "zeta"),
        ("-n 1 -f status=exited", "delta"),
        ("-a -f name=alpha", "alpha"),
        ("-a -f name=^/alpha$", "alpha"),
        ("-a -f name=^alph -f name=bet", "beta alpha"),
        ("-a -f name=ta$", "zeta delta beta"),
        ("-a -f label=tier", "beta alpha"),
        ("-a -f label=tier=front", "alpha"),
        ("-a -f label=tier=front -f label=x", "alpha"),
        ("-a -f label=tier=front -f label=tier=back", ""),
        ("-f status=exited", "delta"),
        ("-f status=paused -f status=created", "zeta epsilon"),
        ("-f status=running", "gamma beta alpha"),
        ("-a -f exited=3", "delta"),
        ("-a -f exited=0", ""),
        ("-f exited=3", ""),
        ("-a -f before=gamma", "beta alpha"),
        ("-a -f since=gamma", "zeta epsilon delta"),
        ("-a -f since=alpha -f before=delta", "gamma beta"),
        ("-a -f volume=fvol", "gamma"),
        ("-a -f volume=/data", "gamma"),
        ("-a -f volume=/tmp", "epsilon"),
        ("-a -f volume=/host -f volume=/data", "epsilon gamma"),
        ("-a -f network=fnet", "beta"),
        ("-a -f network=bridge -f network=fnet -f status=running", "gamma beta alpha"),
        ("-a -f publish=18080", "alpha"),
        ("-a -f publish=18000-18100/tcp", "alpha"),
        ("-a -f publish=80", ""),
        ("-a -f expose=80", "alpha"),
        ("-a -f expose=90/udp", "beta"),
        ("-a -f expose=90", ""),
        ("-a -f publish=18080 -f expose=90/udp", "beta alpha"),
        ("-a -f health=none -f status=running", "beta alpha"),
        ("-a -f ancestor=busybox -f name=alpha", "alpha"),
        ("-a -f ancestor=fother", "zeta epsilon delta gamma beta alpha"),
        ("-a -f ancestor=nobody", ""),
        ("-a -f is-task=true", ""),
        ("-a -f is-task=false -f name=alpha", "alpha"),
        ("-a -f isolation=default -f name=alpha", "alpha"),
        ("-a -f name=alpha -f status=exited", ""),
    ],
)
def test_ps(scene, args, kept):
    assert names(scene, *args.split()) == kept


def test_by_id_and_health(scene):
    one = scene.docker("inspect", "-f", "{{.Id}}", "alpha").out.strip()
    assert names(scene, "-f", f"id={one}") == names(scene, "-f", f"id={one[:12]}") == "alpha"
    network = scene.docker("network", "inspect", "-f", "{{.Id}}", "fnet").out.strip()
    assert names(scene, "-f", f"network={network[:12]}") == "beta"
    deadline = time.monotonic() + patient(10)
    while names(scene, "-f", "health=healthy") != "gamma":
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    "wrong",
    [
        "nonsense=1",
        "status=sleeping",
        "health=ill",
        "before=nobody",
        "since=nobody",
        "is-task=perhaps",
        "exited=x",
        "publish=80:80",
        "publish=eighty",
        "expose=1-99999",
    ],
)
def test_refused(scene, wrong):
    result = scene.docker("ps", "-f", wrong, check=False)
    assert result.code == 1
    if wrong.partition("=")[0] in ("nonsense", "status"):
        assert "invalid filter" in result.err.lower()
    if wrong.endswith("nobody"):
        assert "no such container" in result.err.lower() and "nobody" in result.err


def test_fields(scene):
    """What ``--format`` can show."""
    line = scene.docker(
        "ps",
        "-s",
        "-f",
        "name=beta",
        "--format",
        '{{.Image}}|{{.Command}}|{{.RunningFor}}|{{.Ports}}|{{.State}}|{{.Labels}}|{{.Label "tier"}}|{{.Mounts}}|'
        "{{.LocalVolumes}}|{{.Networks}}|{{.Size}}",
    ).out.strip()
    fields = line.split("|")
    assert fields[:2] == ["busybox", '"sleep 1000"'] and fields[2].endswith("ago")
    assert fields[3:10] == ["90/udp", "running", "tier=back", "back", "", "0", "fnet"]
    assert fields[10].startswith("0B (virtual ")
    assert scene.docker("ps", "-f", "name=gamma", "--format", "{{.Mounts}} {{.LocalVolumes}}").out == "fvol 1\n"


def test_descendants(scene):
    """A container of an image that was built on another one is a container of that one, too."""
    with docker.DockerClient(base_url=scene.host, version=API).api as api:
        images = [api.inspect_image(name)["Id"] for name in ("busybox", "fother")]
        assert images[0] == images[1]
        rows = api.containers(all=True, filters={"ancestor": [images[0][7:19]]})
    assert len(rows) == 6


def test_prune(engine):
    for name, label in (("p1", "a=1"), ("p2", "b"), ("p3", "a=2"), ("p4", "c")):
        engine.docker("create", "--name", name, "-l", "prune", "-l", label, "busybox")
    prune = ("container", "prune", "-f", "--filter", "label=prune", "--filter")

    def left() -> str:
        return names(engine, "-a", "-f", "label=prune")

    assert engine.docker(*prune, "until=1h").out.startswith("Total reclaimed space: 0B") and left() == "p4 p3 p2 p1"
    engine.docker(*prune, "label=a=1")
    assert left() == "p4 p3 p2"
    engine.docker(*prune, "label!=b")
    assert left() == "p2"
    assert engine.docker(*prune, "status=exited", check=False).code == 1
    assert engine.docker(*prune, "until=never", check=False).code == 1
    engine.docker("container", "prune", "-f", "--filter", "label=prune")
    assert left() == ""


@pytest.mark.parametrize(
    ("filters", "seen"),
    [
        ("container=ship", "create start kill die stop destroy"),
        ("container=ship event=start event=die", "start die"),
        ("container=ship type=network", ""),
        ("image=busybox event=create", "create"),
        ("label=ev=yes event=destroy", "destroy"),
        ("label=ev=no", ""),
        ("container=nobody", ""),
        ("container=ship scope=local event=stop", "stop"),
        ("container=ship scope=swarm", ""),
        ("type=container event=exec_start label=ev", "exec_start: true"),
        ("network=bridge event=connect", "connect"),
        ("volume=evol event=mount", "mount"),
        ("volume=evo event=unmount", "unmount"),
        ("daemon=x", ""),
    ],
)
def test_events(engine, events, filters, seen):
    since, until = events
    args = [word for one in filters.split() for word in ("--filter", one)]
    out = engine.docker("events", "--since", since, "--until", until, *args, "--format", "{{json .}}").out
    actions = [json.loads(line)["Action"].strip() for line in out.splitlines()]
    if "event" not in filters:
        actions = [a for a in actions if not a.startswith(("exec", "attach"))]
    if engine.kind == "dockerd" and "stop" in actions:  # it tells of the end and of the request as they come
        actions.sort(key=seen.split().index)
    assert " ".join(actions) == seen


@pytest.fixture(scope="module")
def events(engine):
    """A container's life, and the times between which it was."""
    engine.docker("volume", "create", "evol")
    since = engine.docker("info", "-f", "{{.SystemTime}}").out.strip()
    engine.docker("run", "-d", "--name", "ship", "-l", "ev=yes", "-v", "evol:/d", "--stop-signal", "KILL", *SLEEP)
    engine.docker("exec", "ship", "true")
    engine.docker("stop", "ship")
    engine.docker("rm", "ship")
    yield since, engine.docker("info", "-f", "{{.SystemTime}}").out.strip()
    engine.docker("volume", "rm", "evol")


def test_events_of_the_past_hour(engine, events):
    out = engine.docker(
        "events", "--since", "1h", "--until", events[1], "--filter", "container=ship", "--filter", "event=start"
    ).out
    assert " container start " in out
    wrong = engine.docker("events", "--since", "0s", "--until", "1h", check=False)
    assert wrong.code == 1 and "cannot be after `until` time" in wrong.err
