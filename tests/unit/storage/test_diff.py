"""Upper directories against the layers below them, and as layers: the parts that need no container."""

from __future__ import annotations

import io
import os
import tarfile

import pytest

from ketch.errors import InvalidArgument
from ketch.storage.archive.extract import extract
from ketch.storage.archive.layer import write_layer
from ketch.storage.snapshots import diff, layer_copy


@pytest.fixture
def trees(tmp_path):
    """(upper, lower), and a function that compares them."""
    for name in ("upper", "lower"):
        (tmp_path / name).mkdir()

    def compare(*, lower: bool = True) -> list[str]:
        fds = [os.open(tmp_path / name, os.O_RDONLY | os.O_DIRECTORY) for name in ("upper", "lower")]
        try:
            return ["CAD"[kind] + " " + path for path, kind in diff.changes(fds[0], fds[1] if lower else -1)]
        finally:
            for fd in fds:
                os.close(fd)

    return tmp_path / "upper", tmp_path / "lower", compare


def write(path, text: str = "x", mtime: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    os.utime(path, (mtime, mtime))


def whiteout(path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mknod(path, 0o20000, 0)


def test_kinds(trees):
    upper, lower, compare = trees
    for name in ("same", "other", "gone", "deep/er/file", "became-a-directory"):
        write(lower / name)
    (lower / "became-a-file").mkdir()
    write(upper / "same")
    write(upper / "other", "longer")
    write(upper / "new")
    write(upper / "deep/er/file", mtime=2)
    write(upper / "became-a-directory/x")
    write(upper / "became-a-file")
    whiteout(upper / "gone")
    whiteout(upper / "never-was")
    (upper / "deep" / "unchanged").mkdir()
    (lower / "deep" / "unchanged").mkdir()
    assert compare() == [
        "C /became-a-directory",
        "A /became-a-directory/x",
        "C /became-a-file",
        "C /deep",
        "C /deep/er",
        "C /deep/er/file",
        "D /gone",
        "A /new",
        "C /other",
    ]


def test_opaque_directories(trees):
    upper, lower, compare = trees
    for name in ("d/kept", "d/gone", "d/sub/x"):
        write(lower / name)
    write(upper / "d/kept", "again")
    write(upper / "d/new")
    os.setxattr(upper / "d", "trusted.overlay.opaque", b"y")
    assert compare() == ["C /d", "D /d/gone", "C /d/kept", "A /d/new", "D /d/sub"]


def test_owners_and_modes_count(trees):
    upper, lower, compare = trees
    for name in ("mode", "owner", "capable"):
        write(lower / name)
        write(upper / name)
    (upper / "mode").chmod(0o600)
    os.chown(upper / "owner", 1, 1)
    os.setxattr(upper / "capable", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.utime(upper / "capable", (1, 1))
    assert compare() == ["C /capable", "C /mode", "C /owner"]


def test_places_of_mounts(trees):
    upper, lower, compare = trees
    for name in ("proc", "sys", "dev"):
        (upper / name).mkdir()
    for name in ("hosts", "hostname", "resolv.conf"):
        write(upper / "etc" / name, "")
    assert compare() == compare(lower=False) == []
    write(upper / "etc/own")
    write(upper / "dev/file")
    assert compare() == ["A /dev", "A /dev/file", "A /etc", "A /etc/own"]
    write(lower / "etc/hosts", "was not empty")
    assert "C /etc/hosts" in compare()


def test_links_are_not_followed(trees, tmp_path):
    """The container may put one where the engine looks for its own places."""
    upper, _, compare = trees
    write(tmp_path / "outside/hosts", "")
    (upper / "etc").symlink_to(tmp_path / "outside")
    assert compare() == ["A /etc"]


def test_a_layer_and_back(trees, tmp_path):
    upper, _, _ = trees
    write(upper / "d/file")
    os.link(upper / "d/file", upper / "d/hard")
    whiteout(upper / "d/gone")
    (upper / "o").mkdir()
    os.setxattr(upper / "o", "trusted.overlay.opaque", b"y")
    os.setxattr(upper / "d/file", "user.a", b"\xff")
    (upper / "proc").mkdir()
    buffer = io.BytesIO()
    upper_fd = os.open(upper, os.O_RDONLY | os.O_DIRECTORY)
    try:
        (tmp_path / "copy").mkdir()
        layer_copy.copy(upper_fd, str(tmp_path / "copy"), diff.places_made(upper_fd, -1))
    finally:
        os.close(upper_fd)
    copy_fd = os.open(tmp_path / "copy", os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert write_layer(copy_fd, buffer.write) == 1
    finally:
        os.close(copy_fd)
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as archive:
        assert archive.getnames() == ["d", "d/file", "d/.wh.gone", "d/hard", "o", "o/.wh..wh..opq"]
    buffer.seek(0)
    (tmp_path / "back").mkdir()
    extract(buffer, str(tmp_path / "back"))
    assert os.stat(tmp_path / "back/d/gone").st_rdev == 0
    assert os.getxattr(tmp_path / "back/o", "trusted.overlay.opaque") == b"y"
    assert os.getxattr(tmp_path / "back/d/hard", "user.a") == b"\xff"


def test_names_that_a_layer_cannot_have(trees):
    upper, _, _ = trees
    write(upper / ".wh.x")
    upper_fd = os.open(upper, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(InvalidArgument, match=r"make a layer of `/\.wh\.x`"):
            write_layer(upper_fd, io.BytesIO().write)
    finally:
        os.close(upper_fd)
