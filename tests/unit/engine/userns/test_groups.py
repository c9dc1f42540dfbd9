"""The groups of a user namespace."""

from __future__ import annotations

import pytest

from ketch.engine.spec.interface_settings import last_group


@pytest.mark.parametrize(
    ("gid_map", "last"),
    [
        ("         0          0 4294967295\n", 4294967294),
        ("0 1000 1\n1 100000 65536\n", 65536),
        ("1 100000 65536\n0 1000 1\n", 65536),
        ("0 1000 1\n", 0),
        ("0 1000 1\n5 100000 10\n", 0),
        ("", -1),
    ],
)
def test_last_group(gid_map, last):
    assert last_group(gid_map) == last
