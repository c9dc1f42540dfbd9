"""Clients' directories as sources: which paths are taken, and that nothing unchanged is read again."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ketch.build.cache.contents import ContentDigests
from ketch.build.cache.selections import Selection
from ketch.build.sources.attributes import number, texts
from ketch.build.sources.follow import follow
from ketch.build.sources.selection import PathSelection
from ketch.errors import Conflict, InvalidArgument, NotFound
from ketch.storage.contexts import copies
from ketch.storage.contexts.copies import ContextCopies
from ketch.storage.contexts.scan import scan
from tests.support.building.sources import SourceBox, SourceClient, SourceWork


def filled(top, *paths):
    for path in paths:
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(path)
    return top


def paths_below(top):
    found = [os.path.join(where, name) for where, below, names in os.walk(top) for name in below + names]
    return sorted(os.path.relpath(path, top) for path in found)


@pytest.fixture
def box(tmp_path):
    made = SourceBox(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ([], [], ["a", "d", "d/b", "d/e", "d/e/c", "f", "f/g"]),
        (["d/e"], [], ["d", "d/e", "d/e/c"]),
        (["*/b"], [], ["d", "d/b"]),
        (["d"], ["d/b"], ["d", "d/e", "d/e/c"]),
        ([], ["d", "!d/e"], ["a", "d", "d/e", "d/e/c", "f", "f/g"]),
        ([], ["**", "!**/c"], ["d", "d/e", "d/e/c"]),
        ([], ["**/c"], ["a", "d", "d/b", "d/e", "f", "f/g"]),
        (["nothing"], [], []),
        (["d", "!d/e"], [], ["d", "d/b"]),
    ],
)
def test_selection(tmp_path, include, exclude, expected):
    filled(tmp_path, "a", "d/b", "d/e/c", "f/g")
    fd = os.open(tmp_path, os.O_RDONLY)
    selection = PathSelection(include, exclude)
    assert bool(selection) == bool(include or exclude)
    assert sorted(one.path for one in scan(fd, selection)) == expected
    os.close(fd)


def test_following_links(tmp_path):
    filled(tmp_path, "real/file", "real/other", "plain")
    os.symlink("real", tmp_path / "dir")
    os.symlink("dir/file", tmp_path / "link1")
    os.symlink("/plain", tmp_path / "link2")
    os.symlink("../../../../etc", tmp_path / "out")
    os.symlink("loop", tmp_path / "loop")
    os.symlink("/", tmp_path / "root")
    fd = os.open(tmp_path, os.O_RDONLY)
    assert follow(fd, ["plain", "missing/x"]) == ["missing/x", "plain"]
    assert follow(fd, ["dir/file"]) == ["dir", "real/file"]
    assert follow(fd, ["link1"]) == ["dir", "link1", "real/file"]
    assert follow(fd, ["link?"]) == ["dir", "link?", "plain", "real/file"]
    assert follow(fd, ["out/passwd"]) == ["etc/passwd", "out"]
    assert follow(fd, ["loop/x"]) == ["loop"]
    assert follow(fd, ["real/file", "real"]) == ["real"]
    assert follow(fd, ["root"]) is None
    assert follow(fd, [""]) is None
    assert follow(fd, ["[", "![a]"]) == ["![a]", "["]
    os.close(fd)


def test_attributes():
    assert texts({"a": '["x"]'}, "a") == ["x"]
    assert texts({"a": "null"}, "a") is None
    assert texts({}, "a") is None
    for wrong in ("x", '{"a": 1}', "[1]", "[" * 100_000):
        with pytest.raises(InvalidArgument, match="invalid value for a"):
            texts({"a": wrong}, "a")
    written = {"": 0, "0": 0, "12": 12, "-3": -3, "0755": 0o755, "0o17": 0o17, "0x1f": 31, "0b11": 3}
    assert [number({"n": text}, "n") for text in written] == list(written.values())
    for wrong in ("x", "1.5", "09", "٣", "9" * 30, "1 2"):
        with pytest.raises(InvalidArgument, match="invalid value for n"):
            number({"n": wrong}, "n")


def test_an_unchanged_directory_is_the_same_layer(box, tmp_path):
    top = filled(tmp_path / "client", "a", "d/b", "d/c")
    os.utime(top / "d" / "b")
    box.give("context", top)
    _settle(top)
    maps, first = box.run("local://context")
    assert maps[0].digest.startswith("random:")
    assert paths_below(first) == ["a", "d", "d/b", "d/c"]
    work = SourceWork(box.client)
    assert box.run("local://context", work)[1] == first
    assert first.name in work.lease.names
    assert work.statuses == [("transferring context:", 0, 0, False), ("transferring context:", 0, 0, True)]
    (top / "d" / "c").write_text("changed")
    work = SourceWork(box.client)
    second = box.run("local://context", work)[1]
    assert second != first
    assert work.statuses[-1] == ("transferring context:", len("changed"), 0, True)
    assert (second / "a").stat().st_ino == (first / "a").stat().st_ino
    assert [(one / "d/c").read_text() for one in (first, second)] == ["d/c", "changed"]
    assert box.contexts.layers() == {second.name}
    assert [tree.layers for tree in box.seen] == [(first.name,), (first.name,), (second.name,)]


def _settle(top):
    """Wait until a further change of what is there would show in its times."""
    newest = max(os.lstat(os.path.join(top, path)).st_ctime_ns for path in paths_below(top))
    probe = top.parent / "probe"
    for _ in range(100_000):
        probe.touch()
        if probe.stat().st_ctime_ns - newest > 30_000_000:
            return
    raise AssertionError("time stands still")


def test_a_layer_that_was_removed_is_made_again(box, tmp_path):
    top = filled(tmp_path / "client", "a")
    box.give("context", top)
    _settle(top)
    first = box.run("local://context")[1]
    os.rename(first, tmp_path / "aside")
    second = box.run("local://context")[1]
    assert second.name != first.name
    assert paths_below(second) == ["a"]
    assert box.contexts.layers() == {second.name}


def test_parts_of_a_directory_do_not_replace_each_other(box, tmp_path):
    top = filled(tmp_path / "client", "Dockerfile", "src/a", "src/.git/x")
    box.give("context", top)
    _settle(top)
    some = {"local_followpaths": json.dumps(["Dockerfile"])}
    rest = {"local_excludepatterns": json.dumps(["**/.git"]), "local_includepattern": json.dumps(["src"])}
    first = box.run("local://context", **some)[1]
    second = box.run("local://context", **rest)[1]
    assert paths_below(first) == ["Dockerfile"]
    assert paths_below(second) == ["src", "src/a"]
    assert box.run("local://context", **some)[1] == first
    assert box.run("local://context", **rest)[1] == second


def test_a_private_directory_is_linked(box, tmp_path):
    top = filled(tmp_path / "private", "a", "d/b")
    box.give("context", top, private=True)
    layer = box.run("local://context", local_followpaths='["d"]')[1]
    assert paths_below(layer) == ["d", "d/b"]
    assert (layer / "d/b").stat().st_ino == (top / "d/b").stat().st_ino
    assert box.contexts.layers() == set()


def test_the_session_that_is_named_goes_first(box, tmp_path):
    box.give("context", filled(tmp_path / "one", "one"))
    other = SourceClient("client-2")
    (tmp_path / "other").mkdir()
    two = SourceBox(tmp_path / "other")
    two.give("context", filled(tmp_path / "two", "two"))
    other.directories = two.client.directories
    work = SourceWork(box.client, other)
    assert paths_below(box.run("local://context", work)[1]) == ["one"]
    assert paths_below(box.run("local://context", work, local_session="client-2")[1]) == ["two"]
    two.close()


def test_errors(box, tmp_path):
    with pytest.raises(NotFound, match="no local directory context"):
        box.run("local://context")
    with pytest.raises(InvalidArgument, match="invalid value for local.followpaths"):
        box.operation("local://context", local_followpaths="x")
    with pytest.raises(InvalidArgument, match=r"invalid excludepatterns: \[a\[\]"):
        box.operation("local://context", local_excludepatterns='["a["]')
    with pytest.raises(InvalidArgument, match="unknown scheme"):
        box.operation("ftp://x")
    assert list(box.layers.root.iterdir()) == []


def test_a_cancelled_copy_has_ended_and_left_nothing(box, tmp_path):
    top = tmp_path / "client"
    top.mkdir()
    with open(top / "big", "wb") as f:
        for _ in range(8):
            f.write(os.urandom(1 << 20) * 16)
    box.give("context", top)
    operation, work = box.operation("local://context"), SourceWork(box.client)

    async def cancelled():
        begun = asyncio.Event()
        work.status = lambda *_one, **_more: begun.set()
        task = asyncio.create_task(operation.run(work, ()))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert list(box.layers.root.iterdir()) == []


def test_what_changes_meanwhile_leaves_nothing(box, tmp_path):
    top = filled(tmp_path / "client", "a", "b")
    box.give("context", top)
    operation, work = box.operation("local://context"), SourceWork(box.client)
    begin = box.layers.begin

    def spoiled(lease):
        (top / "b").unlink()
        return begin(lease)

    box.layers.begin = spoiled
    with pytest.raises(Conflict, match="`b` in the build context changed while it was read"):
        asyncio.run(operation.run(work, ()))
    assert list(box.layers.root.iterdir()) == []
    assert box.contexts.layers() == set()


class OpenFolders:
    """The keeper of layers that `ContentDigests` asks; ``opened`` counts nothing and mounts nothing."""

    def __init__(self, folders):
        self._folders = folders

    @contextlib.contextmanager
    def opened(self, tree):
        fd = os.open(self._folders.directory(tree.layers[0]), os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield fd
        finally:
            os.close(fd)


_SIZES = itertools.count(1)
_PLACES = st.sampled_from(["a", "d/a", "d/e/a", "d/f/a", "g/a", "g/h/i/a"])
_STEPS = st.lists(st.tuples(st.sampled_from(["write", "remove", "link", "chmod", "drop"]), _PLACES), max_size=3)


def change(top, verb, place):
    """One change of a directory; what cannot be is left."""
    path = top / place
    if verb == "drop":
        shutil.rmtree(path.parent if path.parent != top else path, ignore_errors=True)
        return
    with contextlib.suppress(FileExistsError, NotADirectoryError):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.is_dir():
        return
    if verb == "chmod":
        path.parent.chmod(0o700 if path.parent != top and path.parent.stat().st_mode & 0o77 else 0o755)
        return
    path.unlink(missing_ok=True)
    if verb == "write":
        path.write_bytes(b"x" * next(_SIZES))  # another one each time: the clock may not have moved on
    elif verb == "link":
        path.symlink_to("/d")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_STEPS, min_size=2, max_size=4))
def test_digests_of_what_has_not_changed_are_those_of_a_fresh_look(tmp_path_factory, rounds):
    """Whatever happens between builds; the paths that links lead along are asked for as well."""
    root = tmp_path_factory.mktemp("box")
    box, questions = SourceBox(root), [(), (Selection("/d"),), (Selection("/g/a", follow=True),)]
    digests = ContentDigests(OpenFolders(box.layers))
    top = filled(root / "client", "a", "d/a", "d/e/a", "d/f/a", "g/b")
    box.give("context", top)

    async def digest(one, tree, question):
        with contextlib.suppress(NotFound):
            return await one.digest(tree, question)

    async def build():
        _, (tree,) = await box.both(box.operation("local://context"))
        digests.from_client(tree, box.formers[-1])
        fresh = ContentDigests(OpenFolders(box.layers))
        fresh.from_client(tree)
        for question in questions:
            assert await digest(digests, tree, question) == await digest(fresh, tree, question), question

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copies, "now_ns", lambda: time.time_ns() + 10**9)  # whatever was changed counts as settled
        asyncio.run(build())
        for steps in rounds:
            for verb, place in steps:
                change(top, verb, place)
            asyncio.run(build())
    box.close()


def test_directories_that_have_not_changed_are_not_looked_into_again(box, tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "now_ns", lambda: time.time_ns() + 10**9)
    top = filled(tmp_path / "client", "a", "d/a", "d/e/a", "g/h/a")
    box.give("context", top)
    digests = ContentDigests(OpenFolders(box.layers))

    def build():
        _, directory = box.run("local://context")
        digests.from_client(box.seen[-1], box.formers[-1])
        return directory

    build()
    asyncio.run(digests.digest(box.seen[-1]))
    (top / "d/e/a").write_text("changed")
    directory = build()
    assert box.formers[-1].changed == {"d", "d/e", "d/e/a"}
    expected = asyncio.run(digests.digest(box.seen[-1]))
    (directory / "g/h/a").unlink()  # nobody would do that
    digests._known.clear()
    assert asyncio.run(digests.digest(box.seen[-1])) == expected


def test_a_directory_of_which_less_is_taken_is_not_the_same(box, tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "now_ns", lambda: time.time_ns() + 10**9)
    box.give("context", filled(tmp_path / "client", "d/a", "d/b", "e/a"))
    digests = ContentDigests(OpenFolders(box.layers))
    found = []
    for attrs in ({}, {"local_excludepatterns": json.dumps(["d/b"])}):
        box.run("local://context", **attrs)
        digests.from_client(box.seen[-1], box.formers[-1])
        found.append(asyncio.run(digests.digest(box.seen[-1])))
    assert box.formers[-1].changed == {"d", "d/b"}
    assert found[0] != found[1]


def test_a_list_that_a_killed_writer_left(box, tmp_path):
    """It is removed, and nothing is found by it."""
    os.mkdir(tmp_path / "client")
    box.give("context", filled(tmp_path / "client", "a"))
    box.run("local://context")
    [kept] = (tmp_path / "contexts").iterdir()
    kept.rename(f"{kept}.new")
    assert ContextCopies(str(tmp_path / "contexts")).layers() == set()
    assert list((tmp_path / "contexts").iterdir()) == []
