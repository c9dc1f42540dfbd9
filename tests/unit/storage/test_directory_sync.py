"""Directories that clients send: what is made of them, what is asked for again, and which lists are refused."""

from __future__ import annotations

import itertools
import os
import shutil
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.errors import Conflict, DataLoss, InvalidArgument, ResourceExhausted
from ketch.storage.contexts import sent
from ketch.storage.contexts.sent import SentEntry, SentOrder
from ketch.storage.contexts.sync import DirectorySync, LastCopy
from tests.support.building.sending import listed, send

DIRECTORY, FILE, LINK, FIFO, CHAR = (
    stat.S_IFDIR | 0o755,
    stat.S_IFREG | 0o644,
    stat.S_IFLNK | 0o777,
    stat.S_IFIFO | 0o600,
    stat.S_IFCHR | 0o600,
)


class NewLayer:
    def __init__(self, path):
        self.directory, self.work = str(path / "diff"), str(path / "work")
        (path / "work").mkdir(parents=True, exist_ok=True)


class Receiver:
    """Layers below a directory, each made beside the last one, or, when they may be taken, of it."""

    def __init__(self, root, *, takes=False):
        self.root, self.numbers, self.last, self.layer = root, itertools.count(), None, None
        self.takes = takes

    def begin(self):
        made = self.root / f"layer-{next(self.numbers)}"
        self.fresh = made / "diff"
        self.fresh.mkdir(parents=True)
        if not self.takes or self.layer is None:
            self.layer = self.fresh
        return NewLayer(made)

    def take(self):
        """The last layer, by another name."""
        if not self.takes:
            return None
        made = self.root / f"layer-{next(self.numbers)}"
        os.rename(self.layer.parent, made)
        self.layer = made / "diff"
        return NewLayer(made)

    def receive(self, top, unsettled=()):
        """Receive a directory; returns what was asked for, and whether nothing was written."""
        sync = DirectorySync(self.begin, self.last)
        try:
            asked = send(top, sync)
            sync.finish()
        finally:
            sync.close()
        rows, self.changed = sync.rows, sync.changed_paths()
        if self.last is not None:
            os.close(self.last.fd)
        fd = os.open(self.layer, os.O_RDONLY | os.O_DIRECTORY)
        self.last = LastCopy(rows, frozenset(row for row in rows if row[0] not in unsettled), fd, self.take)
        return asked, sync.unchanged

    def close(self):
        if self.last is not None:
            os.close(self.last.fd)


@pytest.fixture(params=[False, True], ids=["linked", "in-place"])
def receiver(tmp_path, request):
    (tmp_path / "layers").mkdir()
    made = Receiver(tmp_path / "layers", takes=request.param)
    yield made
    made.close()


def everything(top):
    """All that a list tells of a directory, and the content of its files."""
    found = []
    for one in listed(top):
        path = Path(top) / one.path
        found.append((one, path.read_bytes() if stat.S_ISREG(one.mode) else b""))
    return found


def varied(top):
    """A directory with an entry of every kind."""
    (top / "a/b").mkdir(parents=True)
    (top / "a/b/file").write_bytes(os.urandom(100_000))
    (top / "a-b").write_text("sorts behind what is in a")
    (top / "empty").touch()
    (top / "new\nline \udcff").write_text("name")
    os.link(top / "a/b/file", top / "z-second")
    os.symlink("../../etc/passwd", top / "link")
    os.mkfifo(top / "pipe", 0o640)
    os.mknod(top / "zero", CHAR, os.makedev(1, 5))
    os.setxattr(top / "a", "user.of", b"directory")
    os.setxattr(top / "a-b", "user.of", b"file")
    os.chmod(top / "a-b", 0o4751)
    os.chmod(top / "a/b", 0o1777)
    os.chown(top / "empty", 12, 34)
    for number, one in enumerate(reversed(listed(top))):
        os.utime(top / one.path, ns=(number, 10**18 + number), follow_symlinks=False)
    return top


def test_all_kinds_of_entries(receiver, tmp_path):
    top = varied(tmp_path / "client")
    asked, unchanged = receiver.receive(top)
    assert asked == ["a/b/file", "a-b", "empty", "new\nline \udcff"]
    assert not unchanged
    assert everything(receiver.layer) == everything(top)
    first = receiver.layer
    assert receiver.receive(top) == ([], True)
    assert receiver.layer == first


def test_only_what_changed_is_asked_for(receiver, tmp_path):
    top = varied(tmp_path / "client")
    receiver.receive(top)
    inodes = {path: os.lstat(receiver.layer / path).st_ino for path in ("a-b", "a/b/file", "link", "pipe")}
    first = receiver.layer
    (top / "empty").write_text("not any more")
    asked, unchanged = receiver.receive(top)
    assert (asked, unchanged) == (["empty"], False)
    assert everything(receiver.layer) == everything(top)
    assert receiver.changed == {"empty", "a-b", "z-second"}
    assert {path: os.lstat(receiver.layer / path).st_ino for path in inodes} == inodes
    assert first.exists() != receiver.takes
    if first.exists():
        assert (first / "empty").read_bytes() == b""


@pytest.mark.parametrize(
    "change",
    [
        lambda top: (top / "zz").write_text("last"),
        lambda top: (top / "z-second").unlink(),
        lambda top: (top / "a/b/file").unlink(),
        lambda top: shutil.rmtree(top / "a"),
        lambda top: (top / "0").mkdir(),
        lambda top: os.setxattr(top / "a", "user.of", b"another"),
        lambda top: os.setxattr(top / "empty", "user.of", b"file"),
        lambda top: os.chown(top / "a-b", 1, 1),
        lambda top: os.chmod(top / "a/b", 0o700),
        lambda top: (os.unlink(top / "link"), os.symlink("elsewhere", top / "link")),
        lambda top: (os.unlink(top / "pipe"), (top / "pipe").mkdir()),
        lambda top: (os.unlink(top / "zero"), os.mknod(top / "zero", CHAR, os.makedev(1, 3))),
        lambda top: os.utime(top / "a", (1, 1)),
        lambda top: [os.unlink(top / "z-second"), os.link(top / "a-b", top / "z-second")],
    ],
)
def test_every_change_is_seen(receiver, tmp_path, change):
    top = varied(tmp_path / "client")
    receiver.receive(top)
    change(top)
    assert not receiver.receive(top)[1]
    assert everything(receiver.layer) == everything(top)


def test_a_hard_link_changes_with_its_file(receiver, tmp_path):
    top = varied(tmp_path / "client")
    receiver.receive(top)
    (top / "a/b/file").write_text("another")
    receiver.receive(top)
    assert receiver.changed >= {"a", "a/b", "a/b/file", "z-second"}
    assert (receiver.layer / "z-second").read_text() == "another"


def test_what_may_have_changed_unseen_is_asked_for_again(receiver, tmp_path):
    top = varied(tmp_path / "client")
    receiver.receive(top, unsettled=("a-b",))
    assert receiver.receive(top) == (["a-b"], False)
    assert receiver.receive(top) == ([], True)


def test_an_empty_directory(receiver, tmp_path):
    (tmp_path / "client").mkdir()
    assert receiver.receive(tmp_path / "client") == ([], False)
    assert list(receiver.layer.iterdir()) == []
    assert receiver.receive(tmp_path / "client") == ([], True)


def test_a_file_that_grows_counts_as_changed_the_next_time(receiver, tmp_path):
    top = tmp_path / "client"
    top.mkdir()
    (top / "log").write_text("12345")
    os.utime(top / "log", (1, 1))
    sync = DirectorySync(receiver.begin)
    (entry,) = listed(top)
    send(top, sync, [entry._replace(size=3)])
    sync.finish()
    sync.close()
    assert (receiver.layer / "log").read_text() == "12345"
    assert sync.rows[0][4] > 1 << 61
    fd = os.open(receiver.layer, os.O_RDONLY)
    again = DirectorySync(receiver.begin, LastCopy(sync.rows, frozenset(sync.rows), fd))
    assert again.entry(entry._replace(size=3))
    again.close()
    os.close(fd)


def test_a_file_of_which_there_is_less_than_told_is_an_error(receiver):
    sync = DirectorySync(receiver.begin)
    assert sync.entry(SentEntry("file", FILE, 10))
    sync.data(0, b"123")
    with pytest.raises(Conflict, match="`file` in the build context: the client sends 3 of its 10 bytes"):
        sync.end(0)
    sync.close()


@pytest.mark.parametrize("step", ["data", "end"])
def test_files_that_were_not_asked_for_are_refused(receiver, step):
    sync = DirectorySync(receiver.begin)
    sync.entry(SentEntry("directory", DIRECTORY))
    sync.entry(SentEntry("directory/file", FILE))
    sync.end(1)
    for number in (0, 1, 2, 99):
        with pytest.raises(InvalidArgument, match=f"not asked for, number {number} "):
            sync.data(number, b"x") if step == "data" else sync.end(number)
    sync.close()


def test_the_end_before_all_files_have_come_is_refused(receiver):
    sync = DirectorySync(receiver.begin)
    sync.entry(SentEntry("file", FILE))
    with pytest.raises(InvalidArgument, match="ends before all files"):
        sync.finish()
    sync.close()


def test_more_open_files_than_descriptors(receiver):
    sync = DirectorySync(receiver.begin)
    for number in range(200):
        assert sync.entry(SentEntry(f"{number:03}", FILE, 6))
    for piece in (b"abc", b"def"):
        for number in range(200):
            sync.data(number, piece)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(200):
        sync.end(number)
    assert len(os.listdir("/proc/self/fd")) <= before - 60
    sync.finish()
    sync.close()
    assert {one.read_bytes() for one in receiver.layer.iterdir()} == {b"abcdef"}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([SentEntry("/etc", DIRECTORY)], "no path below it"),
        ([SentEntry("..", DIRECTORY)], "no path below it"),
        ([SentEntry("../x", FILE)], "no path below it"),
        ([SentEntry("a", DIRECTORY), SentEntry("a/../../x", FILE)], "no path below it"),
        ([SentEntry(".", DIRECTORY)], "no path below it"),
        ([SentEntry("", DIRECTORY)], "no path below it"),
        ([SentEntry("a/", DIRECTORY)], "no path below it"),
        ([SentEntry("a//b", FILE)], "no path below it"),
        ([SentEntry("a\0b", FILE)], "no path below it"),
        ([SentEntry("x" * 5000, FILE)], "no path below it"),
        ([SentEntry("x" * 300, DIRECTORY)], "File name too long"),
        ([SentEntry("a/b", FILE)], "its directory is not in the list"),
        ([SentEntry("a", FILE), SentEntry("a/b", FILE)], "its directory is not in the list"),
        ([SentEntry("a", LINK, link="/etc"), SentEntry("a/passwd", FILE)], "its directory is not in the list"),
        ([SentEntry("a", DIRECTORY), SentEntry("b", DIRECTORY), SentEntry("a/b", FILE)], "out of order"),
        ([SentEntry("b", FILE), SentEntry("a", FILE)], "out of order"),
        ([SentEntry("a", FILE), SentEntry("a", FILE)], "out of order"),
        ([SentEntry("a", DIRECTORY), SentEntry("a-b", FILE), SentEntry("a/b", FILE)], "out of order, after 'a-b'"),
        ([SentEntry("a", LINK)], "without a target"),
        ([SentEntry("a", LINK, link="x\0y")], "without a target"),
        ([SentEntry("a", FILE, link="b")], "is no file before it"),
        ([SentEntry("a", FILE, link="a")], "is no file before it"),
        ([SentEntry("a", FILE, link="/etc/passwd")], "is no file before it"),
        ([SentEntry("a", FILE, link="../x")], "is no file before it"),
        ([SentEntry("a", DIRECTORY), SentEntry("b", FILE, link="a")], "is no file before it"),
        ([SentEntry("a", LINK, link="/etc/passwd"), SentEntry("b", FILE, link="a")], "is no file before it"),
        ([SentEntry("a", CHAR)], "character device 0:0"),
        ([SentEntry("a", stat.S_IFSOCK | 0o777)], "of no kind of file"),
        ([SentEntry("a", 0o644)], "of no kind of file"),
        ([SentEntry("a", FILE, -1)], "cannot be"),
        ([SentEntry("a", FILE, uid=1 << 33)], "cannot be"),
        ([SentEntry("a", FILE, gid=-1)], "cannot be"),
        (
            [SentEntry("a", FILE, attributes=(("user.a\0b", b""),))],
            "extended attribute 'user.a.x00b' of 0 bytes cannot",
        ),
        ([SentEntry("a", FILE, attributes=(("", b""),))], "extended attribute '' of 0 bytes cannot be"),
        ([SentEntry("a", FILE, attributes=(("user." + "x" * 255, b""),))], "cannot be"),
        ([SentEntry("a", FILE, attributes=(("user.a", b"x" * 70_000),))], "of 70000 bytes cannot be"),
    ],
)
def test_refused_lists(receiver, entries, message):
    sync = DirectorySync(receiver.begin)
    with pytest.raises(InvalidArgument, match=message):
        for one in entries:
            sync.entry(one)
    sync.close()


def test_lists_without_end_are_refused(monkeypatch):
    monkeypatch.setattr(sent, "_MOST", 100)
    order = SentOrder()
    with pytest.raises(ResourceExhausted, match="more than 100 files"):
        for number in range(200):
            order.check(SentEntry(f"{number:09}", FILE))
    assert order._count == 101


def test_attributes_and_links_count_like_paths(monkeypatch):
    """They are kept until the files have come."""
    monkeypatch.setattr(sent, "_MOST_BYTES", 1 << 20)
    for one in (SentEntry("", FILE, attributes=(("user.a", b"x" * 60_000),)), SentEntry("", LINK, link="x" * 4000)):
        order = SentOrder()
        with pytest.raises(ResourceExhausted, match="paths and extended attributes of more than 1 MiB"):
            for number in range(1000):
                order.check(one._replace(path=f"{number:09}"))


def test_a_damaged_last_copy_is_an_error(receiver, tmp_path):
    top = varied(tmp_path / "client")
    receiver.receive(top)
    (receiver.layer / "a/b/file").unlink()
    if receiver.takes:
        shutil.rmtree(top / "a")  # what stays is not looked at
    (top / "zz").touch()
    with pytest.raises(DataLoss, match="`a/b/file` of the last copy"):
        receiver.receive(top)


def test_a_client_that_goes_away_leaves_the_last_copy_as_it_was(receiver, tmp_path):
    top = varied(tmp_path / "client")
    receiver.receive(top)
    before = everything(receiver.layer)
    (top / "a/b/file").write_text("another")
    (top / "pipe").unlink()
    sync = DirectorySync(receiver.begin, receiver.last)
    with pytest.raises(InvalidArgument):
        for one in listed(top):
            sync.entry(one)
        sync.finish()
    sync.close()
    assert everything(os.readlink(f"/proc/self/fd/{receiver.last.fd}")) == before


names = st.text(st.sampled_from("ab-\u00e4\n"), min_size=1, max_size=3)
trees = st.recursive(
    st.one_of(st.binary(max_size=5), st.text("xy/.", min_size=1, max_size=4)),
    lambda inner: st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


def fill(top, tree):
    for name, what in tree.items():
        path = top / name
        if isinstance(what, dict):
            path.mkdir()
            fill(path, what)
        elif isinstance(what, bytes):
            path.write_bytes(what)
        else:
            os.symlink(what, path)
        os.utime(path, ns=(0, 10**18 + len(what)), follow_symlinks=False)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(names, trees, max_size=5), min_size=1, max_size=3), st.booleans())
def test_one_directory_after_another(tmp_path_factory, trees, takes):
    """Whatever the last copy was, the result is the directory: where content differs, so do times or sizes here."""
    root = tmp_path_factory.mktemp("sync")
    (root / "layers").mkdir()
    receiver = Receiver(root / "layers", takes=takes)
    for number, tree in enumerate(trees):
        top = root / f"client-{number}"
        top.mkdir()
        fill(top, tree)
        for at, one in enumerate(everything(top)):
            if stat.S_ISREG(one[0].mode):
                os.utime(top / one[0].path, ns=(0, 10**18 + hash((one[1], at)) % 10**9))
        receiver.receive(top)
        assert everything(receiver.layer) == everything(top)
    receiver.close()
    shutil.rmtree(root)
