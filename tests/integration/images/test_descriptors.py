"""Descriptors whose size is not the blob's: refused by load and pull, wherever they stand, and nothing is left."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import tarfile

import pytest

from tests.support.registries import made_images as made
from tests.support.registries.nasty_registry import NastyRegistry
from tests.support.registries.stored import files
from tests.support.waiting import until

pytestmark = pytest.mark.ketch_only
WRONG = {
    "larger": lambda size: size + 1,
    "smaller": lambda size: size - 1,
    "nothing": lambda _: 0,
    "negative": lambda _: -1,
    "huge": lambda _: 1 << 62,
    "beyond": lambda _: 1 << 64,
}
PLACES = ("config", "layer", "manifest", "index")


@pytest.fixture
def clean(engine):
    """The engine; afterwards nothing may be left of what was refused."""
    before = files(engine)
    yield engine
    engine.client("image", "prune", "-f")
    until(lambda: files(engine) <= before, lambda: f"left: {files(engine) - before}")


def image(place: str, wrong: str, compression: str = "gzip") -> made.Made:
    """An index in an index, one of whose descriptors says another size."""
    change = WRONG[wrong]

    def spoilt(descriptor: dict, kind: str) -> dict:
        return {**descriptor, "size": change(descriptor["size"])} if kind == place else descriptor

    good = made.image({"a": b"some file"}, {"big": bytes(3 << 20)}, compression=compression)
    manifest = json.loads(good.data)
    manifest["config"] = spoilt(manifest["config"], "config")
    manifest["layers"][1] = spoilt(manifest["layers"][1], "layer")
    one = made.Made(json.dumps(manifest).encode(), made.MANIFEST, good.platform, good.blobs)
    inner = {"schemaVersion": 2, "mediaType": made.INDEX, "manifests": [spoilt(one.descriptor(), "manifest")]}
    nested = made.Made(json.dumps(inner).encode(), made.INDEX, good.platform, manifests=[one])
    outer = {"schemaVersion": 2, "mediaType": made.INDEX, "manifests": [spoilt(nested.descriptor(), "index")]}
    return made.Made(json.dumps(outer).encode(), made.INDEX, manifests=[nested])


def layout(one: made.Made, top: dict) -> bytes:
    """An image-layout with these blobs, whose ``index.json`` has one descriptor."""
    found: dict[str, bytes] = {}

    def take(part: made.Made) -> None:
        found[part.digest] = part.data
        found.update(part.blobs)
        for child in part.manifests:
            take(child)

    take(one)
    entries = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    entries["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [top]}).encode()
    entries |= {f"blobs/sha256/{name[7:]}": data for name, data in found.items()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in entries.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


NAMED = {"annotations": {"io.containerd.image.name": "127.0.0.1:1/spoilt:1"}}


def check_refused(result, wrong: str) -> None:
    assert result.code == 1, result.out
    text = result.err + result.out
    expected = "its descriptor says" if wrong not in ("negative", "beyond") else "size"
    assert expected in text, text
    assert "internal error" not in text


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("place", [*PLACES, "index.json"])
def test_load(clean, place, wrong):
    one = image(place, wrong)
    top = {**one.descriptor(), **NAMED}
    if place == "index.json":
        top["size"] = WRONG[wrong](top["size"])
    result = clean.docker("load", stdin=layout(one, top), check=False)
    check_refused(result, wrong)
    assert "spoilt" not in clean.docker("images").out


def test_load_of_an_archive_that_has_both_ways(clean):
    """``docker save`` of today: ``manifest.json`` leads to the blobs, the layout beside it says their sizes."""
    good = made.image({"a": b"some file"})
    manifest = json.loads(good.data)
    for name in "config", "layers":
        spoilt = copy.deepcopy(manifest)
        (spoilt[name] if name == "config" else spoilt[name][0])["size"] += 1
        one = made.Made(json.dumps(spoilt).encode(), made.MANIFEST, good.platform, good.blobs)
        archive = layout(one, one.descriptor())
        entry = {
            "Config": f"blobs/sha256/{good.image_id[7:]}",
            "RepoTags": ["127.0.0.1:1/spoilt:1"],
            "Layers": [f"blobs/sha256/{layer[7:]}" for layer in good.layers],
        }
        data = json.dumps([entry]).encode()
        buffer = io.BytesIO(archive)
        with tarfile.open(fileobj=buffer, mode="a") as added:
            member = tarfile.TarInfo("manifest.json")
            member.size = len(data)
            added.addfile(member, io.BytesIO(data))
        check_refused(clean.docker("load", stdin=buffer.getvalue(), check=False), "larger")


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("place", PLACES)
def test_pull(clean, place, wrong):
    with NastyRegistry() as registry:
        registry.add("spoilt", "1", image(place, wrong, "none"))
        result = clean.docker("pull", f"{registry.host}/spoilt:1", check=False, timeout=60)
        assert result.code == 1, result.out
        text = result.err + result.out
        assert "internal error" not in text
        assert "spoilt" not in clean.docker("images").out
        expected = ("its descriptor says", "more than the", "size", "larger than", "verification failed")
        assert any(words in text for words in expected), text


def test_pull_of_what_is_here_already(clean):
    """A layer that another image has brought is not taken for one of another size."""
    with NastyRegistry() as registry:
        good = made.image({"a": b"some file"}, {"big": bytes(3 << 20)}, compression="none")
        registry.add("good", "1", good)
        clean.docker("pull", f"{registry.host}/good:1")
        for place in "layer", "config":
            registry.add("spoilt", "1", image(place, "larger", "none"))
            result = clean.docker("pull", f"{registry.host}/spoilt:1", check=False, timeout=60)
            check_refused(result, "larger")
        clean.docker("rmi", f"{registry.host}/good:1")


@pytest.mark.parametrize("place", ["layers", "config"])
def test_pull_of_what_is_named_by_sha512(clean, place):
    good = made.image({"a": b"some file"})
    manifest = json.loads(good.data)
    part = manifest[place] if place == "config" else manifest[place][0]
    part["digest"] = "sha512:" + hashlib.sha512(good.blobs[part["digest"]]).hexdigest()
    with NastyRegistry() as registry:
        registry.add("other", "1", made.Made(json.dumps(manifest).encode(), made.MANIFEST, good.platform, good.blobs))
        result = clean.docker("pull", f"{registry.host}/other:1", check=False, timeout=60)
    assert result.code == 1 and "named by sha512 are not supported" in result.err + result.out, result
    assert "other" not in clean.docker("images").out
