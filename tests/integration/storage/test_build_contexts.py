"""Clients' directories on their way to layers: what is copied, what is linked, and what a hostile one cannot do."""

from __future__ import annotations

import io
import os
import pathlib
import stat
import tarfile
import time

import pytest

from ketch.errors import Conflict, InvalidArgument
from ketch.storage.contexts import copies
from ketch.storage.contexts.copies import ContextCopies, KeptCopy
from ketch.storage.contexts.fill import Known, fill
from ketch.storage.contexts.lookup import link_target, names_in
from ketch.storage.contexts.receive import receive, sweep
from ketch.storage.contexts.scan import scan
from tests.support.memory import MIB, Memory
from tests.support.waiting import until


@pytest.fixture
def client(tmp_path):
    """A directory of a client, with one of each kind in it, and an open descriptor of it."""
    top = tmp_path / "client"
    (top / "d" / "deep").mkdir(parents=True)
    (top / "a").write_text("first")
    (top / "d" / "b").write_text("second")
    (top / "d" / "deep" / "c").write_text("third")
    os.link(top / "a", top / "d" / "same")
    os.symlink("../../../etc/passwd", top / "d" / "out")
    os.mkfifo(top / "d" / "pipe")
    os.mknod(top / "d" / "socket", stat.S_IFSOCK | 0o755)
    os.chown(top / "a", 1000, 1000)
    os.chmod(top / "a", 0o4751)
    os.setxattr(top / "d" / "b", "user.note", b"kept")
    os.setxattr(top / "d" / "b", "trusted.overlay.opaque", b"y")
    os.chmod(top / "d", 0o2770)
    os.utime(top / "d", ns=(5, 1_500_000_000_123_456_789))
    os.utime(top / "d" / "out", ns=(5, 7), follow_symlinks=False)
    fd = os.open(top, os.O_RDONLY)
    yield top, fd
    os.close(fd)


def everything(top):
    """All paths below a directory; links are not followed."""
    return [pathlib.Path(where, name) for where, below, names in os.walk(top) for name in below + names]


def made(tmp_path, name="layer"):
    path = tmp_path / name
    path.mkdir()
    return path


def test_everything_is_copied_for_root(client, tmp_path):
    top, fd = client
    entries = scan(fd)
    assert " ".join(one.path for one in entries) == "a d d/b d/out d/pipe d/same d/socket d/deep d/deep/c"
    layer, sizes = made(tmp_path), []
    fill(fd, entries, str(layer), Known(), sizes.append)
    assert (layer / "a").read_text() == "first"
    assert (layer / "d/deep/c").read_text() == "third"
    assert (layer / "a").stat().st_ino == (layer / "d/same").stat().st_ino != (top / "a").stat().st_ino
    assert stat.S_IMODE((layer / "a").stat().st_mode) == 0o4751
    owners = {
        (one.stat(follow_symlinks=False).st_uid, one.stat(follow_symlinks=False).st_gid) for one in everything(layer)
    }
    assert owners == {(0, 0)}
    assert os.readlink(layer / "d/out") == "../../../etc/passwd"
    assert os.lstat(layer / "d/out").st_mtime_ns == 7
    assert stat.S_ISFIFO((layer / "d/pipe").stat().st_mode)
    assert stat.S_ISREG((layer / "d/socket").stat().st_mode)
    assert (layer / "d").stat().st_mtime_ns == 1_500_000_000_123_456_789
    assert stat.S_IMODE((layer / "d").stat().st_mode) == 0o2770
    assert os.getxattr(layer / "d/b", "user.note") == b"kept"
    assert "trusted.overlay.opaque" not in os.listxattr(layer / "d/b")
    assert sum(sizes) == len("first" + "second" + "third")


def test_what_is_known_is_linked_and_not_read(client, tmp_path):
    top, fd = client
    entries = scan(fd)
    first, second = made(tmp_path, "first"), made(tmp_path, "second")
    fill(fd, entries, str(first), Known())
    (top / "d" / "deep" / "c").write_text("other")
    first_fd = os.open(first, os.O_RDONLY)
    copied = []
    fill(fd, scan(fd), str(second), Known(first_fd, set(entries)), copied.append)
    os.close(first_fd)
    assert sum(copied) == len("other")
    assert (second / "d/deep/c").read_text() == "other"
    assert (first / "d/deep/c").read_text() == "third"
    assert (second / "d/b").stat().st_ino == (first / "d/b").stat().st_ino
    assert (second / "d/same").stat().st_ino == (first / "a").stat().st_ino


@pytest.mark.parametrize("unknown", ["a", "d/same"])
def test_names_of_one_file_stay_together_when_only_one_is_known(client, tmp_path, unknown):
    _, fd = client
    entries = scan(fd)
    first, second = made(tmp_path, "first"), made(tmp_path, "second")
    fill(fd, entries, str(first), Known())
    first_fd = os.open(first, os.O_RDONLY)
    fill(fd, entries, str(second), Known(first_fd, {one for one in entries if one.path != unknown}))
    os.close(first_fd)
    assert (second / "d/same").stat().st_ino == (second / "a").stat().st_ino


def test_choice_of_paths_keeps_the_directories_above(client):
    _top, fd = client
    asked = []

    def choose(state, path, is_directory):
        asked.append(path)
        return path in ("d/deep/c", "d/b"), (*state, path) if is_directory else None

    assert [one.path for one in scan(fd, choose)] == ["d", "d/b", "d/deep", "d/deep/c"]
    assert [one.path for one in scan(fd, lambda s, path, _d: (path == "d/deep", None if path == "d" else ()))] == []


@pytest.mark.parametrize("change", ["content", "swapped", "removed", "directory", "fifo"])
def test_what_changes_while_it_is_read_is_refused(client, tmp_path, change):
    top, fd = client
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "b").write_text("not for builds")
    entries = scan(fd)

    def spoil(_bytes):
        victim = top / "d" / "b"
        if not (top / "d" / "deep").exists():
            return
        if change == "content":
            victim.write_text("longer than before")
        elif change == "directory":
            (top / "d").rename(tmp_path / "aside")
            os.symlink(secret, top / "d")
        else:
            victim.unlink()
            if change == "swapped":
                os.symlink(secret / "b", victim)
            elif change == "fifo":
                os.mkfifo(victim)

    layer = made(tmp_path)
    with pytest.raises(Conflict, match=r"in the build context changed while it was read"):
        fill(fd, entries, str(layer), Known(), spoil)
    assert not [one for one in everything(layer) if one.is_file() and "not for builds" in one.read_text()]


@pytest.mark.parametrize("place", ["d", "d/deep"])
def test_a_directory_that_is_swapped_for_a_link_is_not_followed(client, tmp_path, place):
    top, fd = client
    secret = tmp_path / "secret" / "deep"
    secret.mkdir(parents=True)
    (secret / "c").write_text("not for builds")

    def choose(_state, path, _is_directory):
        if path == place:
            (top / place).rename(tmp_path / "aside")
            os.symlink(tmp_path / "secret" / "deep", top / place)
        return True, ()

    with pytest.raises(Conflict, match=f"`{place}` in the build context changed while it was read"):
        scan(fd, choose)


def test_a_file_that_is_written_to_while_it_is_copied_is_refused(tmp_path):
    top = made(tmp_path, "client")
    with open(top / "big", "wb") as f:
        f.truncate(100 << 20)
        f.write(b"x" * (20 << 20))
        f.seek(90 << 20)
        f.write(b"y")
    fd = os.open(top, os.O_RDONLY)
    times = []

    def spoil(_bytes):
        times.append(1)
        os.truncate(top / "big", (100 << 20) + len(times))

    with pytest.raises(Conflict, match="`big` in the build context changed"):
        fill(fd, scan(fd), str(made(tmp_path)), Known(), spoil)
    os.close(fd)


def test_a_whiteout_of_overlay_is_no_file(tmp_path):
    top = made(tmp_path, "client")
    os.mknod(top / "gone", stat.S_IFCHR | 0o600, 0)
    fd = os.open(top, os.O_RDONLY)
    with pytest.raises(InvalidArgument, match="`gone` in the build context: a character device 0:0"):
        fill(fd, scan(fd), str(made(tmp_path)), Known())
    os.close(fd)


def test_very_deep_trees_are_refused_in_a_sentence(tmp_path):
    top = made(tmp_path, "client")
    fd = os.open(top, os.O_RDONLY)
    below = os.dup(fd)
    for _ in range(2100):
        os.mkdir("d" * 10, dir_fd=below)
        inner = os.open("d" * 10, os.O_RDONLY, dir_fd=below)
        os.close(below)
        below = inner
    os.close(below)
    with pytest.raises(InvalidArgument, match="its path is longer than 4095 bytes"):
        scan(fd)
    os.close(fd)


def test_copies_are_found_again_until_the_machine_starts_anew(client, tmp_path):
    top, fd = client
    taken, entries = copies.now_ns(), scan(fd)
    kept = ContextCopies(str(tmp_path / "kept"))
    kept.keep(KeptCopy(layer="built-1", place="here", taken_ns=taken), "all", entries)
    kept.keep(KeptCopy(layer="built-2", place="here", taken_ns=taken), "some", entries[:2])
    kept.keep(KeptCopy(layer="built-3", place="there", taken_ns=taken), "all", [])
    again = ContextCopies(str(tmp_path / "kept"))
    assert again.layers() == {"built-1", "built-2", "built-3"}
    assert [one.layer for one in again.find("here", "all")] == ["built-1", "built-2"]
    assert [one.layer for one in again.find("here", "else")] == ["built-1", "built-2"]
    assert again.entries(again.find("here", "all")[0]) == entries
    assert again.entries(again.find("there", "all")[0]) == []
    again.forget({"built-1"})
    assert [one.layer for one in ContextCopies(str(tmp_path / "kept")).find("here", "all")] == ["built-2"]
    for path in (tmp_path / "kept").iterdir():
        path.write_bytes(path.read_bytes().replace(b'"boot":"', b'"boot":"x'))
    (tmp_path / "kept" / "junk").write_bytes(b"{")
    assert ContextCopies(str(tmp_path / "kept")).layers() == set()
    assert list((tmp_path / "kept").iterdir()) == []


def test_what_changed_just_before_it_was_read_is_read_again(client):
    top, fd = client
    until(lambda: time.time_ns() - (top / "d" / "pipe").stat().st_ctime_ns > 100_000_000, "time goes on")
    (top / "a").write_text("again")
    taken, entries = copies.now_ns(), scan(fd)
    copy = KeptCopy(layer="built-1", place="here", taken_ns=taken)
    assert {one[0] for one in entries} - {one[0] for one in copies.settled(copy, entries)} == {"a", "d/same"}


def test_names_that_are_no_text_are_kept(tmp_path):
    top = made(tmp_path, "client")
    name = os.fsdecode(b"\xff\xfe")
    (top / name).write_text("x")
    fd = os.open(top, os.O_RDONLY)
    entries = scan(fd)
    kept = ContextCopies(str(tmp_path / "kept"))
    kept.keep(KeptCopy(layer="built-1", place="here", taken_ns=0), "all", entries)
    assert kept.entries(kept.find("here", "all")[0]) == entries
    os.close(fd)


def test_lookups_do_not_leave_the_directory(client, tmp_path):
    top, fd = client
    os.symlink("/etc", top / "etc")
    assert link_target(fd, "etc") == "/etc"
    assert link_target(fd, "etc/mtab") is None
    assert link_target(fd, "../client/etc") is None
    assert link_target(fd, "a") is None
    assert names_in(fd, "etc") == []
    assert names_in(fd, "../client") == []
    assert names_in(fd, "d/deep") == ["c"]


def tar_of(*members, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.uid, info.gid, info.mode = kind, 1000, 1000, 0o640
            if kind == tarfile.REGTYPE:
                info.size = len(content)
            elif kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.linkname = content
            tar.addfile(info, io.BytesIO(content) if kind == tarfile.REGTYPE else None)
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_an_archive_becomes_a_private_directory(tmp_path, mode):
    archive = tar_of(
        ("./", tarfile.DIRTYPE, None),
        ("d/.wh.kept", tarfile.REGTYPE, b"a name like any other"),
        ("d/link", tarfile.SYMTYPE, "/etc/passwd"),
        mode=mode,
    )
    with receive(archive, str(tmp_path / "made")) as directory:
        assert os.listdir(directory.fd) == ["d"]
        assert [one.path for one in scan(directory.fd)] == ["d", "d/.wh.kept", "d/link"]
        status = os.stat("d/.wh.kept", dir_fd=directory.fd)
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 0, 0o640)
    assert os.listdir(tmp_path / "made") == []


@pytest.mark.parametrize(
    "archive",
    [
        tar_of(("../out", tarfile.REGTYPE, b"x")),
        tar_of(("up", tarfile.SYMTYPE, ".."), ("up/out", tarfile.REGTYPE, b"x")),
        tar_of(("secret", tarfile.LNKTYPE, "../../etc/passwd")),
        tar_of(("gone", tarfile.CHRTYPE, None)),
        io.BytesIO(tar_of(("a", tarfile.REGTYPE, b"x" * 9000)).getvalue()[:5000]),
        io.BytesIO(b"no archive at all" * 100),
    ],
    ids=["dots", "link", "hard link", "whiteout", "cut", "text"],
)
def test_archives_that_are_broken_or_lead_out_leave_nothing(tmp_path, archive):
    with pytest.raises(InvalidArgument):
        receive(archive, str(tmp_path / "made"))
    assert os.listdir(tmp_path / "made") == []
    assert sorted(os.listdir(tmp_path)) == ["made"]


class _Endless(io.RawIOBase):
    """An archive of one file, made while it is read."""

    def __init__(self, size):
        info = tarfile.TarInfo("big")
        info.size = size
        self._left, self._head = size, info.tobuf()

    def readable(self):
        return True

    def readinto(self, buffer):
        if self._head:
            count = min(len(buffer), len(self._head))
            buffer[:count], self._head = self._head[:count], self._head[count:]
            return count
        count = min(len(buffer), self._left)
        self._left -= count
        buffer[:count] = bytes(count)
        return count


def test_a_large_archive_takes_little_memory(tmp_path):
    memory = Memory(os.getpid())
    with receive(_Endless(96 * MIB), str(tmp_path / "made")) as directory:
        assert os.stat("big", dir_fd=directory.fd).st_size == 96 * MIB
    assert memory.grown_mib() < 24


def test_leftovers_are_swept(tmp_path):
    (tmp_path / "made" / "context-1" / "d").mkdir(parents=True)
    (tmp_path / "made" / "other").mkdir()
    sweep(str(tmp_path / "made"))
    sweep(str(tmp_path / "nothing"))
    assert os.listdir(tmp_path / "made") == ["other"]
