"""Layers unpacked in processes of their own: blobs that grow, disks that fill up, processes that are killed."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import tarfile
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from ketch.errors import InvalidArgument, ResourceExhausted, Unavailable
from ketch.images.archives.importer import import_rootfs
from ketch.images.archives.load import load as load_archive
from ketch.images.schema import SCHEMAS
from ketch.images.store import ImageStore
from ketch.storage.archive import limits
from ketch.storage.content.store import ContentStore
from ketch.storage.database.db import Database
from ketch.storage.layers.unpack_pool import UnpackPool
from tests.support.registries import made_images as made
from tests.support.waiting import patient, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ketch.storage.layers.unpack_pool import Unpacking

_MEMORY_KIB = 40 << 10


@pytest.fixture
def pool() -> Iterator[UnpackPool]:
    one = UnpackPool(2)
    yield one
    one.close()


@pytest.fixture
def place(tmp_path: Path) -> str:
    os.mkdir(tmp_path / "layer")
    return str(tmp_path / "layer")


def written(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "blob"
    path.write_bytes(data)
    return str(path)


_OF_OTHERS: set[int] = set()


@pytest.fixture(autouse=True)
def _others() -> None:
    """What stores of other tests, which are never closed, have started in this process."""
    _OF_OTHERS.clear()
    _OF_OTHERS.update(workers())


def workers() -> list[int]:
    """The pool's processes."""
    found = []
    with open(f"/proc/self/task/{threading.get_native_id()}/children") as f:
        children = f.read().split()
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children") as f:
            children += f.read().split()
    for pid in {int(child) for child in children} - _OF_OTHERS:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            if b"archive.worker" in f.read():
                found.append(pid)
    return found


@contextmanager
def small_disk(at: str, options: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", at], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", at], check=True)


def test_a_blob_is_unpacked_while_it_grows(pool, place, tmp_path):
    plain = made.tar({"first": os.urandom(3 << 20), "last": os.urandom(3 << 20)})
    blob = made.packed(plain, "gzip")
    path = written(tmp_path, b"")
    job = pool.begin(path, place)
    with open(path, "wb", buffering=0) as f:
        half = len(blob) * 2 // 3
        f.write(blob[:half])
        job.grown(half)
        until(lambda: os.path.exists(f"{place}/last"), "its second file")
        until(lambda: job.consumed == half, "that all of it is read")
        assert not job.future.done()
        f.write(blob[half:])
    job.finish(len(blob))
    assert job.future.result(patient(20)) == (made.digest(blob), made.digest(plain), 6 << 20)
    assert os.path.getsize(f"{place}/last") == 3 << 20


@pytest.mark.parametrize("begun", [False, True])
def test_a_blob_that_is_given_up(pool, place, tmp_path, begun):
    blob = made.tar({"file": os.urandom(2 << 20)})
    job = pool.begin(written(tmp_path, blob), place)
    if begun:
        job.grown(1 << 20)
        until(lambda: os.path.exists(f"{place}/file"), "its file")
    job.abort()
    with pytest.raises(Unavailable, match="given up"):
        job.future.result(patient(20))
    again = pool.begin(written(tmp_path, blob), place)
    again.finish(len(blob))
    assert again.future.result(patient(20)).diff_id == made.digest(blob)


def stuck(pool: UnpackPool, place: str, tmp_path: Path, blob: bytes) -> Unpacking:
    """A job in mid-unpack."""
    job = pool.begin(written(tmp_path, blob), place)
    job.grown(1 << 20)
    until(lambda: os.path.exists(f"{place}/file"), "its file")
    return job


def test_a_process_that_is_killed_is_an_error_and_the_next_job_gets_another(pool, place, tmp_path):
    blob = made.tar({"file": os.urandom(2 << 20)})
    job = stuck(pool, place, tmp_path, blob)
    (victim,) = workers()
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(ResourceExhausted, match="ended by signal 9"):
        job.future.result(patient(20))
    job.finish(len(blob))  # who downloads may not have noticed yet
    again = pool.begin(written(tmp_path, blob), place)
    again.finish(len(blob))
    assert again.future.result(patient(20)).size == 2 << 20
    (idle,) = workers()
    os.kill(idle, signal.SIGKILL)  # while it has nothing to do
    until(lambda: os.waitid(os.P_PID, idle, os.WEXITED | os.WNOHANG | os.WNOWAIT), "its end")
    third = pool.begin(written(tmp_path, blob), place)
    third.finish(len(blob))
    assert third.future.result(patient(20)).size == 2 << 20


def test_no_process_can_be_started(pool, place, tmp_path, monkeypatch):
    blob = made.tar({"file": b"x"})
    monkeypatch.setattr("sys.executable", str(tmp_path / "missing"))
    job = pool.begin(written(tmp_path, blob), place)
    with pytest.raises(ResourceExhausted, match="start a process: No such file"):
        job.future.result(patient(20))
    monkeypatch.undo()
    again = pool.begin(written(tmp_path, blob), place)
    again.finish(len(blob))
    assert again.future.result(patient(20)).size == 1


def test_more_jobs_than_processes(pool, tmp_path):
    jobs = []
    for n in range(7):
        os.mkdir(tmp_path / f"l{n}")
        blob = made.tar({f"file{n}": bytes([n]) * 1000})
        path = tmp_path / f"blob{n}"
        path.write_bytes(blob)
        jobs.append((made.digest(blob), pool.begin(str(path), str(tmp_path / f"l{n}"), size=len(blob))))
    assert [job.future.result(patient(20)).digest for _, job in jobs] == [digest for digest, _ in jobs]
    assert len(workers()) <= 2


def test_blobs_that_do_not_arrive_hold_up_no_others(place, tmp_path):
    blob = made.tar({"file": os.urandom(2 << 20)})
    path, own = written(tmp_path, blob), UnpackPool(1)
    places = [str(tmp_path / f"l{n}") for n in range(6)]
    for one in places:
        os.mkdir(one)
    slow = [own.begin(path, one) for one in places[:2]]
    first = own.begin(path, places[2])
    later = [own.begin(path, one) for one in places[3:5]]
    last = own.begin(path, places[5])
    for job in (first, last):
        job.finish(len(blob))
        assert job.future.result(patient(20)).size == 2 << 20
    for job in (*slow, *later):
        assert not job.future.done()
        job.abort()
    own.close()


def test_the_processes_end_with_the_pool(place, tmp_path):
    own = UnpackPool(1)
    blob = made.tar({"file": b"x"})
    job = own.begin(written(tmp_path, blob), place)
    job.finish(len(blob))
    job.future.result(patient(20))
    assert workers()
    own.close()
    assert not workers()


@pytest.mark.parametrize("options", ["size=80m", "size=200m,nr_inodes=400"], ids=["bytes", "files"])
def test_a_bomb_leaves_room_for_others(pool, place, tmp_path, options):
    """Small as a blob, larger than the disk when it is unpacked."""
    if "nr_inodes" in options:
        tar = made.tar({f"f{n}": b"" for n in range(1000)})
    else:
        tar = made.tar({f"f{n}": bytes(10 << 20) for n in range(12)})
    blob = gzip.compress(tar, 6)
    assert len(blob) < 1 << 20
    with small_disk(place, options):
        job = pool.begin(written(tmp_path, blob), place)
        job.finish(len(blob))
        with pytest.raises(ResourceExhausted, match="no space left"):
            job.future.result(patient(20))
        free = os.statvfs(place)
        if "nr_inodes" not in options:
            assert free.f_bavail * free.f_frsize > limits._RESERVE - limits._EVERY - (10 << 20)


def test_a_full_disk_leaves_nothing_of_an_image(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    with small_disk(str(data), "size=100m"):
        db = Database(str(data / "ketch.db"), SCHEMAS)
        store = ImageStore(db, str(data))
        try:
            import_rootfs(store, io.BytesIO(made.tar({"small": b"x"})), name="before")
            before = sorted(os.walk(data))
            bomb = gzip.compress(made.tar({f"f{n}": bytes(10 << 20) for n in range(12)}), 6)
            for work in (
                lambda: import_rootfs(store, io.BytesIO(bomb), name="bomb"),
                lambda: load_archive(store, io.BytesIO(_archive(bomb)), lambda _item: None),
            ):
                with pytest.raises(ResourceExhausted, match="no space left"):
                    work()
                assert sorted(os.walk(data)) == before
            assert [image.repo_tags for image in store.list()] == [["before:latest"]]
        finally:
            store.close()
            db.close()


def test_a_blob_that_fails_on_a_full_disk_says_why(tmp_path):
    """What is still to be written when it is given up is not written: that would fail as well, and hide the reason."""
    with small_disk(str(tmp_path), "size=1m"), closing(ContentStore(str(tmp_path))) as store:
        with pytest.raises(InvalidArgument, match="the true reason"), store.ingest() as ingest:
            with pytest.raises(OSError, match="No space left"), open(tmp_path / "filler", "wb", buffering=0) as f:
                while f.write(bytes(1 << 12)):
                    pass
            ingest.write(b"a little, which waits in a buffer")
            raise InvalidArgument("the true reason")


def _archive(layer: bytes) -> bytes:
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [made.digest(gzip.decompress(layer))]},
    }
    entry = [{"Config": "c.json", "RepoTags": ["bomb:1"], "Layers": ["l.tar"]}]
    return made.tar(
        {"c.json": json.dumps(config).encode(), "l.tar": layer, "manifest.json": json.dumps(entry).encode()}
    )


def test_memory_stays_small_whatever_the_layer(pool, place, tmp_path):
    plain = made.tar({"large": bytes(300 << 20)})
    blob = made.packed(plain, "gzip")
    job = pool.begin(written(tmp_path, blob), place)
    job.finish(len(blob))
    assert job.future.result(patient(60)).size == 300 << 20
    (worker,) = workers()
    with open(f"/proc/{worker}/status") as f:
        peak = next(int(line.split()[1]) for line in f if line.startswith("VmHWM"))
    assert peak < _MEMORY_KIB


def test_an_escape_is_the_same_error_as_in_this_process(pool, place, tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../out"))
    job = pool.begin(written(tmp_path, buffer.getvalue()), place)
    job.finish(len(buffer.getvalue()))
    with pytest.raises(InvalidArgument, match=r"extract `../out`: path leads out of the archive"):
        job.future.result(patient(20))
