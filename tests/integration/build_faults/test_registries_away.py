"""Registries that are not there, or leave in the middle: for FROM, for caches, for a push."""

from __future__ import annotations

import json
import os

import pytest

from tests.support.building.remains import until_nothing_is_half_made
from tests.support.rawapi import Api
from tests.support.registries.made_images import busybox
from tests.support.registries.nasty_registry import Fault, NastyRegistry
from tests.support.registries.registries import ours

pytestmark = [pytest.mark.ketch_only, pytest.mark.usefixtures("no_images_left")]

AWAY = "127.0.0.1:1"


@pytest.fixture
def context(engine, tmp_path):
    yield tmp_path
    Api(engine.socket).must("POST", "/build/prune", all=1)
    until_nothing_is_half_made(engine)


@pytest.mark.parametrize("client", ["ketch", "docker"])
def test_in_from(engine, context, client):
    """The error names image and registry, and stages that are not needed need no registry."""
    (context / "Dockerfile").write_text(f"FROM {AWAY}/none:1 AS away\nRUN true\nFROM busybox AS here\nRUN true\n")
    build = getattr(engine, client)
    failed = build("build", "--target=away", str(context), check=False, DOCKER_BUILDKIT="0")
    assert failed.code == 1
    assert AWAY in failed.err and "refused" in failed.err, failed.err
    build("build", "--target=here", str(context), DOCKER_BUILDKIT="0")


def test_in_the_middle_of_from(engine, context):
    """A layer that the registry has lost is an error; what came of the image is used when all of it is here."""
    before = Api(engine.socket).must("GET", "/images/json", all=1)
    with NastyRegistry(ranges=False) as registry:
        registry.add("base", "1", busybox({"x": os.urandom(300_000)}, compression="none"))
        (context / "Dockerfile").write_text(f"FROM {registry.host}/base:1\nRUN echo built >/y\n")
        lost = json.loads(registry.manifests["base/manifests/1"][0])["layers"][-1]["digest"]
        registry.faults.append(Fault(path=f"/blobs/{lost}", status=404))
        failed = engine.ketch("build", str(context), check=False, timeout=60)
        assert failed.code == 1 and f"{registry.host}/base: blob unknown" in failed.err, failed.err
        assert Api(engine.socket).must("GET", "/images/json", all=1) == before
        registry.clear_faults()
        engine.ketch("build", "-t", "away/built", str(context))
        assert engine.ketch("run", "--rm", "away/built", "sh", "-c", "wc -c </x; cat /y").out == "300000\nbuilt\n"
        engine.ketch("rmi", "away/built")


def test_in_a_push(engine, context):
    """What was built is here, is told to be not there, and the next push sends it without building."""
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo built >/y\n")
    failed = engine.ketch("build", "-t", f"{AWAY}/built:1", "--push", str(context), check=False)
    assert failed.code == 1 and AWAY in failed.err, failed.err
    with ours() as registry:
        name = f"{registry.host}/built:1"
        done = engine.ketch("build", "--progress=plain", "-t", name, "--push", str(context))
        assert "CACHED" in done.err and registry.repositories() == ["built"]
        engine.ketch("rmi", name)
    engine.ketch("rmi", f"{AWAY}/built:1", check=False)


def test_in_caches(engine, context):
    """One that cannot be read is told; one that cannot be written is an error, after the image was made."""
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo built >/y\n")
    words = ["build", "--progress=plain", "-t", "away/cached"]
    done = engine.ketch(*words, "--cache-from", f"type=registry,ref={AWAY}/cache", str(context))
    assert "cannot be read" in done.err and AWAY in done.err
    engine.ketch("rmi", "away/cached")
    failed = engine.ketch(*words, "--cache-to", f"type=registry,ref={AWAY}/cache", str(context), check=False)
    assert failed.code == 1 and AWAY in failed.err
    engine.ketch("rmi", "away/cached")
