"""``--storage-opt size=`` as a project quota, on a real ext4 with quotas, and refused elsewhere."""

from __future__ import annotations

import errno
import os

import pytest

from ketch.errors import InvalidArgument
from ketch.linux.filesystems import projquota
from ketch.runtime.rootfs import view
from ketch.storage.layers.store import Layers
from ketch.storage.snapshots import quota
from ketch.storage.snapshots.overlay import OverlaySnapshots
from tests.support.boxes import loop_disk

CHAIN = f"sha256:{1:064x}"


@pytest.fixture
def limited(tmp_path):
    """A data root on an ext4 that enforces quotas of projects."""
    quotas = ("-O", "quota,project", "-E", "quotatype=prjquota")
    image, place = str(tmp_path / "disk"), str(tmp_path / "mounted")
    with loop_disk.ext4(image, place, 64 << 20, *quotas, mount_options="loop,prjquota"):
        yield place


@pytest.fixture
def snapshots(limited):
    layers = Layers(limited)
    layers.commit(layers.begin(), CHAIN)
    return OverlaySnapshots(limited)


def fill(root, place: str, size: int) -> int:
    """Write a file in a container's root; returns errno, 0 when all went well."""
    with view.of_snapshot(root, [], place) as files:
        fd = os.open(f"/proc/self/fd/{files.root_fd}/file", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            for _ in range(size >> 16):
                os.write(fd, bytes(1 << 16))
            os.fsync(fd)
        except OSError as e:
            return e.errno or -1
        finally:
            os.close(fd)
    return 0


def test_a_container_cannot_write_more(snapshots, limited):
    snapshots.check_limit(4 << 20)
    small = snapshots.prepare("small", [CHAIN], 4 << 20)
    other = snapshots.prepare("other", [CHAIN])
    assert fill(small, limited, 2 << 20) == 0
    assert fill(small, limited, 6 << 20) in (errno.ENOSPC, errno.EDQUOT)
    assert fill(other, limited, 6 << 20) == 0


def test_every_container_has_a_project_of_its_own(snapshots, limited):
    for name in ("a", "b"):
        snapshots.prepare(name, [CHAIN], 4 << 20)
    again = OverlaySnapshots(limited)  # the daemon starts anew
    again.prepare("c", [CHAIN], 4 << 20)
    projects = [projquota.project(again.upper(name)) for name in "abc"]
    assert len(set(projects)) == 3
    assert 0 not in projects
    again.prepare("a", [CHAIN], 4 << 20)
    assert projquota.project(again.upper("a")) == projects[0]


def test_a_limit_goes_with_its_container(snapshots, limited):
    snapshots.prepare("c", [CHAIN], 4 << 20)
    snapshots.remove("c")
    snapshots.prepare("d", [CHAIN], 32 << 20)  # the same project, another limit
    assert fill(snapshots.mounts("d", [CHAIN]), limited, 16 << 20) == 0


@pytest.mark.ketch_only
def test_refused_where_there_are_no_quotas(client):
    refused = client("create", "--storage-opt", "size=1G", "busybox", check=False)
    assert refused.code
    assert "--storage-opt is supported only for overlay over xfs with 'pquota' mount option" in refused.err
    assert client("ps", "-aq").out == ""


@pytest.mark.parametrize(
    ("text", "size"),
    [("10G", 10 << 30), ("1.5m", 3 << 19), ("4096", 4096), ("2gb", 2 << 30), ("1GiB", 1 << 30), ("0", 0), ("7b", 7)],
)
def test_sizes(text, size):
    assert quota.parse({"size": text}) == size


@pytest.mark.parametrize("options", [{"size": "much"}, {"size": ""}, {"size": "-1"}, {"size": "nan"}, {"width": "1"}])
def test_invalid_sizes(options):
    with pytest.raises(InvalidArgument):
        quota.parse(options)
