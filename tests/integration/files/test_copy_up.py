"""A new volume's first content: everything that the image's files have, on both engines."""

from __future__ import annotations

import io
import json
import os
import stat
import tarfile

import pytest

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service+ep
TIME_NS = 1_234_567_891_123_456_789


def image() -> bytes:
    """A root with one directory of all kinds of entries."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as archive:

        def add(name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, content: bytes = b"", **more: object):
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.size = kind, mode, len(content)
            pax = more.pop("pax", {})
            for key, value in more.items():
                setattr(member, key, value)
            member.pax_headers = {"mtime": "1234567891.123456789", **pax}
            archive.addfile(member, io.BytesIO(content))

        add("data", tarfile.DIRTYPE, 0o2751, uid=5, gid=6)
        add("data/deep", tarfile.DIRTYPE, 0o1777, uid=7, gid=8)
        add("data/deep/one", content=b"twice", uid=9, gid=10)
        add("data/two", tarfile.LNKTYPE, linkname="data/deep/one", uid=9, gid=10)
        capability = CAPABILITY.decode("latin-1")
        add("data/able", mode=0o755, content=b"#!", pax={"SCHILY.xattr.security.capability": capability})
        add("data/set", mode=0o6755, content=b"#!", uid=11, gid=12)
        add("data/fifo", tarfile.FIFOTYPE, 0o620, uid=3)
        add("data/null", tarfile.CHRTYPE, 0o666, devmajor=1, devminor=3)
        add("data/link", tarfile.SYMTYPE, linkname="/nowhere/else", uid=13, gid=14)
        add("data/holes", content=bytes(8 << 20))
    return data.getvalue()


def facts(path: str) -> tuple[str, int, int, int, int]:
    status = os.lstat(path)
    return stat.filemode(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev


@pytest.fixture
def filled(engine):
    """The directory of a volume that a container's creation has filled."""
    ref = engine.client("import", "-c", 'CMD ["x"]', "-", "kinds", stdin=image()).out.strip()
    engine.client("create", "-v", "kt-kinds:/data", "kinds")
    yield json.loads(engine.client("volume", "inspect", "kt-kinds").out)[0]["Mountpoint"]
    engine.remove_all()
    engine.client("volume", "rm", "-f", "kt-kinds")
    engine.client("rmi", ref)


def test_a_new_volume_has_what_the_images_files_have(engine, filled):
    expected = {
        ".": ("drwxr-s--x", 5, 6, TIME_NS, 0),
        "deep": ("drwxrwxrwt", 7, 8, TIME_NS, 0),
        "deep/one": ("-rw-r--r--", 9, 10, TIME_NS, 0),
        "able": ("-rwxr-xr-x", 0, 0, TIME_NS, 0),
        "set": ("-rwsr-sr-x", 11, 12, TIME_NS, 0),
        "fifo": ("prw--w----", 3, 0, TIME_NS, 0),
        "null": ("crw-rw-rw-", 0, 0, TIME_NS, os.makedev(1, 3)),
        "link": ("lrwxrwxrwx", 13, 14, TIME_NS, 0),
    }
    found = {name: facts(f"{filled}/{name}") for name in expected}
    if engine.kind == "dockerd":  # its directories have the time of the copy
        for name in (".", "deep"):
            found[name] = (*found[name][:3], TIME_NS, 0)
    assert found == expected
    assert os.path.samefile(f"{filled}/two", f"{filled}/deep/one")
    assert os.readlink(f"{filled}/link") == "/nowhere/else"
    assert os.getxattr(f"{filled}/able", "security.capability") == CAPABILITY
    holes = os.stat(f"{filled}/holes")
    assert holes.st_size == 8 << 20
