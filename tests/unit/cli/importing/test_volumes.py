"""Volumes that are copied: what is in Ketch already stays as it is, whatever fails."""

from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING

import pytest

from ketch.cli.importing import volumes
from ketch.cli.importing.ours import Ours
from ketch.errors import AlreadyExists, Conflict, KetchError, Unavailable
from ketch.errors import NotFound as Missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

FACTS = {"Name": "data", "Labels": {"of": "docker"}, "Mountpoint": "/docker/data"}
LEFT = ".ketch-restore-0123456789abcdef/"
NOBODY = "99999999"  # more than the kernel's largest pid


class Answer:
    """An answer of the engine below."""

    headers: dict[str, str] = {}

    def __init__(self, value: object = None, data: bytes = b"", lines: Sequence[dict] = ()) -> None:
        self._value, self._data, self._lines = value, data, lines

    def json(self) -> object:
        return self._value

    def stream_lines(self) -> Iterator[dict]:
        yield from self._lines

    def iter_chunks(self) -> Iterator[bytes]:
        yield self._data

    def close(self) -> None:
        pass


class Engine:
    """A client of a ketchd that has volumes, as names of files, and nothing else."""

    host = "unix:///run/ketch.sock"

    def __init__(self, **files: list[str]) -> None:
        self.volumes = {name: {"Name": name, "Labels": {"of": "ketch"}, "Options": {}} for name in files}
        self.files = files
        self.before_copy: Callable[[], None] = lambda: None
        self.owners = ""

    def request(
        self, method: str, path: str, query: dict | None = None, body: dict | None = None, **_: object
    ) -> Answer:
        name = path.split("/")[3] if path.startswith("/ketch/") else path.split("/")[2] if path.count("/") > 1 else ""
        if path.endswith("/copy"):
            return Answer(lines=self.copy(name, **query))
        if method == "POST":
            made = {"Name": body["Name"], "Labels": body["Labels"], "Options": body["DriverOpts"] or {}}
            self.volumes.setdefault(body["Name"], made)
            self.files.setdefault(body["Name"], ["file"] if made["Options"] else [])
            return Answer()
        if path == "/volumes":
            (label,) = query["filters"]["label"]
            return Answer({"Volumes": [one for one in self.volumes.values() if label in one["Labels"]]})
        if path.endswith("/json"):
            return Answer([])
        if name not in self.volumes:
            raise Missing(f"get {name}: no such volume")
        if method == "DELETE":
            del self.volumes[name], self.files[name]
            return Answer()
        return Answer(self.volumes[name], self.archive(name))

    def archive(self, name: str) -> bytes:
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as archive:
            for file in ("./", *self.files[name]):
                archive.addfile(tarfile.TarInfo(file))
        return data.getvalue()

    def copy(self, name: str, owners: str, **source: str) -> list[dict]:
        self.owners = owners
        self.before_copy()
        if self.files[name]:
            raise Conflict(f"restore volume {name}: it is not empty")
        self.files[name] = self.files[source["from"]]
        return [{"progressDetail": {"current": 7}}]


def fail() -> None:
    raise Unavailable("the daemon's answer broke off")


def copied(engine: Engine) -> None:
    volumes.copy(Ours(engine), FACTS, lambda done: None)


def test_the_files_come_and_nothing_else_is_left():
    engine = Engine(other=["mine"])
    copied(engine)
    assert engine.files == {"other": ["mine"], "data": ["file"]}
    assert engine.volumes["data"]["Labels"] == {"of": "docker"}


def test_what_breaks_off_in_the_middle_is_an_error():
    engine = Engine()
    engine.copy = lambda name, **_: [{"progressDetail": {"current": 1}}, {"error": "no space left on the device"}]
    with pytest.raises(KetchError, match="no space left"):
        copied(engine)
    assert engine.volumes == {}


@pytest.mark.parametrize(
    ("directory", "ids"),
    [
        ("/var/lib/docker/volumes/data/_data", ""),
        ("/var/lib/docker/4000000000.4000000001/volumes/data/_data", "4000000000:4000000001:65536"),
        ("/var/lib/docker/1.2/volumes/3.4/_data/volumes", ""),
    ],
)
def test_whose_the_files_of_a_remapped_docker_are(directory: str, ids: str):
    assert volumes.remapped(directory) == ids
    engine = Engine()
    volumes.copy(Ours(engine), {**FACTS, "Mountpoint": directory}, lambda done: None)
    assert engine.owners == ids


def test_an_empty_volume_is_filled():
    engine = Engine(data=[])
    copied(engine)
    assert engine.files == {"data": ["file"]}


def test_a_failure_leaves_no_new_volume():
    engine = Engine()
    engine.before_copy = fail
    with pytest.raises(Unavailable):
        copied(engine)
    assert engine.volumes == {}


def test_a_copy_that_fails_waits_until_ketchd_has_seen_its_end(monkeypatch):
    monkeypatch.setattr(volumes, "_PAUSE_S", 0)
    engine, answers, archive = Engine(), 0, Engine.archive

    def busy(name: str) -> bytes:
        nonlocal answers
        answers += name == "data"
        if name == "data" and answers < 3:
            raise Conflict(f"get {name}: the volume is being restored")
        return archive(engine, name)

    engine.archive, engine.before_copy = busy, fail
    with pytest.raises(Unavailable):
        copied(engine)
    assert (engine.volumes, answers) == ({}, 3)


def test_a_failure_leaves_the_volume_that_was_there():
    engine = Engine(data=[])
    engine.before_copy = fail
    with pytest.raises(Unavailable):
        copied(engine)
    assert list(engine.volumes) == ["data"] and engine.volumes["data"]["Labels"] == {"of": "ketch"}


@pytest.mark.parametrize("there", [{}, {"data": []}])
def test_what_was_written_since_the_plan_stays(there: dict[str, list[str]]):
    engine = Engine(**there)
    engine.before_copy = lambda: engine.files["data"].append("precious")
    with pytest.raises(Conflict, match="not empty"):
        copied(engine)
    assert engine.files == {"data": ["precious"]}


def test_a_volume_that_was_made_since_the_plan_keeps_its_options():
    with pytest.raises(AlreadyExists):
        volumes.make(Ours(Engine(data=[])), FACTS, {"type": "tmpfs"})


def test_what_a_killed_import_left_is_removed_and_nothing_of_others():
    engine = Engine()
    used = {volumes._PID: str(os.getpid())}
    kept = {"ketch-import-source": {"a": "b"}, "ketch-import-1": used, "theirs": {volumes._PID: NOBODY}}
    for name, labels in {**kept, "ketch-import-0": {volumes._PID: NOBODY}}.items():
        engine.request("POST", "/volumes/create", None, {"Name": name, "DriverOpts": {}, "Labels": labels})
    copied(engine)
    assert set(engine.volumes) == {*kept, "data"}


@pytest.mark.parametrize(
    ("names", "is_unfilled"),
    [
        ([], True),
        ([LEFT, f"{LEFT}precious.db"], True),
        ([LEFT, f"{LEFT}half", f".ketch-restore-{'1' * 16}/"], True),
        ([LEFT, "precious.db"], False),
        (["a", LEFT], False),
        ([".ketch-restore-notes"], False),
    ],
)
def test_what_is_an_empty_volume(names: list[str], is_unfilled: bool):
    assert Ours(Engine(data=names)).is_unfilled("data") is is_unfilled
