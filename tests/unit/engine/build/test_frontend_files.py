"""Parts of files that front ends read."""

import os

import pytest

from ketch.engine.build.frontends import files
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
