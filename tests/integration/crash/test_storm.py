"""Every verb at once on the same few containers: each request is answered, none with 500, and nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
import time

import pytest

from tests.support.rawapi import Unix

pytestmark = pytest.mark.ketch_only
SEED = int(os.environ.get("KETCH_STORM_SEED", "1"))
SECONDS = float(os.environ.get("KETCH_STORM_SECONDS", "3"))
THREADS = 6
NAMES = ("one", "two", "three")
BODY = {
    "Image": "busybox",
    "Cmd": ["sleep", "1000"],
    "StopSignal": "KILL",
    "HostConfig": {"RestartPolicy": {"Name": "on-failure"}, "Binds": ["storm:/data"]},
}
VERBS = (
    ("POST", "/containers/{name}/start"),
    ("POST", "/containers/{name}/start"),
    ("POST", "/containers/{name}/stop?t=0"),
    ("POST", "/containers/{name}/restart?t=0"),
    ("POST", "/containers/{name}/kill"),
    ("POST", "/containers/{name}/pause"),
    ("POST", "/containers/{name}/unpause"),
    ("POST", "/containers/{name}/unpause"),
    ("DELETE", "/containers/{name}?force=1"),
    ("DELETE", "/containers/{name}"),
    ("POST", "/containers/create?name={name}"),
    ("POST", "/containers/create?name={name}"),
    ("POST", "/containers/create?name={name}"),
    ("POST", "/containers/{name}/exec"),
    ("GET", "/containers/{name}/json?size=1"),
    ("GET", "/containers/json?all=1&size=1"),
    ("GET", "/containers/{name}/top"),
    ("GET", "/containers/{name}/logs?stdout=1"),
    ("GET", "/containers/{name}/stats?stream=0&one-shot=1"),
    ("POST", "/containers/{name}/update"),
    ("POST", "/containers/{name}/rename?name=four"),
    ("POST", "/containers/four/rename?name={name}"),
    ("POST", "/networks/stormy/connect"),
    ("POST", "/networks/stormy/disconnect"),
    ("POST", "/containers/prune"),
    ("GET", "/system/df"),
    ("GET", "/networks/stormy"),
)


def body_of(path: str, name: str, other: str) -> object:
    """What a verb takes."""
    if "/create" in path:
        linked = {**BODY["HostConfig"], "Links": [f"{other}:it"]} if name == "three" else BODY["HostConfig"]
        return {**BODY, "HostConfig": linked}
    if path.endswith("/exec"):
        return {"Cmd": ["true"]}
    if path.endswith("/update"):
        return {"Memory": 64 << 20, "MemorySwap": -1}
    if path.endswith("connect"):
        return {"Container": name, "Force": True}
    return None


def rage(socket_path: str, seed: int, until: float, wrong: list[str], statuses: dict[int, int]) -> None:
    """One client's part."""
    chance = random.Random(seed)
    while time.monotonic() < until:
        method, path = chance.choice(VERBS)
        name, other = chance.sample(NAMES, 2)
        body = body_of(path, name, other)
        what = f"{method} {path.format(name=name)}"
        with contextlib.closing(Unix(socket_path)) as connection:
            raw = None if body is None else json.dumps(body)
            headers = {} if body is None else {"Content-Type": "application/json"}
            try:
                connection.request(method, "/v1.51" + path.format(name=name), raw, headers)
                answer = connection.getresponse()
                text = answer.read()
            except (OSError, ValueError) as e:
                wrong.append(f"{what}: {e!r}")
                continue
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
        right = (b"Cannot link to a non running container", b'"unclassified_argument"')
        if answer.status >= 500 and not any(words in text for words in right):
            wrong.append(f"{what}: {answer.status} {text[:300]!r}")


@pytest.mark.timeout(600)
def test_storm(own_engine):
    own_engine.start()
    own_engine.add_busybox()
    own_engine.client("network", "create", "stormy")
    wrong: list[str] = []
    statuses: dict[int, int] = {}
    until = time.monotonic() + SECONDS
    threads = [
        threading.Thread(target=rage, args=(own_engine.socket, SEED * 100 + n, until, wrong, statuses))
        for n in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS + 30)
        assert not thread.is_alive(), "a request hangs"
    assert not wrong, f"{len(wrong)} of {statuses}:\n" + "\n".join(dict.fromkeys(wrong))
    assert {200, 201, 204, 304, 404, 409} <= set(statuses), statuses
    own_engine.remove_all()
    assert own_engine.client("ps", "-aq").out == ""
    own_engine.client("volume", "rm", "storm")
    # (and the fixture: no process, mount, link, cgroup or table is left)
