"""Files of the docker client that somebody else wrote, or broke: a sentence that names the file, and no traceback."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from ketch.cli.commands.contexts import cmd_import
from ketch.cli.context import Context
from ketch.client import contexts, docker_config
from ketch.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from pathlib import Path

NESTED = ["[" * 100_000, '{"a":' * 100_000, '{"Name": ' + "[" * 5000 + "]" * 5000 + "}"]
BROKEN = ["", "[]", "7", '{"Name": "a\\ud800"}', *NESTED]


@pytest.fixture
def store(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    return tmp_path


def test_an_empty_config_is_none(store):
    (store / "config.json").touch()
    assert docker_config.read() == {}


@pytest.mark.parametrize("text", [text for text in BROKEN if text])
def test_a_broken_config(store, text):
    (store / "config.json").write_text(text)
    with pytest.raises(InvalidArgument, match="config.json"):
        docker_config.read()


@pytest.mark.parametrize(
    "text", [*BROKEN, '{"Name": 5}', '{"Endpoints": [1]}', '{"Endpoints": "x"}', '{"Metadata": 1}']
)
def test_a_broken_record(store, text):
    contexts.write("one", "unix:///x", "", new=True)
    [path] = store.glob("contexts/meta/*/meta.json")
    path.write_text(text)
    for read in (contexts.names, lambda: contexts.read("one"), lambda: contexts.address("one")):
        with pytest.raises(InvalidArgument, match="meta.json"):
            read()


def test_members_without_a_value(store):
    """As a program in Go writes an empty map."""
    contexts.write("one", "unix:///x", "", new=True)
    [path] = store.glob("contexts/meta/*/meta.json")
    path.write_text('{"Name": "one", "Metadata": null, "Endpoints": null}')
    contexts.write("one", "unix:///y", "now", new=False)
    assert str(contexts.address("one")) == "unix:///y"
    assert contexts.read("one")["Metadata"] == {"Description": "now"}


def test_a_name_that_is_no_text(store, monkeypatch):
    monkeypatch.setenv("DOCKER_CONTEXT", "\udcff")
    with pytest.raises(NotFound):
        contexts.read(contexts.current())


def archive(text: str, mode: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as tar:  # type: ignore[call-overload]
        info = tarfile.TarInfo("meta.json")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text.encode()))
    return packed.getvalue()


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_archive(store, text):
    (store / "archive").write_bytes(archive(text, "w"))
    with pytest.raises(InvalidArgument, match="not the archive of a context"):
        cmd_import(["one", str(store / "archive")], Context(""))


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_archive(store, mode):
    """Which may be a thousand times as large as its file."""
    record = json.dumps({"Name": "one", "Endpoints": {"docker": {"Host": "unix:///x"}}})
    (store / "archive").write_bytes(archive(record, mode))
    with pytest.raises(InvalidArgument, match="not the archive of a context"):
        cmd_import(["one", str(store / "archive")], Context(""))
