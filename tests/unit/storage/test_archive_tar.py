"""The tar reader: what tarfile and GNU tar write is read alike, and what is broken is never taken for an end."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ketch.errors import InvalidArgument
from ketch.storage.archive import compression, extract, tar, write
from ketch.storage.archive.extract import clean

if TYPE_CHECKING:
    from pathlib import Path

KINDS = {
    tarfile.AREGTYPE: tar.FILE,
    tarfile.REGTYPE: tar.FILE,
    tarfile.DIRTYPE: tar.DIRECTORY,
    tarfile.SYMTYPE: tar.SYMLINK,
    tarfile.LNKTYPE: tar.LINK,
    tarfile.FIFOTYPE: tar.FIFO,
}


class Slow(io.RawIOBase):
    """Gives as few bytes as it likes, as sockets do."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data, self._at, self._step = data, 0, step

    def read(self, size: int = -1) -> bytes:
        data = self._data[self._at : self._at + min(size, self._step)]
        self._at += len(data)
        return data


def read(data: bytes, step: int = 1 << 20) -> list[tuple]:
    """Every member with its content, holes filled."""
    reader = tar.TarReader(Slow(data, step))
    found = []
    for m in reader:
        content = bytearray(m.size if m.size < 1 << 25 else 0)
        for offset, part in reader.chunks(m) if m.kind == tar.FILE else ():
            content[offset : offset + len(part)] = part
        name = m.name.rstrip("/") if m.kind == tar.DIRECTORY else m.name
        found.append((name, m.kind, m.mode, m.uid, m.gid, m.linkname, m.mtime_ns, m.xattrs, bytes(content)))
    return found


def packed(members: list[tuple], fmt: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=fmt, errors="surrogateescape") as archive:
        for name, kind, mode, uid, link, mtime, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid, info.gid, info.mtime = kind, mode, uid, uid, mtime
            info.linkname = link if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=300).filter(
    lambda t: not t.endswith("/") and len(t.encode()) < 1000
)
members = st.tuples(
    names,
    st.sampled_from(list(KINDS)[1:]),
    st.integers(0, 0o7777),
    st.integers(0, (1 << 32) - 1),
    names,
    st.integers(0, 1 << 35),
    st.binary(max_size=2000),
)


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(members, max_size=6), st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]), st.integers(1, 5000))
def test_archives_of_tarfile(some, fmt, step):
    expected = [
        (
            name,
            KINDS[kind],
            mode,
            uid,
            uid,
            link if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else "",
            mtime * 10**9,
            None,
            content if kind == tarfile.REGTYPE else b"",
        )
        for name, kind, mode, uid, link, mtime, content in some
    ]
    assert read(packed(some, fmt), step) == expected


SAMPLE = packed(
    [
        ("d", tarfile.DIRTYPE, 0o755, 0, "", 1, b""),
        ("d/" + "long" * 40, tarfile.REGTYPE, 0o644, 1 << 22, "", 2, b"content" * 200),
        ("link", tarfile.SYMTYPE, 0o777, 0, "d" * 150, 3, b""),
        ("last", tarfile.REGTYPE, 0o644, 0, "", 4, b"x"),
    ],
    tarfile.PAX_FORMAT,
)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, len(SAMPLE) - 1), st.binary(min_size=1, max_size=40))
def test_damage_is_refused_or_changes_only_content(at, damage):
    broken = SAMPLE[:at] + damage + SAMPLE[at + len(damage) :]
    try:
        found = read(broken)
    except InvalidArgument:
        return
    # What passes is damage to contents and paddings: no member may be missing.
    assert len(found) == 4


@settings(deadline=None, max_examples=200)
@given(st.integers(0, len(SAMPLE)))
def test_an_archive_cut_short_loses_no_member_silently(length):
    whole = read(SAMPLE)
    boundary = length % 512 == 0
    try:
        found = read(SAMPLE[:length])
    except InvalidArgument:
        return
    assert found == whole[: len(found)]
    assert boundary or len(found) == len(whole)  # within the end mark nothing is lost


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=3000))
def test_noise_is_refused(noise):
    if noise.strip(b"\0") or len(noise) < 512:
        with pytest.raises(InvalidArgument):
            read(noise)


def header(**changes) -> bytes:
    """One header of a file, with fields replaced after the checksum would be right."""
    block = bytearray(packed([("f", tarfile.REGTYPE, 0o644, 0, "", 0, b"")], tarfile.USTAR_FORMAT)[:512])
    offsets = {"mode": 100, "uid": 108, "size": 124, "mtime": 136, "type": 156, "major": 329}
    for field, value in changes.items():
        block[offsets[field] : offsets[field] + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"size": b"\xff" * 12}, "out of range"),  # -1
        ({"size": b"\x80" + b"\xff" * 11}, "out of range"),
        ({"size": b"77777777777\0"}, "ends in the middle"),
        ({"uid": b"\xff" * 8}, "out of range"),
        ({"mtime": b"\x80\x7f" + b"\xff" * 10}, "out of range"),
        ({"mode": b"hello\0\0\0"}, "not a number"),
        ({"type": b"Z"}, "unknown type"),
        ({"type": b"3", "major": b"7777777\0"}, "out of range"),
        ({"type": b"x", "size": b"77777777777\0"}, "extended header"),
        ({"type": b"L", "size": b"77777777777\0"}, "extended header"),
    ],
)
def test_fields_that_no_file_can_have(fields, complaint):
    with pytest.raises(InvalidArgument, match=complaint):
        read(header(**fields) + bytes(1024))


@pytest.mark.parametrize(
    "records",
    [
        b"5 a=b\n",
        b"999 a=b\n",
        b"x a=b\n",
        b"6 a=b",
        b"6 aXb\n",
        b"13 size=-10\n\n",
        b"0 a=b\n",
        b"13 mtime=a.b\n",
        b"11 path=\0x\n",
    ],
)
def test_broken_pax_records(records):
    block = header(type=b"x", size=b"%011o\0" % len(records)) + records.ljust(512, b"\0")
    with pytest.raises(InvalidArgument):
        read(block + header() + bytes(1024))


def test_global_pax_headers_hold_for_all_that_follow():
    record = b"21 comment=of a commit\n"
    record = b"%d comment=of a commit\n" % len(record)
    block = header(type=b"g", size=b"%011o\0" % len(record)) + record.ljust(512, b"\0")
    assert [m[0] for m in read(block + header() + header() + bytes(1024))] == ["f", "f"]


@pytest.mark.parametrize("fmt", ["v7", "ustar", "gnu", "oldgnu", "posix"])
def test_archives_of_gnu_tar(tmp_path, fmt):
    root = tmp_path / "root"
    (root / "d").mkdir(parents=True)
    (root / "d" / "file").write_bytes(b"x" * 5000)
    os.link(root / "d" / "file", root / "hard")
    (root / "sym").symlink_to("d/file")
    os.mkfifo(root / "pipe")
    if fmt != "v7":
        (root / ("n" * 90)).mkdir()
        (root / ("n" * 90) / ("m" * 90)).write_text("prefix")
    data = subprocess.run(
        ["tar", f"--format={fmt}", "--sort=name", "-C", str(root), "-c", "."], check=fmt != "v7", capture_output=True
    ).stdout
    found = {clean(m[0]): m for m in read(data)}
    with tarfile.open(fileobj=io.BytesIO(data)) as theirs:
        for info in theirs:
            mine = found.pop(clean(info.name))
            assert mine[1:6] == (KINDS[info.type], info.mode, info.uid, info.gid, info.linkname)
            if info.isreg():
                assert mine[8] == theirs.extractfile(info).read()
            assert abs(mine[6] - info.mtime * 10**9) < 10**9
            if fmt == "posix":
                assert mine[6] == os.lstat(root / info.name).st_mtime_ns
    assert found == {}


@pytest.mark.parametrize("sparse", ["gnu 0.0", "posix 0.0", "posix 0.1", "posix 1.0"])
def test_sparse_files_of_gnu_tar(tmp_path, sparse):
    fmt, version = sparse.split()
    content = bytearray(3 << 20)
    for n in range(60):  # more extents than one header holds
        content[n * 50_000 : n * 50_000 + 10] = b"0123456789"
    with open(tmp_path / "holes", "wb") as f:
        for n in range(60):
            f.seek(n * 50_000)
            f.write(b"0123456789")
        f.truncate(3 << 20)
    command = ["tar", f"--format={fmt}", f"--sparse-version={version}", "-S", "-C", str(tmp_path), "-c", "holes"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    assert len(data) < 1 << 20, "the file system of the tests knows no holes"
    ((name, kind, *_, found),) = read(data, 777)
    assert (name, kind) == ("holes", tar.FILE)
    assert found == bytes(content)


HOLES = {
    "image": [(0, 10), (3 << 20, 70_000), (9 << 20, 4096)],  # it ends in a hole
    "only a hole": [],
    "end": [((16 << 20) - 5, 5)],
    "many": [(number << 17, 3) for number in range(100)],
    "whole": [(0, 16 << 20)],
}


def sparse_tree(root: Path) -> None:
    """Files of 16 MiB with data at the places above, some with names that do not fit into a header."""
    directory = root / ("n" * 90) / "\udcff\udcfe"
    directory.mkdir(parents=True)
    for name, extents in HOLES.items():
        with open(directory / name, "wb") as f:
            for offset, length in extents:
                f.seek(offset)
                f.write(b"x" * length)
            f.truncate(16 << 20)
    os.setxattr(directory / "image", "user.note", b"kept")
    os.link(directory / "image", directory / "other")


def picture(root: Path) -> dict[str, tuple]:
    """Content, blocks, extended attributes, time and links of all files."""
    found = {}
    for path in root.rglob("*"):
        status = path.stat()
        if path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            noted = [os.getxattr(path, name) for name in os.listxattr(path)]
            found[str(path.relative_to(root))] = (
                digest,
                status.st_blocks // 16,
                noted,
                status.st_mtime_ns,
                status.st_nlink,
            )
    return found


@pytest.mark.parametrize("most", [write._MOST_EXTENTS, 20])
def test_holes_stay_holes(tmp_path: Path, monkeypatch, most: int):
    monkeypatch.setattr(write, "_MOST_EXTENTS", most)
    source, ours, theirs = (tmp_path / name for name in ("source", "ours", "theirs"))
    sparse_tree(source)
    for place in (ours, theirs):
        place.mkdir()
    data = io.BytesIO()
    write.write_tree(str(source), data)
    joined = len(HOLES["many"]) > most
    filled = sum(length for extents in HOLES.values() for _, length in extents)
    assert len(data.getvalue()) < filled + (14 << 20 if joined else 2 << 20)
    extract.extract(io.BytesIO(data.getvalue()), str(ours), layer=False)
    wanted = picture(source)
    if joined:  # that one is as long as all its holes together
        for found in (wanted, made := picture(ours)):
            (name,) = (name for name in found if name.endswith("many"))
            found[name] = (found[name][0], 0, *found[name][2:])
        assert made == wanted
        return
    assert picture(ours) == wanted
    subprocess.run(["tar", "--xattrs", "-C", str(theirs), "-x"], input=data.getvalue(), check=True)
    assert picture(theirs) == wanted
    with tarfile.open(fileobj=io.BytesIO(data.getvalue())) as archive:
        for info in archive:
            if info.isreg():
                name = info.name.removeprefix("./")
                assert hashlib.sha256(archive.extractfile(info).read()).hexdigest() == wanted[name][0]


def test_a_sparse_file_that_shrinks_keeps_its_size(tmp_path: Path, monkeypatch):
    path = tmp_path / "source/file"
    path.parent.mkdir()
    with open(path, "wb") as f:
        f.seek(1 << 20)
        f.write(b"x" * 100_000)
        f.truncate(2 << 20)
    extents = write._extents
    monkeypatch.setattr(write, "_extents", lambda fd, size: (extents(fd, size), os.truncate(path, 1 << 20))[0])
    data = io.BytesIO()
    write.write_tree(str(path.parent), data)
    ((_, found),) = [(m[0], m[8]) for m in read(data.getvalue()) if m[1] == tar.FILE]
    assert found == bytes(2 << 20)


def test_extended_attributes_may_be_any_bytes():
    value = bytes(range(256))
    record = b" SCHILY.xattr.user.any=" + value + b"\n"
    length = len(record) + 3
    record = b"%d" % length + record
    block = header(type=b"x", size=b"%011o\0" % len(record)) + record.ljust(-(-len(record) // 512) * 512, b"\0")
    ((*_, xattrs, _content),) = read(block + header() + bytes(1024))
    assert xattrs == {"user.any": value}


@given(st.text(max_size=60))
def test_a_clean_name_stays_inside(name):
    try:
        path = clean(name)
    except InvalidArgument:
        return
    assert path == "." or (path[0] != "/" and not {"", ".", ".."} & set(path.split("/")))


@pytest.mark.parametrize("kind", ["gzip", "zstd", "xz", "bzip2"])
def test_compressed_streams_cut_anywhere_are_refused(kind):
    import bz2
    import gzip
    import lzma

    import zstandard

    compress = {"gzip": gzip.compress, "zstd": zstandard.compress, "xz": lzma.compress, "bzip2": bz2.compress}[kind]
    content = os.urandom(3000)
    data = compress(content)
    assert compression.kind(data[:6]) == kind
    with compression.reader(io.BytesIO(data), "it") as f:
        assert f.read() == content
    with compression.reader(io.BytesIO(data + compress(b"more")), "it") as f:
        assert f.read() == content + b"more"
    for length in range(6, len(data), 7):
        with compression.reader(io.BytesIO(data[:length]), "it") as f, pytest.raises(InvalidArgument, match=kind):
            while f.read(100):
                pass


_PACKERS = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
    "none": bytes,
}


@pytest.mark.parametrize("pack", _PACKERS.values(), ids=_PACKERS)
def test_decoders_are_closed(pack):
    """Also when what is read turns out to be broken."""
    kept = []
    with pytest.raises(InvalidArgument), compression.reader(io.BytesIO(pack(bytes(5000))), "archive") as plain:
        kept.append(plain._stream)
        list(tar.TarReader(io.BytesIO(b"x" + plain.read())))
    assert kept[0].closed
