"""rmi as Docker does it, in every combination of names, ids, containers and force."""

from __future__ import annotations

import pytest

from tests.support.engines import busybox_tar


@pytest.fixture
def image(client):
    """An image of its own, as ``own:1``; gives its id."""
    made = client("import", "-c", f"LABEL of={client.name}", "-", "own:1", stdin=busybox_tar()).out.strip()
    yield made
    client.engine.remove_all()
    for name in ("own:1", "own:2", "other:1", made):
        client("rmi", "-f", name, check=False)


def refused(client, *args: str) -> str:
    result = client("rmi", *args, check=False)
    assert result.code == 1
    return result.err


def test_a_forced_removal_leaves_the_container_whole(client, image):
    client("create", "--name", "user", "own:1", "echo", "still here")
    assert "must force" in refused(client, "own:1")
    assert "must be forced" in refused(client, image)
    out = client("rmi", "-f", "own:1").out.splitlines()
    assert out == ["Untagged: own:1", f"Deleted: {image}"]
    assert "own" not in client("images", "-a").out
    assert image[7:19] not in client("images", "-aq").out
    assert "user" in client("ps", "-a", "--format", "{{.Names}}").out
    assert client("inspect", "--format", "{{.Image}}", "user").out.strip() == image
    assert client("start", "-a", "user").out == "still here\n"
    client("rm", "user")


def test_a_running_container_keeps_its_image(client, image):
    client("run", "-d", "--name", "user", "own:1", "sleep", "60")
    assert "cannot be forced" in refused(client, "-f", image)
    assert client("rmi", "-f", "own:1").out == "Untagged: own:1\n"
    assert image[7:19] in client("images", "-aq").out
    client("rm", "-f", "user")
    assert f"Deleted: {image}" in client("rmi", image[7:19]).out


def test_by_id_with_several_names(client, image):
    client("tag", "own:1", "own:2")
    client("tag", "own:1", "other:1")
    assert "referenced in multiple repositories" in refused(client, image)
    assert client("rmi", "other:1").out == "Untagged: other:1\n"
    out = client("rmi", "-f", image).out.splitlines()
    assert sorted(out[:2]) == ["Untagged: own:1", "Untagged: own:2"] and out[2] == f"Deleted: {image}"


def test_missing_images(client, image):
    assert "No such image: nothing:latest" in refused(client, "nothing")
    assert "No such image" in refused(client, "f" * 64)
    result = client("rmi", "nothing", "own:1", check=False)
    assert result.code == 1 and "Untagged: own:1" in result.out and "No such image" in result.err
