"""``ketch manifest``: an index of images that are in a registry already."""

from __future__ import annotations

import json

import pytest

from tests.support.registries import made_images as made
from tests.support.registries.registries import ours, registry

pytestmark = pytest.mark.ketch_only


@pytest.fixture(scope="module", params=["docker-registry", "ketch"])
def host(request):
    with registry() if request.param == "docker-registry" else ours() as one:
        yield one.host


def test_an_index_of_two_images(engine, host):
    ketch = engine.ketch
    amd, arm = made.busybox({"a": b"1"}), made.image({"a": b"2"}, arch="arm64", variant="v8")
    made.put(host, "parts/amd", amd, "1")
    made.put(host, "parts/arm", arm, "1")
    name = f"{host}/whole/app:1"
    ketch("manifest", "create", name, f"{host}/parts/amd:1")
    again = ketch("manifest", "create", name, f"{host}/parts/arm:1", check=False)
    assert again.code == 1 and "is there already" in again.err
    ketch("manifest", "create", "--amend", name, f"{host}/parts/arm:1")
    ketch("manifest", "annotate", "--os-version", "7", "--os-features", "sse4", name, f"{host}/parts/arm:1")
    shown = json.loads(ketch("manifest", "inspect", name).out)
    assert [m["platform"] for m in shown["manifests"]] == [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm64", "os": "linux", "variant": "v8", "os.version": "7", "os.features": ["sse4"]},
    ]
    digest = ketch("manifest", "push", "--purge", name).out.strip()
    assert made.digest(made.got(host, "whole/app", "1")) == digest
    assert json.loads(ketch("manifest", "inspect", name).out) == shown
    assert json.loads(ketch("manifest", "inspect", "-v", name).out)["Descriptor"]["digest"] == digest
    engine.docker("pull", "-q", name)
    assert json.loads(engine.docker("image", "inspect", name).out)[0]["Id"] == amd.image_id
    made.sweep(engine.client)
    assert "No such manifest" in ketch("manifest", "rm", name, check=False).err


def test_invalid_requests(engine, host):
    ketch = engine.ketch
    both = made.index(made.image({"a": b"1"}))
    made.put(host, "parts/both", both, "1")
    assert "is an index itself" in ketch("manifest", "create", f"{host}/x:1", f"{host}/parts/both:1", check=False).err
    assert "manifest unknown" in ketch("manifest", "create", f"{host}/x:1", f"{host}/parts/none:1", check=False).err
    ketch("manifest", "create", "elsewhere.example/x:1", f"{host}/parts/both@{both.manifests[0].digest}")
    refused = ketch("manifest", "push", "elsewhere.example/x:1", check=False)
    assert refused.code == 1 and "another registry" in refused.err
    ketch("manifest", "rm", "elsewhere.example/x:1")
