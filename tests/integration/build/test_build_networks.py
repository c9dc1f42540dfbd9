"""Networks that users made and other containers' networks, as RUN sees them: beside dockerd's classic builder."""

from __future__ import annotations

import contextlib
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.builds import classic_builds as builds
from tests.support.rawapi import Api
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("no_images_left")

LOOK = """FROM base:1
RUN ping -c1 -W5 web.built | head -1 | cut -d' ' -f1,2; sed '/^#/d;/^$/d;/search/d' /etc/resolv.conf
RUN ls /sys/class/net; ip route | cut -d' ' -f1,2 | sed 's/[0-9][0-9./]*/A/g'
"""


@pytest.fixture
def networks(engine, dockerd):
    """In both engines an image, a network `built`, and a container `web` in it, which pings answer."""
    builds.share(Api(dockerd.socket), Api(engine.socket), "busybox", "base:1")
    with contextlib.ExitStack() as undo:
        for api in (Api(engine.socket), Api(dockerd.socket)):
            api.must("POST", "/networks/create", {"Name": "built"})
            undo.callback(api.must, "DELETE", "/networks/built")
            asked = {"Image": "base:1", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "built"}}
            api.must("POST", "/containers/create", {**asked, "Hostname": "spider"}, name="web")
            undo.callback(api.must, "DELETE", "/containers/web", force=1)
            api.must("POST", "/containers/web/start")
        yield


def both(engine, dockerd, dockerfile, query):
    with ThreadPoolExecutor(2) as pool:
        one = {"Dockerfile": dockerfile}
        jobs = [pool.submit(builds.post, e.socket, one, f"nocache=1&{query}") for e in (engine, dockerd)]
        return [job.result() for job in jobs]


def test_the_network_of_users(engine, dockerd, networks):
    """Its names, its way outside; nothing is left in it, and it is no part of what is found in the cache."""
    ours, theirs = both(engine, dockerd, LOOK, "networkmode=built")
    assert (ours[0], theirs[0]) == (200, 200), (ours, theirs)
    assert "PING web.built" in builds.text(ours[1])
    assert "nameserver 127.0.0.11\n" in builds.text(ours[1])
    assert builds.comparable(ours[1]) == builds.comparable(theirs[1])
    api = Api(engine.socket)
    until(lambda: len(api.must("GET", "/networks/built")["Containers"]) == 1, "only the container is connected")
    _, lines = builds.post(engine.socket, {"Dockerfile": LOOK})
    assert builds.text(lines).count("Using cache") == 2
    network = api.must("GET", "/networks/built")["Id"]
    _, lines = builds.post(engine.socket, {"Dockerfile": LOOK}, f"nocache=1&networkmode={network[:12]}")
    assert "PING web.built" in builds.text(lines)


def test_the_network_of_a_container(engine, dockerd, networks):
    """Its interfaces, addresses and names."""
    look = "FROM base:1\nRUN hostname; grep -c spider /etc/hosts; ping -c1 -W5 web | head -1 | cut -d' ' -f1,2\n"
    ours, theirs = both(engine, dockerd, look, "networkmode=container:web")
    assert (ours[0], theirs[0]) == (200, 200), (ours, theirs)
    assert builds.comparable(ours[1]) == builds.comparable(theirs[1])
    assert "spider\n1\nPING web" in builds.text(ours[1])
    seen = []
    for container in (True, False):
        api = Api(engine.socket)
        if container:
            seen.append(api.must("GET", "/containers/web/json")["NetworkSettings"]["Networks"]["built"]["IPAddress"])
        else:
            _, lines = builds.post(
                engine.socket, {"Dockerfile": "FROM base:1\nRUN ip -4 -o addr show eth0\n"}, "networkmode=container:web"
            )
            seen += re.findall(r"inet ([0-9.]+)/", builds.text(lines))
    assert len(seen) == 2 and seen[0] == seen[1]


@pytest.mark.parametrize("mode", ["nosuch", "container:nosuch", "container:idle"])
def test_what_is_not_there(engine, dockerd, networks, mode):
    for api in (Api(engine.socket), Api(dockerd.socket)):
        api.must("POST", "/containers/create", {"Image": "base:1", "Cmd": ["true"]}, name="idle")
    try:
        ours, theirs = both(engine, dockerd, "FROM base:1\nRUN echo there\n", f"networkmode={mode}")
    finally:
        for api in (Api(engine.socket), Api(dockerd.socket)):
            api.must("DELETE", "/containers/idle")
    assert mode.rpartition(":")[2] in theirs[1][-1]["error"] or "non running" in theirs[1][-1]["error"]
    hidden = re.compile("[0-9a-f]{64}|idle")
    assert hidden.sub("ID", ours[1][-1]["error"]) == hidden.sub("ID", theirs[1][-1]["error"])


def test_a_network_that_goes_meanwhile(engine, networks):
    """The step after that is an error that names it."""
    api = Api(engine.socket)
    api.must("POST", "/networks/create", {"Name": "passing"})
    look = "FROM base:1\nRUN --network=none sleep 3\nRUN echo after\n"
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(builds.post, engine.socket, {"Dockerfile": look}, "nocache=1&networkmode=passing")
        until(lambda: "running" in [row["status"] for row in api.must("GET", "/ketch/builds")], "the build runs")
        api.must("DELETE", "/networks/passing")
        _, lines = job.result()
    assert "network passing not found" in lines[-1].get("error", ""), lines


def test_ketch_build(engine, networks):
    dockerfile = b"FROM base:1\nRUN ping -c1 -W5 web\nRUN --network=none ls /sys/class/net\n"
    done = engine.ketch("build", "--no-cache", "--progress=plain", "--network=built", "-", stdin=dockerfile)
    assert "1 packets received" in done.err
    assert re.search(r"^#\d+ [\d.]+ lo\n(?!#\d+ [\d.]+ eth0)", done.err, re.MULTILINE)
    done = engine.ketch("build", "--network=nosuch", "-", stdin=b"FROM base:1\nRUN echo there\n", check=False)
    assert done.code == 1 and "network nosuch not found" in done.err
