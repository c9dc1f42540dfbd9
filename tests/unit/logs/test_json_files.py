"""The files of a ``json-file`` log while they are rotated and compressed."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from ketch.engine.logs import json_files
from ketch.runtime.logs import json_log

if TYPE_CHECKING:
    from pathlib import Path


def line(number: int) -> bytes:
    return b'{"log":"%d\\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}\n' % number


def read(files: json_files.JsonFiles) -> list[str]:
    found = []
    while block := files.next():
        found += [entry.log.strip() for entry in json_files.entries(block)]
    return found


@pytest.mark.parametrize("looks", [1, 2])
def test_a_file_that_is_compressed_between_two_looks_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    """It was seen under its plain name, and is there under the other one when it is opened."""
    log = tmp_path / "log"
    log.write_bytes(line(1))
    with contextlib.closing(json_files.JsonFiles(str(log))) as files:
        assert read(files) == ["1"]
        os.rename(log, tmp_path / "log.2")
        (tmp_path / "log.1").write_bytes(line(2))
        log.write_bytes(line(3))
        real, seen = json_files.names, list[str]()

        def names(path: str) -> list[str]:
            found = real(path)
            seen.append(path)
            if len(seen) == looks:
                json_log.gzip(str(tmp_path / "log.1"))
            return found

        monkeypatch.setattr(json_files, "names", names)
        assert read(files) == ["2", "3"]
        assert len(seen) >= looks
