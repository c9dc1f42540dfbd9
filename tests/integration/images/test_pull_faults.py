"""Faults of registries: a clear error, nothing half-made, and the next pull resumes."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import threading

import pytest

from tests.support.registries import made_images as made
from tests.support.registries.nasty_registry import Fault, NastyRegistry
from tests.support.registries.registries import certificate
from tests.support.registries.stored import files, parts
from tests.support.waiting import until

pytestmark = pytest.mark.ketch_only
BIG = 6 << 20


@pytest.fixture
def nasty():
    with NastyRegistry() as one:
        yield one


@pytest.fixture
def docker(engine):
    """The real client; afterwards nothing of what was pulled may be left."""
    before = files(engine)
    yield engine.docker
    made.sweep(engine.client)
    engine.client("image", "prune", "-f")
    until(lambda: files(engine) <= before, lambda: f"left: {files(engine) - before}")


def big(compression: str = "none") -> made.Made:
    return made.image({"big": os.urandom(BIG)}, compression=compression)


def refused(docker, ref: str) -> str:
    result = docker("pull", ref, check=False, timeout=60)
    assert result.code == 1, result.out
    assert ref not in docker("images", "--format", "{{.Repository}}:{{.Tag}}").out
    return result.err


# -- what mends itself -------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["reset_at", "cut_at"])
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_break_in_mid_blob_is_mended_from_there(nasty, docker, fault, compression):
    image = big(compression)
    nasty.add("app", "1", image)
    nasty.faults.append(Fault(image.layers[0], times=2, **{fault: 3 << 20}))
    docker("pull", f"{nasty.host}/app:1")
    offsets = [one.offset for one in nasty.asked(image.layers[0])]
    assert len(offsets) == 3 and offsets[0] == 0 and offsets[1] >= 1 << 19 and offsets[2] > offsets[1]


def test_a_registry_that_ignores_ranges(docker):
    with NastyRegistry(ranges=False) as nasty:
        image = big()
        nasty.add("app", "1", image)
        nasty.faults.append(Fault(image.layers[0], times=1, reset_at=3 << 20))
        docker("pull", f"{nasty.host}/app:1")
        assert [one.headers.get("Range", "") != "" for one in nasty.asked(image.layers[0])] == [False, True]


def test_a_registry_whose_token_server_is_another_now(nasty, docker):
    """What it asked for when it was first met does not hold for ever."""
    nasty.add("app", "1", big())
    challenge = {"WWW-Authenticate": 'Bearer realm="http://127.0.0.1:1/token",service="gone",scope="x"'}
    nasty.faults.append(Fault("/v2/", status=401, headers=challenge))
    refused(docker, f"{nasty.host}/app:1")
    nasty.clear_faults()
    docker("pull", f"{nasty.host}/app:1")


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_passing_refusal(nasty, docker, status):
    image = made.image({"a": b"1"})
    nasty.add("app", "1", image)
    for part in ("/manifests/", image.layers[0]):
        nasty.faults.append(Fault(part, times=2, status=status, body=b"later", headers={"Retry-After": "0"}))
    docker("pull", f"{nasty.host}/app:1")
    assert len(nasty.asked("/manifests/")) == 3


def test_tokens_that_expire(docker):
    with NastyRegistry(token=True, uses=1) as nasty:
        nasty.add("app", "1", made.image({"a": b"1"}, {"b": b"2"}))
        docker("pull", f"{nasty.host}/app:1")
        assert len(nasty.asked("/token")) >= 4


def test_a_damaged_part_is_found_out(engine, nasty, docker):
    image = big()
    nasty.add("app", "1", image)
    ingest = os.path.join(engine.data_root, "content/ingest", image.layers[0].removeprefix("sha256:") + ".part")
    with open(ingest, "wb") as f:
        f.write(b"x" * (1 << 20))
    docker("pull", f"{nasty.host}/app:1")
    assert [one.offset for one in nasty.asked(image.layers[0])] == [1 << 20, 0]


def test_a_damaged_part_that_cannot_be_had_again(engine, nasty, docker):
    """Nothing is kept where nothing has come."""
    image = big()
    nasty.add("app", "1", image)
    nasty.faults.append(Fault(image.layers[0], status=404))
    ingest = os.path.join(engine.data_root, "content/ingest", image.layers[0].removeprefix("sha256:") + ".part")
    with open(ingest, "wb") as f:
        f.write(b"x" * len(image.blobs[image.layers[0]]))
    refused(docker, f"{nasty.host}/app:1")
    assert parts(engine) == []


# -- what is an error --------------------------------------------------------------------------


def test_a_registry_that_is_broken(nasty, docker):
    nasty.add("app", "1", made.image({"a": b"1"}))
    nasty.faults.append(Fault("/manifests/", status=500, body=b"", headers={"Retry-After": "0"}))
    assert "500" in refused(docker, f"{nasty.host}/app:1")
    assert len(nasty.asked("/manifests/")) == 5


def test_connection_refused(docker):
    assert "connection refused" in refused(docker, "127.0.0.1:1/app:1")


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_blob_with_another_digest(engine, nasty, docker, compression):
    image = big(compression)
    nasty.add("app", "1", image)
    wrong = bytearray(image.blobs[image.layers[0]])
    wrong[-1000] ^= 1
    nasty.faults.append(Fault(image.layers[0], body=bytes(wrong)))
    said = refused(docker, f"{nasty.host}/app:1")
    assert f"filesystem layer verification failed for digest {image.layers[0]}" in said
    assert parts(engine) == []
    nasty.clear_faults()
    docker("pull", f"{nasty.host}/app:1")


def test_a_blob_that_is_longer_than_promised(engine, nasty, docker):
    image = big()
    nasty.add("app", "1", image)
    nasty.faults.append(Fault(image.layers[0], body=image.blobs[image.layers[0]] + b"x" * 100_000))
    assert "more than" in refused(docker, f"{nasty.host}/app:1")


def test_a_manifest_with_another_digest(nasty, docker):
    image = made.image({"a": b"1"})
    nasty.add("app", "1", image)
    nasty.faults.append(Fault("/manifests/", body=image.data + b" ", headers={"Docker-Content-Digest": image.digest}))
    assert "manifest verification failed" in refused(docker, f"{nasty.host}/app:1")
    result = docker("pull", f"{nasty.host}/app@{image.digest}", check=False)
    assert result.code == 1 and "manifest verification failed" in result.err


def test_a_layer_that_is_not_what_the_configuration_says(nasty, docker):
    one, other = made.image({"a": b"1"}), made.image({"a": b"2"})
    body = json.loads(one.data)
    body["layers"] = json.loads(other.data)["layers"]
    mixed = made.Made(json.dumps(body).encode(), made.MANIFEST, blobs={**one.blobs, **other.blobs})
    nasty.add("app", "1", mixed)
    assert "the image says" in refused(docker, f"{nasty.host}/app:1")


MANIFESTS = {
    "schema 1": (b'{"schemaVersion":1,"name":"x","tag":"y"}', "schema 1 support has been removed"),
    "nonsense": (b"hello", "cannot be read"),
    "an array": (b"[]", "cannot be read"),
    "another kind": (b'{"schemaVersion":2,"mediaType":"application/x"}', "unsupported manifest media type"),
    "an index that says it is a manifest": (
        json.dumps({"schemaVersion": 2, "mediaType": made.MANIFEST, "manifests": []}).encode(),
        "is not what its media",
    ),
    "too large": (b'{"schemaVersion":2,"x":"' + b"x" * (5 << 20) + b'"}', "larger than"),
    "without a configuration": (
        json.dumps({"schemaVersion": 2, "mediaType": made.MANIFEST}).encode(),
        "required field",
    ),
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_invalid_manifests(nasty, docker, kind):
    body, said = MANIFESTS[kind]
    nasty.manifests["app/manifests/1"] = (body, made.MANIFEST)
    assert said in refused(docker, f"{nasty.host}/app:1")


def test_an_artifact(nasty, docker):
    image = made.image({"a": b"1"})
    body = json.loads(image.data)
    body["config"]["mediaType"] = "application/vnd.example.chart"
    nasty.add("app", "1", made.Made(json.dumps(body).encode(), made.MANIFEST, blobs=image.blobs))
    assert "unsupported media type application/vnd.example.chart" in refused(docker, f"{nasty.host}/app:1")


@pytest.mark.parametrize("bad", [b"not a tar" * 200, gzip.compress(b"x" * 100_000)[:-200], b"\x1f\x8b" + b"\0" * 100])
def test_a_layer_that_cannot_be_unpacked(nasty, docker, bad):
    image = made.image({"a": b"1"})
    body = json.loads(image.data)
    body["layers"] = [{"mediaType": made.LAYERS["gzip"], "digest": made.digest(bad), "size": len(bad)}]
    nasty.add(
        "app", "1", made.Made(json.dumps(body).encode(), made.MANIFEST, blobs={**image.blobs, made.digest(bad): bad})
    )
    assert refused(docker, f"{nasty.host}/app:1")


def test_redirects(nasty, docker):
    """To another host without our credentials; and round and round not for ever."""
    image = made.image({"a": b"1"})
    with NastyRegistry(token=True) as first:
        first.add("app", "1", image)
        nasty.add("app", "1", image)
        place = f"http://localhost:{nasty.host.rpartition(':')[2]}/v2/app/blobs/{image.layers[0]}"
        first.faults.append(Fault(image.layers[0], status=307, headers={"Location": place}))
        docker("pull", f"{first.host}/app:1")
        assert "Authorization" in first.asked(image.layers[0])[0].headers
        assert "Authorization" not in nasty.asked(image.layers[0])[0].headers
    docker("rmi", f"{first.host}/app:1")
    nasty.faults.append(Fault("/manifests/", status=302, headers={"Location": "/v2/app/manifests/1"}))
    assert "redirects" in refused(docker, f"{nasty.host}/app:1")


def test_a_redirect_from_tls_to_plain_text(nasty, docker, tmp_path):
    image = made.image({"a": b"1"})
    nasty.add("app", "1", image)
    with NastyRegistry(tls=certificate(str(tmp_path))) as first:
        first.add("app", "1", image)
        docker("pull", f"{first.host}/app:1")
        docker("rmi", f"{first.host}/app:1")
        place = f"http://{nasty.host}/v2/app/blobs/{image.layers[0]}"
        first.faults.append(Fault(image.layers[0], status=307, headers={"Location": place}))
        assert "which is not encrypted" in refused(docker, f"{first.host}/app:1")
        assert nasty.requests == []


def test_an_image_of_too_many_layers(nasty, docker):
    nasty.add("app", "1", made.image(*({f"f{n}": b"x"} for n in range(129))))
    assert "max depth exceeded" in refused(docker, f"{nasty.host}/app:1")
    assert len(nasty.asked("/blobs/")) == 1  # the configuration alone


# -- several, and those that go away -----------------------------------------------------------


def test_two_pulls_share_one_download(engine, nasty, docker):
    image = big()
    for name in ("one", "two"):
        nasty.add(name, "1", image)
    nasty.rate = 4 << 20
    pulling = [docker.piped("pull", f"{nasty.host}/{name}:1") for name in ("one", "two")]
    for one in pulling:
        assert one.wait() == 0
    assert len(nasty.asked(image.layers[0])) == 1
    nasty.rate = 0
    assert docker("images", "-q", "--no-trunc", f"{nasty.host}/two").out.strip() == image.image_id


def test_a_client_that_goes_away_ends_its_pull_and_no_other(engine, nasty, docker):
    image = big()
    for name in ("one", "two"):
        nasty.add(name, "1", image)
    nasty.rate = 3 << 20
    first = docker.piped("pull", f"{nasty.host}/one:1")
    until(lambda: parts(engine) and parts(engine)[0] > 0, "the download does not begin")
    second = docker.piped("pull", f"{nasty.host}/two:1")
    until(lambda: len(nasty.asked("two/manifests")) > 0, "the second does not begin")
    os.kill(first.pid, signal.SIGKILL)
    assert second.wait() == 0
    # Whether it had joined the download by then or came just after its end: no byte is fetched twice.
    assert [one.offset > 0 for one in nasty.asked(image.layers[0])] in ([False], [False, True])
    assert f"{nasty.host}/one" not in docker("images", "--format", "{{.Repository}}").out


def test_a_pull_that_was_given_up_goes_on(engine, nasty, docker):
    image = big()
    nasty.add("app", "1", image)
    nasty.faults.append(Fault(image.layers[0], stall_at=3 << 20))
    pulling = docker.piped("pull", f"{nasty.host}/app:1")
    until(lambda: parts(engine) and parts(engine)[0] >= 2 << 20, "the download does not begin")
    os.kill(pulling.pid, signal.SIGKILL)
    pulling.wait()
    until(lambda: nasty.given_up, "the daemon goes on for a client that is gone")
    nasty.clear_faults()
    docker("pull", f"{nasty.host}/app:1")
    assert [one.offset > 0 for one in nasty.asked(image.layers[0])] == [False, True]


def test_image_prune_takes_broken_off_downloads_along(engine, nasty, docker):
    image = big()
    nasty.add("app", "1", image)
    nasty.faults.append(Fault(image.layers[0], times=1, cut_at=3 << 20))
    nasty.faults.append(Fault(image.layers[0], status=404))
    refused(docker, f"{nasty.host}/app:1")
    assert parts(engine) != []
    docker("image", "prune", "-f")
    assert parts(engine) == []


def test_a_registry_that_stalls(own_engine, nasty):
    own_engine.extra = ["--registry-stall-timeout", "1", "--max-download-attempts", "2"]
    own_engine.start()
    image = big()
    nasty.add("app", "1", image)
    nasty.faults.append(Fault(image.layers[0], times=1, stall_at=3 << 20))
    own_engine.docker("pull", f"{nasty.host}/app:1")
    own_engine.docker("rmi", f"{nasty.host}/app:1")
    nasty.faults.append(Fault("/manifests/", stall_at=10))
    result = own_engine.docker("pull", f"{nasty.host}/app:1", check=False)
    assert result.code == 1 and "timeout" in result.err


def test_a_full_disk(own_engine, nasty):
    """The data root on a small file system: an error that says so, and with more room the pull goes on."""
    os.makedirs(own_engine.data_root)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", own_engine.data_root], check=True)
    try:
        own_engine.start()
        image = made.image({"big": os.urandom(12 << 20)}, compression="none")
        nasty.add("app", "1", image)
        result = own_engine.docker("pull", f"{nasty.host}/app:1", check=False)
        assert result.code == 1 and "no space left on device" in result.err
        assert own_engine.docker("images", "-aq").out == ""
        subprocess.run(["mount", "-o", "remount,size=200m", own_engine.data_root], check=True)
        own_engine.docker("pull", f"{nasty.host}/app:1")
        assert nasty.asked(image.layers[0])[-1].offset > 1 << 20
        own_engine.docker("rmi", f"{nasty.host}/app:1")
        own_engine.stop()
    finally:
        if own_engine.process is not None:
            own_engine.stop()
        subprocess.run(["umount", own_engine.data_root], check=True)


def test_a_foreign_layer_comes_from_its_own_place(nasty, docker):
    image = made.image({"a": b"1"})
    with NastyRegistry() as elsewhere:
        elsewhere.add("files", "1", image)
        body = json.loads(image.data)
        body["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        body["layers"][0]["urls"] = [f"http://{elsewhere.host}/v2/files/blobs/{image.layers[0]}"]
        config = {d: b for d, b in image.blobs.items() if d not in image.layers}
        nasty.add("app", "1", made.Made(json.dumps(body).encode(), made.MANIFEST, blobs=config))
        docker("pull", f"{nasty.host}/app:1")
        assert len(elsewhere.asked(image.layers[0])) == 1


def test_the_same_layer_twice(nasty, docker):
    nasty.add("app", "1", made.image({"a": b"1"}, {"a": b"1"}, {"b": b"2"}))
    docker("pull", f"{nasty.host}/app:1")
    threads = [threading.Thread(target=docker, args=("pull", f"{nasty.host}/app:1")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_mirror_of_docker_hub(own_engine, nasty):
    """It is asked first and told no credentials; what it has not is looked for at the Hub, out of reach here."""
    own_engine.extra = ["--registry-mirror", f"http://{nasty.host}"]
    own_engine.start()
    image = made.image({"a": b"1"})
    nasty.add("library/app", "1", image)
    config = {"auths": {"https://index.docker.io/v1/": {"auth": "YW5uOnNlY3JldA=="}}}
    with open(os.path.join(own_engine.root, "config.json"), "w", encoding="utf-8") as f:
        json.dump(config, f)
    own_engine.docker("pull", "app:1")
    assert own_engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}").out == "app:1\n"
    nasty.add("library/app", "2", image)
    assert "2: Pulling from library/app" in own_engine.docker("pull", "-a", "app").out
    assert nasty.requests and not any("Authorization" in one.headers for one in nasty.requests)
    result = own_engine.docker("pull", "none:1", check=False)
    assert result.code == 1 and "registry-1.docker.io" in result.err
