"""Addresses as they are told to others."""

import pytest

from ketch.build.attest.addresses import without_password


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://me:secret@host/a@b", "https://xxxxx:xxxxx@host/a@b"),
        ("https://me:secret@host?u=a@b", "https://xxxxx:xxxxx@host?u=a@b"),
        ("https://host:80?u=a@b", "https://host:80?u=a@b"),
        ("https://host:80#a@b", "https://host:80#a@b"),
        ("https://token@host/a.git#main", "https://xxxxx@host/a.git#main"),
        ("ssh://git@host/a.git", "ssh://git@host/a.git"),
        ("git@host:path", "git@host:path"),
    ],
)
def test_users_and_passwords_are_hidden_and_hosts_are_not(address, shown):
    assert without_password(address) == shown
