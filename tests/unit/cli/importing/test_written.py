"""What a container wrote, as a layer upon its image."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import tarfile
import tempfile

import pytest

from ketch.cli.importing import written
from ketch.errors import DataLoss, ResourceExhausted

CHANGED, ADDED, DELETED = range(3)


def tar_of(*entries: tuple[str, bytes | str], **pax: str) -> bytes:
    """An archive of files; a content that is text is the first name of a hard link."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as archive:
        for name, content in entries:
            member = tarfile.TarInfo(name)
            member.pax_headers = dict(pax)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.LNKTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def in_pieces(data: bytes):
    return (data[start : start + 700] for start in range(0, len(data), 700))


def layer(changes: list[tuple[str, int]], exported: bytes) -> tuple[dict[str, bytes | str], int]:
    """The entries of the layer, and how often the export was read."""
    reads = []

    def export():
        reads.append(exported)
        return in_pieces(exported)

    with written.layer([{"Path": path, "Kind": kind} for path, kind in changes], export) as one:
        data = one.file.read()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (one.size, one.digest)
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        found = {m.name: m.linkname if m.islnk() else archive.extractfile(m).read() for m in archive}
    return found, len(reads)


@pytest.mark.parametrize(
    ("changes", "wanted", "reads"),
    [
        ([("/a", CHANGED)], {"a": b"A" * 600}, 1),
        ([("/d/new", ADDED), ("/d/gone", DELETED)], {"d/new": b"N", "d/.wh.gone": b""}, 1),
        ([("/gone", DELETED)], {".wh.gone": b""}, 1),
        ([("/b", ADDED), ("/a", CHANGED)], {"a": b"A" * 600, "b": "a"}, 1),
        ([("/b", ADDED)], {"a": b"A" * 600, "b": "a"}, 2),  # a new name of a file of the image
        ([("/\ufffd", ADDED)], {"\udcff": b"odd"}, 1),
        ([("/not/there", ADDED)], {}, 1),  # a socket, which is in no archive
    ],
)
def test_layers(changes: list[tuple[str, int]], wanted: dict[str, bytes | str], reads: int):
    exported = tar_of(("a", b"A" * 600), ("b", "a"), ("d/new", b"N"), ("d/old", b"O"), ("\udcff", b"odd"))
    assert layer(changes, exported) == (wanted, reads)


def test_extended_attributes_are_kept():
    exported = tar_of(("ping", b"x"), **{"SCHILY.xattr.user.note": "value"})
    with written.layer([{"Path": "/ping", "Kind": ADDED}], lambda: in_pieces(exported)) as one:
        with tarfile.open(fileobj=one.file) as archive:
            assert archive.getmembers()[0].pax_headers == {"SCHILY.xattr.user.note": "value"}


def test_an_export_that_breaks_off():
    exported = tar_of(("a", b"A" * 6000))
    with pytest.raises(DataLoss), written.layer([{"Path": "/a", "Kind": ADDED}], lambda: in_pieces(exported[:2000])):
        pytest.fail("it was whole")


def test_a_file_that_goes_while_it_is_read():
    """The first name of a hard link is not there any more when the export is read again."""
    exports = [tar_of(("b", "a")), tar_of(("b", "a"))]
    with pytest.raises(DataLoss, match="a came or went"):
        with written.layer([{"Path": "/b", "Kind": ADDED}], lambda: in_pieces(exports.pop())):
            pytest.fail("a file was left out in silence")


def test_no_space_for_the_layer(monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", functools.partial(open, "/dev/full", "w+b"))
    with pytest.raises(ResourceExhausted, match="temporary file"):
        with written.layer([{"Path": "/a", "Kind": ADDED}], lambda: in_pieces(tar_of(("a", b"A")))):
            pytest.fail("it was written")


def test_an_image_that_breaks_off():
    with written.layer([], lambda: in_pieces(tar_of())) as one, pytest.raises(DataLoss, match="image's archive"):
        list(written.image_with(in_pieces(saved()[:100_000]), one, {"created": ""}))


def test_a_removed_name_that_is_not_told():
    changes = [{"Path": "/\ufffd", "Kind": DELETED}]
    with pytest.raises(DataLoss, match="exact name"), written.layer(changes, lambda: in_pieces(tar_of())):
        pytest.fail("it was told")


def saved(**changes: object) -> bytes:
    config = {
        "architecture": "amd64",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:1"]},
    }
    manifest = [{"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["l.tar"]}]
    documents = {"c.json": config, "index.json": {}, "manifest.json": manifest, **changes}
    return tar_of(("l.tar", b"L" * (2 << 20)), *((name, json.dumps(one).encode()) for name, one in documents.items()))


def test_an_image_with_a_layer_more():
    made = {"created": "2026-01-01T00:00:00Z", "comment": "written"}
    with written.layer([{"Path": "/a", "Kind": ADDED}], lambda: in_pieces(tar_of(("a", b"new")))) as one:
        digest = one.digest
        archive = b"".join(written.image_with(in_pieces(saved()), one, made))
    with tarfile.open(fileobj=io.BytesIO(archive)) as read:
        contents = {member.name: read.extractfile(member).read() for member in read}
    (entry,) = json.loads(contents["manifest.json"])
    config = json.loads(contents[entry["Config"]])
    assert "index.json" not in contents and entry["RepoTags"] is None
    assert config["rootfs"]["diff_ids"] == ["sha256:1", f"sha256:{digest}"]
    assert (config["history"], config["config"]) == ([made], {"Cmd": ["sh"]})
    assert contents[entry["Layers"][0]] == b"L" * (2 << 20)
    assert hashlib.sha256(contents[entry["Layers"][1]]).hexdigest() == digest


@pytest.mark.parametrize("manifest", [[], {}, [{"Config": "nothing.json", "Layers": []}], [{"Config": "c.json"}]])
def test_an_archive_that_is_no_image(manifest: object):
    with written.layer([], lambda: in_pieces(tar_of())) as one, pytest.raises(DataLoss):
        list(written.image_with(in_pieces(saved(**{"manifest.json": manifest})), one, {"created": ""}))
