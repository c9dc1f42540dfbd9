"""Files as archives, in both directions; archives that others have made to do harm."""

from __future__ import annotations

import io
import os
import tarfile

import pytest

from ketch.aio import files
from ketch.errors import InvalidArgument, NotFound


def members(*arguments) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(files.packed(*arguments)))) as archive:
        return {member.name: member for member in archive}


def received(*entries: tuple[tarfile.TarInfo, bytes]) -> files.Received:
    found = files.Received()
    with tarfile.open(fileobj=found._file, mode="w") as archive:
        for info, data in entries:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    found._file.seek(0)
    return found


def entry(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.mode = kind, 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def test_what_is_put(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text("x")
    one = members("/a//b/./c", b"data", 0o640, (1, 2))
    assert [(m.name, m.mode, m.uid, m.gid, m.size) for m in one.values()] == [("a/b/c", 0o640, 1, 2, 4)]
    assert set(members("/w", {"x": "1", "y/z": b"2"}, 0o600, (0, 0))) == {"w/x", "w/y/z"}
    tree = members("/w", tmp_path, 0o600, (3, 4))
    assert set(tree) == {"w", "w/d", "w/d/f"}
    assert {(m.uid, m.gid) for m in tree.values()} == {(3, 4)}
    for path, content in (("/..", b""), ("/a", {"../b": b""}), ("/", b"")):
        with pytest.raises(InvalidArgument):
            members(path, content, 0o600, (0, 0))
    with pytest.raises(NotFound, match="no such file"):
        members("/a", tmp_path / "none", 0o600, (0, 0))


def test_what_is_got():
    """One file, or all below a directory, whose own name does not count."""
    assert received(entry("f", data=b"x")).content("/f") == b"x"
    for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE):
        with pytest.raises(InvalidArgument, match="no file"):
            received(entry("f", kind)).content("/f")
    found = received(entry("d", tarfile.DIRTYPE), entry("d/a", data=b"1"), entry("d/e/b", data=b"2"))
    assert found.tree() == {"a": b"1", "e/b": b"2"}


def test_the_root_is_got_whole(tmp_path):
    """Its entries have no directory's name in front."""
    entries = (entry("/", tarfile.DIRTYPE), entry("/etc", tarfile.DIRTYPE), entry("/etc/a", data=b"1"), entry("/b"))
    assert received(*entries).tree() == {"etc/a": b"1", "b": b""}
    received(*entries).unpack(str(tmp_path))
    assert (tmp_path / "etc" / "a").read_bytes() == b"1"
    assert (tmp_path / "b").is_file()


@pytest.mark.parametrize(
    "entries",
    [
        [entry("d/../../out", data=b"x")],
        [entry("/../../out", data=b"x")],
        [entry("d/link", tarfile.SYMTYPE, linkname=".."), entry("d/link/out", data=b"x")],
        [entry("d/link", tarfile.SYMTYPE, linkname="/tmp"), entry("d/link/out", data=b"x")],
        [entry("d/link", tarfile.LNKTYPE, linkname="d/../../../etc/passwd")],
    ],
    ids=["dots", "dots of the root", "link", "absolute", "hard link"],
)
def test_nothing_leaves_the_directory(tmp_path, entries):
    target = tmp_path / "inside" / "target"
    with pytest.raises(Exception) as failed:
        received(*entries).unpack(str(target))
    assert failed.type.__module__ == "ketch.errors"
    assert not os.path.exists(tmp_path / "inside" / "out")
    assert not os.path.exists(tmp_path / "out")


def test_nothing_of_a_container_is_more_than_a_file(tmp_path):
    """No devices, no pipes, and none that runs as its owner."""
    received(
        entry("d/setuid", data=b"x", mode=0o6755),
        entry("d/null", tarfile.CHRTYPE, devmajor=1, devminor=3),
        entry("d/pipe", tarfile.FIFOTYPE),
    ).unpack(str(tmp_path))
    assert os.listdir(tmp_path) == ["setuid"]
    assert os.stat(tmp_path / "setuid").st_mode & 0o7777 == 0o755
