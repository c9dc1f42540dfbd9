"""The image store on a real disk: archives good and bad, garbage, and what foreign tools say of ours."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import random
import stat
import subprocess
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard

from ketch.errors import Conflict, InvalidArgument, NotFound
from ketch.images.archives.bootstrap import bootstrap
from ketch.images.archives.importer import import_rootfs
from ketch.images.archives.load import load as load_archive
from ketch.images.archives.save import save as save_archive
from ketch.images.schema import SCHEMAS
from ketch.images.store import ImageStore
from ketch.oci import digest
from ketch.storage.database.db import Database
from tests.support import peers
from tests.support.waiting import patient

_XATTR = "SCHILY.xattr.trusted.overlay.opaque"


@pytest.fixture
def store(tmp_path):
    db = Database(str(tmp_path / "ketch.db"), SCHEMAS)
    images = ImageStore(db, str(tmp_path))
    yield images
    images.close()
    db.close()


def tar(*members: tuple, **options) -> bytes:
    """(name, type, content or link target, fields) … → a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=options.get("format", tarfile.PAX_FORMAT)) as archive:
        for name, kind, content, fields in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            data = b""
            if kind == tarfile.REGTYPE:
                data = content
                info.size = len(data)
            elif content:
                info.linkname = content
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def file(name: str, content: bytes = b"x", **fields) -> tuple:
    return name, tarfile.REGTYPE, content, fields


def directory(name: str, **fields) -> tuple:
    return name, tarfile.DIRTYPE, "", {"mode": 0o755, **fields}


def load(store: ImageStore, data: bytes) -> list:
    return load_archive(store, io.BytesIO(data), lambda _item: None)


def bring(store: ImageStore, data: bytes, name: str = "test"):
    return import_rootfs(store, io.BytesIO(data), name=name)


def contents(store: ImageStore) -> tuple:
    """Everything on the disk that a failed request could leave."""
    data = os.path.dirname(store.content.root)
    found = []
    for root, names, files in os.walk(data):
        found += [os.path.join(root, n) for n in (*names, *files) if "ketch.db" not in n and n != "index.json"]
    return tuple(sorted(found))


def test_everything_that_a_tar_can_say(store):
    image = bring(
        store,
        tar(
            directory("d", mode=0o2775, mtime=1_000_000_000.0),
            file("d/suid", b"#!", mode=0o4755, uid=1000, gid=1001, pax_headers={"mtime": "1234567890.123456789"}),
            ("d/link", tarfile.SYMTYPE, "/etc/passwd", {}),
            ("hard", tarfile.LNKTYPE, "d/suid", {}),
            ("pipe", tarfile.FIFOTYPE, "", {}),
            directory("dev"),
            ("dev/null", tarfile.CHRTYPE, "", {"devmajor": 1, "devminor": 3, "mode": 0o666}),
            ("odd/disk", tarfile.BLKTYPE, "", {"devmajor": 259, "devminor": 70_000, "mode": 0o640}),
            file("x" * 120 + "/deep/" + "y" * 200),
            file("attributes", pax_headers={"SCHILY.xattr.user.colour": "blue", _XATTR: "y"}),
        ),
    )
    root = store.layers.diff(image.chain_ids[0])
    suid = os.stat(f"{root}/d/suid")
    assert (stat.S_IMODE(suid.st_mode), suid.st_uid, suid.st_gid) == (0o4755, 1000, 1001)
    assert suid.st_mtime_ns == 1234567890123456789
    assert suid.st_nlink == 2
    assert os.readlink(f"{root}/d/link") == "/etc/passwd"
    assert os.stat(f"{root}/d").st_mtime == 1_000_000_000
    assert stat.S_IMODE(os.stat(f"{root}/d").st_mode) == 0o2775
    assert stat.S_ISFIFO(os.stat(f"{root}/pipe").st_mode)
    assert os.stat(f"{root}/dev/null").st_rdev == os.makedev(1, 3)
    disk = os.stat(f"{root}/odd/disk")
    assert (stat.S_ISBLK(disk.st_mode), disk.st_rdev) == (True, os.makedev(259, 70_000))
    assert os.path.exists(f"{root}/{'x' * 120}/deep/{'y' * 200}")
    assert os.getxattr(f"{root}/attributes", "user.colour") == b"blue"
    assert "trusted.overlay.opaque" not in os.listxattr(f"{root}/attributes")


def test_whiteouts_take_overlay_s_form(store):
    image = bring(store, tar(directory("d"), file("d/.wh..wh..opq", b""), file("d/.wh.gone", b""), file("d/kept")))
    root = store.layers.diff(image.chain_ids[0])
    gone = os.lstat(f"{root}/d/gone")
    assert stat.S_ISCHR(gone.st_mode) and gone.st_rdev == 0
    assert os.getxattr(f"{root}/d", "trusted.overlay.opaque") == b"y"
    assert sorted(os.listdir(f"{root}/d")) == ["gone", "kept"]


def test_absolute_names_are_relative_to_the_root(store):
    image = bring(store, tar(directory("/d"), file("/d/one", b"1"), ("/d/../two", tarfile.LNKTYPE, "/d/./one", {})))
    root = store.layers.diff(image.chain_ids[0])
    assert sorted(os.listdir(root)) == ["d", "two"]
    assert os.path.samefile(f"{root}/d/one", f"{root}/two")


EVIL = {
    "absolute name with dots": (tar(file("/etc/../../evil")), "leads out"),
    "dots": (tar(file("a/../../evil")), "leads out"),
    "symlink to the outside": (tar(("out", tarfile.SYMTYPE, "/tmp", {}), file("out/ketch-evil")), "symbolic link"),
    "relative symlink": (tar(("out", tarfile.SYMTYPE, "../../../../tmp", {}), file("out/ketch-evil")), "symbolic link"),
    "hard link by name": (tar(("evil", tarfile.LNKTYPE, "../../../etc/passwd", {})), "leads out"),
    "hard link, absolute": (tar(("evil", tarfile.LNKTYPE, "/etc/passwd", {})), "broken archive"),
    "hard link through a symlink": (
        tar(("out", tarfile.SYMTYPE, "/etc", {}), ("evil", tarfile.LNKTYPE, "out/passwd", {})),
        "symbolic link",
    ),
    "hard link to nothing": (tar(("evil", tarfile.LNKTYPE, "missing", {})), "broken archive"),
    "hidden whiteout": (tar(("dev/x", tarfile.CHRTYPE, "", {"devmajor": 0, "devminor": 0})), "character device 0:0"),
    "whiteout of everything": (tar(file(".wh..", b"")), "not a whiteout"),
    "cut short": (tar(file("big", b"x" * 100_000))[:50_000], "archive"),
    "gzip cut short": (gzip.compress(tar(file("big", os.urandom(100_000))))[:50_000], "gzip"),
    "zstd cut short": (zstandard.compress(tar(file("big", os.urandom(100_000))))[:50_000], "archive|zstd"),
    "no tar at all": (b"hello" * 1000, "invalid tar header"),
}


@pytest.mark.parametrize("name", EVIL)
def test_evil_archives_leave_nothing(store, name):
    data, complaint = EVIL[name]
    before = contents(store)
    with pytest.raises(InvalidArgument, match=complaint):
        bring(store, data)
    assert contents(store) == before
    assert not os.path.exists("/tmp/ketch-evil")
    assert store.list() == []
    assert bring(store, tar(file("fine"))).repo_tags == ["test:latest"]


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
def test_the_same_content_is_the_same_layer(store, compress):
    data = tar(directory("a"), file("a/b", b"hello"))
    image = bring(store, compress(data))
    assert image.diff_ids == [digest.of(data)]
    again = bring(store, compress(data), "other")
    assert again.chain_ids == image.chain_ids
    assert len(store.layers.all()) == 1


def test_save_and_load_and_rmi_end_where_they_began(store, tmp_path):
    empty = contents(store)
    first = bring(store, tar(directory("a"), file("a/one", b"1")), "one")
    second = bring(store, tar(directory("a"), file("a/two", b"2")), "example.org/two:v2")
    path = tmp_path / "both.tar"
    with open(path, "wb") as f:
        save_archive(store, ["one", "example.org/two:v2"], f)
    for ref in ("one", "example.org/two:v2"):
        rows = store.remove(ref, False, lambda _id: [])
        assert [list(row) for row in rows] == [["Untagged"], ["Deleted"], ["Deleted"]]
    path_saved = path.read_bytes()
    path.unlink()
    assert contents(store) == empty
    for compress in (bytes, gzip.compress, zstandard.compress):
        assert sorted(i.id for i in load(store, compress(path_saved))) == sorted([first.id, second.id])
    assert store.resolve("one").manifest == first.manifest
    assert store.resolve("example.org/two:v2").id == second.id


def test_skopeo_reads_ours_and_we_read_skopeo_s(store, tmp_path):
    image = bring(store, tar(directory("etc"), file("etc/name", b"ours")), "ours")
    with open(tmp_path / "ours.tar", "wb") as f:
        save_archive(store, ["ours"], f)
    copy = peers.command("skopeo", "copy", "--insecure-policy", "-q")
    for source, target in (
        (f"docker-archive:{tmp_path}/ours.tar:ours:latest", f"oci-archive:{tmp_path}/theirs.tar:localhost/theirs:1"),
        (f"oci:{store.content.root}:docker.io/library/ours:latest", f"dir:{tmp_path}/dir"),
        (f"docker-archive:{tmp_path}/ours.tar:ours:latest", f"docker-archive:{tmp_path}/docker.tar:localhost/docker:2"),
    ):
        subprocess.run([*copy, source, target], check=True, capture_output=True)
    with open(tmp_path / "dir" / "manifest.json") as f:
        assert json.load(f)["config"]["digest"] == image.id
    store.remove("ours", False, lambda _id: [])
    theirs = load(store, (tmp_path / "theirs.tar").read_bytes())
    assert theirs[0].diff_ids == image.diff_ids
    assert store.resolve("localhost/theirs:1").id == theirs[0].id
    docker = load(store, (tmp_path / "docker.tar").read_bytes())
    assert docker[0].repo_tags == ["localhost/docker:2"]
    assert docker[0].diff_ids == image.diff_ids


def saved(store: ImageStore) -> dict[str, bytes]:
    """The files of a saved image, to be broken."""
    bring(store, tar(file("a", b"content")))
    buffer = io.BytesIO()
    save_archive(store, ["test"], buffer)
    store.remove("test", False, lambda _id: [])
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}


def packed(files: dict[str, bytes]) -> bytes:
    return tar(*(file(name, data) for name, data in files.items()))


def test_broken_saved_archives_leave_nothing(store):
    files = saved(store)
    before = contents(store)
    entry = json.loads(files["manifest.json"])[0]
    layer = entry["Layers"][0]
    lying = {**files, layer: files[layer] + b"x"}
    other = "blobs/sha256/" + digest.hexadecimal(digest.of(b"other"))
    for broken, complaint in (
        (lying, "expected sha256"),
        ({k: v for k, v in files.items() if k != layer}, "missing in the archive"),
        ({k: v for k, v in files.items() if k != entry["Config"]}, "missing in the archive"),
        ({**files, "manifest.json": b"{"}, "manifest.json"),
        (
            {**files, "manifest.json": json.dumps([{**entry, "Layers": []}]).encode()},
            "layers length mismatch: expected 0, got 1",
        ),
        ({**files, "manifest.json": json.dumps([{**entry, "RepoTags": ["Not A Name"]}]).encode()}, "invalid reference"),
        (
            {**files, other: b"other", "manifest.json": json.dumps([{**entry, "Layers": [other]}]).encode()},
            "tar|archive",
        ),
        ({**files, "manifest.json": json.dumps([{**entry, "Config": "../../etc/passwd"}]).encode()}, "leads out"),
        ({"hello": b"x"}, "neither manifest.json nor index.json"),
    ):
        with pytest.raises(InvalidArgument, match=complaint):
            load(store, packed(broken))
        assert contents(store) == before, complaint
    assert load(store, packed(files))[0].repo_tags == ["test:latest"]


@pytest.mark.parametrize("size", [5, 2_000_000])
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_blob_that_is_not_its_layer_is_refused_also_when_the_layer_is_here(store, size, compress):
    layer, other = tar(file("a", bytes(size))), compress(tar(file("a", b"\1" * size)))
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest.of(layer)]}}
    listed = json.dumps([{"Config": "c.json", "RepoTags": None, "Layers": ["layer.tar"]}]).encode()
    files = {"c.json": json.dumps(config).encode(), "manifest.json": listed}
    load(store, packed({**files, "layer.tar": compress(layer)}))
    before = contents(store)
    with pytest.raises(InvalidArgument, match=rf"its content is .*, the image says {digest.of(layer)}"):
        load(store, packed({**files, "layer.tar": other}))
    assert contents(store) == before
    load(store, packed({**files, "layer.tar": layer}))


def test_docker_s_old_archives_with_shared_layers_as_links(store):
    layer = tar(file("a", b"1"))
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [digest.of(layer)] * 2},
        "history": [{"created_by": "x"}, {"created_by": "y"}],
    }
    archive = tar(
        directory("l1"),
        file("l1/layer.tar", layer),
        directory("l2"),
        ("l2/layer.tar", tarfile.SYMTYPE, "../l1/layer.tar", {}),
        file("c.json", json.dumps(config).encode()),
        file(
            "manifest.json",
            json.dumps(
                [{"Config": "c.json", "RepoTags": ["old:1"], "Layers": ["l1/layer.tar", "l2/layer.tar"]}]
            ).encode(),
        ),
    )
    image = load(store, archive)[0]
    assert image.repo_tags == ["old:1"]
    assert image.id == digest.of(json.dumps(config).encode())
    assert len(set(image.chain_ids)) == 2


def test_names_ids_and_conflicts(store):
    image = bring(store, tar(file("a")), "one")
    assert store.resolve("one").id == store.resolve(image.id).id == store.resolve(image.id[7:19]).id == image.id
    assert store.resolve(f"one@{image.manifest}").id == image.id
    for missing in (
        "two",
        "one:2",
        "sha256:" + "0" * 64,
        "ffffffffffff" if not image.id.startswith("sha256:f") else "0",
    ):
        with pytest.raises(NotFound, match="No such image"):
            store.resolve(missing)
    with pytest.raises(InvalidArgument):
        store.tag("one", "Bad Name")
    store.tag("one", "example.org/second:x")
    with pytest.raises(Conflict, match="referenced in multiple repositories"):
        store.remove(image.id[7:19], False, lambda _id: [])
    assert store.remove("one", False, lambda _id: [("c" * 64, True)]) == [{"Untagged": "one:latest"}]
    with pytest.raises(Conflict, match="must force"):
        store.remove("example.org/second:x", False, lambda _id: [("c" * 64, False)])
    with pytest.raises(Conflict, match="cannot be forced"):
        store.remove(image.id, True, lambda _id: [("c" * 64, True)])
    with pytest.raises(Conflict, match="must be forced.*stopped container"):
        store.remove(image.id, False, lambda _id: [("c" * 64, False)])


def test_an_image_removed_by_force_stays_for_its_container(store):
    image, other = bring(store, tar(file("a")), "one"), bring(store, tar(file("b")), "two")
    users = {image.id: [("c" * 64, False)]}
    rows = store.remove("one", True, lambda image_id: users.get(image_id, []))
    assert rows == [{"Untagged": "one:latest"}, {"Deleted": image.id}]
    assert [i.id for i in store.list()] == [other.id]
    with pytest.raises(NotFound):
        store.resolve(image.id[7:19])
    assert store.resolve(image.id).chain_ids == image.chain_ids, "the container can start again"
    assert store.layers.exists(image.chain_ids[0])
    users.clear()
    store.remove("two", False, lambda image_id: users.get(image_id, []))
    assert store.layers.all() == [] and store.content.all() == []


def test_removal_by_id_follows_docker(store):
    image = bring(store, tar(file("a")), "one:1")
    store.tag("one:1", "one:2")
    with pytest.raises(Conflict, match="must be forced.*multiple repositories"):
        store.remove(image.id, False, lambda _id: [])
    rows = store.remove(image.id, True, lambda _id: [])
    assert rows == [
        {"Untagged": "one:1"},
        {"Untagged": "one:2"},
        {"Deleted": image.id},
        {"Deleted": image.chain_ids[0]},
    ]


def test_a_digest_belongs_to_its_repository(store):
    image = bring(store, tar(file("a")), "one:1")
    store.tag("one:1", "one:2")
    store.tag("one:1", "other:1")
    with pytest.raises(NotFound):
        store.resolve(f"third@{image.manifest}")
    rows = store.remove(f"one@{image.manifest}", False, lambda _id: [])
    assert rows == [{"Untagged": "one:1"}, {"Untagged": "one:2"}]
    assert store.resolve("other:1").repo_tags == ["other:1"]


def test_a_slow_client_blocks_nothing(store):
    """A load that hangs in the middle keeps no lock, and keeps what it has brought from a removal meanwhile."""
    image = bring(store, tar(file("a", os.urandom(4 << 20))), "one")
    saved_fd, client_fd = os.pipe()
    buffer = io.BytesIO()
    save_archive(store, ["one"], buffer)
    loaded: list = []
    with open(saved_fd, "rb") as source, open(client_fd, "wb") as client:
        thread = threading.Thread(target=lambda: loaded.extend(load_archive(store, source, lambda _item: None)))
        thread.start()
        client.write(buffer.getvalue()[: 2 << 20])
        client.flush()
        layer = store.content.path(image.blobs[0])
        while image.blobs[0] not in store._garbage._leases.held():
            os.sched_yield()
        store.tag("one", "two")
        store.remove(image.id, True, lambda _id: [])
        assert store.list() == [] and os.path.exists(layer)
        client.write(buffer.getvalue()[2 << 20 :])
        client.close()
        thread.join(patient(10))
    assert [i.id for i in loaded] == [image.id]
    assert store.layers.exists(image.chain_ids[0]) and store.content.exists(image.blobs[0])


def test_many_at_once(store):
    """Threads that import, load, tag and remove the same few images end in a state that is whole."""
    archives = []
    for n in range(3):
        bring(store, tar(file("same", b"x" * 10_000), file(f"own{n}")), f"i{n}")
        buffer = io.BytesIO()
        save_archive(store, [f"i{n}"], buffer)
        archives.append(buffer.getvalue())

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(15):
            n = chance.randrange(3)
            with contextlib.suppress(NotFound, Conflict):
                chance.choice(
                    (
                        lambda n=n: load(store, archives[n]),
                        lambda n=n: store.tag(f"i{n}", f"t{n}"),
                        lambda n=n: store.remove(f"i{n}", True, lambda _id: []),
                        lambda n=n: store.remove(store.resolve(f"t{n}").id, True, lambda _id: []),
                    )
                )()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    images = store.list()
    assert set(store.layers.all()) == {c for i in images for c in i.chain_ids}
    assert set(store.content.all()) == {b for i in images for b in (*i.blobs, i.id, i.manifest)}


def test_bootstrap_busybox_is_the_same_every_time(store):
    first = bootstrap(store, "busybox", lambda _item: None)
    root = store.layers.diff(first.chain_ids[0])
    assert os.stat(f"{root}/bin/sh").st_ino == os.stat(f"{root}/bin/busybox").st_ino
    assert stat.S_IMODE(os.stat(f"{root}/tmp").st_mode) == 0o1777
    assert first.config.config.cmd == ["sh"]
    store.remove("busybox", False, lambda _id: [])
    assert bootstrap(store, "busybox", lambda _item: None).id == first.id
    with pytest.raises(InvalidArgument, match="unknown distribution"):
        bootstrap(store, "fedora:40", lambda _item: None)


def test_orphans_of_a_crash_are_swept(store, tmp_path):
    kept = bring(store, tar(file("kept")), "kept")
    os.makedirs(tmp_path / "layers" / ".new-dead" / "diff")
    os.makedirs(tmp_path / "layers" / ("d" * 64) / "diff")
    (tmp_path / "content" / "ingest" / "dead").write_bytes(b"half")
    (tmp_path / "content" / "blobs" / "sha256" / ("d" * 64)).write_bytes(b"of no image")
    db = Database(str(tmp_path / "ketch.db"), SCHEMAS)
    again = ImageStore(db, str(tmp_path))
    db.close()
    assert os.listdir(tmp_path / "content" / "ingest") == []
    assert again.layers.all() == kept.chain_ids and len(os.listdir(tmp_path / "layers")) == 1
    assert sorted(again.content.all()) == sorted([kept.id, kept.manifest, *kept.blobs])
    assert again.resolve("kept") == kept


def test_an_image_of_which_a_container_is_being_made_stays(store):
    image = bring(store, tar(file("a")), "one")
    with store.pinned(image), store.pinned(image):
        with pytest.raises(Conflict, match="cannot be forced"):
            store.remove(image.id, True, lambda _id: [])
        assert store.remove("one", True, lambda _id: []) == [{"Untagged": "one:latest"}]
    assert {"Deleted": image.id} in store.remove(image.id, False, lambda _id: [])
    with pytest.raises(NotFound), store.pinned(image):
        raise AssertionError("it has gone")


def test_all_names_of_a_repository_are_saved(store):
    image = bring(store, tar(file("a")), "one:1")
    store.tag("one:1", "one:2")
    store.tag("one:1", "other:1")
    for refs, names in ((["one"], ["one:1", "one:2"]), (["one:2"], ["one:2"]), ([image.id], None)):
        buffer = io.BytesIO()
        save_archive(store, refs, buffer)
        buffer.seek(0)
        with tarfile.open(fileobj=buffer) as archive:
            (entry,) = json.load(archive.extractfile("manifest.json"))
        assert entry["RepoTags"] == names


def test_a_load_of_several_images_is_all_or_nothing(store):
    good, bad = tar(file("good")), tar(file("bad"))
    images = []
    files = {"good.tar": good, "bad.tar": bad}
    for name, diff_id in (("good", digest.of(good)), ("bad", digest.of(b"something else"))):
        config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
        files[f"{name}.json"] = json.dumps(config).encode()
        images.append({"Config": f"{name}.json", "RepoTags": [f"{name}:1"], "Layers": [f"{name}.tar"]})
    files["manifest.json"] = json.dumps(images).encode()
    before = contents(store)
    with pytest.raises(InvalidArgument, match="its content is sha256"):
        load(store, packed(files))
    assert store.list() == [] and contents(store) == before


def test_look_ups_are_answered_from_memory(store):
    for n in range(50):
        bring(store, tar(file(f"f{n}")), f"i{n}")
    store.resolve("i7")
    asked: list[str] = []
    store._repository._db._conn.set_trace_callback(asked.append)
    store.resolve("i7")
    assert asked == []


def test_images_of_one_archive_share_their_layers(store):
    base, own = tar(file("base", b"x" * 100)), [tar(file(f"own{n}")) for n in range(2)]
    files = {"base.tar": base}
    entries = []
    for n in range(2):
        diff_ids = [digest.of(base), digest.of(own[n])]
        config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        files |= {f"{n}.tar": own[n], f"{n}.json": json.dumps(config).encode()}
        entries.append({"Config": f"{n}.json", "RepoTags": [f"i{n}:1"], "Layers": ["base.tar", f"{n}.tar"]})
    files["manifest.json"] = json.dumps(entries).encode()
    said: list[dict] = []
    images = load_archive(store, io.BytesIO(packed(files)), said.append)
    assert len({item["id"] for item in said if item.get("status") == "Loading layer"}) == 3  # the shared one once
    assert [item.get("status") for item in said].count("Loading layer") == 6
    assert images[0].chain_ids[0] == images[1].chain_ids[0]
    assert store.layers_size() == 102
    rows = store.remove("i0:1", False, lambda _id: [])
    assert [row["Deleted"] for row in rows if "Deleted" in row] == [images[0].id, images[0].chain_ids[1]]
    assert store.layers.exists(images[1].chain_ids[0])


POINTS = [
    "layers.begin",
    "layers.unpack",
    "layers.commit",
    "content.put",
    "content.sync",
    "_repository.show",
    "content.write_index",
    "_garbage.collect",
    "layers.detach",
    "content.remove",
    "layers.abort",
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", POINTS)
def test_a_death_at_any_moment_leaves_all_or_nothing(tmp_path, point, when):
    """A process is killed there while it imports, tags or removes; the next one finds a whole store."""

    def work() -> None:
        store = ImageStore(Database(str(tmp_path / "ketch.db"), SCHEMAS), str(tmp_path))
        bring(store, tar(file("a"), file("same")), "first")
        owner, _, name = point.rpartition(".")
        owner = getattr(store, owner) if owner else store
        original = getattr(owner, name)

        def die(*args, **kwargs):
            if when == "after":
                original(*args, **kwargs)
            os._exit(9)

        setattr(owner, name, die)
        bring(store, tar(file("b"), file("same")), "second")
        store.remove("first", False, lambda _id: [])

    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9, "the point is never reached"
    db = Database(str(tmp_path / "ketch.db"), SCHEMAS)
    store = ImageStore(db, str(tmp_path))
    images = store.list()
    assert {tuple(i.repo_tags) for i in images} in (
        {("first:latest",)},
        {("first:latest",), ("second:latest",)},
        {("second:latest",)},
    )
    for image in images:
        for blob in (image.id, image.manifest, *image.blobs):
            with store.content.open(blob) as f:
                assert digest.of(f.read()) == blob
        assert "same" in os.listdir(store.layers.diff(image.chain_ids[0]))
    assert set(store.content.all()) | set(store.layers.all()) == {part for i in images for part in i.parts()}
    assert os.listdir(tmp_path / "content" / "ingest") == []
    assert [name for name in os.listdir(tmp_path / "layers") if name.startswith(".")] == []
    bring(store, tar(file("b"), file("same")), "second")
    db.close()
