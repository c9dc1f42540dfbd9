"""Progress as lines: what is shown of layers, how fast they are, and when it is too much for the terminal."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ketch.cli.commands.images.tree import lines as tree_lines
from ketch.cli.output.progress_view import ProgressView, bar, remaining
from ketch.images import progress

MB = 1_000_000


def moving(ident: str, current: int, total: int, status: str = "Downloading") -> dict:
    return {"id": ident, "status": status, "progressDetail": {"current": current, "total": total}}


def test_a_layer_that_comes():
    view = ProgressView()
    assert view.feed({"id": "1", "status": "Pulling from app"}, 0) == "1: Pulling from app"
    view.feed(moving("aaaa", 0, 100 * MB), 0)
    view.feed(moving("aaaa", 20 * MB, 100 * MB), 1)
    line, summary = view.lines(100, 20)
    assert (
        line.startswith("aaaa          Downloading") and "20MB/100MB" in line and "20MB/s" in line and "4s left" in line
    )
    assert summary == "0 of 1 done · 20MB/100MB · 20MB/s · 4s left"


def test_states_to_the_end():
    view = ProgressView()
    view.feed(moving("a", 5, 10), 0)
    for status in ("Download complete", "Extracting", "Pull complete"):
        view.feed({"id": "a", "status": status, "progressDetail": {}}, 1)
    view.feed({"id": "b", "status": "Already exists", "progressDetail": {}}, 1)
    assert view.lines(80, 20) == [
        "a             Pull complete",
        "b             Already exists",
        "2 of 2 done · 10B/10B",
    ]
    assert view.feed({"status": "Digest: sha256:12"}, 2) == "Digest: sha256:12"


def test_more_layers_than_lines():
    view = ProgressView()
    for n in range(30):
        view.feed(moving(f"layer{n}", n, 100), 0)
    for n in range(25):
        view.feed({"id": f"layer{n}", "status": "Pull complete"}, 1)
    shown = view.lines(80, 10)
    assert len(shown) == 7 and shown[0].startswith("layer25") and shown[-2] == "… and 25 more"
    assert len(view.lines(80, 5)) == 5


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 10**12), st.integers(0, 10**12)), max_size=30),
    st.integers(0, 200),
    st.integers(0, 60),
    st.booleans(),
)
@example([("a", 0, 0), ("b", 0, 0)], 10, 2, False)
def test_no_picture_is_larger_than_the_terminal(reports, width, height, plain):
    view = ProgressView()
    for number, (ident, current, total) in enumerate(reports):
        view.feed(moving(ident, current, total), number / 7)
    shown = view.lines(width, height, plain=plain)
    assert len(shown) <= height
    assert all(len(line) <= width for line in shown)
    assert not plain or all(line.isascii() for line in shown)


@given(st.integers(0, 10**15), st.integers(1, 10**15), st.integers(1, 200), st.booleans())
def test_a_bar_has_its_width(current, total, width, plain):
    assert len(bar(current, total, width, plain)) == width


@pytest.mark.parametrize(("seconds", "text"), [(0.1, "1s"), (59, "59s"), (65, "1m05s"), (3700, "1h01m")])
def test_time_left(seconds, text):
    assert remaining(seconds) == text


@pytest.mark.parametrize(
    ("current", "total", "text"),
    [
        (0, 100, "[>" + " " * 49 + "]  0B/100B"),
        (50, 100, "[" + "=" * 25 + ">" + " " * 24 + "]  50B/100B"),
        (1_500_000, 3_000_000, "[" + "=" * 25 + ">" + " " * 24 + "]  1.5MB/3MB"),
    ],
)
def test_docker_s_own_bar(current, total, text):
    item = progress.moving("x", "Downloading", current, total)
    assert item["progress"] == text and item["progressDetail"] == {"current": current, "total": total}


def manifest(arch: str, here: bool, *containers: str) -> dict:
    size = {"Total": 5 * MB, "Content": 2 * MB}
    data = {"Platform": {"os": "linux", "architecture": arch}, "Containers": list(containers)}
    return {"ID": f"sha256:{arch * 12}", "Kind": "image", "Available": here, "Size": size, "ImageData": data}


def test_a_tree():
    manifests = [manifest("a", True, "x"), manifest("b", False)]
    shown = tree_lines([{"Id": "sha256:" + "f" * 64, "RepoTags": ["app:1"], "Manifests": manifests}])
    assert shown[0].startswith("IMAGE")
    assert shown[1].split() == ["app:1", "f" * 12, "10MB", "4MB", "1", "container"]
    assert shown[2].startswith("├─ linux/a") and shown[3].split() == ["└─", "linux/b", "b" * 12, "-", "-"]
