"""Whole builds beside what dockerd 28.5.2 made of them: by its classic builder, and by BuildKit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.recordings import classic

pytestmark = [pytest.mark.ketch_only, pytest.mark.usefixtures("no_images_left")]

ROWS = {row["name"]: row for row in classic.rows()}
BY_API = [name for name, row in ROWS.items() if "query" in row]
# Those that the old API cannot ask for, and some more.
BY_CLIENT = [name for name, row in ROWS.items() if "query" not in row] + ["ignore", "copy", "onbuild-from", "err-env"]


@pytest.fixture(scope="module")
def directory(engine, tmp_path_factory):
    """The contexts; the engine has the base images."""
    place = tmp_path_factory.mktemp("builds")
    classic.prepare(place)
    engine.give(place)
    classic.images(engine.socket)
    return place


@pytest.fixture(scope="module")
def found(engine, directory):
    """What the engine makes of all of them, two at once."""

    def built(name):
        return classic.by_api(engine.socket, ROWS[name], classic.context_of(directory, ROWS[name]))

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(BY_API, pool.map(built, BY_API), strict=True))


@pytest.mark.parametrize(
    "name", [name for name in BY_API if "buildkit" in ROWS[name] and name not in ("ignore", "shm")]
)
def test_the_same_as_buildkit(found, name):
    """Configuration and files, by the old API; its contexts have the Dockerfile in them.

    Left out: what the client leaves out of a context, and BuildKit's root, which lacks /dev where --shm-size is given.
    """
    theirs = ROWS[name]["buildkit"]
    if "code" in theirs:
        assert "error" in found[name]
        return
    assert found[name]["config"] == theirs["config"]
    assert [row for row in found[name]["files"] if not row[0].endswith("Dockerfile")] == theirs["files"]


@pytest.mark.parametrize("name", BY_CLIENT)
def test_ketch_build_leaves_the_same(engine, directory, name):
    assert classic.by_client(engine, ROWS[name], directory) == ROWS[name]["buildkit"]


@pytest.mark.parametrize("name", [name for name in BY_API if name not in classic.OTHERWISE])
def test_the_same_as_the_classic_builder(found, name):
    """Stream, code, configuration, and files but for what `classic.comparable` leaves out."""
    ours, theirs = (classic.comparable(one) for one in (found[name], ROWS[name]["classic"]))
    assert ours.pop("error", "").startswith(theirs.pop("error", ""))
    assert ours == theirs


@pytest.mark.parametrize("name", sorted(classic.OTHERWISE))
def test_what_the_classic_builder_does_otherwise(found, name):
    """So that the list has nothing in it that is not so."""
    ours, theirs = (classic.comparable(one) for one in (found[name], ROWS[name]["classic"]))
    assert ours != theirs
