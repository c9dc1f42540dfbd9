"""Stubs of mounts taken out of a directory of changes."""

from __future__ import annotations

import os

import pytest

from ketch.engine.build.command import mount_stubs


@pytest.fixture
def trees(tmp_path):
    """(below, changes), both empty."""
    for name in ("below", "changes"):
        (tmp_path / name).mkdir()
    return tmp_path / "below", tmp_path / "changes"


def remove(trees, *places: str) -> set[str]:
    """What is left of the changes."""
    fds = [os.open(path, os.O_RDONLY) for path in trees]
    try:
        mount_stubs.remove(fds[1], fds[0], places)
    finally:
        for fd in fds:
            os.close(fd)
    return {os.path.relpath(os.path.join(at, n), trees[1]) for at, d, f in os.walk(trees[1]) for n in (*d, *f)}


def test_empty_ones_go_with_their_parents(trees):
    below, changes = trees
    (below / "etc").mkdir()
    (changes / "etc").mkdir()
    (changes / "etc/hosts").touch()
    (changes / "a/b/c").mkdir(parents=True)
    (changes / "a/other").touch()
    os.utime(changes / "etc", ns=(1, 2))
    assert remove(trees, "/etc/hosts", "/a/b/c", "/not/there") == {"etc", "a", "a/other"}
    assert os.stat(changes / "etc").st_mtime_ns == 2


def test_what_was_there_or_is_no_stub_stays(trees):
    below, changes = trees
    for name in ("m", "n"):
        (below / name).mkdir()
        (changes / name).mkdir()
    (changes / "file").write_text("x")
    (changes / "full").mkdir()
    (changes / "full/x").touch()
    os.symlink("x", changes / "link")
    assert remove(trees, "/m", "/n/in", "/file", "/full", "/link", "/") == {"m", "n", "file", "full", "full/x", "link"}


def test_links_are_followed_below_and_not_out(trees):
    below, changes = trees
    (below / "real").mkdir()
    os.symlink("real", below / "link")
    os.symlink("../../../gone/x", below / "dangling")
    os.symlink("circle", below / "circle")
    (changes / "real").mkdir()
    (changes / "real/in").mkdir()
    (changes / "gone").mkdir()
    (changes / "gone/x").touch()
    (changes / "circle").mkdir()
    assert remove(trees, "/link/in", "/dangling", "/circle/x", "/real/../link/none") == {"real", "circle"}


def test_a_link_that_the_command_made_leads_nowhere(trees, tmp_path):
    _, changes = trees
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/stub").touch()
    os.symlink(tmp_path / "outside", changes / "a")
    assert remove(trees, "/a/stub", "/a/b/stub") == {"a"}
    assert (tmp_path / "outside/stub").exists()
