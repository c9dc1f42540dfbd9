"""A daemon that is killed at each failpoint of a whole build, by either of its ways.

After the next start nothing of the build is left half-made, and the same build gives the same image: what was complete
comes from the cache, nothing else does.
"""

from __future__ import annotations

import pytest

from tests.support.boxes.build_wreck import BuildWreck
from tests.support.boxes.crash_matrix import WHOLE_BUILDS
from tests.support.building.whole_build import whole_build

pytestmark = pytest.mark.ketch_only

# What is written in the background comes together or apart: of these points the first passages.
# The failpoints that ketchd passes, each with the passage at which it dies: what differs by the way of the build,
BOTH = {
    "build.begun": 1,
    "build.read": 1,
    "build.solved": 1,
    "build.exported": 1,
    "build.caches-exported": 1,
    "build.recorded": 1,
    "image.rows-written": 1,
    "image.synced": 1,
}
# what is the same for both, and is killed at by one of them in turn,
ANY = {
    "build.cache-layers-synced": 1,
    "build.cache-written": 1,
    "build.cache-mount-filled": 1,
    "build.cache-mount-named": 1,
    "build.prepared": 1,
    "build.launcher-asked": 2,
    "build.wired": 1,
    "build.running": 2,
    "build.ended": 1,
    "build.layer-taken": 2,
    "database.commit": 3,
    "database.committed": 2,
    "database.sync": 1,
    "image.blob-named": 2,
    "image.blob-written": 3,
    "image.content-unnamed": 1,
    "image.layer-named": 1,
    "image.layer-unpacked": 2,
    "image.layers-unlinked": 1,
    "image.sync": 1,
    "layer.built": 5,
    "layer.built-named": 7,
    "layer.hashed": 2,
    "layer.linked": 3,
    "network.addresses-set": 1,
    "network.endpoint-written": 2,
    "network.link-going": 1,
    "network.ports-held": 1,
    "network.published": 2,
    "network.unpublished": 1,
    "network.veth-made": 2,
    "network.wired": 1,
    "pull.blob-named": 1,
    "pull.blob-verified": 2,
    "pull.write": 3,
    "source.version-written": 1,
}
# with the client's directory in place, a base image without a name, a push, and a cache in a directory,
OWN = {
    "context.copied": 1,
    "context.list-named": 1,
    "context.list-written": 1,
    "image.base-written": 1,
    "layout.file-named": 14,
    "layout.file-written": 2,
    "push.blobs-sent": 1,
    "push.manifest-sent": 1,
}
# with an archive.
CLASSIC = {"context.received": 1}
PASSED = {"own": {**BOTH, **ANY, **OWN}, "classic": {**BOTH, **ANY, **CLASSIC}}
TURNS = [dict(list(ANY.items())[turn::2]) for turn in range(2)]
DYING = {"own": {**BOTH, **TURNS[0], **OWN}, "classic": {**BOTH, **TURNS[1], **CLASSIC}}
CASES = [(way, f"{name}:{passage}") for way, points in DYING.items() for name, passage in points.items()]


# Of a removal of the whole cache.
PRUNING = ("build.cache-mount-unnamed", "build.cache-written", "image.layers-unlinked", "image.content-unnamed")
ELSEWHERE = {"source.repository-made"}  # in test_git_left.py


@pytest.fixture(scope="module")
def wreck(tmp_path_factory):
    place = str(tmp_path_factory.mktemp("wreck"))
    with whole_build(place) as build:
        one = BuildWreck(build, place)
        try:
            yield one
        finally:
            left = one.delete()
        assert left == []


@pytest.mark.parametrize("way", PASSED)
def test_the_matrix_has_every_point(wreck: BuildWreck, way):
    """A failpoint that a build passes and that is not killed at here is a gap."""
    assert set(wreck.passed[way]) == set(PASSED[way])
    assert {name: n for name, n in PASSED[way].items() if n > wreck.passed[way][name]} == {}


def test_no_point_is_only_named():
    assert set(WHOLE_BUILDS) <= {*OWN, *CLASSIC, *BOTH, *ANY, *PRUNING, *ELSEWHERE}


@pytest.mark.parametrize("point", PRUNING)
def test_killed_while_it_prunes(wreck: BuildWreck, point):
    """What is gone is made again, what is there is used, and the next one removes all of it."""
    wreck.begin()
    assert wreck.ways["classic"]().error == ""
    for image in wreck.api.must("GET", "/images/json", all=1):
        wreck.api.must("DELETE", f"/images/{image['Id']}", force=1)
    wreck.dies(point, lambda: wreck.api("POST", "/build/prune", all=1))
    wreck.recover()
    wreck.check()
    wreck.works("classic", wreck.recorded())
    wreck.tidy()
    wreck.clean = True


@pytest.mark.parametrize(("way", "point"), CASES)
def test_killed(wreck: BuildWreck, way, point):
    wreck.begin()
    told = wreck.killed(way, point)
    assert told.broken or not told.error
    wreck.recover()
    wreck.check()
    wreck.works(way, wreck.recorded())
    wreck.check()
    wreck.tidy()
    wreck.clean = True
