"""Exchanged caches: written and read again, and what of broken ones is refused."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import hashlib
import json
import os
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.build.cache.exchange import config as configs
from ketch.build.cache.exchange import exports, manifests, options
from ketch.build.cache.exchange.config import CacheConfig, CacheConfigRecord, CacheLayer, LayerResult, RecordInput
from ketch.build.cache.exchange.imports import CachedLayer, ImportedCache
from ketch.build.cache.keys import KeySource, content_key, derived_key, root_key
from ketch.build.cache.schema import CacheKey, CacheResult, InputLink, KeyResult
from ketch.errors import DataLoss, InvalidArgument, NotFound, Unimplemented
from ketch.oci import manifest as oci
from ketch.storage.content.layout_directory import LayoutDirectory
from ketch.storage.snapshots.overlay import MAX_DEPTH


def sha256(text):
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def blob(name):
    descriptor = oci.Descriptor(media_type=oci.LAYER_GZIP, digest=sha256(f"blob {name}"), size=5)
    return CachedLayer(descriptor, sha256(f"tar {name}"))


class Records:
    """Keys and results as the build cache has them."""

    def __init__(self):
        self.all = {}
        self.results = {}

    def key(self, key_id):
        return self.all.get(key_id)

    def results_of(self, key_id):
        return [self.results[one.result] for one in self.all[key_id].results]

    def add(self, step, inputs, layers=(), created=0):
        """A key whose inputs are lists of (source, selector); returns its id."""
        sources = [[KeySource(*one) for one in links] for links in inputs]
        key_id = derived_key(step, sources) if inputs else step
        links = [[InputLink(*one) for one in links] for links in sources]
        found = [KeyResult(key_id, created)] if layers else []
        self.all[key_id] = CacheKey(id=key_id, step=step, inputs=links, results=found)
        self.results[key_id] = CacheResult(id=key_id, layers=list(layers))
        return key_id


def sample():
    """A base image, a RUN on it, a COPY of a directory's content on that, and the keys of the two steps."""
    records = Records()
    image = records.add(root_key(sha256("image"), 0), [], ["base"])
    run = records.add(root_key(sha256("run"), 0), [[(image, "")]], ["base", "ran"], 1_700_000_000_500_000_000)
    content = content_key(sha256("content"))
    copy = records.add(root_key(sha256("copy"), 0), [[(run, "")], [(content, "")]], ["base", "ran", "copied"], 7)
    return records, image, run, content, copy


LAYERS = {name: blob(name) for name in ("base", "ran", "copied")}


def imported(config):
    return ImportedCache(config, {one.descriptor.digest: one for one in LAYERS.values()}, loader=None)


def always(_result):
    return True


def test_a_cache_is_found_again_by_the_same_keys():
    records, image, run, content, copy = sample()
    config = configs.decode(
        configs.msgspec.json.encode(exports.config_of(exports.keys_of(records, [copy], always), LAYERS))
    )
    cache = imported(config)
    assert cache.targets(image, 0, root_key(sha256("run"), 0), "") == [run]
    assert cache.targets(run, 0, root_key(sha256("copy"), 0), "") == [copy]
    assert cache.targets(content, 1, root_key(sha256("copy"), 0), "") == [copy]
    assert cache.targets(image, 0, root_key(sha256("run"), 1), "") == []
    (result,) = cache.results(copy)
    assert [layer.diff_id for layer in result.layers()] == [LAYERS[name].diff_id for name in ("base", "ran", "copied")]
    assert [one.created for one in cache.results(run)] == [1_700_000_000_000_000_000]
    assert cache.results(image) == []


def test_what_is_written():
    """The form that BuildKit reads: numbers, and no field that has its zero value."""
    records, _, _, content, copy = sample()
    keys = exports.keys_of(records, [copy], always)
    config = json.loads(configs.msgspec.json.encode(exports.config_of(keys, LAYERS)))
    assert config["layers"] == [
        {"blob": LAYERS["base"].descriptor.digest, "parent": -1},
        {"blob": LAYERS["ran"].descriptor.digest},
        {"blob": LAYERS["copied"].descriptor.digest, "parent": 1},
    ]
    by_digest = {record["digest"]: record for record in config["records"]}
    assert by_digest[content] == {"digest": content}
    run = by_digest[root_key(sha256("run"), 0)]
    assert run["layers"] == [{"layer": 1, "createdAt": "2023-11-14T22:13:20.5Z"}]
    assert [set(link) for links in run["inputs"] for link in links] == [{"link"}]


def test_only_parts_of_the_result():
    """mode=min: the layers of results that are part of the last one; all keys go along."""
    records, image, run, _, copy = sample()
    other = records.add(root_key(sha256("other"), 0), [[(image, "")]], ["base", "else"])
    last = records.add(root_key(sha256("last"), 0), [[(copy, "")], [(other, "x")]], ["base", "ran", "copied"])
    layers = ["base", "ran", "copied"]
    keys = exports.keys_of(records, [last], lambda result: layers[: len(result.layers)] == result.layers)
    assert {one.id: bool(one.layers) for one in keys if one.inputs} == {run: True, copy: True, other: False, last: True}


def test_keys_that_nobody_else_can_find_are_left_out():
    records, image, *_ = sample()
    random = records.add("random:" + "1" * 64, [])
    lost = records.add(root_key(sha256("lost"), 0), [[(random, "")]], ["base"])
    kept = records.add(root_key(sha256("kept"), 0), [[(lost, ""), (image, "")]], ["base"])
    keys = exports.keys_of(records, [lost, kept], always)
    assert {one.id for one in keys} == {image, kept}
    assert [one.inputs for one in keys if one.id == kept] == [[[(image, "")]]]


@given(
    st.lists(
        st.lists(
            st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["", "s"])), min_size=1, max_size=2), max_size=3
        ),
        min_size=1,
        max_size=12,
    )
)
def test_any_graph_is_the_same_again(shape):
    records, ids = Records(), []
    for number, inputs in enumerate(shape):
        links = [[(ids[at % len(ids)], selector) for at, selector in one] for one in inputs] if ids else []
        ids.append(records.add(root_key(sha256(str(number)), 0), links, ["base"] if links else []))
    keys = exports.keys_of(records, ids, always)
    config = configs.decode(configs.msgspec.json.encode(exports.config_of(keys, LAYERS)))
    cache = imported(config)
    links = sum(len(one) for key in keys for one in map(set, key.inputs))
    found = [len(names) for names in cache._targets.values()]
    assert sum(found) == links
    assert sum(len(cache.results(key)) for key in cache._results) == sum(bool(key.layers) for key in keys)


def test_a_cache_within_an_image():
    records, image, run, _, copy = sample()
    layers = ["base", "ran", "copied"]
    text = exports.inline_records(exports.keys_of(records, [copy], always), layers)
    blobs = [LAYERS[name].descriptor for name in layers]
    config = {"rootfs": {"diff_ids": [LAYERS[name].diff_id for name in layers]}, exports.INLINE: text}
    cache = asyncio.run(manifests.imported(Place(config, blobs), None))[0]
    assert cache.targets(image, 0, root_key(sha256("run"), 0), "") == [run]
    assert [layer.diff_id for layer in cache.results(run)[0].layers()] == config["rootfs"]["diff_ids"][:2]


class Place:
    """An image with this configuration, as a registry has it."""

    def __init__(self, config, layers, index=False):
        self.data = json.dumps(config).encode()
        described = oci.Descriptor(media_type=oci.CONFIG, digest=sha256(self.data.decode()), size=len(self.data))
        self.image = oci.encode(oci.Manifest(config=described, layers=layers))
        self.index = index

    async def manifest(self):
        if not self.index:
            return self.image
        listed = oci.Descriptor(media_type=oci.MANIFEST, digest=sha256(self.image.decode()), size=len(self.image))
        return oci.encode(oci.Index(manifests=[listed]))

    async def read(self, descriptor, limit):
        found = {sha256(data.decode()): data for data in (self.data, self.image)}[descriptor.digest]
        assert len(found) <= limit
        return found


@pytest.mark.parametrize("index", [False, True])
def test_images_without_a_cache(index):
    layers = [LAYERS["base"].descriptor]
    for config in ({}, {exports.INLINE: base64.b64encode(b"[]").decode()}):
        assert asyncio.run(manifests.imported(Place(config, layers, index), None)) == []


# -- manifests -----------------------------------------------------------------------------------


class Written:
    """A place that has what was written."""

    def __init__(self, manifest):
        self._manifest = manifest

    async def manifest(self):
        return self._manifest.data

    async def read(self, descriptor, limit):
        assert descriptor == self._manifest.config
        return self._manifest.config_data


@pytest.mark.parametrize(
    ("image", "types", "media_type", "layer"),
    [
        (True, True, oci.MANIFEST, oci.LAYER_GZIP),
        (False, True, oci.INDEX, oci.LAYER_GZIP),
        (False, False, oci.DOCKER_INDEX, oci.DOCKER_LAYER),
    ],
)
def test_forms_of_manifests(image, types, media_type, layer):
    records, _, run, _, copy = sample()
    config = exports.config_of(exports.keys_of(records, [copy], always), LAYERS)
    manifest = manifests.written(config, LAYERS.values(), image_manifest=image, oci_types=types)
    assert manifest.media_type == media_type
    found = json.loads(manifest.data)
    listed = found["layers"] if image else found["manifests"][:-1]
    assert [one["mediaType"] for one in listed] == [layer] * 3
    assert listed[0]["annotations"] == {manifests.UNCOMPRESSED: LAYERS["base"].diff_id}
    last = found["config"] if image else found["manifests"][-1]
    assert last["mediaType"] == configs.MEDIA_TYPE
    (cache,) = asyncio.run(manifests.imported(Written(manifest), None))
    assert len(cache.results(run)) == 1


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (CacheConfig([CacheLayer(sha256("x"), 5)]), "lies upon layer 5: there is none"),
        (CacheConfig([], [CacheConfigRecord(sha256("x"), layers=[LayerResult(0)])]), "names a layer that is not there"),
        (CacheConfig([], [CacheConfigRecord(sha256("x"), [[RecordInput(7)]])]), "names a record that is not there"),
        (CacheConfig([], [CacheConfigRecord(sha256("x"), [[RecordInput(0)]])]), "depend on each other in a circle"),
        (CacheConfig([CacheLayer("sha256:1")]), "invalid digest"),
        (
            CacheConfig([CacheLayer(sha256("x"), 0)], [CacheConfigRecord(sha256("x"), layers=[LayerResult(0)])]),
            "lie upon each other in a circle",
        ),
        (
            CacheConfig([CacheLayer(sha256("x"), -1)], [CacheConfigRecord(sha256("x"), layers=[LayerResult(0)])]),
            "is not in its manifest",
        ),
    ],
)
def test_broken_caches(config, message):
    with pytest.raises(InvalidArgument, match=message):
        imported(configs.decode(configs.msgspec.json.encode(config)))


def test_layers_upon_each_other_take_no_more_memory_than_they_are():
    count = 3_000
    layers = [CacheLayer(sha256(str(number)), number - 1) for number in range(count)]
    records = [CacheConfigRecord(sha256(f"key {number}"), layers=[LayerResult(number)]) for number in range(count)]
    known = {one.blob: blob(one.blob) for one in layers}
    tracemalloc.start()
    try:
        cache = ImportedCache(CacheConfig(layers, records), known, None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000 * count
    found = [len(one.layers()) for number in range(count) for one in cache.results(sha256(f"key {number}"))]
    assert found == list(range(1, MAX_DEPTH + 1)), "what lies deeper could not be used"


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"layers":1}', b'{"records":[{"digest":' + b"[" * 9999])
def test_what_is_no_list_of_records(data):
    with pytest.raises(InvalidArgument, match="cannot be read"):
        configs.decode(data)


def test_options():
    found = options.cache_export("registry", {"ref": "r/x", "mode": "max", "ignore-error": "true"})
    assert (found.reference, found.everything, found.ignore_error, found.image_manifest) == ("r/x", True, True, True)
    assert not options.cache_export("local", {"oci-mediatypes": "false"}).image_manifest
    assert options.cache_import("local", {"src": "x", "tag": "t"}).tag == "t"
    for kind in ("gha", "s3", "azblob", "gcs"):
        with pytest.raises(Unimplemented, match=f"cache exporter {kind} is not supported") as caught:
            options.cache_export(kind, {})
        assert "type=registry" in caught.value.hint
        with pytest.raises(Unimplemented, match=f"cache importer {kind} is not supported"):
            options.cache_import(kind, {})


@pytest.mark.parametrize(
    ("kind", "attrs", "message"),
    [
        ("registry", {}, "ref is required"),
        ("local", {"mode": "most"}, "unsupported cache export mode: most"),
        ("local", {"ignore-error": "maybe"}, "invalid non-bool value 'maybe' for ignore-error"),
        ("local", {"compression": "lz4"}, "unsupported compression type lz4"),
        ("local", {"compression-level": "10"}, "at most 9"),
        ("local", {"image-manifest": "1", "oci-mediatypes": "0"}, "requires oci-mediatypes=true"),
    ],
)
def test_wrong_options(kind, attrs, message):
    with pytest.raises(InvalidArgument, match=message):
        options.cache_export(kind, attrs)


# -- directories ---------------------------------------------------------------------------------


def described(data):
    return oci.Descriptor(media_type="x/y", digest="sha256:" + hashlib.sha256(data).hexdigest(), size=len(data))


@pytest.fixture
def layout(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield LayoutDirectory(fd)
    os.close(fd)


def test_a_layout_is_written_and_read(layout, tmp_path):
    one = described(b"one")
    layout.put(one, [b"o", b"ne"])
    layout.put(one, iter([b"never asked for"]))
    layout.name(one, "first")
    layout.put(described(b"two"), [b"two"])
    layout.name(described(b"two"), "second")
    layout.name(described(b"two"), "first")
    assert layout.read(one, 10) == b"one"
    found = {item.annotations[manifests_name()]: item.digest for item in layout.index().manifests}
    assert found == dict.fromkeys(("first", "second"), described(b"two").digest)
    parts = []
    layout.copy(one, parts.append)
    assert parts == [b"one"]
    assert sorted(os.listdir(tmp_path)) == ["blobs", "index.json", "oci-layout"]


def manifests_name():
    return "org.opencontainers.image.ref.name"


def test_what_killed_writers_left_is_removed(layout, tmp_path):
    """The next writer does it, and leaves alone what is still written to, and what is somebody else's."""
    one, two = described(b"one"), described(b"two")
    layout.put(one, [b"one"])
    blobs = tmp_path / "blobs" / "sha256"
    left, held, theirs = blobs / f".{two.digest[7:]}.0a1b2c3d", blobs / f".{one.digest[7:]}.00000000", blobs / ".notes"
    for path in (left, held, theirs, tmp_path / ".index.json.01234567"):
        path.write_text("half")
    with held.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        layout.put(two, [b"two"])
        layout.name(two, "x")
    assert sorted(os.listdir(blobs)) == sorted([held.name, theirs.name, one.digest[7:], two.digest[7:]])
    assert sorted(os.listdir(tmp_path)) == ["blobs", "index.json", "oci-layout"]


def test_several_name_what_they_wrote_at_once(tmp_path):
    """No name is lost."""
    one = described(b"one")
    with ThreadPoolExecutor(8) as pool, ExitStack() as stack:
        layouts = []
        for _ in range(8):
            fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, fd)
            layouts.append(LayoutDirectory(fd))
        layouts[0].put(one, [b"one"])
        list(pool.map(lambda n: layouts[n % 8].name(one, f"tag-{n}"), range(64)))
        found = {item.annotations[manifests_name()] for item in layouts[0].index().manifests}
    assert found == {f"tag-{n}" for n in range(64)}


def test_layouts_are_not_believed(layout, tmp_path):
    assert layout.index().manifests == []
    one = described(b"one")
    with pytest.raises(NotFound):
        layout.read(one, 10)
    with pytest.raises(InvalidArgument, match="its content is"):
        layout.put(one, [b"other"])
    place = tmp_path / "blobs" / "sha256"
    assert os.listdir(place) == []
    path = place / one.digest[7:]
    path.write_bytes(b"eno")
    with pytest.raises(DataLoss, match="does not match its digest"):
        layout.read(one, 10)
    path.write_bytes(b"longer")
    with pytest.raises(InvalidArgument, match="its descriptor says 3 bytes"):
        layout.copy(one, lambda _data: None)
    with pytest.raises(InvalidArgument, match="is larger than 2 bytes"):
        layout.read(one, 2)
    path.unlink()
    (tmp_path / "secret").write_bytes(b"one")
    for target in ("/etc/passwd", "../../secret"):
        path.symlink_to(target)
        with pytest.raises(InvalidArgument, match="is a link, or leads out of it"):
            layout.read(one, 10)
        path.unlink()
    os.mkfifo(path)
    with pytest.raises(InvalidArgument, match="no regular file"):
        layout.read(one, 10)
    (tmp_path / "index.json").write_text("[")
    with pytest.raises(InvalidArgument, match="cannot be read"):
        layout.index()
