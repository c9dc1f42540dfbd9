"""Programs that know Docker's socket alone: proxies, dashboards and updaters, which find Ketch by a link there."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from typing import TYPE_CHECKING

import docker
import pytest

from tests.support.rawapi import Api
from tests.support.run import daemons
from tests.support.waiting import patient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.engines import Engine

pytestmark = pytest.mark.ketch_only


@pytest.fixture(scope="module")
def linked() -> Iterator[Engine]:
    """A daemon with a link to its socket at another path, and a container with labels."""
    with daemons.one_of_its_own("l") as engine:
        engine.extra = ["--docker-socket", path_of(engine)]
        engine.start()
        engine.add_busybox()
        labels = ("traefik.enable=true", "com.docker.compose.project=shop")
        flags = ["--network=bridge", "-p", "127.0.0.1::80", *(f"--label={label}" for label in labels)]
        engine.ketch("run", "-d", "--name=web", *flags, "busybox", "sleep", "600")
        yield engine
        engine.remove_all()


def path_of(engine: Engine) -> str:
    return os.path.join(engine.root, "docker.sock")


@pytest.fixture
def dashboard(linked: Engine) -> Iterator[docker.DockerClient]:
    with contextlib.closing(docker.DockerClient(f"unix://{path_of(linked)}")) as one:
        yield one


def test_the_link_is_a_link_and_goes_with_its_daemon(linked: Engine):
    assert os.readlink(path_of(linked)) == linked.socket
    linked.stop()
    assert not os.path.lexists(path_of(linked))
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as theirs:
        theirs.bind(path_of(linked))
        linked.launch()
        assert linked.process.wait(patient(30)) != 0
        linked.process = None
    assert "there is a socket or a file already" in linked.log()
    os.unlink(path_of(linked))
    linked.start()


# What Portainer and Traefik read of the daemon.
INFO = """ID Name ServerVersion OperatingSystem OSType Architecture KernelVersion NCPU MemTotal Driver DockerRootDir
    Images Containers ContainersRunning ContainersPaused ContainersStopped Plugins Swarm Runtimes DefaultRuntime Labels
    SecurityOptions LoggingDriver CgroupDriver CgroupVersion RegistryConfig"""
VERSION = "Version ApiVersion MinAPIVersion Os Arch KernelVersion GoVersion GitCommit BuildTime Components"
DF = "LayersSize Images Containers Volumes BuildCache"


def test_a_dashboard_finds_what_it_reads(linked: Engine):
    api = Api(path_of(linked))
    answers = [api.must("GET", path) for path in ("/info", "/version", "/system/df")]
    assert [set(names.split()) - set(one) for names, one in zip((INFO, VERSION, DF), answers, strict=True)] == [
        set()
    ] * 3
    info, version, _ = answers
    assert (info["Swarm"]["LocalNodeState"], info["Swarm"]["ControlAvailable"]) == ("inactive", False)
    assert {"Volume", "Network", "Log"} <= set(info["Plugins"])
    assert version["Components"][0]["Name"] == "Engine"
    rows = api.must("GET", "/containers/json", all=1, size=1)
    assert [row["SizeRootFs"] > 0 and row["State"] for row in rows] == ["running"]


def test_a_proxy_follows_containers_by_events(linked: Engine, dashboard: docker.DockerClient):
    found = dashboard.containers.list(filters={"label": "traefik.enable=true", "status": "running"})
    assert [one.name for one in found] == ["web"]
    facts = found[0].attrs
    settings = facts["NetworkSettings"]
    assert settings["Networks"]["bridge"]["IPAddress"] and settings["Ports"]["80/tcp"][0]["HostPort"]
    assert facts["HostConfig"]["NetworkMode"] == "bridge"
    since = time.time()
    linked.ketch("restart", "-t0", "web")
    filters = {"type": ["container"], "event": ["start", "die", "health_status"]}
    events = dashboard.events(since=int(since), until=int(time.time()) + 1, filters=filters, decode=True)
    later = [one for one in events if one["timeNano"] > since * 1e9]
    seen = [(one["Action"], one["Actor"]["Attributes"]["traefik.enable"]) for one in later]
    assert seen == [("die", "true"), ("start", "true")]


def test_an_updater_makes_a_container_anew_as_it_was(linked: Engine, dashboard: docker.DockerClient):
    """Watchtower's way: inspect, stop, rename or remove, create with the same body, connect, start."""
    old = dashboard.containers.get("web")
    facts = old.attrs
    image = dashboard.images.get(facts["Config"]["Image"])
    assert image.id == facts["Image"]  # no newer one
    old.stop(timeout=0)
    old.remove()
    api = Api(path_of(linked))
    networks = {
        name: {key: one[key] for key in ("IPAMConfig", "Links", "Aliases", "DriverOpts")}
        for name, one in facts["NetworkSettings"]["Networks"].items()
    }
    body = {**facts["Config"], "HostConfig": facts["HostConfig"], "NetworkingConfig": {"EndpointsConfig": networks}}
    made = api.must("POST", "/containers/create", body, name="web")
    api.must("POST", f"/containers/{made['Id']}/start")
    new = api.must("GET", "/containers/web/json")
    assert new["State"]["Running"]
    assert {**new["Config"], "Hostname": ""} == {**facts["Config"], "Hostname": ""}
    assert json.dumps(new["HostConfig"], sort_keys=True) == json.dumps(facts["HostConfig"], sort_keys=True)


def test_a_container_with_dockers_socket_in_it(linked: Engine):
    """As each of these programs is started: the link is followed, and the socket itself is in the container."""
    volume = f"{path_of(linked)}:/var/run/docker.sock"
    assert (
        linked.ketch("run", "--rm", "-v", volume, "busybox", "stat", "-c", "%F", "/var/run/docker.sock").out
        == "socket\n"
    )
