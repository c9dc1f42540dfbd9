"""Layers' directories with entries of every kind, and their tars."""

from __future__ import annotations

import io
import os
import stat
from typing import Any

from hypothesis import strategies as st

from ketch.storage.archive.layer import write_layer

KINDS = (
    "file",
    "sparse",
    "large",
    "hard",
    "symlink",
    "fifo",
    "char",
    "block",
    "directory",
    "opaque",
    "whiteout",
    "socket",
)


def name() -> st.SearchStrategy[bytes]:
    plain = st.sampled_from([b"a", b"b", b"usr", b"n" * 101, b"l" * 255, "ünï".encode(), b"\xff\xfe", b"x\n", b"%41"])
    wild = st.binary(min_size=1, max_size=20).filter(
        lambda n: not {0, ord("/")} & {*n} and n not in (b".", b"..") and not n.startswith(b".wh.")
    )
    return st.one_of(plain, wild)


IDS = st.sampled_from([0, 1, 1000, 8**7 - 1, 8**7, 2**32 - 2])
TIMES = st.one_of(
    st.sampled_from([0, 1, -1, -1_500_000_000, 10**18 + 5, 8**11 * 10**9, -(2**31) * 10**9, 1_700_000_000_120_000_000]),
    st.integers(min_value=-(2**31) * 10**9, max_value=(2**33) * 10**9),
)
ENTRY = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(KINDS),
        "name": name(),
        "parent": st.integers(0, 5),
        "mode": st.integers(0, 0o7777),
        "owner": st.tuples(IDS, IDS),
        "time": TIMES,
        "data": st.binary(max_size=1200),
        "device": st.tuples(st.sampled_from([1, 255, 4095]), st.sampled_from([0, 3, 2**20 - 1])),
        "xattrs": st.dictionaries(
            st.sampled_from(["user.a", "user.z", "trusted.t", "security.capability"]),
            st.binary(max_size=40),
            max_size=2,
        ),
    }
)
_CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


def make(root: bytes, entries: list[dict[str, Any]]) -> None:
    """A layer's directory with these entries, as far as their names are free."""
    directories, files = [root], []
    made = []
    for entry in entries:
        path = os.path.join(directories[entry["parent"] % len(directories)], entry["name"])
        kind = entry["kind"]
        if os.path.lexists(path) or (kind == "hard" and not files):
            continue
        make_one(path, kind, entry, files)
        if kind in ("directory", "opaque"):
            directories.append(path)
        elif kind in ("file", "sparse", "large", "hard"):
            files.append(path)
        made.append((path, entry))
    for path, entry in reversed(made):
        give(path, entry)


def make_one(path: bytes, kind: str, entry: dict[str, Any], files: list[bytes]) -> None:
    if kind in ("file", "large"):
        with open(path, "wb") as f:
            f.write(entry["data"] * (1 if kind == "file" else 200))
    elif kind == "sparse":
        with open(path, "wb") as f:
            f.truncate(300_000)
            f.seek(150_000)
            f.write(entry["data"])
    elif kind == "hard":
        os.link(files[-1], path)
    elif kind == "symlink":
        os.symlink(entry["data"].replace(b"\0", b"/")[:300] or b"nowhere", path)
    elif kind == "whiteout":
        os.mknod(path, stat.S_IFCHR, 0)
    elif kind in ("directory", "opaque"):
        os.mkdir(path)
        if kind == "opaque":
            os.setxattr(path, "trusted.overlay.opaque", b"y")
    else:
        types = {"fifo": stat.S_IFIFO, "char": stat.S_IFCHR, "block": stat.S_IFBLK, "socket": stat.S_IFSOCK}
        os.mknod(path, types[kind] | 0o600, os.makedev(*entry["device"]) if kind in ("char", "block") else 0)


def give(path: bytes, entry: dict[str, Any]) -> None:
    """Owner, mode, attributes and times."""
    os.chown(path, *entry["owner"], follow_symlinks=False)
    if entry["kind"] in ("file", "sparse", "large", "directory", "opaque"):
        for key, value in entry["xattrs"].items():
            if key != "security.capability":
                os.setxattr(path, key, value)
            elif entry["kind"] == "file":
                os.setxattr(path, key, _CAPABILITY)
        os.setxattr(path, "trusted.overlay.origin", b"of no layer")
    if entry["kind"] != "symlink":
        os.chmod(path, entry["mode"])
    os.utime(path, ns=(0, entry["time"]), follow_symlinks=False)


def written(directory: bytes) -> bytes:
    buffer = io.BytesIO()
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        write_layer(fd, buffer.write)
    finally:
        os.close(fd)
    return buffer.getvalue()
