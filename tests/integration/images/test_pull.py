"""Pull and push through the API and both clients, from and to a real registry."""

from __future__ import annotations

import contextlib
import json
import os
import signal

import pytest

from tests.support.rawapi import Api
from tests.support.registries import made_images as made
from tests.support.registries.nasty_registry import Fault, NastyRegistry
from tests.support.registries.registries import ours, registry
from tests.support.waiting import until


@pytest.fixture(scope="module", params=["docker-registry", "ketch"])
def host(request):
    """A registry on loopback, of both makes."""
    with registry() if request.param == "docker-registry" else ours() as one:
        yield one.host


@pytest.fixture(autouse=True)
def _images_away(request):
    """Each test begins and ends without images but the shared ones."""
    yield
    if "engine" in request.fixturenames:
        made.sweep(request.getfixturevalue("engine").client)


def inspect(client, ref: str) -> dict:
    return json.loads(client("image", "inspect", ref).out)[0]


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_pull_and_run(client, host, compression):
    image = made.busybox({"etc/said": b"hello\n"}, compression=compression)
    made.put(host, f"run/{compression}", image, "1")
    ref = f"{host}/run/{compression}:1"
    out = client("pull", ref).out
    assert f"Digest: {image.digest}" in out and f"Status: Downloaded newer image for {ref}" in out
    assert client("run", "--rm", ref, "/bin/cat", "/etc/said").out == "hello\n"
    facts = inspect(client, ref)
    assert facts["Id"] == image.image_id
    assert facts["RepoTags"] == [ref] and facts["RepoDigests"] == [f"{host}/run/{compression}@{image.digest}"]
    assert f"Status: Image is up to date for {ref}" in client("pull", ref).out


def test_by_digest_there_is_no_tag(client, host):
    image = made.image({"a": b"1"}, docker=True)
    made.put(host, "by/digest", image, "1")
    ref = f"{host}/by/digest@{image.digest}"
    client("pull", ref)
    facts = inspect(client, ref)
    assert facts["RepoTags"] == [] and facts["RepoDigests"] == [ref]
    assert client("images", "--format", "{{.Repository}} {{.Tag}}").out.count(f"{host}/by/digest <none>") == 1
    assert f"Untagged: {ref}" in client("rmi", ref).out


def test_the_platform_that_runs_here_is_taken(client, host):
    ours, theirs = made.image({"a": b"amd64"}), made.image({"a": b"arm64"}, arch="arm64")
    both = made.index(theirs, ours)
    made.put(host, "multi", both, "1")
    ref = f"{host}/multi:1"
    client("pull", ref)
    facts = inspect(client, ref)
    assert facts["Id"] == ours.image_id and facts["RepoDigests"] == [f"{host}/multi@{both.digest}"]


@pytest.mark.ketch_only
def test_several_platforms_of_one_name(client, host):
    ours, theirs = made.image({"a": b"amd64"}), made.image({"a": b"arm64"}, arch="arm64", variant="v8")
    both = made.index(theirs, ours)
    made.put(host, "multi", both, "2")
    ref = f"{host}/multi:2"
    client("pull", ref)
    client("pull", "--platform", "linux/arm64", ref)
    assert inspect(client, ref)["Id"] == ours.image_id
    assert client("images", "-q", "--no-trunc", f"{host}/multi").out.split() == [ours.image_id]
    rows = Api(client.engine.socket)("GET", "/images/json", manifests=1)[1]
    row = next(row for row in rows if row["Id"] == ours.image_id)
    assert row["Descriptor"]["digest"] == both.digest
    assert [(m["ImageData"]["Platform"]["architecture"], m["Available"]) for m in row["Manifests"]] == [
        ("arm64", True),
        ("amd64", True),
    ]
    refused = client("create", "--platform", "linux/s390x", "--pull", "never", ref, check=False)
    assert refused.code and "does not match the specified platform" in refused.err
    out = client("rmi", ref).out
    assert {f"Deleted: {ours.image_id}", f"Deleted: {theirs.image_id}"} <= set(out.splitlines())


def test_a_platform_that_is_not_there(client, host):
    made.put(host, "arm", made.index(made.image({"a": b"1"}, arch="arm64")), "1")
    result = client("pull", f"{host}/arm:1", check=False)
    assert result.code == 1 and "no matching manifest for linux/amd64" in result.err


def test_all_tags(client, host):
    for tag in ("1", "2"):
        made.put(host, "tags", made.image({"a": tag.encode()}), tag)
    client("pull", "-a", f"{host}/tags")
    assert sorted(client("images", "--format", "{{.Tag}}", f"{host}/tags").out.split()) == ["1", "2"]


def test_a_newer_one_leaves_the_old_without_a_tag(client, host):
    old, new = made.image({"a": b"old"}), made.image({"a": b"new"})
    ref = f"{host}/moves:1"
    made.put(host, "moves", old, "1")
    client("pull", ref)
    made.put(host, "moves", new, "1")
    assert "Downloaded newer image" in client("pull", ref).out
    assert inspect(client, ref)["Id"] == new.image_id
    facts = inspect(client, old.image_id)
    assert facts["RepoTags"] == [] and facts["RepoDigests"] == [f"{host}/moves@{old.digest}"]
    assert f"Deleted: {old.image_id}" in client("image", "prune", "-f").out.replace("deleted", "Deleted")


def test_missing_images(client, host):
    result = client("pull", f"{host}/nothing:1", check=False)
    assert result.code == 1 and "manifest unknown" in result.err
    made.put(host, "some", made.image({"a": b"1"}), "1")
    result = client("pull", f"{host}/some:2", check=False)
    assert result.code == 1 and f"manifest for {host}/some:2 not found" in result.err


def test_run_pulls_what_is_not_here(client, host):
    made.put(host, "absent", made.busybox(cmd=["/bin/sh", "-c", "echo ran"]), "latest")
    result = client("run", "--rm", f"{host}/absent")
    assert result.out == "ran\n"
    assert f"Unable to find image '{host}/absent:latest' locally" in result.err and "Digest: sha256:" in result.err


@pytest.mark.ketch_only  # dockerd writes a manifest of its own
def test_push_gives_back_the_same_bytes(client, host):
    image = made.image({"a": b"1"}, {"b": b"2"}, docker=True)
    made.put(host, "from/here", image, "1")
    client("pull", f"{host}/from/here:1")
    client("tag", f"{host}/from/here:1", f"{host}/to/there:2")
    out = client("push", f"{host}/to/there:2").out
    assert f"2: digest: {image.digest} size: {len(image.data)}" in out
    assert made.got(host, "to/there", "2") == image.data


@pytest.mark.ketch_only
def test_push_of_an_index_with_all_its_platforms(client, host):
    both = made.index(made.image({"a": b"x"}, arch="arm64"), made.image({"a": b"y"}))
    made.put(host, "whole", both, "1")
    ref = f"{host}/whole:1"
    client("pull", ref)
    client("pull", "--platform", "linux/arm64", ref)
    client("tag", ref, f"{host}/copy:1")
    assert f"1: digest: {both.digest}" in client("push", f"{host}/copy:1").out
    assert made.got(host, "copy", "1") == both.data


def test_push_of_an_image_made_here(client, host):
    ref = f"{host}/made/here:1"
    client("tag", "busybox", ref)
    out = client("push", ref).out
    assert "1: digest: sha256:" in out
    manifest = json.loads(made.got(host, "made/here", "1"))
    assert manifest["config"]["digest"] == inspect(client, ref)["Id"]
    assert all(layer["mediaType"].endswith("gzip") for layer in manifest["layers"])
    client("rmi", ref)
    client("pull", ref)
    assert client("push", ref).out.count("Layer already exists") == len(manifest["layers"])


def test_push_of_a_commit(client, host):
    """It goes compressed, once, and comes back as the same layers."""
    ref, other = f"{host}/committed:1", f"{host}/committed/too:2"
    name = client("run", "-d", "busybox", "sh", "-c", "echo kept >/a; rm /bin/vi; rm -r /tmp; mkdir /tmp").out.strip()
    client("wait", name)
    client("commit", name, ref)
    client("tag", ref, other)
    layers = inspect(client, ref)["RootFS"]["Layers"]
    client("push", ref)
    again = client("push", other).out
    assert again.count("Layer already exists") + again.count("Mounted from committed") == len(layers)
    pushed = [json.loads(made.got(host, *place))["layers"] for place in (("committed", "1"), ("committed/too", "2"))]
    assert pushed[0] == pushed[1]
    assert all(layer["mediaType"].endswith("gzip") for layer in pushed[0])
    client("rm", name)
    client("rmi", ref, other)
    client("pull", ref)
    assert inspect(client, ref)["RootFS"]["Layers"] == layers
    assert client("run", "--rm", ref, "sh", "-c", "cat /a; test -e /bin/vi || ls /tmp").out == "kept\n"


def test_push_of_what_is_not_here(client, host):
    result = client("push", f"{host}/never:1", check=False)
    assert result.code == 1 and "does not exist" in result.err


def _largest(directory: str) -> int:
    """Bytes of the largest file, also while files come and go."""
    sizes = [0]
    for name in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):
            sizes.append(os.stat(os.path.join(directory, name)).st_size)
    return max(sizes)


@pytest.mark.ketch_only
def test_a_daemon_killed_in_mid_pull_goes_on_where_it_was(own_engine, host):
    """moby's users start again from zero."""
    layer = {"big": os.urandom(8 << 20)}
    image = made.image(layer, compression="none")
    with NastyRegistry() as nasty:
        nasty.add("big", "1", image)
        nasty.faults.append(Fault(image.layers[0], stall_at=5 << 20))
        own_engine.start()
        pulling = own_engine.docker.piped("pull", f"{nasty.host}/big:1")
        ingest = os.path.join(own_engine.data_root, "content", "ingest")
        until(lambda: _largest(ingest) >= 4 << 20, "the download does not begin")
        os.kill(own_engine.process.pid, signal.SIGKILL)
        own_engine.process.wait()
        pulling.wait()
        nasty.clear_faults()
        own_engine.start()
        own_engine.docker("pull", f"{nasty.host}/big:1")
        offsets = [r.offset for r in nasty.requests if r.path.endswith(image.layers[0])]
        assert offsets[0] == 0 and offsets[-1] >= 4 << 20
    assert inspect(own_engine.docker, image.image_id)["Id"] == image.image_id
