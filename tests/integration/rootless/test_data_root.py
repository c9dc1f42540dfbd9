"""A user's data root on a file system that refuses what root of a user namespace may do elsewhere."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile

import pytest

from tests.support.programs import need
from tests.support.registries import made_images
from tests.support.run import daemons, unprivileged

pytestmark = pytest.mark.ketch_only


@pytest.fixture
def engine_on(tmp_path):
    """A function that starts a user's daemon whose data root bindfs makes, with these options."""
    need("newuidmap")
    bindfs = need("bindfs")
    unprivileged.user()
    store = tmp_path / "store"
    store.mkdir()
    os.chown(store, unprivileged.UID, unprivileged.UID)
    with daemons.one_of_its_own("n") as one:
        one.rootless()

        def start(*options: str):
            os.makedirs(one.data_root)
            os.chown(one.data_root, unprivileged.UID, unprivileged.UID)
            subprocess.run([bindfs, *options, str(store), one.data_root], check=True)
            one.start()
            return one

        yield start
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
    engine = engine_on("--chown-deny", "--xattr-none")
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


def test_one_user_alone(own_users_engine):
    """Without newuidmap the files of an image's other users are root's."""
    engine = own_users_engine
    engine.stop()
    engine.settings["PATH"] = "/nonexistent"
    engine.start()
    image_with_owners(engine)
    show = ("stat", "-c", "%u:%g %a", "/etc/theirs", "/etc/setid")
    assert engine.docker("run", "--rm", "owned", *show).out == "0:0 640\n0:0 6755\n"
