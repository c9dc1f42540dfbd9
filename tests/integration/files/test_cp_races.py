"""A container that swaps a directory with a link to the host while files are copied: nothing of the host is touched.

CVE-2018-15664: dockerd resolved a path first and used it later.  CVE-2019-14271: it loaded a library of the container.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import subprocess
import sys
import tarfile
import time

import docker.errors
import pytest
import zstandard

from ketch.runtime.rootfs import paths

pytestmark = pytest.mark.ketch_only
ROUNDS = 150
RACE_S = 6.0
SWAPPER = """
import os, sys
os.chdir(sys.argv[1])
while True:
    os.symlink(sys.argv[2], "link")
    try:
        os.rename("link", "node")
    except OSError:
        os.unlink("link")
"""  # in the container's place, and faster than its shell

RENAMER = """
import os, sys
os.chdir(sys.argv[1])
while True:
    os.rename("x", "y")
    os.rename("y", "x")
"""
SWAP = (
    "while :; do mv /race/dir /race/away; mv /race/link /race/dir; "
    "mv /race/dir /race/link; mv /race/away /race/dir; done"
)


@pytest.fixture
def victim(tmp_path):
    """A directory of the host with something to steal and something to destroy."""
    place = tmp_path / "host"
    place.mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    (place / "secret").write_text("of the host", encoding="utf-8")
    (place / "file").write_text("of the host", encoding="utf-8")
    return place


@pytest.fixture
def racer(engine, victim):
    """A container that swaps /race/dir and a link to that directory's path, all the time."""
    made = (
        f"mkdir -p /race/dir && echo of the container > /race/dir/secret && ln -s {victim} /race/link && "
        f"touch /ready && {SWAP}"
    )
    name = engine.docker("run", "-d", "busybox", "sh", "-c", made).out.strip()
    engine.docker("exec", name, "sh", "-c", "until test -e /ready; do sleep 0.01; done")
    return name


def state_of(place) -> list[tuple[str, str, int, int]]:
    return sorted(
        (path.name, path.read_text(encoding="utf-8"), path.stat().st_mode, path.stat().st_uid)
        for path in place.iterdir()
    )


def test_nothing_leaks_out(docker_py, racer, victim):
    seen = set()
    for _ in range(ROUNDS):
        with contextlib.suppress(docker.errors.NotFound, docker.errors.APIError):
            data = b"".join(docker_py.api.get_archive(racer, "/race/dir/secret", chunk_size=None)[0])
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                for member in archive:
                    seen.add(archive.extractfile(member).read() if member.isreg() else member.linkname.encode())
    assert b"of the container\n" in seen  # the race was run at all
    assert b"of the host" not in seen


def test_whole_trees_do_not_leak(docker_py, racer, victim):
    seen = set()
    for _ in range(ROUNDS):
        with contextlib.suppress(docker.errors.NotFound, docker.errors.APIError):
            data = b"".join(docker_py.api.get_archive(racer, "/race", chunk_size=None)[0])
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                seen.update(archive.extractfile(member).read() for member in archive if member.isreg())
    assert seen == {b"of the container\n"}


@pytest.mark.parametrize("path", ["/race/dir", "/race", "/"])
def test_nothing_outside_is_written(docker_py, racer, victim, path):
    before = state_of(victim)
    prefix = os.path.relpath("/race/dir", path)
    data = archive_of(prefix.removeprefix("."))
    done = 0
    for _ in range(ROUNDS // 2):
        with contextlib.suppress(docker.errors.NotFound, docker.errors.APIError):
            done += docker_py.api.put_archive(racer, path, data)
    assert state_of(victim) == before
    assert done > 0


def archive_of(prefix: str) -> bytes:
    """Every kind of member, each of which would change the host's directory in another way."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, link in (
            ("file", tarfile.REGTYPE, ""),
            ("new", tarfile.REGTYPE, ""),
            ("hard", tarfile.LNKTYPE, "new"),
            ("secret", tarfile.SYMTYPE, "new"),
            ("fifo", tarfile.FIFOTYPE, ""),
            ("deep/er", tarfile.REGTYPE, ""),
            ("deep", tarfile.DIRTYPE, ""),
        ):
            info = tarfile.TarInfo(os.path.join(prefix, name))
            info.type, info.mode, info.uid, info.gid = kind, 0o777, 4711, 4711
            info.linkname = os.path.join(prefix, link) if kind == tarfile.LNKTYPE else link
            archive.addfile(info)
    return buffer.getvalue()


def test_nodes_that_become_links(docker_py, engine, victim):
    """chmod(2), chown(2) and utimensat(2) follow links: they must not be given a name that somebody can replace."""
    (victim / "node").write_text("of the host", encoding="utf-8")
    before = state_of(victim)
    name = engine.docker("run", "-d", "busybox", "sh", "-c", "mkdir /race; exec sleep 1000").out.strip()
    engine.docker("exec", name, "sh", "-c", "until test -e /race; do sleep 0.01; done")
    pid = docker_py.api.inspect_container(name)["State"]["Pid"]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for kind in (tarfile.FIFOTYPE, tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE) * 5:
            info = tarfile.TarInfo("node")
            info.type, info.mode, info.uid, info.gid = kind, 0o666, 4711, 4711
            archive.addfile(info)
    swapper = subprocess.Popen([sys.executable, "-c", SWAPPER, f"/proc/{pid}/root/race", str(victim / "node")])
    try:
        for _ in range(ROUNDS):
            with contextlib.suppress(docker.errors.APIError):
                docker_py.api.put_archive(name, "/race", buffer.getvalue())
    finally:
        swapper.kill()
        swapper.wait()
    assert state_of(victim) == before


def test_no_code_of_the_container_is_loaded(docker_py, engine, victim):
    """Libraries that dockerd's helper would have loaded after its chroot, and Python's own search path."""
    script = (
        "for d in lib lib64 usr/lib lib/x86_64-linux-gnu usr/lib/x86_64-linux-gnu; do mkdir -p /$d; "
        "for l in libnss_files.so.2 libc.so.6 libnss_compat.so.2; do echo broken > /$d/$l; done; done; "
        "echo 'raise SystemExit' > /sitecustomize.py; sleep 1000"
    )
    name = engine.docker("run", "-d", "busybox", "sh", "-c", script).out.strip()
    engine.docker("exec", name, "sh", "-c", "until test -e /sitecustomize.py; do sleep 0.01; done")
    daemon = engine.process.pid
    with open(f"/proc/{daemon}/maps", encoding="utf-8") as f:
        before = {line.split()[-1] for line in f if "/" in line}
    docker_py.api.put_archive(name, "/tmp", archive_of(""))
    assert docker_py.api.get_archive(name, "/tmp/new")[1]["size"] == 0
    with open(f"/proc/{daemon}/maps", encoding="utf-8") as f:
        after = {line.split()[-1] for line in f if "/" in line}
    assert {path for path in after - before if engine.root in path or "overlay" in path} == set()


def test_renames_elsewhere_do_not_disturb(tmp_path):
    """openat2(2) says EAGAIN about paths with ``..`` while something is renamed anywhere."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x").touch()
    swapper = subprocess.Popen([sys.executable, "-c", RENAMER, str(tmp_path / "elsewhere")])
    root_fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        while not (tmp_path / "elsewhere" / "y").exists():
            assert swapper.poll() is None
        for _ in range(5000):
            os.close(paths.open_in(root_fd, "a/b/../b/../b/../b/../.."))
    finally:
        swapper.kill()
        swapper.wait()
        os.close(root_fd)


def test_a_device_in_a_files_place_is_not_opened(docker_py, engine):
    """The container swaps a file with the machine's memory device; what is archived is never its content."""
    swap = "rm -f /race/x; echo data >/race/x; rm -f /race/x; mknod /race/x c 1 5"
    script = f"mkdir /race; touch /ready; while :; do {swap}; done"
    name = engine.docker("run", "-d", "busybox", "sh", "-c", script).out.strip()
    engine.docker("exec", name, "sh", "-c", "until test -e /ready; do sleep 0.01; done")
    kinds = set()
    for _ in range(ROUNDS):
        with contextlib.suppress(docker.errors.NotFound):
            data = b"".join(docker_py.api.get_archive(name, "/race/x")[0])
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                for member in archive:
                    kinds.add(member.type)
                    assert not member.isreg() or member.size <= 5
    assert kinds <= {tarfile.REGTYPE, tarfile.CHRTYPE}


COMPRESSED = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": zstandard.compress,
    "none": bytes,
}


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_no_decompressor_of_the_container_is_run(docker_py, engine, running):
    """dockerd's helper had changed its root before it looked for xz, unpigz and the like (and their libraries)."""
    programs = "xz unxz lzma gzip gunzip pigz unpigz bzip2 bunzip2 zstd unzstd tar zcat"
    script = (
        f"for p in {programs}; do for d in bin sbin usr/bin usr/sbin usr/local/bin usr/local/sbin; do mkdir -p /$d; "
        "rm -f /$d/$p; printf '#!/bin/sh\\necho $0 >>/executed\\nexec cat\\n' >/$d/$p; chmod 755 /$d/$p; "
        "done; done; mkdir -p /to /etc; echo '/planted.so' >/etc/ld.so.preload; touch /ready; exec sleep 1000"
    )
    name = engine.docker("run", "-d", "busybox", "sh", "-c", script).out.strip()
    engine.docker("exec", name, "sh", "-c", "until test -e /ready; do sleep 0.01; done")
    if not running:
        engine.docker("stop", "-t", "0", name)
    for kind, pack in COMPRESSED.items():
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.addfile(tarfile.TarInfo(f"from-{kind}"))
        assert docker_py.api.put_archive(name, "/to", pack(buffer.getvalue()))
        assert docker_py.api.get_archive(name, f"/to/from-{kind}")[1]["size"] == 0
    with pytest.raises(docker.errors.NotFound):
        docker_py.api.get_archive(name, "/executed")


VOLUME_SWAPPER = """
import os, sys
os.chdir(sys.argv[1])
while True:
    for a, b in (("dir", "away"), ("link", "dir"), ("dir", "link"), ("away", "dir")):
        try:
            os.rename(a, b)
        except OSError:
            pass
"""  # what stands above the place of a volume is a directory, nothing, and a link to the host, in turns


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_the_place_of_a_volume_becomes_a_link(docker_py, engine, victim, running):
    """Between its creation and the mount (GHSA-rg2x-37c3-w2rh): no mount and no file lands on the host's directory."""
    (victim / "vol").mkdir()
    (victim / "vol" / "secret").write_text("of the host", encoding="utf-8")
    name = engine.docker(
        "run",
        "-d",
        "-v",
        "swapped:/race/dir/vol",
        "busybox",
        "sh",
        "-c",
        f"echo of the volume >/race/dir/vol/secret; ln -s {victim} /race/link; touch /ready; exec sleep 1000",
    ).out.strip()
    engine.docker("exec", name, "sh", "-c", "until test -e /ready; do sleep 0.01; done")
    before = state_of(victim / "vol"), sorted(os.listdir(victim))
    mounts = mount_points()
    if running:
        place = f"/proc/{docker_py.api.inspect_container(name)['State']['Pid']}/root/race"
    else:
        engine.docker("stop", "-t", "0", name)
        place = f"{engine.data_root}/containers/{name}/upper/race"
        assert os.path.isdir(place)
    swapper = subprocess.Popen([sys.executable, "-c", VOLUME_SWAPPER, place])
    seen: set[bytes] = set()
    done = 0
    deadline = time.monotonic() + RACE_S
    try:
        while time.monotonic() < deadline:
            with contextlib.suppress(docker.errors.APIError):
                done += docker_py.api.put_archive(name, "/race/dir/vol", archive_of(""))
            with contextlib.suppress(docker.errors.APIError):
                data = b"".join(docker_py.api.get_archive(name, "/race/dir/vol/secret", chunk_size=None)[0])
                with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                    for member in archive:
                        seen.add(archive.extractfile(member).read() if member.isreg() else b"")
    finally:
        swapper.kill()
        swapper.wait()
    assert (state_of(victim / "vol"), sorted(os.listdir(victim))) == before
    assert mount_points() == mounts
    assert b"of the host" not in seen
    assert done > 0


def mount_points() -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        return sorted(line.split()[4] for line in f)
