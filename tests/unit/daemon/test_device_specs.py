"""Specifications of devices: directories that cannot be read."""

from __future__ import annotations

import os

from ketch.engine.devices import specs


def test_a_directory_that_is_closed(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()

    def closed(_path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", "a")

    monkeypatch.setattr(os, "listdir", closed)
    found = specs.find([str(tmp_path / "a")])
    assert (found.devices, found.errors) == ({}, [f"CDI specifications in {tmp_path}/a: permission denied"])
