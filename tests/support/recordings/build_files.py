"""Recordings of what COPY, ADD and WORKDIR leave: the files of images that BuildKit built, or its error.

``tests/data/build-files.json`` has for each Dockerfile every entry of its image: kind, mode, owner, content, links,
attributes, and the time where it is not that of the build.  The context is made by `make_context`.  Those with
``merges`` are of a daemon with containerd's image store, which stacks the layers of COPY --link.  To record it again:

    DOCKER_HOST=unix://SOCKET python -m tests.support.recordings.build_files
    DOCKER_HOST=unix://SOCKET2 python -m tests.support.recordings.build_files merges
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
from typing import Any

TABLE = pathlib.Path(__file__).parents[2] / "data" / "build-files.json"
TIME = 1_000_000_000  # what has an older time, has kept it
_KEPT = 1_400_000_000
_KINDS = {
    tarfile.DIRTYPE: "dir",
    tarfile.REGTYPE: "file",
    tarfile.SYMTYPE: "link",
    tarfile.LNKTYPE: "hard",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
    tarfile.FIFOTYPE: "fifo",
}


def rows() -> list[dict[str, Any]]:
    """What was recorded."""
    found: list[dict[str, Any]] = json.loads(TABLE.read_text())
    return found


# -- the context ---------------------------------------------------------------------------------

_FILES = {
    "f": 0o644,
    "x": 0o755,
    "secret": 0o600,
    "setuid": 0o4755,
    "sp ace": 0o640,
    "ünicode": 0o644,
    "star[1]": 0o644,
    "d/a": 0o644,
    "d/b.txt": 0o600,
    "d/e/c.txt": 0o751,
    "d/e/no.md": 0o644,
    "deep/1/2/3/z": 0o644,
    "deep/1/y": 0o604,
    "over/etc/passwd": 0o600,
    "over/bin/tool": 0o755,
    "over/usr": 0o644,
    "conf/nested/dir/file.conf": 0o644,
}
_DIRECTORIES = {
    "d": 0o750,
    "d/e": 0o711,
    "empty": 0o1777,
    "deep": 0o700,
    "over/bin": 0o770,
    "conf/nested": 0o2755,
}
_LINKS = {
    "link": "f",
    "dlink": "d",
    "absolute": "/f",
    "outside": "../../../etc/hostname",
    "dangling": "nowhere",
    "d/up": "../f",
    "through": "d/e",
    "loop": "loop",
}


def make_context(root: pathlib.Path) -> None:
    """Make the directory that the Dockerfiles take their files from."""
    for name, mode in _FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"content of {name}\n")
        (root / name).chmod(mode)
    for name in _DIRECTORIES:
        (root / name).mkdir(exist_ok=True)
    for name, target in _LINKS.items():
        (root / name).symlink_to(target)
    (root / "hard").mkdir()  # BuildKit's clients send hard links late, which changes the time of their directory
    os.link(root / "f", root / "hard/f")
    os.link(root / "deep/1/2/3/z", root / "hard/z")
    os.link(root / "hard/z", root / "hard/z2")
    plain = _archive()
    (root / "t.tar").write_bytes(plain)
    (root / "t.tgz").write_bytes(_gzip(plain))
    (root / "t.bz2").write_bytes(bz2.compress(plain))
    (root / "root.tar").write_bytes(_root())
    (root / "names.tar").write_bytes(_implied())
    (root / "not.tar").write_bytes(b"no archive" * 100)
    (root / "cut.tgz").write_bytes(_gzip(b"x" * 3000)[:20])
    for directory, names, files in os.walk(root, topdown=False):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            below = os.path.relpath(path, root)
            if below in _DIRECTORIES:
                os.chmod(path, _DIRECTORIES[below])
            elif below.endswith(("tar", "tgz", "bz2")):
                os.chmod(path, 0o644)
            elif os.path.isdir(path) and not os.path.islink(path):
                os.chmod(path, 0o755)
            os.utime(path, (TIME, TIME), follow_symlinks=False)
    os.utime(root, (TIME, TIME))
    root.chmod(0o755)


def _member(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mtime = kind, TIME - 1000
    member.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in fields.items():
        setattr(member, key, value)
    return member


def _tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return target.getvalue()


def _gzip(data: bytes) -> bytes:
    """The same bytes from every Python: newer ones name another system in the header (RFC 1952, OS)."""
    found = bytearray(gzip.compress(data, mtime=0))
    found[9] = 3
    return bytes(found)


def _archive() -> bytes:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    return _tar(
        (_member("in", tarfile.DIRTYPE, mode=0o710, uid=5, gid=6), b""),
        (_member("in/file", mode=0o6755, uid=7, gid=8), b"of the archive\n"),
        (_member("in/link", tarfile.SYMTYPE, linkname="file", uid=9), b""),
        (_member("in/hard", tarfile.LNKTYPE, linkname="in/file"), b""),
        (_member("in/fifo", tarfile.FIFOTYPE, mode=0o620), b""),
        (_member("in/null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666), b""),
        (_member("in/ping", mode=0o755, pax_headers={"SCHILY.xattr.security.capability": _text(capability)}), b"p"),
        (_member("in/.wh.name"), b"just a name"),
        (_member("f"), b"f of the archive\n"),
    )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _root() -> bytes:
    return _tar(
        (_member("etc", tarfile.DIRTYPE), b""),
        (_member("etc/passwd"), b"root:x:0:0::/:/bin/sh\nme:x:1000:1001::/:\nodd:x:77:x::/:\n"),
        (_member("etc/group"), b"root:x:0:\nus:x:2002:me\n"),
        (_member("usr", tarfile.DIRTYPE), b""),
        (_member("usr/bin", tarfile.DIRTYPE, mode=0o751, uid=3, gid=4), b""),
        (_member("usr/bin/sh", mode=0o755), b"shell\n"),
        (_member("usr/bin/old", uid=11, gid=12, mode=0o640), b"old\n"),
        (_member("bin", tarfile.SYMTYPE, linkname="usr/bin"), b""),
        (_member("abs", tarfile.SYMTYPE, linkname="/usr"), b""),
        (_member("escape", tarfile.SYMTYPE, linkname="../../../usr/bin"), b""),
        (_member("gone", tarfile.SYMTYPE, linkname="/not/there"), b""),
        (_member("file", mode=0o600, uid=1), b"file\n"),
        (_member("var", tarfile.DIRTYPE), b""),
        (_member("var/f", tarfile.DIRTYPE, mode=0o700), b""),
        (_member("var/f/inner"), b"inner\n"),
    )


def _implied() -> bytes:
    return _tar(
        (_member("bin/added"), b"added\n"),
        (_member("new/implied/file", uid=42), b"implied\n"),
        (_member("usr/bin/old", tarfile.DIRTYPE, mode=0o701), b""),
        (_member("file/below"), b"below\n"),
    )


# -- what a build left ---------------------------------------------------------------------------


def entries(data: bytes) -> list[list[Any]]:
    """What a tar of an image's root has, as rows that `described` makes."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for one in archive:
            content: Any = ""
            if one.isreg():
                file = archive.extractfile(one)
                assert file
                content = digest(file.read())
            elif one.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                content = one.linkname.lstrip("/") if one.type == tarfile.LNKTYPE else one.linkname
            elif one.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
                content = f"{one.devmajor}:{one.devminor}"
            attributes = {
                key.removeprefix("SCHILY.xattr."): digest(value.encode("utf-8", "surrogateescape"))
                for key, value in one.pax_headers.items()
                if key.startswith("SCHILY.xattr.")
            }
            owner = (one.uid, one.gid)
            found.append(described(one.name.strip("/"), _KINDS[one.type], one.mode, owner, content, one.mtime))
            if attributes:
                found[-1].append(attributes)
    return sorted(found)


def described(path: str, kind: str, mode: int, owner: tuple[int, int], content: str, time: float) -> list[Any]:
    """One entry: modes of links and what a hard link shares with its first name are left out."""
    kept = int(time) if time < _KEPT else "now"
    if kind == "hard":
        return [path, kind, content]
    shown = "" if kind == "link" else f"{mode & 0o7777:o}"
    return [path, kind, shown, *owner, content, kept]


def digest(data: bytes) -> str:
    """A short name of a content."""
    return hashlib.sha256(data).hexdigest()[:12]


def _build(dockerfile: str, context: str) -> Any:
    command = [
        "docker",
        "buildx",
        "build",
        "--progress=plain",
        "--no-cache",
        "-o",
        "type=tar,dest=-",
        "-f",
        "-",
        context,
    ]
    done = subprocess.run(command, input=dockerfile.encode(), capture_output=True, check=False)
    if done.returncode:
        text = done.stderr.decode().rpartition("failed to solve: ")[2].strip()
        text = re.sub(r"/\S+/merged/", "/", re.sub(r"of ref \S+: ", "", text))
        return {"dockerfile": dockerfile, "error": text}
    return {"dockerfile": dockerfile, "entries": entries(done.stdout)}


def main() -> None:
    """Record all cases, or those that merge."""
    from tests.support.recordings.build_files_cases import CASES, LINKED

    merges = "merges" in sys.argv
    found = []
    for number, dockerfile in enumerate(LINKED if merges else CASES):
        with tempfile.TemporaryDirectory() as place:  # a new one: what was sent before is not sent again, nor its times
            context = pathlib.Path(place) / f"context{number}"
            context.mkdir()
            make_context(context)
            found.append(_build(dockerfile, str(context)))
        if merges:
            found[-1]["merges"] = True
        result = found[-1].get("error") or len(found[-1]["entries"])
        print(dockerfile.splitlines()[-1], "→", result, file=sys.stderr)
    kept = [row for row in rows() if row.get("merges", False) != merges] if TABLE.exists() else []
    both = [*kept, *found] if merges else [*found, *kept]
    TABLE.write_text("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in both) + "\n]\n")


if __name__ == "__main__":
    main()
