"""Frames of ``ketch top``: what is in them at which size, and in which order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ketch.cli.top.rows import KEYS, ContainerLoad, loads, ordered
from ketch.cli.top.view import TITLES, Choice, frame


def usage(name: str, **facts: object) -> dict:
    return {
        "id": name * 20,
        "name": name,
        "status": "running",
        "cpu_percent": 0.0,
        "memory_bytes": 0,
        "memory_limit_bytes": 1 << 30,
        "networks": {},
        "pids": 1,
        "read_bytes": 0,
        "written_bytes": 0,
        **facts,
    }


def test_what_was_moved_is_of_a_second():
    before = {"seconds": 0.0, "containers": [usage("a", networks={"eth0": {"rx_bytes": 100}, "eth1": {"rx_bytes": 0}})]}
    now = {
        "seconds": 2.0,
        "containers": [
            usage("a", networks={"eth0": {"rx_bytes": 300, "tx_bytes": 5}, "eth1": {"rx_bytes": 50}}, written_bytes=10),
            usage("b", read_bytes=7),
        ],
    }
    a, b = loads(before, now)
    assert (a.received, a.sent, a.read, a.written) == (125, 2.5, 0, 5)
    assert (b.received, b.read) == (None, None)  # it is new: nothing is known of a second
    again = {"seconds": 1.0, "containers": [usage("a", networks={"eth0": {"rx_bytes": 1}}, written_bytes=11)]}
    assert loads(now, again)[0].received == 0  # it was started again
    assert loads(None, now)[0].cells()["NetIn"] == "--"


def test_the_largest_is_the_first():
    found = [
        ContainerLoad("1", "b", "running", 5.0, 30, 100, 1.0, 1.0, 9.0, 0.0, 1),
        ContainerLoad("2", "a", "running", None, 20, 100, 9.0, 0.0, 0.0, 1.0, 3),
        ContainerLoad("3", "c", "paused", 5.0, 10, 0, None, None, None, None, 2),
    ]
    expected = {"cpu": "bca", "memory": "bac", "network": "abc", "block": "bac", "pids": "acb", "name": "abc"}
    assert tuple(expected) == KEYS
    for key, names in expected.items():
        assert "".join(load.name for load in ordered(found, key)) == names
    assert "".join(load.name for load in ordered(found, "memory", backwards=True)) == "cab"
    assert "".join(load.name for load in ordered(found, "name", backwards=True)) == "cba"


def many(count: int) -> list[ContainerLoad]:
    lines = {"seconds": 1.0, "containers": [usage(f"container-{i:03}", cpu_percent=float(i)) for i in range(count)]}
    return loads(lines, lines)


@given(st.integers(0, 40), st.integers(5, 60), st.integers(20, 200), st.integers(0, 50), st.sampled_from(KEYS))
def test_a_frame_fits_its_terminal(count, lines, columns, top, key):
    drawn = frame(many(count), Choice(key, top=top), lines, columns)
    assert len(drawn) == max(lines - 1, 5)
    assert all(len(line) <= columns for line in drawn[TITLES:-1])
    shown = sum("container-" in line for line in drawn)
    assert shown == min(count, max(lines - 5, 1))


def test_columns_go_when_there_is_no_room():
    for columns, expected in (
        (200, "NAME CPU %v MEM MEM % NET IN NET OUT READ WRITE PIDS STATE"),
        (75, "NAME CPU %v MEM MEM % NET IN NET OUT READ WRITE PIDS"),
        (60, "NAME CPU %v MEM MEM % NET IN NET OUT PIDS"),
        (40, "NAME CPU %v MEM PIDS"),
        (20, "NAME CPU %v"),
    ):
        titles = frame(many(3), Choice(), 24, columns)[TITLES]
        assert " ".join(titles.split()) == expected, columns
    assert frame(many(3), Choice("name", True), 0, 0)[TITLES].startswith("NAME^")


def test_the_frame_can_be_moved_down():
    drawn = frame(many(30), Choice(top=5), 15, 100)
    assert drawn[TITLES + 1].startswith("container-024")
    assert drawn[-1].startswith("20 more: up and down")
    assert frame(many(30), Choice(top=99), 15, 100)[-2].startswith("container-000")
