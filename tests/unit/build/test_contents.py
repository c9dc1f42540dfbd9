"""Digests of the content of trees: what they depend on, and that nothing is read twice or outside."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import pathlib
import shutil
import socket
import stat
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.build.cache import contents, globs
from ketch.build.cache.contents import ContentDigests
from ketch.build.cache.selections import Selection, nested_dropped
from ketch.build.tree import EMPTY, Tree
from ketch.errors import DataLoss, InvalidArgument, NotFound
from ketch.storage import tree_digests
from ketch.storage.tree_digests import NOTHING, FileTable

TREE = Tree(("built-x",))


class OneDirectory:
    """A keeper of layers with one tree, which counts how often it is opened."""

    def __init__(self, path):
        self.path = path
        self.times = 0

    @contextlib.contextmanager
    def opened(self, tree):
        assert tree == TREE
        self.times += 1
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield fd
        finally:
            os.close(fd)


def digest_of(path, *selections, of_client=False):
    """What `ContentDigests` says of a directory, by a new one each time."""
    digests = ContentDigests(OneDirectory(path))
    if of_client:
        digests.from_client(TREE)
    return asyncio.run(digests.digest(TREE, selections))


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def header(mode, kind, *, size=0, link="", device=(0, 0)):
    return (
        f"namemode{mode}uid{os.getuid()}gid{os.getgid()}size{size}typeflag{kind}linkname{link}"
        f"unamegnamedevmajor{device[0]}devminor{device[1]}"
    ).encode()


def test_the_form_of_digests(tmp_path):
    """Files, links and directories as the form says, put together by hand."""
    top = tmp_path / "top"
    (top / "d").mkdir(parents=True)
    (top / "f").write_bytes(b"text")
    (top / "d" / "l").symlink_to("../f")
    for path, mode in ((top, 0o755), (top / "d", 0o1700), (top / "f", 0o4644)):
        path.chmod(mode)
    os.setxattr(top / "f", "user.a", b"1")
    os.setxattr(top / "f", "trusted.overlay.x", b"2")
    file = sha256(header(0o4644, 0, size=4) + b"user.a1" + b"text")
    link = sha256(header(0o777, 2, link="../f"))
    inner = sha256(b"\0" + sha256(header(0o1700, 5)).encode() + b"\0l" + link.encode())
    root = b"\0d" + inner.encode() + b"\0f" + file.encode()
    whole = sha256(b"\0" + sha256(header(0o755, 5)).encode() + root)
    assert digest_of(top) == sha256(whole.encode())
    assert digest_of(top, of_client=True) == sha256(sha256(b"\0" + NOTHING.encode() + root).encode())
    assert digest_of(top, Selection("/f")) == sha256(file.encode())
    assert digest_of(top, Selection("d/l")) == sha256(link.encode())
    assert digest_of(top, Selection("/d/l", follow=True)) == sha256(file.encode())
    assert digest_of(top, Selection("/d"), Selection("/f")) == sha256(inner.encode() + b"\0" + file.encode())


def test_special_files_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo", 0o600)
    with contextlib.chdir(tmp_path), socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    os.chmod(tmp_path / "socket", 0o600)
    assert digest_of(tmp_path, Selection("/fifo")) == sha256(sha256(header(0o600, 6)).encode())
    assert digest_of(tmp_path, Selection("/socket")) == sha256(sha256(header(0o600, 0)).encode())
    if os.getuid() == 0:
        os.mknod(tmp_path / "device", stat.S_IFCHR | 0o600, os.makedev(5, 300))
        expected = sha256(sha256(header(0o600, 3, device=(5, 300))).encode())
        assert digest_of(tmp_path, Selection("/device")) == expected


def test_links_stay_inside(tmp_path):
    outside = tmp_path / "outside"
    top = tmp_path / "top"
    (top / "etc").mkdir(parents=True)
    outside.mkdir()
    (outside / "f").write_text("secret")
    (top / "etc" / "f").write_text("inside")
    (top / "absolute").symlink_to("/etc/f")
    (top / "up").symlink_to("../../../etc/f")
    (top / "out").symlink_to(outside)
    (top / "round").symlink_to("round")
    expected = digest_of(top, Selection("/etc/f"))
    assert digest_of(top, Selection("/absolute", follow=True)) == expected
    assert digest_of(top, Selection("/up", follow=True)) == expected
    with pytest.raises(NotFound, match='"/out": not found'):
        digest_of(top, Selection("/out", follow=True))
    with pytest.raises(NotFound, match='"/etc/f/x": not found'):
        digest_of(top, Selection("/etc/f/x"))
    with pytest.raises(InvalidArgument, match="/round: too many links"):
        digest_of(top, Selection("/round", follow=True))


def test_an_empty_tree():
    digests = ContentDigests(OneDirectory("/nonexistent"))
    assert asyncio.run(digests.digest(EMPTY)) == sha256(NOTHING.encode())
    with pytest.raises(NotFound, match="/f: no such file or directory"):
        asyncio.run(digests.digest(EMPTY, [Selection("/f")]))


# -- what digests depend on ----------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "a.b", "a-b", "a0", "ä", "z z"])
FILES = st.tuples(st.binary(max_size=8), st.sampled_from([0o644, 0o600, 0o4755]))
TREES = st.recursive(FILES, lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=12).filter(
    lambda tree: isinstance(tree, dict)
)


def make(path, tree, *, backwards=False):
    os.mkdir(path)
    items = sorted(tree.items(), reverse=backwards)
    for name, value in items:
        if isinstance(value, dict):
            make(f"{path}/{name}", value, backwards=backwards)
        else:
            pathlib.Path(path, name).write_bytes(value[0])
            os.chmod(f"{path}/{name}", value[1])
    os.chmod(path, 0o755)


@contextlib.contextmanager
def two_places():
    top = tempfile.mkdtemp()
    try:
        yield f"{top}/one", f"{top}/two"
    finally:
        shutil.rmtree(top)


@settings(max_examples=60, deadline=None)
@given(TREES, TREES)
def test_trees_are_equal_when_their_digests_are(first, second):
    with two_places() as (one, two):
        make(one, first)
        make(two, second, backwards=True)
        assert (digest_of(one) == digest_of(two)) == (first == second)


def changes(path):
    """Ways to change a tree with a file ``f``, a link ``l``, a directory ``d`` with a file ``x``; by what changes."""
    file = path / "f"
    return {
        "content": lambda: file.write_bytes(b"other"),
        "same size": lambda: file.write_bytes(b"abdc"),
        "mode": lambda: file.chmod(0o640),
        "set-id bits": lambda: file.chmod(0o2644),
        "name": lambda: file.rename(path / "g"),
        "place": lambda: file.rename(path / "d" / "f"),
        "link": lambda: ((path / "l").unlink(), (path / "l").symlink_to("d")),
        "kind": lambda: (file.unlink(), file.mkdir()),
        "attribute": lambda: os.setxattr(file, "user.k", b"v"),
        "of a directory": lambda: (path / "d").chmod(0o700),
        "deep": lambda: (path / "d" / "x").write_bytes(b"y"),
        "more": lambda: (path / "d" / "more").touch(),
        "less": lambda: (path / "d" / "x").unlink(),
        **({"owner": lambda: os.chown(file, 5, 0), "group": lambda: os.chown(file, 0, 5)} if not os.getuid() else {}),
    }


def sample(path):
    (path / "d").mkdir(parents=True)
    (path / "f").write_bytes(b"abcd")
    (path / "l").symlink_to("f")
    (path / "d" / "x").write_bytes(b"x")
    for one in (path, path / "d"):
        one.chmod(0o755)


SELECTIONS = {
    "whole": Selection(),
    "wildcard": Selection("/*", wildcard=True),
    "filtered": Selection("/", exclude=("nothing",)),
    "included": Selection("/", include=("**",)),
}


@pytest.mark.parametrize("kind", list(changes(pathlib.Path())))
def test_every_change_shows(tmp_path, kind):
    path = tmp_path / "tree"
    sample(path)
    before = {name: digest_of(path, one) for name, one in SELECTIONS.items()}
    changes(path)[kind]()
    assert [name for name, one in SELECTIONS.items() if digest_of(path, one) == before[name]] == []


def test_times_and_hard_links_do_not_show(tmp_path):
    path = tmp_path / "tree"
    sample(path)
    before = [digest_of(path, one) for one in SELECTIONS.values()]
    for one in (path / "f", path / "d", path / "l", path):
        os.utime(one, (1, 2), follow_symlinks=False)
    os.link(path / "f", tmp_path / "elsewhere")
    os.setxattr(path / "f", "trusted.overlay.origin", b"x")
    assert [digest_of(path, one) for one in SELECTIONS.values()] == before


# -- what is selected ----------------------------------------------------------------------------


def test_only_what_is_selected_counts(tmp_path):
    path = tmp_path / "tree"
    sample(path)
    only = [
        Selection("/d"),
        Selection("/d/*", wildcard=True),
        Selection("/", exclude=("f", "l")),
        Selection("/", include=("d/x",)),
        Selection("/*", wildcard=True, include=("x",), exclude=("y",)),
    ]
    before = [digest_of(path, one) for one in only]
    (path / "f").write_text("changed")
    (path / "l").unlink()
    assert [digest_of(path, one) for one in only] == before
    (path / "d" / "x").write_text("changed")
    assert all(digest_of(path, one) != old for one, old in zip(only, before, strict=True))


def test_nothing_that_is_selected(tmp_path):
    path = tmp_path / "tree"
    sample(path)
    for one in (
        Selection("/nosuch*", wildcard=True),
        Selection("/no/such*", wildcard=True),
        Selection("/d", include=("q",)),
    ):
        assert digest_of(path, one) == sha256(NOTHING.encode())


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("/a*", ["/a", "/abc"], ["/b", "/a/b"]),
        ("/a?c", ["/abc"], ["/ac", "/a/c"]),
        ("/[^a-c]", ["/d", "//"], ["/a", "/"]),
        ("/[b-a]", [], ["/a", "/b"]),
        ("/[\\]x]", ["/]", "/x"], ["/\\"]),
        ("/**", ["/a"], ["/a/b"]),
        ("/\\*", ["/*"], ["/a"]),
        ("/[^b-a]", ["/a"], [""]),
        ("/é\n*", ["/é\nx"], ["/e"]),
    ],
)
def test_wildcards(pattern, matching, other):
    expression = globs.compiled(pattern)
    assert [path for path in matching if expression.match(path)] == matching
    assert [path for path in other if expression.match(path)] == []


@pytest.mark.parametrize("pattern", ["[", "[a", "[]", "[]a]", "[-]", "[a-]", "\\", "[\\", "[a-\\"])
def test_wrong_wildcards(pattern):
    with pytest.raises(InvalidArgument, match="syntax error in pattern"):
        globs.compiled(pattern)


def test_paths_within_others():
    assert nested_dropped(["/b", "/a/x", "/a", "/ab", "/a", "/b/"]) == ["/a", "/ab", "/b"]
    assert nested_dropped(["/", "/a", "/a/b"]) == ["/"]
    assert nested_dropped(["", "/a"]) == [""]


# -- what is done once ---------------------------------------------------------------------------


def test_those_who_ask_at_once_get_one_answer(tmp_path):
    sample(tmp_path / "tree")
    snapshots = OneDirectory(tmp_path / "tree")

    async def run():
        digests = ContentDigests(snapshots)
        found = await asyncio.gather(*(digests.digest(TREE, [Selection("/d")]) for _ in range(5)))
        assert len(set(found)) == 1
        assert await digests.digest(TREE, (Selection("/d"),)) == found[0]

    asyncio.run(run())
    assert snapshots.times == 1


@pytest.mark.parametrize("births", [True, False])
def test_files_that_did_not_change_are_not_read_again(tmp_path, monkeypatch, births):
    """Of a tree that shares files with one that was read; hard links count as no change where it can be told."""
    sample(tmp_path / "tree")
    snapshots = OneDirectory(tmp_path / "tree")
    read = []
    opened = tree_digests._opened
    monkeypatch.setattr(tree_digests, "_opened", lambda fd, name: read.append(name) or opened(fd, name))
    if not births:
        monkeypatch.setattr(tree_digests, "birth_ns", lambda *_: None)
        monkeypatch.setattr(tree_digests, "_SETTLED", -1)

    async def run():
        digests = ContentDigests(snapshots)
        await digests.digest(TREE)
        await digests.digest(TREE, [Selection("/d")])
        assert sorted(read) == ["f", "x"]
        os.link(tmp_path / "tree" / "f", tmp_path / "tree" / "d" / "linked")
        await digests.digest(TREE, [Selection("/d/linked")])
        assert len(read) == (2 if births else 3)
        (tmp_path / "tree" / "f").write_bytes(b"new")
        await digests.digest(TREE, [Selection("/", exclude=("d", "l"))])
        assert len(read) == (3 if births else 4)

    asyncio.run(run())


def test_a_change_at_the_same_moment_might_not_show(tmp_path, monkeypatch):
    """Where only the time of the last change tells, nothing is kept of what changed a moment ago."""
    (tmp_path / "f").touch()
    status = os.stat(tmp_path / "f")
    fd = os.open(tmp_path, os.O_RDONLY)
    first = tree_digests.identity_of(fd, "f", status)
    (tmp_path / "f").unlink()
    (tmp_path / "f").touch()
    assert first is not None
    assert tree_digests.identity_of(fd, "f", os.stat(tmp_path / "f")) != first
    monkeypatch.setattr(tree_digests, "birth_ns", lambda *_: None)
    monkeypatch.setattr(tree_digests.time, "time_ns", lambda: status.st_ctime_ns + 1_000_000)
    assert tree_digests.identity_of(fd, "f", status) is None
    monkeypatch.setattr(tree_digests.time, "time_ns", lambda: status.st_ctime_ns + 10**9)
    assert tree_digests.identity_of(fd, "f", status) is not None
    os.close(fd)


def test_tables_are_bounded(tmp_path, monkeypatch):
    table = FileTable(most=3)
    for number in range(9):
        table.put(bytes([number]), sha256(bytes([number])))
    assert (len(table), table.get(b"\x08"), table.get(b"\0")) == (3, sha256(b"\x08"), None)
    for number in range(4):
        (tmp_path / str(number)).touch()
    monkeypatch.setattr(contents, "_MOST_RESULTS", 2)
    monkeypatch.setattr(contents, "_MOST_CLIENTS", 2)

    async def run():
        digests = ContentDigests(OneDirectory(tmp_path))
        for number in range(4):
            await digests.digest(TREE, [Selection(f"/{number}")])
            digests.from_client(Tree((str(number),)))
        assert (len(digests._known), len(digests._clients)) == (2, 2)

    asyncio.run(run())


def test_big_files_are_read_by_other_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(tree_digests, "_BIG", 3)
    monkeypatch.setattr(tree_digests, "_PIECE", 2)
    path = tmp_path / "tree"
    sample(path)
    for number in range(40):
        (path / f"f{number}").write_text(f"content {number}")
    found = digest_of(path), digest_of(path, Selection("/f*", wildcard=True))
    monkeypatch.undo()
    assert (digest_of(path), digest_of(path, Selection("/f*", wildcard=True))) == found


def test_who_does_not_wait_any_more_stops_the_work(tmp_path, monkeypatch):
    """One who gives up leaves the others their answer; the last one ends the work."""
    sample(tmp_path / "tree")
    snapshots = OneDirectory(tmp_path / "tree")

    async def run():
        digests = ContentDigests(snapshots)
        first, second = (asyncio.create_task(digests.digest(TREE)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert await second
        third = asyncio.create_task(digests.digest(TREE, [Selection("/d")]))
        await asyncio.sleep(0)
        third.cancel()
        with pytest.raises(asyncio.CancelledError):
            await third
        assert digests._answers == {}
        assert await digests.digest(TREE, [Selection("/d")])

    asyncio.run(run())


def test_a_file_that_gets_shorter_is_data_loss(tmp_path, monkeypatch):
    sample(tmp_path / "tree")
    opened = tree_digests._opened

    def shortened(fd, name):
        os.truncate(tmp_path / "tree" / "f", 1)
        return opened(fd, name)

    monkeypatch.setattr(tree_digests, "_opened", shortened)
    with pytest.raises(DataLoss, match="became shorter"):
        digest_of(tmp_path / "tree", Selection("/f"))
