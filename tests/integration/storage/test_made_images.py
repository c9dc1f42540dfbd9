"""Images of layers that are made here: recorded, saved, loaded again, compressed, found damaged."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import tarfile

import pytest

from ketch import failpoints
from ketch.engine.build.caches.layers import LayerBlobs
from ketch.errors import DataLoss
from ketch.images import recover
from ketch.images.archives.compressed import LayerCompression, compressed
from ketch.images.archives.importer import import_rootfs
from ketch.images.archives.load import load
from ketch.images.archives.save import save
from ketch.images.made.blobs import ImageBlobs
from ketch.images.made.image import built_image
from ketch.images.made.times import rewritten
from ketch.images.schema import SCHEMAS
from ketch.images.single_flight import SingleFlight
from ketch.images.store import ImageStore
from ketch.images.transfer.push import Pusher
from ketch.oci import digest, reference
from ketch.oci import manifest as oci
from ketch.oci.config import ImageConfig
from ketch.remote.client import Remotes
from ketch.remote.settings import Settings
from ketch.storage.archive import compression
from ketch.storage.archive.packing import Compression
from ketch.storage.database.db import Database
from ketch.storage.layers import tars
from ketch.storage.layers.draft import BuiltLayerDraft
from tests.support.registries import made_images as made
from tests.support.registries.registries import registry

CONFIG = ImageConfig(architecture="amd64", os="linux")


def opened(root) -> ImageStore:
    os.makedirs(root, exist_ok=True)
    return ImageStore(Database(os.path.join(root, "ketch.db"), SCHEMAS), str(root))


@pytest.fixture
def store(tmp_path):
    store = opened(tmp_path / "here")
    yield store
    store.close()


def layer(store: ImageStore, lease, **files: str) -> str:
    draft = BuiltLayerDraft(store.layers, lease)
    for name, text in files.items():
        path = os.path.join(draft.directory, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        os.utime(path, ns=(0, 1_700_000_000_000_000_001))
    return draft.commit()


def base(store: ImageStore):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("of-base"))
    data.seek(0)
    return import_rootfs(store, data, name="base:1")


def built(store: ImageStore, name: str = "docker.io/library/made:1"):
    """An image of the base's layer and two that are made here; the second is in it twice."""
    below = base(store)
    with store.lease() as lease:
        lease.hold(*below.parts())
        own = layer(store, lease, own="own" * 100), layer(store, lease, other="other")
        image = built_image(store, lease, [*below.chain_ids, *own, own[0]], CONFIG)
        return store.add([(image, [name])])[0]


def saved(store: ImageStore, name: str = "made:1") -> bytes:
    buffer = io.BytesIO()
    save(store, [name], buffer)
    return buffer.getvalue()


def test_no_blob_is_stored(store):
    image = built(store)
    assert image.diff_ids[1:] == image.blobs[1:]
    assert image.diff_ids[1] == image.diff_ids[3]
    assert [store.content.exists(blob) for blob in image.blobs] == [True, False, False, False]
    assert image.layer_sizes == [0, 300, 5, 300]
    blobs = ImageBlobs(store, [image])
    for blob in image.blobs:
        with blobs.open(blob) as f:
            data = f.read()
        assert blobs.exists(blob)
        assert digest.of(data) == blob
        assert len(data) == blobs.size(blob)
    assert os.listdir(store.content.ingest_root) == []
    assert image.id in {found.id for found in recover.images(store.content, store.layers)}


def test_saved_and_loaded_here_and_elsewhere(store, tmp_path):
    image = built(store)
    archive = saved(store)
    assert saved(store) == archive
    there = opened(tmp_path / "there")
    [loaded] = load(there, io.BytesIO(archive), lambda _item: None)
    assert (loaded.id, loaded.manifest, loaded.layer_sizes) == (image.id, image.manifest, image.layer_sizes)
    assert saved(there) == archive
    [again] = load(store, io.BytesIO(archive), lambda _item: None)
    assert again.id == image.id
    assert saved(store) == archive
    with there.lease() as lease:  # its layers were unpacked there: what is made of the same files is the same image
        lease.hold(*loaded.parts())
        below = loaded.chain_ids[0]
        own = layer(there, lease, own="own" * 100), layer(there, lease, other="other")
        same = built_image(there, lease, [below, *own, own[0]], CONFIG)
        assert (same.id, same.blobs) == (loaded.id, loaded.blobs)
        there.add([(same, [])])
    assert saved(there) == archive
    assert [n for n in os.listdir(tmp_path / "there" / "layers") if n.startswith("built-")] == []
    there.close()


def test_a_layer_that_others_unpacked_from_another_tar(store):
    """Its bytes cannot be made from the directory, so they are stored."""
    below = base(store)
    with store.lease() as lease:
        lease.hold(*below.parts())
        own = layer(store, lease, own="own")
        facts = tars.facts(store.layers, own)
        chain = digest.chain_ids([*below.diff_ids, facts.diff_id])[1]
        path = store.layers.begin()
        with open(os.path.join(store.layers.files(path), "other-time"), "wb"):
            pass
        lease.hold(chain)
        store.layers.commit(path, chain)
        image = built_image(store, lease, [*below.chain_ids, own], CONFIG)
        store.add([(image, ["docker.io/library/made:1"])])
    assert store.content.exists(facts.diff_id)
    assert saved(store)


def test_a_layer_of_an_image_that_is_gone(store):
    """Its tar is made of its files; of an image that is not recorded its blobs are taken."""
    below = base(store)
    with store.lease() as lease:
        lease.hold(*below.parts())
        store.remove("base:1", False, lambda _id: [])
        image = built_image(store, lease, below.chain_ids, CONFIG)
        assert image.blobs == image.diff_ids
        assert image.diff_ids != below.diff_ids
        same = built_image(store, lease, below.chain_ids, CONFIG, [below])
        assert same.blobs == below.blobs
        store.add([(image, ["docker.io/library/made:1"])])
    assert os.path.islink(store.layers.path(image.chain_ids[0]))
    assert saved(store)


def test_a_removal_that_is_broken_off(store, tmp_path, monkeypatch):
    """The next start finishes it, for layers of other stacks, too, and takes nothing for lost."""
    below = base(store)
    with store.lease() as lease:
        lease.hold(*below.parts())
        store.remove("base:1", False, lambda _id: [])
        own = layer(store, lease, own="own")
        store.add([(built_image(store, lease, [own, *below.chain_ids], CONFIG), ["docker.io/library/made:1"])])
    monkeypatch.setattr(failpoints, "_fault", failpoints.Fault("image.layers-unlinked=EIO", ""))
    with pytest.raises(OSError, match="Input/output error"):
        store.remove("made:1", False, lambda _id: [])
    monkeypatch.undo()
    store.close()
    opened(tmp_path / "here").close()
    assert os.listdir(tmp_path / "here" / "layers") == []
    assert not os.path.exists(tmp_path / "here" / "lost")


def test_compressed_once(store):
    image = built(store)
    store.tag("made:1", "made:2")
    with store.lease() as lease:
        first = compressed(store, lease, image, image.manifest, lambda _item: None)
        assert first is not None
        assert all(map(store.content.exists, first.blobs))
        store.add([(first, ["docker.io/library/made:1"])])
        known = store.resolve("made:2")
        assert known.forms.keys() == {image.manifest}
        reports: list[object] = []
        second = compressed(store, lease, known, image.manifest, reports.append)
        assert second is not None
        assert (second.manifest, reports) == (first.manifest, [])
    assert json.loads(store.content.read(first.manifest))["layers"][1]["mediaType"].endswith("tar+gzip")
    assert store.resolve("made:2").blobs_of(image.manifest) == image.blobs
    assert saved(store, "made:2")


def test_removed(store):
    image = built(store)
    chains = {chain[7:] for chain in image.chain_ids}
    here = set(os.listdir(os.path.dirname(store.layers.path("x"))))
    assert here > chains
    store.remove("base:1", False, lambda _id: [])
    rows = store.remove("made:1", False, lambda _id: [])
    assert [row["Deleted"] for row in rows if "Deleted" in row] == [image.id, *reversed(image.chain_ids)]
    assert os.listdir(os.path.dirname(store.layers.path("x"))) == []


def test_what_is_damaged_is_said(store):
    image = built(store)
    path = os.path.join(store.layers.diff(image.chain_ids[1]), "own")
    with open(path, "r+", encoding="utf-8") as f:
        f.write("OWN")
    os.utime(path, ns=(0, 1_700_000_000_000_000_001))
    said = "are not those that it was made of"
    with pytest.raises(DataLoss, match=said):
        saved(store)
    with store.lease() as lease, pytest.raises(DataLoss, match=said):
        compressed(store, lease, image, image.manifest, lambda _item: None)
    with pytest.raises(DataLoss, match=said):
        ImageBlobs(store, [image]).open(image.blobs[1])
    assert os.listdir(store.content.ingest_root) == []
    shutil.rmtree(os.path.realpath(store.layers.path(image.chain_ids[1])))
    with pytest.raises(Exception, match=f"blob {image.blobs[1]} is missing"):
        saved(store)
    with store.lease() as lease, pytest.raises(DataLoss, match="a layer of the image is missing"):
        built_image(store, lease, ["sha256:" + "0" * 64], CONFIG)


def test_times_that_are_set_back(store):
    with store.lease() as lease:
        late = layer(store, lease, a="a", b="b")
        os.utime(os.path.join(store.layers.diff(late), "b"), ns=(5, 5))
        assert rewritten(store, lease, late, 1_700_000_001) == late
        early = rewritten(store, lease, late, 1_600_000_000)
        files = store.layers.diff(early)
        times = [os.stat(os.path.join(files, name)).st_mtime_ns for name in "ab"]
        assert times == [1_600_000_000_000_000_000, 5]
        assert rewritten(store, lease, early, 1_600_000_000) == early
        again = layer(store, lease, a="a", b="b")
        os.utime(os.path.join(store.layers.diff(again), "b"), ns=(5, 5))
        os.utime(os.path.join(store.layers.diff(again), "a"), ns=(5, 1_800_000_000_000_000_000))
        other = rewritten(store, lease, again, 1_600_000_000)
        assert tars.facts(store.layers, other) == tars.facts(store.layers, early)


async def test_an_index_of_images_made_here_is_pushed_compressed(store):
    """The name stands for the compressed form from then on; the second push finds all there."""
    with registry() as there:
        name = f"{there.host}/several:1"
        with store.lease() as lease:
            images = []
            for architecture in ("amd64", "arm64"):
                config = ImageConfig(architecture=architecture, os="linux")
                images.append(built_image(store, lease, [layer(store, lease, a=architecture)], config))
            manifests = [
                oci.Descriptor(media_type=oci.MANIFEST, digest=i.manifest, size=1, platform=i.platform) for i in images
            ]
            data = oci.encode(oci.Index(manifests=manifests, media_type=oci.INDEX))
            index = store.content.put(data, hold=lease.hold)
            store.add([(image, [name]) for image in images], {name: index})
        remotes = Remotes(Settings(insecure=(there.host,), attempts=1))
        try:
            repository = remotes.repository(reference.parse(name), push=True)
            said: list[dict] = []
            pusher = Pusher(store, repository, SingleFlight(), asyncio.Semaphore(2), said.append)
            pushed = await pusher.push(name)
            assert await pusher.push(name) == pushed
        finally:
            await remotes.close()
        assert [item["status"] for item in said].count("Pushed") == 2
        assert store.catalog.names[name].target == pushed.digest
        assert not store.content.exists(index)
        found = json.loads(made.got(there.host, "several", "1"))
        assert [one["platform"]["architecture"] for one in found["manifests"]] == ["amd64", "arm64"]
        for one in found["manifests"]:
            manifest = json.loads(made.got(there.host, "several", one["digest"]))
            assert manifest["layers"][0]["mediaType"] == oci.LAYER_GZIP
    assert [i.id for i in store.catalog.variants(name)] == [i.id for i in images]


def test_layers_for_a_cache_are_compressed_once(store, monkeypatch):
    """Their digests are known afterwards; the bytes are made again where a place lacks them."""
    image = built(store)
    packed: list[str] = []
    plain = Compression.packer
    monkeypatch.setattr(Compression, "packer", lambda self, write: packed.append(self.kind) or plain(self, write))
    layers = [store.layers.target(chain) or chain for chain in image.chain_ids]
    for kind in ("gzip", "zstd"):
        first: dict[str, str] = {}
        for number in range(3):
            with store.lease() as lease:
                lease.hold(*image.parts())
                blobs = LayerBlobs(store, lease, Compression(kind))
                found = blobs.of(layers)
                digests = {layer: one.descriptor.digest for layer, one in found.items()}
                if number == 0:
                    first = digests
                    assert packed == [kind] * 2
                assert digests == first
                if number == 1:
                    assert packed == [kind] * 2
                    for one in found.values():
                        with blobs.opener(one.descriptor)() as file:
                            assert digest.of(file.read()) == one.descriptor.digest
                    assert packed == [kind] * 4
            assert {one for one in first.values() if store.content.exists(one)} == {image.blobs[0]}
        packed.clear()


def test_an_image_in_another_compression(store):
    """Of what has none, or with force of all; with the same one once more nothing is done."""
    image = built(store)
    with store.lease() as lease:
        lease.hold(*image.parts())
        report = lambda _item: None  # noqa: E731
        zstd = LayerCompression(Compression("zstd"))
        some = compressed(store, lease, image, image.manifest, report, zstd)
        assert [kind_of(store, blob) for blob in some.blobs] == ["gzip", "zstd", "zstd", "zstd"]
        assert compressed(store, lease, some, some.manifest, report, zstd) is None
        every = LayerCompression(Compression("zstd"), force=True)
        all_of_it = compressed(store, lease, some, some.manifest, report, every)
        assert [kind_of(store, blob) for blob in all_of_it.blobs] == ["zstd"] * 4
        assert all_of_it.blobs[1:] == some.blobs[1:]
        bare = LayerCompression(Compression("uncompressed"), force=True)
        plain = compressed(store, lease, all_of_it, all_of_it.manifest, report, bare)
        assert plain.blobs == image.diff_ids


def kind_of(store: ImageStore, blob: str) -> str:
    with store.content.open(blob) as f:
        return compression.kind(f.read(6))
