"""A builder with settings of its own, as buildx finds it; what the engine's events tell of builds."""

from __future__ import annotations

import json
import os

import pytest

from tests.support.engines import Engine
from tests.support.rawapi import Api

pytestmark = pytest.mark.ketch_only


@pytest.fixture
def context(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM busybox\nLABEL made=here\n")
    return tmp_path


@pytest.fixture(scope="module")
def settled():
    one = Engine("ketch", suffix="s")
    path = os.path.join(one.root, "daemon.json")
    rules = [{"keepStorage": "1GB", "filter": ["unused-for=2h"]}, {"all": True, "reservedSpace": "2GB"}]
    settings = {
        "gc": {"enabled": True, "policy": rules},
        "history": {"maxEntries": 2, "maxAge": "0"},
        "entitlements": {"network-host": False, "security-insecure": False},
    }
    with open(path, "w", encoding="utf-8") as f:
        json.dump({"builder": settings}, f)
    one.extra += ["--config-file", path]
    with one.running():
        yield one


def test_rules_of_the_cache_are_shown(settled):
    shown = settled.docker("buildx", "inspect").out
    first, second = shown.split("GC Policy rule#")[1:]
    assert "Keep Duration:  2h0m0s" in first
    assert "Reserved Space: 1GiB" in first
    assert "All:            true" in second
    assert "Reserved Space: 2GiB" in second


def test_entitlements_that_nobody_can_give(settled, context):
    for words in (["--allow=security.insecure"], ["--network=host", "--allow=network.host"]):
        for client in (["buildx", "build"], None):
            if client is None:
                done = settled.ketch("build", *words, str(context), check=False)
            else:
                done = settled.docker(*client, *words, str(context), check=False, timeout=60)
            assert done.code
            name = words[-1].removeprefix("--allow=")
            assert f"granting entitlement {name} is not allowed by build daemon configuration" in done.err


def test_the_history_has_an_end(settled, context):
    for number in range(4):
        settled.docker("buildx", "build", "-q", f"--build-arg=N={number}", str(context), timeout=60)
    assert len(settled.docker("buildx", "history", "ls").out.splitlines()) == 3


def test_events_of_builds(engine, context):
    """As dockerd's: an image is made, and named; a failed build makes none."""
    api = Api(engine.socket)
    since = json.loads(engine.docker("info", "--format={{json .SystemTime}}").out)
    engine.docker("buildx", "build", "-t", "told:1", "-t", "told:2", str(context), timeout=60)
    image = api.must("GET", "/images/told:1/json")["Id"]
    (context / "Dockerfile").write_text("FROM busybox\nRUN false\n")
    assert engine.docker("buildx", "build", "-t", "told:3", str(context), check=False, timeout=60).code
    until = json.loads(engine.docker("info", "--format={{json .SystemTime}}").out)
    told = engine.docker("events", f"--since={since}", f"--until={until}", "--filter=type=image", "--format={{json .}}")
    rows = [json.loads(line) for line in told.out.splitlines()]
    mine = [(one["Action"], one["Actor"]["Attributes"]["name"]) for one in rows if one["Actor"]["ID"] == image]
    assert mine == [("create", image), ("tag", "told:1"), ("tag", "told:2")]
    assert {one["Actor"]["Attributes"]["made"] for one in rows} == {"here"}
    engine.docker("rmi", "told:1", "told:2")
