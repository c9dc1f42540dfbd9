"""One contract for both storage drivers, on real layers and files."""

from __future__ import annotations

import os
import subprocess

import pytest

from ketch.daemon.settings import storage as storage_settings
from ketch.daemon.settings.config import Config
from ketch.errors import FailedPrecondition, InvalidArgument
from ketch.runtime.rootfs import overlay, view
from ketch.storage.layers.store import Layers
from ketch.storage.snapshots import diff
from ketch.storage.snapshots.fuse import FuseSnapshots
from ketch.storage.snapshots.overlay import MAX_DEPTH, OverlaySnapshots
from ketch.storage.snapshots.vfs import VfsSnapshots
from tests.support.programs import need

ADDED, DELETED, MODIFIED = diff.ADDED, diff.DELETED, diff.MODIFIED


def served(data_root: str) -> FuseSnapshots:
    return FuseSnapshots(data_root, need("fuse-overlayfs"))


@pytest.fixture(params=[OverlaySnapshots, VfsSnapshots, served], ids=["overlay", "vfs", "fuse-overlayfs"])
def snapshots(request, tmp_path):
    made = request.param(str(tmp_path))
    yield made
    made.close()


def layer(root: str, number: int) -> tuple[str, str]:
    """(chain id, directory) of an empty layer."""
    chain = f"sha256:{number:064x}"
    layers = Layers(root)
    path = layers.begin()
    layers.commit(path, chain)
    return chain, layers.diff(chain)


def whiteout(path: str) -> None:
    os.mknod(path, 0o020000, 0)


def write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


@pytest.fixture
def chains(tmp_path):
    """Two layers: the upper one removes a file and an opaque directory's content, and turns a link into a directory."""
    (one, low), (two, high) = layer(str(tmp_path), 1), layer(str(tmp_path), 2)
    for name in ("keep", "gone", "full/old", "target/inside"):
        write(f"{low}/{name}", name)
    os.symlink("target", f"{low}/turns")
    os.link(f"{low}/keep", f"{low}/twin")
    os.setxattr(f"{low}/keep", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.chown(f"{low}/full/old", 7, 8)
    with open(f"{low}/holes", "wb") as f:
        f.truncate(8 << 20)
        f.seek(4 << 20)
        f.write(b"x")
    os.utime(f"{low}/keep", ns=(1, 1_234_567_891_123_456_789))
    whiteout(f"{high}/gone")
    write(f"{high}/full/new", "new")
    os.setxattr(f"{high}/full", "trusted.overlay.opaque", b"y")
    write(f"{high}/turns/real", "real")
    os.chmod(f"{high}", 0o751)
    return [one, two]


@pytest.fixture
def run(tmp_path):
    """Do something to a container's root as it is mounted."""

    def work(root, do):
        with view.of_snapshot(root, [], str(tmp_path)) as files:
            return do(f"/proc/self/fd/{files.root_fd}")

    return work


def tree(root: str) -> dict[str, str]:
    found = {}
    for directory, _, names in os.walk(root):
        for name in names:
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                with open(path, encoding="utf-8", errors="replace") as f:
                    found[os.path.relpath(path, root)] = f.read(20).strip("\0")
    return found


MERGED = {
    "keep": "keep",
    "twin": "keep",
    "full/new": "new",
    "target/inside": "target/inside",
    "turns/real": "real",
    "holes": "",
}


def test_layers_are_merged_as_overlay_shows_them(snapshots, chains, run):
    def look(root):
        status = os.lstat(f"{root}/keep")
        return (
            tree(root),
            os.stat(root).st_mode & 0o7777,
            status.st_mtime_ns,
            status.st_nlink,
            os.getxattr(f"{root}/keep", "security.capability"),
            os.path.samefile(f"{root}/keep", f"{root}/twin"),
            os.stat(f"{root}/holes").st_blocks * 512 < 1 << 20,
        )

    found = run(snapshots.prepare("c", chains), look)
    assert found[0] == MERGED
    assert found[1:4] == (0o751 if snapshots.name == "vfs" else 0o755, 1_234_567_891_123_456_789, 2)
    assert len(found[4]) == 20
    assert found[5:] == (True, True)


def changes(snapshots, container, chains) -> list[tuple[str, int]]:
    lower_fd = overlay.open_overlay(snapshots.view(chains))
    try:
        inner_fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=lower_fd)
        with snapshots.delta(container) as place:
            upper_fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            try:
                return diff.changes(upper_fd, inner_fd)
            finally:
                os.close(upper_fd)
                os.close(inner_fd)
    finally:
        os.close(lower_fd)


def test_changes_and_size(snapshots, chains, run):
    root = snapshots.prepare("c", chains)
    assert changes(snapshots, "c", chains) == []
    assert snapshots.usage("c") == 0

    def change(root):
        if snapshots.name == "fuse-overlayfs":  # of a file with two names it changes one, and may take the other
            os.unlink(f"{root}/keep")
        write(f"{root}/keep", "changed")
        write(f"{root}/full/more", "12345")
        os.unlink(f"{root}/turns/real")
        os.mkdir(f"{root}/empty")

    run(root, change)
    assert changes(snapshots, "c", chains) == sorted(
        [
            ("/empty", ADDED),
            ("/full", MODIFIED),
            ("/full/more", ADDED),
            ("/keep", MODIFIED),
            *([("/twin", MODIFIED)] if snapshots.name == "vfs" else []),  # hard links break when overlay copies up
            ("/turns", MODIFIED),
            ("/turns/real", DELETED),
        ]
    )
    assert snapshots.usage("c") == len("changed") + 5


def test_two_containers_and_the_image_are_apart(snapshots, chains, run):
    first, second = snapshots.prepare("a", chains), snapshots.prepare("b", chains)
    run(first, lambda root: write(f"{root}/keep", "mine"))
    assert run(second, tree) == MERGED
    assert run(snapshots.prepare("a", chains), tree)["keep"] == "mine"  # made again: what was written stays


def test_removed_and_gone(snapshots, chains):
    snapshots.prepare("c", chains)
    assert snapshots.exists("c")
    snapshots.remove("c")
    snapshots.remove("c")
    assert not snapshots.exists("c")


def test_half_a_copy_is_removed_at_the_next_start(tmp_path, chains):
    snapshots = VfsSnapshots(str(tmp_path))
    snapshots.prepare("c", chains)
    for place in (tmp_path / "containers" / "c", tmp_path / "layers" / chains[0][7:]):
        (place / ".new-1" / "half").mkdir(parents=True)
    VfsSnapshots(str(tmp_path))
    assert not list(tmp_path.glob("*/*/.new-*"))


def deep(tmp_path, count: int) -> list[str]:
    chains = []
    for number in range(count):
        chain, directory = layer(str(tmp_path), number + 1)
        write(f"{directory}/f{number}", str(number))
        write(f"{directory}/last", str(number))
        chains.append(chain)
    return chains


@pytest.mark.parametrize("old_kernel", [False, True], ids=["fsconfig", "mount(2)"])
def test_as_many_layers_as_there_can_be(snapshots, tmp_path, run, monkeypatch, old_kernel):
    if old_kernel:
        monkeypatch.setattr(overlay, "takes_lower_directories", lambda: False)
    chains = deep(tmp_path, MAX_DEPTH)
    found = run(snapshots.prepare("c", chains), tree)
    assert len(found) == MAX_DEPTH + 1
    assert found["last"] == str(MAX_DEPTH - 1)
    assert changes(snapshots, "c", chains) == []
    os.close(overlay.open_overlay(snapshots.view(chains)))


def test_one_layer_too_many(snapshots, tmp_path):
    with pytest.raises(InvalidArgument, match="max depth exceeded"):
        snapshots.prepare("c", [f"sha256:{n:064x}" for n in range(MAX_DEPTH + 1)])


@pytest.fixture
def overlay_root(tmp_path):
    """A data root on a file system that overlay cannot have its upper directory on: an overlay."""
    for name in ("lower", "upper", "work", "root"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, f"{tmp_path}/root"], check=True)
    yield str(tmp_path / "root")
    subprocess.run(["umount", f"{tmp_path}/root"], check=True)


def test_choice_of_the_driver(tmp_path, overlay_root):
    assert storage_settings.choose(Config(data_root=str(tmp_path / "plain"))).name == "overlay2"
    chosen = storage_settings.choose(Config(data_root=overlay_root))
    assert chosen.name == "vfs"
    assert "overlay does not work on" in chosen.warnings[0]
    with pytest.raises(FailedPrecondition, match="storage driver `overlay`"):
        storage_settings.choose(Config(data_root=overlay_root, storage_driver="overlay"))


def test_a_data_root_of_fuse_overlayfs(tmp_path, chains):
    made = served(str(tmp_path))
    made.prepare("c", chains)
    made.close()
    for other in ("overlay", "vfs"):
        with pytest.raises(FailedPrecondition, match="was made with fuse-overlayfs"):
            storage_settings.choose(Config(data_root=str(tmp_path), storage_driver=other))
    chosen = storage_settings.choose(Config(data_root=str(tmp_path)))
    assert chosen.name == "fuse-overlayfs"
    assert "container c was made with fuse-overlayfs" in chosen.warnings[0]
    chosen.close()


def test_a_data_root_of_the_other_driver(tmp_path, chains):
    OverlaySnapshots(str(tmp_path)).prepare("c", chains)
    with pytest.raises(FailedPrecondition, match="was made with overlay"):
        storage_settings.choose(Config(data_root=str(tmp_path), storage_driver="vfs"))


def test_a_data_root_keeps_its_driver(tmp_path, chains):
    """Copies stay where overlay works as well, until the last of them is removed."""
    config = Config(data_root=str(tmp_path))
    VfsSnapshots(str(tmp_path)).prepare("c", chains)
    chosen = storage_settings.choose(config)
    assert chosen.name == "vfs"
    assert "container c was made with vfs" in chosen.warnings[0]
    assert storage_settings.choose(config, removed=["c"]).name == "overlay2"
    OverlaySnapshots(str(tmp_path)).prepare("d", chains)
    with pytest.raises(FailedPrecondition, match="container c was made with vfs"):
        storage_settings.choose(config)
