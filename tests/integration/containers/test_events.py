"""Events: type, action, id, attributes and order, the same from both engines."""

from __future__ import annotations

import json
import time

import pytest

from tests.support.rawapi import Api

# Commands, and the events of each: ``TYPE ACTION ID`` with the attributes beside the container's own.  IMAGE is an id.
TABLE = (
    ("tag busybox other", ["image tag IMAGE name=other:latest"]),
    ("create --name one -l a=b busybox sleep 1000", ["container create"]),
    ("start one", ["network connect name=bridge type=bridge", "container start"]),
    (
        "exec one sleep 0",
        ["container exec_create: sleep 0", "container exec_start: sleep 0", "container exec_die exitCode=0"],
    ),
    ("exec -d one nope", ["container exec_create: nope ", "container exec_start: nope "]),
    ("top one", ["container top"]),
    ("pause one", ["container pause"]),
    ("unpause one", ["container unpause"]),
    ("rename one two", ["container rename oldName=/one"]),
    (
        "commit two made:1",
        [
            "container pause",
            "image create IMAGE a=b name=IMAGE",
            "image tag IMAGE a=b name=made:1",
            "container commit comment= imageID=IMAGE imageRef=made:1",
            "container unpause",
        ],
    ),
    (
        "rm -f two",
        [
            "container kill signal=9",
            "network disconnect name=bridge type=bridge",
            "container die exitCode=137",
            "container destroy",
        ],
    ),
    ("save -o {tmp}/saved made:1", ["image save IMAGE a=b name=IMAGE"]),
    ("rmi made:1", ["image untag IMAGE a=b name=IMAGE", "image delete IMAGE name=IMAGE"]),
    ("load -i {tmp}/saved", ["image load IMAGE a=b name=IMAGE"]),
    ("import {tmp}/saved raw:1", ["image tag IMAGE name=raw:1", "image import IMAGE name=IMAGE"]),
    ("rmi raw:1", ["image untag IMAGE name=IMAGE", "image delete IMAGE name=IMAGE"]),
    ("rmi other", ["image untag IMAGE name=IMAGE"]),
    (
        "run --name none --network none busybox true",
        [
            "container create",
            "container attach",
            "network connect name=none type=null",
            "container start",
            "network disconnect name=none type=null",
            "container die exitCode=0",
        ],
    ),
    ("run -dt --name tty --network host busybox sleep 1000", None),
    ("network prune -f", ["network prune reclaimed=0"]),
    ("events --until 1 -f nonsense=1", []),
)


def test_the_stream_is_dockers(engine, tmp_path):
    api = Api(engine.socket)
    api.must("POST", "/networks/prune")
    last = time.time()
    wrong = []
    for command, expected in TABLE:
        since = last
        engine.docker(*command.format(tmp=tmp_path).split(), check=False)
        found, last = _events(api, since, len(expected or ()))
        if expected is not None and found != expected:
            wrong.append(f"{command}\n    wanted {expected}\n    found  {found}")
    api.must("POST", "/containers/tty/resize?h=11&w=22")
    found, last = _events(api, last, 1)
    assert wrong == [] and found == ["container resize height=11 width=22"], "\n".join(wrong)
    body = {"Image": "busybox", "HostConfig": {"NetworkMode": "host", "Dns": ["nonsense"]}}
    ident = api.must("POST", "/containers/create", body)["Id"]
    assert api("POST", f"/containers/{ident}/start")[0] == 500
    assert _events(api, last, 1)[0] == ["container create"]  # it had not come to the network
    engine.client("rmi", "made:1")
    api.must("POST", "/containers/prune")
    api.must("POST", "/build/prune")
    _, raw = api("GET", f"/events?since={last:.9f}&until={time.time():.9f}")
    prunes = [event for event in map(json.loads, raw.splitlines()) if event["Action"] == "prune"]
    assert [(event["Type"], "id" in event, "from" in event) for event in prunes] == [
        ("container", False, False),
        ("builder", False, False),
    ]


def _events(api: Api, since: float, least: int) -> tuple[list[str], float]:
    """The events from then on, once there are so many; and the time behind them."""
    for _ in range(100):
        until = time.time()
        _, raw = api("GET", f"/events?since={since:.9f}&until={until:.9f}")
        lines = (json.dumps(raw).encode() if isinstance(raw, dict) else raw or b"").splitlines()
        if len(lines) >= least:
            break
        time.sleep(0.05)
    return [_shown(json.loads(line)) for line in lines if line.strip()], until


def _shown(event) -> str:
    attributes = dict(event["Actor"]["Attributes"])
    ident, kind = event["Actor"]["ID"], event["Type"]
    assert event["scope"] == "local" and event["timeNano"] // 10**9 == event["time"]
    own = {"execID", "execDuration", "container"} | ({"image", "name", "a"} if kind == "container" else set())
    words = [f"{k}={v}" for k, v in sorted(attributes.items()) if k not in own]
    if kind == "image":
        assert event["id"] == ident and event["status"] == event["Action"]
        words.insert(0, ident)
    text = " ".join([kind, event["Action"], *words])
    image = next((word for word in text.replace("=", " ").split() if word.startswith("sha256:")), "")
    return text.replace(image, "IMAGE") if image else text


@pytest.mark.ketch_only
def test_filters_of_events(engine):
    """Times may be in any form that the clients know."""
    api = Api(engine.socket)
    engine.client("volume", "create", "seen")
    api.must("DELETE", "/volumes/seen")
    for since in ("1h", "1", "2020-01-02T03:04:05Z", "2020-01-02"):
        _, raw = api("GET", "/events", since=since, until=f"{time.time():.9f}", filters='{"volume": ["seen"]}')
        actions = [json.loads(line)["Action"] for line in raw.splitlines()]
        assert actions[-2:] == ["create", "destroy"]
