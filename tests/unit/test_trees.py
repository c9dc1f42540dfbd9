"""Trees far deeper than PATH_MAX or Python's stack: walked, copied, compared, archived and removed, and from where."""

from __future__ import annotations

import gc
import io
import os
import resource
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
from pathlib import Path

import pytest

from ketch import trees
from ketch.client import tar
from ketch.linux.openat2 import open_unmounted
from ketch.storage import sizes
from ketch.storage.archive.extract import extract
from ketch.storage.archive.layer import write_layer
from ketch.storage.archive.owners import Shifted
from ketch.storage.archive.write import write_tree
from ketch.storage.removal import remove_tree, those, try_to_remove
from ketch.storage.snapshots import diff, tree_diff
from ketch.storage.tree_copy import Copier
from tests.support.deep_trees import census, make

DEPTHS = pytest.mark.parametrize(("depth", "name"), [(2100, "d"), (300, "n" * 255)])


@pytest.fixture
def place():
    """A directory that is not one of pytest's, which it tries to remove for ever after a test that was broken off."""
    path = tempfile.mkdtemp(prefix="kt-trees-")
    yield Path(path)
    subprocess.run(["rm", "-rf", path], check=False)  # what is immutable is the test's own to free


def open_count(*, settled: bool = True) -> int:
    if settled:
        gc.collect()  # what other tests have left open ends now and not meanwhile
    return len(os.listdir("/proc/self/fd"))


@DEPTHS
def test_walk_and_remove(place, depth, name):
    make(place / "tree", depth, name)
    before = open_count()
    found = census(place / "tree")
    assert max(level for level, _, _ in found) == depth
    assert sum(1 for _, _, mode in found if stat.S_ISDIR(mode)) == depth
    assert sizes.written_bytes(str(place / "tree")) == 7 * (depth // 100 + bool(depth % 100))
    remove_tree(str(place / "tree"))
    assert os.listdir(place) == []
    assert open_count() == before


def test_few_descriptors_are_open(place):
    make(place / "tree", 2000)
    fd = os.open(place / "tree", trees.DIRECTORY)
    before = open_count()
    with trees.Descent(fd) as at:
        most = 0
        for name in at.walk():
            if name == "d":
                at.enter(name)
                most = max(most, open_count(settled=False))
        assert most - before < 20
    os.close(fd)
    assert open_count() == before - 1


@DEPTHS
def test_archive_there_and_back(place, depth, name):
    make(place / "tree", depth, name)
    with open(place / "archive", "wb") as f:
        write_tree(str(place / "tree"), f)
    (place / "back").mkdir()
    with open(place / "archive", "rb") as f:
        extract(f, str(place / "back"), layer=False)
    assert census(place / "back") == census(place / "tree")


def test_other_programs_read_the_archive(place):
    make(place / "tree", 1600)
    with open(place / "archive", "wb") as f:
        write_tree(str(place / "tree"), f)
    with tarfile.open(place / "archive") as archive:
        members = archive.getmembers()
    assert len(members) == 1 + len(census(place / "tree"))
    assert max(member.name.count("/") for member in members) > 1500


def test_only_the_files_are_named_in_the_archive(place):
    """Directories that an archive does not name are made."""
    path = "/".join(["d"] * 3000)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("one", "two"):
            archive.addfile(tarfile.TarInfo(f"{path}/{name}"))
        link = tarfile.TarInfo(f"{path}/three")
        link.type, link.linkname = tarfile.LNKTYPE, f"{path}/one"
        archive.addfile(link)
    data.seek(0)
    (place / "back").mkdir()
    extract(data, str(place / "back"))
    assert [(level, name) for level, name, _ in sorted(census(place / "back", files_only=True))] == [
        (3000, "one"),
        (3000, "three"),
        (3000, "two"),
    ]


@DEPTHS
def test_copies(place, depth, name):
    make(place / "tree", depth, name)
    (place / "copy").mkdir()
    fds = [os.open(place / one, trees.DIRECTORY) for one in ("tree", "copy")]
    Copier(fds[1]).tree(fds[0])
    assert census(place / "copy") == census(place / "tree")
    for fd in fds:
        os.close(fd)


def test_copies_for_the_users_inside_of_a_namespace(tmp_path):
    """Owners of all kinds of files, and users that attributes name; those of nobody inside stay what they are."""
    for name in ("old", "new", "old/directory"):
        (tmp_path / name).mkdir()
    (tmp_path / "old/file").write_text("x")
    (tmp_path / "old/others").write_text("yz")
    os.symlink("file", tmp_path / "old/link")
    os.mkfifo(tmp_path / "old/fifo")
    owned = {"directory": (1000, 1001), "file": (0, 7), "link": (5, 0), "fifo": (65535, 65535)}
    for name, (uid, gid) in owned.items():
        os.chown(tmp_path / "old" / name, 200000 + uid, 300000 + gid, follow_symlinks=False)
    os.chown(tmp_path / "old/others", 199999, 300000 + 65536)
    capability = struct.pack("<IIIII", 0x02000001, 1, 0, 0, 0)
    of_root = struct.pack("<I", 0x03000001) + capability[4:] + struct.pack("<I", 200000)
    os.setxattr(tmp_path / "old/file", "security.capability", of_root)
    fds = [os.open(tmp_path / one, trees.DIRECTORY) for one in ("old", "new")]
    copier = Copier(fds[1], owners=Shifted(200000, 300000, 65536))
    copier.tree(fds[0])
    for fd in fds:
        os.close(fd)
    found = {path.name: path.lstat() for path in (tmp_path / "new").iterdir()}
    wanted = {**owned, "others": (199999, 365536)}
    assert {name: (status.st_uid, status.st_gid) for name, status in found.items()} == wanted
    assert os.getxattr(tmp_path / "new/file", "security.capability") == capability
    assert copier.size == 3


@DEPTHS
def test_comparisons(place, depth, name):
    """A tree and its copy in which one file, deep down, is another one; and all of it as a layer."""
    make(place / "old", depth, name)
    (place / "new").mkdir()
    (place / "upper").mkdir()
    fds = [os.open(place / one, trees.DIRECTORY) for one in ("old", "new", "upper")]
    Copier(fds[1]).tree(fds[0])
    assert tree_diff.changed_bytes(fds[1], fds[0]) == 0
    with trees.Descent(fds[1]) as at:
        for _ in range(depth):
            at.enter(name)
        file = os.open("file", os.O_WRONLY, dir_fd=at.fd)
        os.truncate(file, 3)
        os.close(file)
        os.mkdir("new", dir_fd=at.fd)
        for _ in range(depth - 100):
            at.leave()
        os.unlink("file", dir_fd=at.fd)
    assert tree_diff.changed_bytes(fds[1], fds[0]) == 3
    tree_diff.write_upper(fds[1], fds[0], fds[2])
    found = diff.changes(fds[2], fds[0])
    assert len(found) == depth + 3
    kinds = {path.count("/"): kind for path, kind in found if path.endswith(("/file", "/new"))}
    assert kinds == {101: diff.DELETED, depth + 1: diff.ADDED} or kinds[101] == diff.DELETED
    data = io.BytesIO()
    write_layer(fds[2], data.write)
    data.seek(0)
    (place / "layer").mkdir()
    extract(data, str(place / "layer"))
    assert census(place / "layer", files_only=True) == census(place / "upper", files_only=True)
    for fd in fds:
        os.close(fd)


def test_links_are_not_followed(place):
    (place / "outside").mkdir()
    (place / "outside" / "precious").touch()
    (place / "tree").mkdir()
    (place / "tree" / "link").symlink_to(place / "outside")
    (place / "top").symlink_to(place / "outside")
    remove_tree(str(place / "tree"))
    remove_tree(str(place / "top"))
    remove_tree(str(place / "never-was"))
    remove_tree(str(place / "never" / "was"))
    assert os.listdir(place) == ["outside"]
    assert os.listdir(place / "outside") == ["precious"]


def test_mounts_are_not_crossed(place):
    (place / "tree" / "a" / "mounted").mkdir(parents=True)
    (place / "tree" / "b").mkdir()
    (place / "precious").mkdir()
    (place / "precious" / "file").touch()
    subprocess.run(["mount", "--bind", "precious", "tree/a/mounted"], cwd=place, check=True)
    try:
        with pytest.raises(OSError, match="something is mounted there") as error:
            remove_tree(str(place / "tree"))
    finally:
        subprocess.run(["umount", "tree/a/mounted"], cwd=place, check=True)
    assert error.value.filename == str(place / "tree/a/mounted")
    assert os.listdir(place / "precious") == ["file"]
    assert os.listdir(place / "tree") == ["a"]  # what could be removed is gone


@pytest.mark.parametrize("free", range(4))
def test_no_descriptors(place, free):
    """What was being removed is named, also where the kernel's word names nothing."""
    make(place / "tree", 9)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(lowest := os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + free, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many") as error:
            remove_tree(str(place / "tree"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert error.value.filename.startswith(str(place))
    remove_tree(str(place / "tree"))


def test_entries_that_cannot_be_removed(place):
    make(place / "tree", 1500)
    (place / "tree" / "other").touch()
    fd = os.open(place / "tree", trees.DIRECTORY)
    with trees.Descent(fd) as at:
        for _ in range(1500):
            at.enter("d")
        if subprocess.run(["chattr", "+i", f"/proc/self/fd/{at.fd}/file"], pass_fds=[at.fd], check=False).returncode:
            pytest.skip("no immutable files here")
        try:
            with pytest.raises(PermissionError) as error:
                remove_tree(str(place / "tree"))
            for path in those(str(place), lambda name: name == "tree"):
                try_to_remove(path)  # which logs it
            try_to_remove(str(place / "tree"))
        finally:
            subprocess.run(["chattr", "-i", f"/proc/self/fd/{at.fd}/file"], pass_fds=[at.fd], check=True)
        assert error.value.filename.startswith(f"{place}/tree/d/d/")
        assert error.value.filename.endswith("d/d/file")
        assert len(error.value.filename) < 600
        assert not (place / "tree" / "other").exists()
    os.close(fd)
    remove_tree(str(place / "tree"))
    assert os.listdir(place) == []


MOVER = """
import os, sys
root = os.open(sys.argv[1], os.O_RDONLY)
fds = [root]
for _ in range(60):
    fds.append(os.open("d", os.O_RDONLY, dir_fd=fds[-1]))
os.mkdir("aside", dir_fd=root)
aside = os.open("aside", os.O_RDONLY, dir_fd=root)
print("ready", flush=True)
n = 0
while True:  # takes a directory from the middle of the chain, puts it elsewhere, and back
    for level in (10, 25, 40, 55):
        n += 1
        for source, name, target, other in ((fds[level], "d", aside, str(n)), (aside, str(n), fds[level], "d")):
            try:
                os.rename(name, other, src_dir_fd=source, dst_dir_fd=target)
            except OSError:
                if not os.path.exists(sys.argv[1]):
                    sys.exit()
"""


@pytest.fixture
def mover(place):
    """A process that renames directories of a tree all the time."""
    make(place / "tree", 300)
    (place / "outside").mkdir()
    (place / "outside" / "precious").touch()
    with subprocess.Popen(
        [sys.executable, "-c", MOVER, str(place / "tree")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        yield
        process.kill()


@pytest.mark.usefixtures("mover")
def test_walk_while_directories_are_moved(place):
    for _ in range(30):
        data = io.BytesIO()
        write_tree(str(place / "tree"), data)
        data.seek(0)
        with tarfile.open(fileobj=data) as archive:  # it is whole, and has nothing that is not in the tree
            names = {part for member in archive for part in member.name.split("/")}
        assert names - {".", "d", "aside", "file"} == {name for name in names if name.isdigit()}
        census(place / "tree")


@pytest.mark.usefixtures("mover")
def test_removal_while_directories_are_moved(place):
    for _ in range(100):
        try_to_remove(str(place / "tree"))
        if not (place / "tree").exists():
            break
    assert os.listdir(place) == ["outside"]
    assert os.listdir(place / "outside") == ["precious"]


def test_a_way_back_that_is_gone(place):
    """Deeper than what is kept open: the parent is another directory now, and the walk goes on above."""
    make(place / "tree", 60)
    (place / "tree" / "e").mkdir()
    (place / "elsewhere").mkdir()
    fd = os.open(place / "tree", trees.DIRECTORY)
    ends, lost = 0, 0
    with trees.Descent(fd) as at:
        names = []
        for name in at.walk(lambda fd: sorted(os.listdir(fd))):
            if name is None:
                ends += 1
                lost += at.lost
                continue
            names.append(name)
            if name == "d":
                at.enter(name)
                if at.depth == 60:
                    os.rename(place / "tree/d/d/d/d/d", place / "elsewhere/five")
                    os.rename(place / "tree/d", place / "elsewhere/one")
    os.close(fd)
    assert ends == 60
    assert lost == 4
    assert names[-1] == "e"


@pytest.mark.parametrize("count", [0, 1, 4096, 4097, 20_000])
def test_order_in_parts(count):
    items = [f"{n * 7919 % 20_011:05d}" for n in range(count)]
    assert trees.in_order(iter(items)) == sorted(items)


def test_two_remove_at_once(place):
    make(place / "tree", 1200)
    threads = [threading.Thread(target=remove_tree, args=[str(place / "tree")]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.listdir(place) == []


def test_a_mount_is_refused_by_its_opener(place):
    fd = os.open("/", trees.DIRECTORY)
    with pytest.raises(OSError, match="mounted"):
        open_unmounted("proc", fd)
    os.close(fd)


@DEPTHS
def test_cp_of_the_client(place, depth, name):
    make(place / "tree", depth, name)
    (place / "back").mkdir()
    for path in (f"{place}/tree", f"{place}/tree/."):
        stream = tar.pack(path, "tree", lambda entry: entry)
        tar.unpack(tar.Incoming(stream, lambda _count: None), str(place / "back"), lambda entry: entry, owners=True)
        assert census(place / "back" / "tree") == census(place / "tree")
        remove_tree(str(place / "back" / "tree"))
