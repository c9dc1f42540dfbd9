"""What COPY, ADD and WORKDIR leave, beside what dockerd 28.5.2 left of the same Dockerfiles."""

from __future__ import annotations

import asyncio
import os
import stat

import pytest

from ketch.build.dockerfile.convert.converter import convert
from ketch.build.dockerfile.convert.options import ConvertOptions
from ketch.build.llb.vertex import in_order
from ketch.build.ops.file import FileOperation
from ketch.build.ops.merge import MergeOperation
from ketch.build.tree import EMPTY
from ketch.errors import KetchError
from ketch.oci import platform as platforms
from tests.support.builds.layers import PlainSnapshots, listed, run
from tests.support.recordings import build_files

ROWS = build_files.rows()
_KINDS = {
    stat.S_IFDIR: "dir",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
}


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """The layer of the context, among layers that all tests share."""
    snapshots = PlainSnapshots(tmp_path_factory.mktemp("layers"))
    root = tmp_path_factory.mktemp("made") / "context"
    root.mkdir()
    build_files.make_context(root)
    draft = snapshots.begin(None)
    os.rmdir(draft.directory)
    os.rename(root, draft.directory)
    return snapshots, draft.commit()


def built(snapshots, context, row):
    """The tree of a Dockerfile's target."""
    options = ConvertOptions(build_platform=platforms.parse("linux/amd64"), merges=row.get("merges", False))
    edge = asyncio.run(convert(row["dockerfile"], options, None)).edge
    trees = {}
    for vertex in in_order([edge.vertex]) if edge else ():
        inputs = [trees[one.vertex.digest][one.output] for one in vertex.inputs]
        if vertex.kind == "source":
            trees[vertex.digest] = [EMPTY._replace(layers=(context,))]
        elif vertex.kind == "merge":
            trees[vertex.digest] = run(MergeOperation(vertex, snapshots), *inputs)
        else:
            trees[vertex.digest] = run(FileOperation(vertex, snapshots, None), *inputs)
    return trees[edge.vertex.digest][edge.output]


def rows_of(snapshots, tree):
    """A tree in the form of the recording."""
    found = []
    for path, status, content, attributes, first in listed(snapshots, tree):
        kind = _KINDS[stat.S_IFMT(status.st_mode)]
        text = {"file": build_files.digest(content), "link": os.fsdecode(content)}.get(kind, "")
        if kind in ("char", "block"):
            text = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        if first:
            kind, text = "hard", first
        owner = (status.st_uid, status.st_gid)
        found.append(build_files.described(path, kind, status.st_mode, owner, text, status.st_mtime))
        if attributes and kind != "hard":
            found[-1].append({key: build_files.digest(value) for key, value in attributes.items()})
    return sorted(found)


def title(row):
    return " ".join(row["dockerfile"].split("\n", 1)[1].split())[-60:]


def timeless(rows):
    """Rows without the times of directories."""
    return [[*row[:-1], ""] if row[1] == "dir" else row for row in rows]


REFUSED = [row for row in ROWS if "error" in row and not row["error"].startswith("failed to compute cache key")]


@pytest.mark.parametrize("row", [row for row in ROWS if "error" not in row], ids=title)
def test_the_same_files_as_with_dockerd(context, row):
    snapshots, layer = context
    found, expected = rows_of(snapshots, built(snapshots, layer, row)), row["entries"]
    late = "--exclude=!" in row["dockerfile"] or "COPY . " in row["dockerfile"]  # made, or sent, before what is in them
    assert (timeless(found) if late else found) == (timeless(expected) if late else expected)


@pytest.mark.parametrize("row", REFUSED, ids=title)
def test_the_same_refusals_as_with_dockerd(context, row):
    snapshots, layer = context
    before = set(os.listdir(snapshots.root))
    with pytest.raises(KetchError) as caught:
        built(snapshots, layer, row)
    assert caught.value.message == row["error"] or row["error"].startswith("openat")
    assert not [name for name in set(os.listdir(snapshots.root)) - before if name.startswith("draft")]
