"""A disk that fills up during a build: the error says where, nothing half-made stays, and with room it works again."""

from __future__ import annotations

import io
import json
import os
import tarfile

import pytest

from tests.support.boxes.damage import fill, mounted, small
from tests.support.building.remains import on_disk, until_disk_is, until_nothing_is_half_made
from tests.support.building.web import served
from tests.support.builds import classic_builds
from tests.support.rawapi import Api

pytestmark = pytest.mark.ketch_only

BIG = 24 << 20
FULL = "no space left on device"


def fill_but(directory: str, spare: int) -> str:
    """Fill a file system but for some bytes."""
    path = fill(directory)
    os.truncate(path, os.path.getsize(path) - spare)
    return path


def archive(size: int) -> bytes:
    """A compressed archive with one file that is not."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        for n in range(4):
            info = tarfile.TarInfo(f"file-{n}")
            info.size = size // 4
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return out.getvalue()


@pytest.fixture
def context(tmp_path):
    place = tmp_path / "context"
    place.mkdir()
    (place / "big").write_bytes(os.urandom(1 << 16) * (BIG >> 16))
    (place / "packed.tar.gz").write_bytes(archive(BIG))
    (place / "small").write_text("small")
    return place


# What is built, the bytes that are free before, what the error says.
CASES = {
    "a context": ("COPY big /", BIG // 2, ["copy `big` of the build context", FULL]),
    "a copy": ("COPY --chown=1:1 big /", BIG * 3 // 2, ["COPY --chown=1:1 big /", FULL]),
    "an archive": ("ADD packed.tar.gz /", BIG // 2, ["ADD packed.tar.gz /", FULL]),
    "a command": ("RUN dd if=/dev/zero of=/big bs=1M count=24", BIG // 2, ["RUN dd", "exit code: 1", "No space left"]),
    "a cache mount": (
        "RUN --mount=type=cache,target=/c dd if=/dev/zero of=/c/big bs=1M count=24",
        BIG // 2,
        ["RUN --mount", "exit code: 1", "No space left"],
    ),
    "a file of the web": ("ADD {web}/big /", BIG // 2, ["ADD http", FULL]),
}


@pytest.mark.parametrize("what", CASES)
def test_a_step(own_engine, context, what):
    step, spare, said = CASES[what]
    with (
        served({"/big": (context / "big").read_bytes()}) as web,
        small(own_engine, "size=200m", own_engine.data_root) as api,
    ):
        (context / "Dockerfile").write_text(f"FROM busybox\n{step.format(web=web)}\nRUN ls -l / >/list\n")
        ketch = own_engine.ketch
        before = on_disk(own_engine)
        filler = fill_but(own_engine.data_root, spare)
        failed = ketch("build", "-t", "x", str(context), check=False)
        assert failed.code == 1
        for text in said:
            assert text in failed.err, failed.err
        until_nothing_is_half_made(own_engine)
        assert api("GET", "/images/x/json")[0] == 404
        os.unlink(filler)
        ketch("build", "-t", "x", str(context))
        assert ketch("run", "--rm", "x", "cat", "/list").out
        ketch("rmi", "x")
        ketch("builder", "prune", "-af")
        until_disk_is(own_engine, before)


def test_a_context_that_is_sent(own_engine, context):
    files = {"Dockerfile": "FROM busybox\nCOPY big /\n", "big": (context / "big").read_bytes()}
    with small(own_engine, "size=200m", own_engine.data_root):
        before = on_disk(own_engine)
        filler = fill_but(own_engine.data_root, BIG // 2)
        status, lines = classic_builds.post(own_engine.socket, files, "t=x")
        text = json.dumps(lines)
        assert FULL in text and "context" in text, (status, lines)
        until_nothing_is_half_made(own_engine)
        os.unlink(filler)
        status, lines = classic_builds.post(own_engine.socket, files, "t=x")
        assert status == 200 and classic_builds.image_id(lines)
        own_engine.ketch("rmi", "x")
        own_engine.ketch("builder", "prune", "-af")
        until_disk_is(own_engine, before)


def test_the_image_and_the_records(own_engine, context):
    """The last step leaves no room: there is an image or an error, and what cannot be recorded is made again."""
    fills = "dd if=/dev/zero of=/big bs=4k || true; dd if=/dev/zero of=/more bs=1 || true"
    (context / "Dockerfile").write_text(f"FROM busybox\nCOPY small /\nRUN {fills}\n")
    (context / "big").unlink()
    (context / "packed.tar.gz").unlink()
    with small(own_engine, "size=60m", own_engine.data_root) as api:
        ketch = own_engine.ketch
        before = on_disk(own_engine)
        done = ketch("build", "-t", "x", str(context), check=False)
        assert done.code == 0 or (FULL in done.err and "exporting to image" in done.err), done.err
        assert (api("GET", "/images/x/json")[0] == 200) == (done.code == 0)
        if done.code == 0:
            assert ketch("run", "--rm", "x", "true", check=False).code in (0, 125)
            ketch("rmi", "x")
        ketch("builder", "prune", "-af")
        until_disk_is(own_engine, before)
        (context / "Dockerfile").write_text("FROM busybox\nCOPY small /\nRUN echo x >/big\n")
        ketch("build", "-t", "x", str(context))
        assert ketch("run", "--rm", "x", "cat", "/big", "/small").out == "x\nsmall"
        ketch("rmi", "x")


def test_pruning(own_engine, context):
    """What a build has left in its cache can be removed when there is no room at all."""
    (context / "Dockerfile").write_text(
        "FROM busybox\nCOPY big /\nRUN --mount=type=cache,target=/c echo x >/c/x; cp big b\n"
    )
    with small(own_engine, "size=200m", own_engine.data_root):
        ketch = own_engine.ketch
        before = on_disk(own_engine)
        ketch("build", "-o", "type=cacheonly", str(context))
        filler = fill(own_engine.data_root)
        assert "Total:" in ketch("builder", "du").out
        ketch("builder", "prune", "-af")
        until_disk_is(own_engine, {*before, "fill"})
        (context / "Dockerfile").write_text("FROM busybox\nCOPY big /\n")
        ketch("build", "-o", "type=cacheonly", str(context))
        os.unlink(filler)
        ketch("builder", "prune", "-af")


def test_where_results_go(own_engine, context, tmp_path):
    """The client's disk is full, not ours: archives, directories, caches."""
    (context / "Dockerfile").write_text("FROM scratch\nCOPY big /\n")
    own_engine.start()
    ketch = own_engine.ketch
    place = tmp_path / "full"
    place.mkdir()
    with mounted(str(place), "size=4m"):
        for words, said in (
            (["-o", f"type=tar,dest={place}/x.tar"], "output `tar`"),
            (["-t", "x", "-o", f"type=docker,dest={place}/x.tar"], "output `docker`"),
            (["-o", str(place / "files")], "files"),
            (["-o", "type=cacheonly", "--cache-to", f"type=local,dest={place}/cache"], "a cache in a directory"),
        ):
            failed = ketch("build", *words, str(context), check=False)
            assert failed.code == 1 and FULL in failed.err.lower() and said in failed.err, (words, failed.err)
            left = [path for path in place.rglob("*") if path.is_file()]
            assert all(path.stat().st_size < BIG for path in left)
            assert [path for path in left if path.name.endswith(".tar")] == [], (words, left)
    until_nothing_is_half_made(own_engine)
    Api(own_engine.socket).must("POST", "/images/prune")
    ketch("builder", "prune", "-af")
