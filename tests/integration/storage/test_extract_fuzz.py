"""Archives made of random members: whatever they try, nothing outside the layer's directory changes."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tarfile
import tempfile

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ketch.errors import InvalidArgument
from ketch.storage.archive.extract import extract

OUTSIDE = "outside"
part = st.sampled_from(["a", "b", "c", "..", ".", "", ".wh.a", ".wh.b", ".wh..wh..opq", OUTSIDE, "root"])
path = st.lists(part, min_size=1, max_size=4).map("/".join)
target = (
    path
    | st.sampled_from(["/", "..", "../" + OUTSIDE, "../../../../../etc", "/etc/passwd", "a", "b/a"])
    | st.just("@" + OUTSIDE)
)
kind = st.sampled_from(
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
member = st.tuples(path, kind, target, st.integers(0, 0o7777))


def archive(members: list[tuple], base: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, type_, link, mode in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = type_, mode
            info.linkname = link.replace("@", base + "/")
            info.devmajor, info.devminor = 1, 3
            info.size = 4 if type_ == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"evil"))
    return buffer.getvalue()


def state(directory: str) -> list[tuple]:
    """Everything that a write could change there."""
    found = []
    for top, directories, files in os.walk(directory):
        for name in (".", *directories, *files):
            status = os.lstat(os.path.join(top, name))
            found.append(
                (top, name, status.st_mode, status.st_uid, status.st_nlink, status.st_size, status.st_mtime_ns)
            )
    return sorted(found)


@settings(deadline=None, max_examples=250, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(member, min_size=1, max_size=10))
def test_extraction_stays_inside(members):
    base = tempfile.mkdtemp(prefix="kt-fuzz-")
    try:
        outside, root = os.path.join(base, OUTSIDE), os.path.join(base, "root")
        os.makedirs(os.path.join(outside, "a"))
        os.mkdir(root)
        with open(os.path.join(outside, "a", "b"), "w") as f:
            f.write("precious")
        before, passwd = state(outside), os.stat("/etc/passwd")
        with contextlib.suppress(InvalidArgument):
            extract(io.BytesIO(archive(members, base)), root)
        assert state(outside) == before
        assert sorted(os.listdir(base)) == [OUTSIDE, "root"]
        assert os.stat("/etc/passwd")[:7] == passwd[:7]
    finally:
        shutil.rmtree(base)
