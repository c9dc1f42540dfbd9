"""Trees deeper than PATH_MAX and than Python's stack, with the real clients: made, archived, compared, removed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.support.deep_trees import census, make
from tests.support.rawapi import Api
from tests.support.waiting import until

SHALLOW, DEEP = 1500, 2100  # paths of the first are shorter than PATH_MAX (4096): dockerd can make it


def deep_tar(depth: int, *extra: str) -> bytes:
    """A root filesystem with a file below so many directories, all of them named in the archive."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as archive:
        path = "tree"
        for number in range(depth):
            info = tarfile.TarInfo(path)
            info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, number
            archive.addfile(info)
            path += "/d"
        for name in (path, *extra):
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"text"))
    return data.getvalue()


def names(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return [member.name for member in archive]


def left(engine) -> list[str]:
    """What there is under the data root of containers and layers, once removal in the background is over."""
    places = [f"{engine.data_root}/{name}" for name in ("containers", "layers")]
    return [f"{place}/{name}" for place in places for name in os.listdir(place)]


@pytest.mark.timeout(180)
def test_the_daemon_starts_after_a_deep_tree_was_removed(own_engine):
    """Also when it was killed before its end, so that the sweep at the start meets it."""
    own_engine.start()
    own_engine.add_busybox()
    layers = left(own_engine)
    script = "cd /tmp; i=0; while [ $i -lt 1200 ]; do mkdir d && cd d; i=$((i+1)); done"
    own_engine.docker("run", "--name", "dd", "busybox", "sh", "-c", script)
    own_engine.docker("rm", "dd")
    own_engine.stop()
    make(Path(own_engine.data_root, "layers", ".new-left"), DEEP)
    own_engine.start()
    own_engine.stop()  # breaks it off, perhaps
    own_engine.start()
    until(lambda: left(own_engine) == layers, lambda: f"it is not removed: {left(own_engine)}", 60)


def test_a_directory_to_mount_that_is_made(engine, tmp_path):
    deep = str(tmp_path / "source") + "/d" * SHALLOW
    try:
        engine.docker("run", "--rm", "-v", f"{deep}:/x", "busybox", "touch", "/x/here", timeout=60)
        assert os.listdir(deep) == ["here"]
    finally:
        subprocess.run(["rm", "-rf", "source"], cwd=tmp_path, check=True)  # pytest's own removal recurses


@pytest.mark.ketch_only  # dockerd: evalSymlinksInScope: too many links
def test_directories_that_are_made_in_a_container(engine, tmp_path):
    (tmp_path / "here").touch()
    deep = "/d" * SHALLOW
    words = ("-v", f"{tmp_path}:/mnt{deep}", "-w", f"/work{deep}")
    shown = engine.docker("run", "--rm", *words, "busybox", "sh", "-c", f"pwd; ls /mnt{deep}", timeout=60).out
    assert shown == f"/work{deep}\nhere\n"


@pytest.mark.timeout(180)
def test_import_and_remove_an_image(engine):
    engine.docker("import", "-c", 'CMD ["true"]', "-", "deep", stdin=deep_tar(SHALLOW), timeout=120)
    engine.docker("create", "--name", "box", "deep")
    engine.docker("rm", "box")
    engine.docker("rmi", "deep")
    assert "deep" not in engine.docker("image", "ls").out


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "command", [["volume", "rm", "deep"], ["volume", "prune", "-af"], ["rm", "-vf", "box"]], ids=" ".join
)
def test_remove_a_volume(engine, command):
    name = "deep"
    if command[0] == "volume":
        engine.docker("volume", "create", name)
    else:
        engine.docker("create", "--name", "box", "-v", "/v", "busybox")
        name = json.loads(engine.docker("inspect", "-f", "{{json .Mounts}}", "box").out)[0]["Name"]
    place = engine.docker("volume", "inspect", "-f", "{{.Mountpoint}}", name).out.strip()
    make(Path(place) / "tree", DEEP)
    engine.docker("system", "df", "-v")
    engine.docker(*command, timeout=120)
    assert name not in engine.docker("volume", "ls", "-q").out.split()
    assert not os.path.exists(place)


@pytest.mark.timeout(120)
def test_a_volume_that_cannot_be_removed(engine):
    """Says why, stays, and goes when it can."""
    engine.docker("volume", "create", "stuck")
    place = engine.docker("volume", "inspect", "-f", "{{.Mountpoint}}", "stuck").out.strip()
    (Path(place) / "directory").mkdir()
    (Path(place) / "directory" / "file").touch()
    if subprocess.run(["chattr", "+i", f"{place}/directory/file"], check=False).returncode:
        pytest.skip("no immutable files here")
    try:
        done = engine.docker("volume", "rm", "stuck", check=False)
    finally:
        subprocess.run(["chattr", "-i", f"{place}/directory/file"], check=True)
    assert done.code == 1
    assert "operation not permitted" in done.err
    assert "file" in done.err
    assert "stuck" in engine.docker("volume", "ls", "-q").out.split()
    engine.docker("volume", "rm", "stuck")
    assert not os.path.exists(place)


@pytest.mark.ketch_only
@pytest.mark.timeout(300)
def test_beyond_what_paths_can_say(engine, tmp_path):
    """Copied in and out, exported, compared, committed, saved and loaded, replaced: at each step all of it is there."""
    engine.docker("create", "--name", "box", "busybox", "true")
    data = deep_tar(DEEP, "tree/file")
    engine.docker("cp", "-", "box:/tmp", stdin=data, timeout=120)
    wanted = sorted("tmp/" + name for name in names(data))
    copied = engine.docker("cp", "box:/tmp/tree", "-", timeout=120).out.encode()
    assert sorted(names(copied)) == sorted(names(data))
    engine.docker("export", "-o", str(tmp_path / "exported"), "box", timeout=120)
    exported = names((tmp_path / "exported").read_bytes())
    assert sorted(name for name in exported if name.startswith("tmp/")) == wanted
    assert engine.docker("diff", "box", timeout=120).out.count("A /tmp/tree") == DEEP + 2
    engine.docker("commit", "box", "deep", timeout=120)
    engine.docker("save", "-o", str(tmp_path / "saved"), "deep", timeout=120)
    engine.docker("rmi", "deep", timeout=120)
    engine.docker("load", "-i", str(tmp_path / "saved"), timeout=120)
    engine.docker("run", "--name", "second", "deep", "sh", "-c", "ls -d /tmp/tree/d/d/d", timeout=120)
    replacement = io.BytesIO()
    with tarfile.open(fileobj=replacement, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("tree"))
    Api(engine.socket).must("PUT", "/containers/second/archive?path=/tmp", replacement.getvalue())
    assert "C /tmp/tree" in engine.docker("diff", "second").out.splitlines()
    engine.docker("ps", "-as", timeout=60)
    engine.docker("rm", "box", "second", timeout=120)
    engine.docker("rmi", "deep", timeout=120)


@pytest.mark.ketch_only
@pytest.mark.timeout(180)
def test_cp_of_our_client_backup_and_restore(engine, tmp_path):
    make(tmp_path / "tree", DEEP)
    engine.ketch("create", "--name", "box", "-v", "deep:/v", "busybox")
    engine.ketch("cp", f"{tmp_path}/tree", "box:/v", timeout=120)
    (tmp_path / "back").mkdir()
    engine.ketch("cp", "box:/v/tree", f"{tmp_path}/back", timeout=120)
    engine.ketch("volume", "backup", "-o", str(tmp_path / "archive"), "deep", timeout=120)
    engine.ketch("volume", "restore", "-i", str(tmp_path / "archive"), "other", timeout=120)
    place = engine.ketch("volume", "inspect", "-f", "{{.Mountpoint}}", "other").out.strip()
    assert census(place + "/tree") == census(tmp_path / "tree") == census(tmp_path / "back" / "tree")
    engine.ketch("rm", "box")
    engine.ketch("volume", "rm", "deep", "other", timeout=120)
    subprocess.run(["rm", "-rf", "tree", "back"], cwd=tmp_path, check=True)
