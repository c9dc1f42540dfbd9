"""Credentials of a build's request: each for its own registry alone."""

from __future__ import annotations

import pytest

from ketch.engine.build.run.session import given_credentials
from ketch.remote.credentials import Credentials


@pytest.mark.parametrize(
    "address,host,found",
    [
        ("example.com", "example.com", True),
        ("https://example.com/v2/", "example.com", True),
        ("example.com:5000", "example.com:5000", True),
        ("https://index.docker.io/v1/", "docker.io", True),
        ("example.com", "ple.com", False),
        ("example.com", "com", False),
        ("example.com.evil.org", "example.com", False),
        ("example.com", "example.com:5000", False),
        ("https://evil.org/example.com", "example.com", False),
    ],
)
def test_credentials_go_to_their_own_registry(address, host, found):
    mine = Credentials(username="me", password="secret")
    assert given_credentials({address: mine}, host) == (mine if found else None)
