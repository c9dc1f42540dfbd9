"""A user's data root on a file system that refuses what root of a user namespace may do elsewhere."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile

import pytest

from tests.support.programs import need
from tests.support.registries import made_images
from tests.support.run import daemons, unprivileged
from tests.support.waiting import patient, until

pytestmark = pytest.mark.ketch_only


@pytest.fixture
def engine_on(tmp_path):
    """A user's daemon that is not started, and a function that mounts a store as its data root by this command."""
    need("newuidmap")
    unprivileged.user()
    store = tmp_path / "store"
    with daemons.one_of_its_own("n") as one:
        one.rootless()
        for directory in (store, one.data_root):
            os.mkdir(directory)
            os.chown(directory, unprivileged.UID, unprivileged.UID)

        def mount(*command: str):
            subprocess.run([*command, one.data_root], check=True)
            return one

        yield mount
        if one.process is not None:
            one.remove_all()
            one.stop()
        subprocess.run(["umount", one.data_root], check=True)


def image_with_owners(engine) -> None:
    """``owned``: a few programs, and files that belong to somebody else, one of which runs as its owner."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.add("/bin/busybox", "bin/sh")
        for name in ("cat", "ls", "rm", "stat"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.LNKTYPE, "bin/sh"
            archive.addfile(link)
        for name, mode in (("theirs", 0o640), ("setid", 0o6755)):
            one = tarfile.TarInfo(f"etc/{name}")
            one.uid, one.gid, one.mode = 7, 8, mode
            archive.addfile(one)
    engine.docker("import", "-", "owned", stdin=data.getvalue())


def said(engine) -> str:
    return "\n".join(json.loads(engine.docker("info", "--format", "{{json .Warnings}}").out) or [])


def test_a_file_system_that_refuses_owners_and_attributes(engine_on, tmp_path):
    """As a home on NFS: plain copies, all of whose files are root's; that is said, and the rest works."""
    engine = engine_on(need("bindfs"), "--chown-deny", "--xattr-none", str(tmp_path / "store"))
    engine.start()
    assert "vfs copies an image per container" in said(engine)
    assert "belong to root" in said(engine)
    assert "keeps no attributes user.overlay.*" in said(engine)
    image_with_owners(engine)
    client = engine.docker
    show = ("stat", "-c", "%u:%g %a", "/etc/theirs", "/etc/setid")
    assert client("run", "--rm", "owned", *show).out == "0:0 640\n0:0 755\n"
    name = client("create", "owned", "sh", "-c", "echo text >/new; rm -f /etc/theirs").out.strip()
    client("start", "-a", name)
    assert sorted(client("diff", name).out.splitlines()) == ["A /new", "C /etc", "D /etc/theirs"]
    client("commit", name, "kept")
    assert client("run", "--rm", "kept", "sh", "-c", "cat /new; ls /etc/theirs 2>/dev/null; true").out == "text\n"
    (tmp_path / "Dockerfile").write_text(
        "FROM owned\nCOPY --chown=5:6 Dockerfile /d\nRUN rm /etc/theirs; stat -c %u /d\n"
    )
    done = client("build", "--progress=plain", "-t", "made", str(tmp_path))
    assert client("run", "--rm", "made", "sh", "-c", "ls /etc/theirs 2>/dev/null; stat -c %u /d").out == "0\n", done.err
    opaque = made_images.image({"etc/old": b""}, {"etc/.wh..wh..opq": b"", "etc/new": b""})
    refused = client("load", stdin=made_images.docker_archive(opaque, "opaque:1"), check=False)
    assert "keeps no attributes user.overlay.*" in refused.out + refused.err


def test_overlay_is_not_allowed(engine_on, tmp_path):
    """As with a kernel before 5.11, or a security module's rule: fuse-overlayfs is chosen, and said once."""
    need("fuse-overlayfs")
    engine = engine_on(need("bindfs"), str(tmp_path / "store"))
    engine.start()
    client = engine.docker
    assert client("info", "-f", "{{.Driver}}").out == "fuse-overlayfs\n", said(engine)
    sentence = "fuse-overlayfs serves containers' files, more slowly"
    assert said(engine).count(sentence) == 1
    with open(engine.log_path, encoding="utf-8") as f:
        assert f.read().count(sentence) == 1
    image_with_owners(engine)
    name = client("create", "owned", "sh", "-c", "stat -c %u:%g /etc/theirs; rm /etc/theirs").out.strip()
    assert client("start", "-a", name).out == "7:8\n"
    assert sorted(client("diff", name).out.splitlines()) == ["C /etc", "D /etc/theirs"]
    assert client("inspect", "-f", "{{.GraphDriver.Name}}", name).out == "fuse-overlayfs\n"
    client("rm", name)
    until(lambda: not os.listdir(f"{engine.data_root}/containers"), "its files go, whoever had them open")


def test_a_data_root_on_an_overlay(engine_on, tmp_path):
    """As in a container without a volume: no marks of removed files can be made, and that is said."""
    (tmp_path / "lower").mkdir()
    (tmp_path / "work").mkdir()
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/store,workdir={tmp_path}/work"
    engine = engine_on("mount", "-t", "overlay", "overlay", "-o", options)
    engine.start()
    assert engine.docker("info", "-f", "{{.Driver}}").out == "vfs\n"
    sentence = f"layers that remove a file of their image cannot be had: {engine.data_root} is on overlay"
    assert sentence in said(engine)
    image = made_images.image({"etc/old": b""}, {"etc/.wh.old": b""})
    refused = engine.docker("load", stdin=made_images.docker_archive(image, "removing:1"), check=False)
    assert "extract a layer that removes `old`" in refused.out + refused.err


def test_fuse_overlayfs_comes_later(engine_on, tmp_path):
    """A data root of copies stays one while there are containers; one of fuse-overlayfs says what it misses."""
    need("fuse-overlayfs")
    programs = tmp_path / "programs"
    programs.mkdir()
    for program in ("newuidmap", "newgidmap", "slirp4netns"):
        if path := shutil.which(program):
            (programs / program).symlink_to(path)
    unprivileged.give(programs)
    engine = engine_on(need("bindfs"), str(tmp_path / "store"))
    engine.settings["PATH"] = str(programs)
    engine.start()
    assert "or what fuse-overlayfs needs (the program is not installed)" in said(engine)
    image_with_owners(engine)
    name = engine.docker("create", "owned", "cat", "/etc/theirs").out.strip()
    engine.stop()
    del engine.settings["PATH"]
    engine.start()
    assert engine.docker("info", "-f", "{{.Driver}}").out == "vfs\n"
    engine.docker("rm", name)
    engine.stop()
    engine.start()
    assert engine.docker("info", "-f", "{{.Driver}}").out == "fuse-overlayfs\n"
    name = engine.docker("create", "owned", "sh", "-c", "true").out.strip()
    engine.docker("start", "-a", name)
    engine.stop()
    engine.settings["PATH"] = str(programs)
    engine.launch()
    assert engine.process.wait(patient(30)) == 1
    engine.process = None
    assert "storage driver `fuse-overlayfs`: the program is not installed" in engine.log()
    assert f"container {name[:12]} was made with it" in engine.log()
    del engine.settings["PATH"]
    engine.start()


def test_a_quota_that_is_reached(engine_on, tmp_path):
    """Who loads an image is told so, with what to do; what came of it is gone, and the rest works."""
    store = f"{tmp_path}/disk"
    with open(store, "wb") as f:
        f.truncate(256 << 20)
    subprocess.run([need("mkfs.btrfs"), "-q", store], check=True)
    engine = engine_on("mount", "-o", "loop", store)
    root = engine.data_root
    os.chown(root, unprivileged.UID, unprivileged.UID)
    for words in (("quota", "enable", root), ("qgroup", "limit", "32M", root)):
        subprocess.run([need("btrfs"), *words], check=True, capture_output=True)
    engine.start()
    image_with_owners(engine)
    client = engine.docker
    archive = made_images.docker_archive(made_images.image({"f": os.urandom(40 << 20)}, compression="none"), "large:1")
    refused = client("load", stdin=archive, check=False)
    assert "quota exceeded" in refused.out + refused.err
    assert "raise the quota or free some space" in refused.out + refused.err
    assert client("run", "--rm", "owned", "sh", "-c", "cat </dev/null >/f && ls /f").out == "/f\n"


def test_one_user_alone(own_users_engine):
    """Without newuidmap the files of an image's other users are root's."""
    engine = own_users_engine
    engine.stop()
    engine.settings["PATH"] = "/nonexistent"
    engine.start()
    image_with_owners(engine)
    show = ("stat", "-c", "%u:%g %a", "/etc/theirs", "/etc/setid")
    assert engine.docker("run", "--rm", "owned", *show).out == "0:0 640\n0:0 6755\n"
