"""Archives that are made to hurt, given to ADD: an error or a bounded result, little memory, and nothing left."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import tarfile

import pytest

from tests.support.building.remains import until_nothing_is_half_made
from tests.support.building.requests import request, states
from tests.support.builds import classic_builds
from tests.support.memory import Memory
from tests.support.rawapi import Api
from tests.support.waiting import until

pytestmark = [pytest.mark.ketch_only, pytest.mark.usefixtures("no_images_left")]

ALLOWED_MIB = 120


@pytest.fixture
def build(engine):
    """Build with an archive; what was said, and the files below /x."""
    memory = Memory(engine.process.pid)

    def run(data: bytes, command: str = "true", name: str = "archive.tar.gz") -> tuple[str, int]:
        files = {"Dockerfile": f"FROM busybox\nADD {name} /x/\nRUN {command}\n", name: data}
        _, lines = classic_builds.post(engine.socket, files)
        text = classic_builds.text(lines) + "".join(line.get("error", "") for line in lines)
        assert "internal error" not in text
        return text, sum("error" in line for line in lines)

    yield run
    grown = memory.grown_mib()
    assert grown < ALLOWED_MIB
    Api(engine.socket).must("POST", "/build/prune", all=1)
    until_nothing_is_half_made(engine)


def packed(*members: tarfile.TarInfo, data: bytes = b"") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(data[: member.size]))
    return out.getvalue()


def directory(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, 0o755
    return member


def test_many_entries(build):
    members = (tarfile.TarInfo(f"{n % 100}/{n}") for n in range(10_000))
    text, failed = build(packed(*members), "find /x -type f | wc -l")
    assert not failed and "\n10000\n" in text


def test_deep_trees(build):
    """Deeper than a path can say."""
    text, failed = build(packed(directory("d/" * 3000), tarfile.TarInfo("d/" * 3000 + "f")), "test -d /x/d/d")
    assert failed == 0 or "archive" in text


def test_archives_within_archives(build):
    """One that is within another stays what it is; one that is compressed twice is no archive."""
    inner = packed(tarfile.TarInfo("inside"))
    member = tarfile.TarInfo("archive.tar.gz")
    member.size = len(inner)
    text, failed = build(packed(member, data=inner), "test -f /x/archive.tar.gz && ! test -e /x/inside")
    assert not failed, text
    text, failed = build(gzip.compress(inner), "test -f /x/archive.tar.gz")
    assert not failed, text


def sparse(size: int) -> bytes:
    """An archive with a file of this size that has one block, in GNU's old form."""
    member = tarfile.TarInfo("hole")
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[124:136] = b"%011o\0" % 512  # what follows
    header[386:410] = _number(0) + _number(512)
    header[483:495] = _number(size)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + b"x" * 512 + bytes(1024)


def _number(value: int) -> bytes:
    return b"\x80" + value.to_bytes(11, "big")


def test_sparse_files(build):
    """A hole stays one, or is refused."""
    text, failed = build(sparse(1 << 20), "test $(stat -c %s /x/hole) = 1048576", "hole.tar")
    assert failed == 0 or "sparse" in text, text


@pytest.mark.parametrize("step", ["ADD hole.tar /x/", "RUN truncate -s 4T /hole"])
def test_huge_holes(engine, step):
    """Nobody waits for terabytes that are not there once the client is gone."""
    if step.startswith("ADD"):
        text = classic_builds.text(
            classic_builds.post(engine.socket, {"Dockerfile": f"FROM busybox\n{step}\n", "hole.tar": sparse(1 << 20)})[
                1
            ]
        )
        if "Successfully" not in text:
            pytest.skip("sparse members are refused")
    body = classic_builds.context({"Dockerfile": f"FROM busybox\n{step}\n", "hole.tar": sparse(4 << 40)})
    before = len(states(engine))
    with request(engine, "/build", body):
        until(lambda: len(states(engine)) > before or states(engine)[0] == "running", "it does not begin")
        until(lambda: _made(engine) or states(engine)[0] != "running", "the step does not end")
    until(lambda: states(engine)[0] != "running", "it goes on without a client")
    assert states(engine)[0] in ("canceled", "error")
    until(lambda: not _read(engine), "the file is read for nobody")
    Api(engine.socket).must("POST", "/build/prune", all=1)
    until_nothing_is_half_made(engine)


def _made(engine) -> bool:
    """Whether there is a layer with a huge file."""
    layers = os.path.join(engine.data_root, "layers")
    for name in os.listdir(layers):
        for path in ("hole", "x/hole"):
            found = os.path.join(layers, name, "diff", path)
            if name.startswith("built-") and os.path.exists(found) and os.path.getsize(found) > 1 << 40:
                return True
    return False


def _read(engine) -> bool:
    """Whether the daemon has the huge file open."""
    place = f"/proc/{engine.process.pid}/fd"
    for name in os.listdir(place):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(f"{place}/{name}").removesuffix(" (deleted)").endswith("/hole"):
                return True
    return False
