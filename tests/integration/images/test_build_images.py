"""Images for builds, from a real registry: found by configuration first, brought when their files are needed."""

from __future__ import annotations

import asyncio
import os

import pytest

from ketch.build.cache.maps import image_maps
from ketch.build.errors import UnresolvedImage
from ketch.build.llb import ops_pb2 as pb
from ketch.build.sources.resolver import SessionImages
from ketch.engine.build.images import EngineBuildImages, NamingBuildImages
from ketch.engine.build.layouts import EngineBuildLayouts
from ketch.engine.events.bus import EventBus
from ketch.engine.events.journal import EventJournal
from ketch.engine.images.pull import PullService
from ketch.engine.images.registries import Registries
from ketch.errors import ImageNotFound, InvalidArgument, NotFound, PermissionDenied
from ketch.images.schema import SCHEMAS
from ketch.images.store import ImageStore
from ketch.oci import digest as digests
from ketch.oci import platform as platforms
from ketch.remote.settings import Settings
from ketch.storage.database.db import Database
from tests.support.building.sources import SourceBox, SourceClient, SourceWork
from tests.support.registries import made_images as made
from tests.support.registries.registries import registry

AMD64, ARM64 = platforms.parse("linux/amd64"), platforms.parse("linux/arm64")


@pytest.fixture(scope="module")
def host():
    with registry() as one:
        yield one.host


class ImageBox:
    """An image store on the disk, and what a build cache needs of it."""

    def __init__(self, root):
        self.needed, self.told, self.lines = set(), [], []
        self.db = Database(str(root / "ketch.db"), SCHEMAS)
        self.client, self.journal = SourceClient(), EventJournal(str(root))
        self.store = ImageStore(self.db, str(root), others=lambda: self.needed)

    def run(self, work):
        """The result of asynchronous work with the images of an engine."""

        async def main():
            registries = Registries(Settings(attempts=1))
            pulls = PullService(self.store, registries, EventBus(self.journal))
            images = EngineBuildImages(self.store, registries, pulls.layers)
            try:
                return await work(images, NamingBuildImages(images, pulls, self.lines.append))
            finally:
                await registries.close()

        return asyncio.run(main())

    def tell(self, *progress):
        self.told.append(progress)

    def close(self):
        self.store.close()
        self.db.close()
        self.journal.close()


@pytest.fixture
def box(tmp_path):
    one = ImageBox(tmp_path)
    yield one
    one.close()


def test_a_base_image_without_a_name(box, host):
    image = made.image({"a": b"1"}, {"b": b"2"}, docker=True)
    made.put(host, "base", made.index(image, made.image({"a": b"arm"}, arch="arm64")), "1")
    chains = digests.chain_ids([digests.of(made.tar(files)) for files in ({"a": b"1"}, {"b": b"2"})])

    async def main(images, _naming):
        found = await images.find(f"{host}/base:1", AMD64, "local", box.client)
        assert found.reference.startswith(f"{host}/base:1@sha256:")
        assert found.manifest == image.digest
        assert found.config.config.cmd == ["true"]
        assert not found.chain_ids
        assert box.store.content.all() == [] == box.store.layers.all()
        with box.store.lease() as lease:
            tree = await images.fetch(found, AMD64, lease, box.client, box.tell)
            assert list(tree.layers) == chains
            box.needed = {chains[-1]}
        arm = await images.find(found.reference, ARM64, "pull", box.client)
        assert arm.manifest != image.digest
        return found

    found = box.run(main)
    with open(os.path.join(box.store.layers.diff(chains[1]), "b"), "rb") as f:
        assert f.read() == b"2"
    sizes = {digest: len(image.blobs[digest]) for digest in image.layers}
    assert {(name, all_bytes) for name, done, all_bytes in box.told if done == all_bytes} >= {*sizes.items()}
    assert box.store.list(everything=True) == []
    assert (box.store.layer_names(), box.store.layers_size()) == (set(), 0)
    assert set(image.layers) <= set(box.store.content.all())
    with pytest.raises(ImageNotFound):
        box.store.resolve(f"{host}/base:1")

    async def again(images, _naming):
        with box.store.lease() as lease:
            box.told.clear()
            tree = await images.fetch(found, AMD64, lease, box.client, box.tell)
            assert list(tree.layers) == chains
            assert box.told == []

    box.run(again)
    box.needed = set()
    with box.store.lease():
        pass
    assert box.store.catalog.images == {}
    assert box.store.content.all() == [] == box.store.layers.all()


def test_what_a_build_no_longer_needs_is_gone_after_a_start(box, host, tmp_path):
    made.put(host, "gone", made.image({"g": b"1"}), "1")

    async def main(images, _naming):
        found = await images.find(f"{host}/gone:1", AMD64, "default", box.client)
        with box.store.lease() as lease:
            tree = await images.fetch(found, AMD64, lease, box.client, box.tell)
            box.needed = set(tree.layers)

    box.run(main)
    assert len(box.store.catalog.images) == 1
    box.store.close()
    kept = ImageStore(box.db, str(tmp_path), others=lambda: box.needed)
    assert len(kept.catalog.images) == 1
    kept.close()
    box.store = ImageStore(box.db, str(tmp_path), others=set)
    assert box.store.catalog.images == {}
    assert box.store.content.all() == [] == box.store.layers.all()
    assert not (tmp_path / "lost").exists() or os.listdir(tmp_path / "lost") == []


def test_an_image_that_is_here_goes_first_unless_it_is_to_be_pulled(box, host):
    first, second = made.image({"a": b"1"}), made.image({"a": b"2"})
    made.put(host, "both", first, "1")

    async def main(images, naming):
        for mode in ("local", "default"):
            found = await naming.find(f"{host}/both:1", AMD64, mode, box.client)
            assert found.reference == f"{host}/both:1"
            assert found.manifest == first.digest
            assert len(found.chain_ids) == 1
        assert [name for name in box.store.catalog.names if "@" not in name] == [f"{host}/both:1"]
        assert box.lines[-1] == {"status": f"Status: Downloaded newer image for {host}/both:1"}
        made.put(host, "both", second, "1")
        here = await images.find(f"{host}/both:1", AMD64, "default", box.client)
        assert here.manifest == first.digest
        there = await images.find(f"{host}/both:1", AMD64, "pull", box.client)
        assert (there.manifest, there.reference) == (second.digest, f"{host}/both:1@{second.digest}")
        named = await naming.find(f"{host}/both:1", AMD64, "pull", box.client)
        assert named.manifest == second.digest
        with box.store.lease() as lease:
            tree = await naming.fetch(named, AMD64, lease, box.client, box.tell)
        assert tree.layers == tuple(named.chain_ids)

    box.run(main)
    assert box.store.resolve(f"{host}/both:1").manifest == second.digest


def test_a_pull_makes_a_base_image_one_like_others(box, host):
    image = made.image({"a": b"both"})
    made.put(host, "later", image, "1")

    async def main(images, naming):
        found = await images.find(f"{host}/later:1", AMD64, "default", box.client)
        with box.store.lease() as lease:
            await images.fetch(found, AMD64, lease, box.client, box.tell)
            await naming.find(f"{host}/later:1", AMD64, "pull", box.client)

    box.run(main)
    assert [one.id for one in box.store.list()] == [image.image_id]
    assert box.store.resolve(f"{host}/later:1").base is False


def test_errors_in_the_words_of_buildkit(box, host):
    only_arm = made.image({"a": b"arm"}, arch="arm64")
    made.put(host, "arm", made.index(only_arm), "1")
    made.put(host, "config", made.image({"a": b"1"}, os="windows"), "1")

    async def main(images, _naming):
        resolver = SessionImages(images, box.client, "local")
        prefix = f"failed to resolve source metadata for {host}/none:1"
        with pytest.raises(UnresolvedImage) as caught:
            await resolver.image(f"{host}/none:1", AMD64)
        assert caught.value.message == f"{prefix}: {host}/none:1: not found"
        assert caught.value.kind == NotFound.kind
        with pytest.raises(UnresolvedImage, match=r"arm:1@sha256:\w+: no match for platform in manifest: not found"):
            await resolver.image(f"{host}/arm:1", AMD64)
        with pytest.raises(UnresolvedImage, match=r"failed to do request: .*connection refused"):
            await resolver.image("127.0.0.1:1/x:1", AMD64)

    box.run(main)


def test_credentials_of_the_session(box):
    with registry(users={"ann": "secret"}) as one:

        async def main(images, _naming):
            with pytest.raises(PermissionDenied) as caught:
                await images.find(f"{one.host}/x:1", AMD64, "default", box.client)
            assert caught.value.message == (
                "pull access denied, repository does not exist or may require authorization: "
                "authorization failed: no basic auth credentials"
            )
            box.client.passwords[one.host] = ("ann", "wrong")
            with pytest.raises(PermissionDenied, match="pull access denied, repository does not exist"):
                await images.find(f"{one.host}/x:1", AMD64, "default", box.client)
            box.client.passwords[one.host] = ("ann", "secret")
            with pytest.raises(NotFound, match=f"{one.host}/x:1: not found"):
                await images.find(f"{one.host}/x:1", AMD64, "default", box.client)

        box.run(main)


def test_the_operation(box, host, tmp_path):
    image = made.image({"a": b"1"}, {"b": b"op"})
    made.put(host, "op", image, "1")
    platform = pb.Platform(OS="linux", Architecture="amd64")

    async def main(images, _naming):
        (tmp_path / "sources").mkdir()
        sources = SourceBox(tmp_path / "sources", images)
        work = SourceWork(box.client)
        with box.store.lease() as work.lease:
            operation = sources.operation(f"docker-image://{host}/op:1", platform)
            maps, (tree,) = await sources.both(operation, work)
            limited = sources.operation(f"docker-image://{host}/op:1", platform, image_layerlimit="1")
            maps_of_one, (lowest,) = await sources.both(limited, work)
        assert len(maps) == len(maps_of_one) == 2
        assert tree.layers[:1] == lowest.layers
        assert len(tree.layers) == 2
        names = [(name, done) for name, _, _, done in work.statuses]
        assert names[:2] == [(f"resolve {host}/op:1", False), (f"resolve {host}/op:1", True)]
        assert {name for name, done in names[2:] if done} >= set(image.layers)

    box.run(main)


def layout_of(path, *images):
    """A directory with images as an OCI layout has them, without its index."""
    (path / "blobs" / "sha256").mkdir(parents=True)
    for one in images:
        for data in (one.data, *one.blobs.values(), *(below.data for below in one.manifests)):
            (path / "blobs" / "sha256" / digests.of(data)[7:]).write_bytes(data)
    return path


def test_a_layout_in_a_directory_of_the_client(box, tmp_path):
    image = made.image({"a": b"1"}, {"b": b"layout"}, compression="zstd")
    index = made.index(image, made.image({"a": b"arm"}, arch="arm64"))
    top = layout_of(tmp_path / "layout", index, image)
    platform = pb.Platform(OS="linux", Architecture="amd64")
    (tmp_path / "sources").mkdir()
    sources = SourceBox(tmp_path / "sources", layouts=EngineBuildLayouts(box.store))
    sources.give("store", top)

    async def main():
        work = SourceWork(sources.client)
        with box.store.lease() as work.lease:
            for attrs, name in (({}, "store"), ({"oci_store": "store"}, "other")):
                operation = sources.operation(f"oci-layout://{name}@{index.digest}", platform, **attrs)
                maps, (tree,) = await sources.both(operation, work)
            assert maps[0] == image_maps(index.digest, platform, [])[0]
            box.needed = set(tree.layers)
            return tree

    tree = asyncio.run(main())
    with open(os.path.join(box.store.layers.diff(tree.layers[1]), "b"), "rb") as f:
        assert f.read() == b"layout"
    assert [one.manifest for one in box.store.catalog.images.values()] == [image.digest]
    assert box.store.list(everything=True) == []
    sources.close()


def test_layouts_that_are_not_what_they_say(box, tmp_path):
    image = made.image({"a": b"1"})
    top = layout_of(tmp_path / "layout", image)
    (tmp_path / "sources").mkdir()
    sources = SourceBox(tmp_path / "sources", layouts=EngineBuildLayouts(box.store))
    sources.give("store", top)
    blob = top / "blobs" / "sha256" / image.layers[0][7:]

    async def refused(kind, text, digest=image.digest):
        work = SourceWork(sources.client)
        with box.store.lease() as work.lease, pytest.raises(kind, match=text):
            await sources.both(sources.operation(f"oci-layout://store@{digest}"), work)

    data = blob.read_bytes()
    blob.write_bytes(data[:-1] + b"x")
    asyncio.run(refused(InvalidArgument, "expected sha256:"))
    blob.unlink()
    os.symlink("/etc/passwd", blob)
    asyncio.run(refused(InvalidArgument, "is a link, or leads out of it"))
    blob.unlink()
    asyncio.run(refused(NotFound, "the directory has no blobs/sha256/"))
    asyncio.run(refused(NotFound, "the directory has no blobs/sha256/", "sha256:" + "0" * 64))
    with pytest.raises(InvalidArgument, match="an image in a layout is named by a digest"):
        sources.operation("oci-layout://store")
    assert box.store.content.all() == [] == box.store.layers.all()
    sources.close()
