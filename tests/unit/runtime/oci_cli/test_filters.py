"""The directory of compiled filters, in a root where others may write."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from ketch.runtime.oci_cli import filters
from ketch.runtime.security import seccomp

if TYPE_CHECKING:
    from pathlib import Path

    from ketch.runtime.oci_types import OciSeccomp

PROFILE: OciSeccomp = {"defaultAction": "SCMP_ACT_ALLOW"}


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The programs that were compiled, and not found."""
    found: list[bytes] = []

    def compile_profile(_profile: OciSeccomp) -> bytes:
        found.append(b"compiled")
        return found[-1]

    monkeypatch.setattr(seccomp, "compile_profile", compile_profile)
    monkeypatch.setattr(seccomp, "_cache", [])
    return found


def test_a_link_to_a_directory_of_ones_own_is_not_followed(tmp_path: Path, compiled: list[bytes]) -> None:
    for name in ("mine", "other"):
        filters.prepare(str(tmp_path / name), PROFILE)
        filters.prepare(str(tmp_path / name), PROFILE)
    assert len(compiled) == 2
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/@seccomp").symlink_to(tmp_path / "mine/@seccomp")
    before = os.listdir(tmp_path / "mine/@seccomp")
    filters.prepare(str(tmp_path / "linked"), PROFILE)
    assert len(compiled) == 3
    assert os.listdir(tmp_path / "mine/@seccomp") == before


@pytest.mark.skipif(os.geteuid() != 0, reason="gives directories away")
def test_a_directory_that_is_replaced_after_it_was_looked_at(
    tmp_path: Path, compiled: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read is in the directory that was found to be root's, and not in what has its name now."""
    filters.prepare(str(tmp_path), PROFILE)
    kept = tmp_path / "@seccomp"
    [filter_] = kept.iterdir()
    strange = filter_.read_bytes().replace(b"compiled", b"stranger")
    really = filters._read

    def replaced(*args: object) -> bytes | None:
        kept.rename(tmp_path / "before")
        kept.mkdir()
        (kept / filter_.name).write_bytes(strange)
        os.chown(kept, 1000, 1000)
        return really(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(filters, "_read", replaced)
    filters.prepare(str(tmp_path), PROFILE)
    assert [program for _, program in seccomp._cache] == [b"compiled"] * 2
    assert len(compiled) == 1


def test_one_that_is_made_by_others_meanwhile_is_not_read(
    tmp_path: Path, compiled: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    filters.prepare(str(tmp_path), PROFILE)
    [filter_] = (tmp_path / "@seccomp").iterdir()
    strange = filter_.read_bytes().replace(b"compiled", b"stranger")
    filter_.unlink()
    (tmp_path / "@seccomp").rmdir()
    really = os.open

    def late(path: str, *args: int, **kwargs: int) -> int:
        try:
            return really(path, *args, **kwargs)
        except FileNotFoundError:
            if path.endswith("@seccomp"):
                (tmp_path / "@seccomp").mkdir(mode=0o777)
                (tmp_path / "@seccomp").chmod(0o777)
                (tmp_path / "@seccomp" / filter_.name).write_bytes(strange)
            raise

    monkeypatch.setattr("os.open", late)
    filters.prepare(str(tmp_path), PROFILE)
    assert [program for _, program in seccomp._cache] == [b"compiled"] * 2
    assert (tmp_path / "@seccomp" / filter_.name).read_bytes() == strange  # nothing is kept there
