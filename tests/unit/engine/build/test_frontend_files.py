"""Parts of files that front ends read."""

import os

import pytest

from ketch.buildkit.gateway import stats
from ketch.engine.build.frontends import files
from ketch.engine.model.namespaces.user import NOBODY, UserNamespace
from ketch.errors import InvalidArgument, ResourceExhausted


@pytest.fixture
def root(tmp_path):
    (tmp_path / "f").write_bytes(b"0123456789")
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("offset", "length", "read"),
    [(0, 0, b"0123456789"), (4, 0, b"456789"), (4, 2, b"45"), (8, 5, b"89"), (0, 1 << 40, b"0123456789"), (20, 1, b"")],
)
def test_parts_of_a_file(root, offset, length, read):
    assert files.read(root, "f", offset, length, most=10) == read


def test_parts_that_are_none(root):
    with pytest.raises(InvalidArgument, match="read f: the offset is -1"):
        files.read(root, "f", -1)
    with pytest.raises(ResourceExhausted, match="(?i)read f: file too large"):
        files.read(root, "f", most=9)


def test_owners_are_those_inside_of_the_container(root, tmp_path):
    os.chown(tmp_path / "f", 100007, 5)
    namespace = UserNamespace.of_range(100000, 65536)
    for found in (files.status(root, "f", namespace), *files.directory(root, "/", "", namespace)):
        assert found.owner == (7, NOBODY)
        assert (stats.of(found).uid, stats.of(found).gid) == (7, NOBODY)
    assert files.status(root, "f").owner == (100007, 5)
