"""The pure parts of cp: Go's modes, the daemon's and the client's path rules, names in archives."""

from __future__ import annotations

import posixpath
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.api.wire import gomode
from ketch.cli.copying import paths
from ketch.cli.copying.paths import CopyPath
from ketch.engine.files import container_paths
from ketch.errors import InvalidArgument, KetchError, NotFound
from ketch.storage.archive.extract import relative

PATHS = st.text(alphabet="ab./", min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("unix", "go"),
    [
        (stat.S_IFREG | 0o644, 0o644),
        (stat.S_IFDIR | 0o755, 2147484141),
        (stat.S_IFLNK | 0o777, 134218239),
        (stat.S_IFREG | 0o4755, 8389101),
        (stat.S_IFREG | 0o2755, 1 << 22 | 0o755),
        (stat.S_IFDIR | 0o1777, 2148532735),
        (stat.S_IFIFO | 0o644, 33554852),
        (stat.S_IFSOCK | 0o600, 1 << 24 | 0o600),
        (stat.S_IFBLK | 0o660, 1 << 26 | 0o660),
        (stat.S_IFCHR | 0o666, 1 << 26 | 1 << 21 | 0o666),
        (0o644, 1 << 19 | 0o644),
    ],
)
def test_go_modes(unix, go):
    """Most are what dockerd answered for such files."""
    assert gomode.from_unix(unix) == go


@pytest.mark.parametrize(
    ("path", "absolute", "base"),
    [
        ("/a/b", "/a/b", "b"),
        ("a/b", "/a/b", "b"),
        ("/a/b/", "/a/b/", "b"),
        ("/a/b/.", "/a/b/.", "."),
        ("/a/./b", "/a/b", "b"),
        ("/a/../b", "/b", "b"),
        ("../../x", "/x", "x"),
        ("/", "/", "/"),
        ("/.", "/.", "."),
        (".", "/.", "."),
        ("//a//b//", "/a/b/", "b"),
        ("/a/b/./", "/a/b/./", "."),
        ("..", "/", "/"),
    ],
)
def test_paths_in_containers(path, absolute, base):
    assert container_paths.absolute(path) == absolute
    assert container_paths.base(absolute) == base


@given(PATHS)
def test_paths_in_containers_stay_there(path):
    found = container_paths.absolute(path)
    assert found.startswith("/")
    assert ".." not in found.split("/")
    assert container_paths.absolute(found) == found


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_no_paths(path):
    with pytest.raises(InvalidArgument):
        container_paths.absolute(path)


@given(st.text(alphabet="ab./", max_size=20))
def test_members_stay_in_their_directory(name):
    found = relative(name)
    if found is None:
        assert ".." in name
        return
    assert not found.startswith("/")
    assert ".." not in found.split("/")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("web:/x", ("web", "/x")),
        ("web:x:y", ("web", "x:y")),
        ("/a:b", ("", "/a:b")),
        ("./a:b", ("", "./a:b")),
        ("../a:b", ("", "../a:b")),
        ("a", ("", "a")),
        ("-", ("", "-")),
        ("web:", ("web", "")),
    ],
)
def test_arguments(text, parts):
    assert paths.split_argument(text) == parts


@pytest.mark.parametrize(
    ("path", "parts"),
    [("/a/b", ("/a", "b")), ("/a/b/", ("/a", "b")), ("/a/b/.", ("/a/b", ".")), ("b", (".", "b")), ("/", ("/", "/"))],
)
def test_directory_and_name(path, parts):
    assert paths.split_entry(path) == parts


FILE, DIRECTORY = CopyPath("/s/f", exists=True), CopyPath("/s/d", exists=True, directory=True)


@pytest.mark.parametrize(
    ("source", "destination", "expected"),
    [
        (FILE, CopyPath("/t/new"), ("/t", ("f", "new"))),
        (FILE, CopyPath("/t/old", exists=True), ("/t", ("f", "old"))),
        (FILE, CopyPath("/t/dir", exists=True, directory=True), ("/t/dir", None)),
        (DIRECTORY, CopyPath("/t/new"), ("/t", ("d", "new"))),
        (DIRECTORY, CopyPath("/t/new/"), ("/t", ("d", "new"))),
        (DIRECTORY, CopyPath("/t/dir", exists=True, directory=True), ("/t/dir", None)),
        (CopyPath("/s/d/.", exists=True, directory=True), CopyPath("/t/new"), ("/t", (".", "new"))),
        (CopyPath("/s/x", exists=True, rebase="link"), CopyPath("/t/new"), ("/t", ("link", "new"))),
        (DIRECTORY, CopyPath("/t/old", exists=True), InvalidArgument),
        (FILE, CopyPath("/t/new/"), NotFound),
    ],
)
def test_plans(source, destination, expected):
    if isinstance(expected, tuple):
        assert paths.plan(source, destination) == expected
    else:
        with pytest.raises(expected):
            paths.plan(source, destination)


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("d", ("d", "new"), "new"),
        ("d/x", ("d", "new"), "new/x"),
        ("dx", ("d", "new"), "dx"),
        ("./x", (".", "new"), "new/x"),
        (".", (".", "new"), "new"),
        ("/x", ("/", "new"), "new/x"),
        ("", ("/", "new"), "new"),
        ("d/d", ("d", "new"), "new/d"),
        ("d", None, "d"),
    ],
)
def test_new_names(name, change, expected):
    assert paths.renamed(name, change) == expected


@given(PATHS, PATHS)
def test_any_paths_are_understood_or_refused(first, second):
    try:
        directory, change = paths.plan(CopyPath(first, exists=True), CopyPath(second))
    except KetchError:
        return
    assert change is not None
    assert posixpath.join(directory, change[1])
