"""The user of ``--userns-remap``: found and refused as by dockerd."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

import pytest

from ketch.engine.model.namespaces.user import IdRange
from ketch.engine.userns import remap
from ketch.engine.userns.subids import SubIdFiles
from ketch.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def files(tmp_path: Path) -> SubIdFiles:
    return SubIdFiles(str(tmp_path / "subuid"), str(tmp_path / "subgid"))


def _write(files: SubIdFiles, uids: str, gids: str) -> None:
    for path, text in zip(files, (uids, gids), strict=True):
        with open(path, "w", encoding="ascii") as f:
            f.write(text)


@pytest.mark.parametrize("name", ["bin", "2", "bin:bin", "2:2", "bin:sys"])
def test_a_user_by_name_or_number_has_all_of_his_ranges(files: SubIdFiles, name: str) -> None:
    assert pwd.getpwnam("bin").pw_uid == 2
    _write(files, "bin:500000:10\nother:1:9\n2:300000:100\n", "bin:700000:50\n")
    found = remap.user_namespace(name, files)
    assert found is not None
    assert found.uids == (IdRange(0, 300000, 100), IdRange(100, 500000, 10))
    assert found.gids == (IdRange(0, 700000, 50),)
    assert found.size == 110


# What dockerd 28.5.2 says.
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("nosuch", 'Error during uid lookup for "nosuch": getent unable to find entry "nosuch" in passwd database'),
        ("424242", 'Uid 424242 has no entry in /etc/passwd: getent unable to find entry "424242" in passwd database'),
        (
            "bin:nosuch",
            'Error during groupname lookup for "nosuch": getent unable to find entry "nosuch" in group database',
        ),
        ("nobody", 'Error during gid lookup for "nobody": getent unable to find entry "nobody" in group database'),
        (":", 'Error during uid lookup for "": getent unable to find entry "" in passwd database'),
        ("a:b:c", 'Invalid user/group specification in --userns-remap: "a:b:c"'),
        ("bin", 'Can\'t create ID mappings: no subuid ranges found for user "bin"'),
    ],
)
def test_a_user_who_is_not_there_is_refused_in_dockerds_words(files: SubIdFiles, value: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as e:
        remap.user_namespace(value, files)
    assert e.value.message == words


def test_root_is_not_remapped(files: SubIdFiles, caplog: pytest.LogCaptureFixture) -> None:
    assert remap.user_namespace("root", files) is None
    assert "root cannot be remapped with itself; user namespaces are OFF" in caplog.text


def test_dockremap_gets_the_first_ids_that_are_free_in_both_files(files: SubIdFiles) -> None:
    _write(files, "ann:100000:65536\n", "ann:100000:65536\nben:170000:10\n")
    found = remap.user_namespace("default", files)
    assert found is not None
    assert found.uids == found.gids == (IdRange(0, 170010, 65536),)
    for path in files:
        with open(path, encoding="ascii") as f:
            assert f.read().endswith("\ndockremap:170010:65536\n")
    assert remap.user_namespace("default", files) == found


def test_dockremap_keeps_what_he_has(files: SubIdFiles) -> None:
    _write(files, "dockremap:5000000:1000\n", "dockremap:6000000:1000\n")
    before = [os.stat(path).st_ino for path in files]
    found = remap.user_namespace("default", files)
    assert found is not None
    assert (found.uids, found.gids) == ((IdRange(0, 5000000, 1000),), (IdRange(0, 6000000, 1000),))
    assert [os.stat(path).st_ino for path in files] == before


def test_a_machine_without_free_ids_is_an_error(files: SubIdFiles) -> None:
    _write(files, "ann:100000:4000000000\n", "")
    with pytest.raises(FailedPrecondition, match="find 65536 ids for dockremap"):
        remap.user_namespace("default", files)
