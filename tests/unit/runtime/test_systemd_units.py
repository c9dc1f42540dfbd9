"""Units by which systemd knows containers: their names, places, and limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import RuntimeFailure
from ketch.runtime.cgroups import common
from ketch.runtime.cgroups.systemd import properties, scopes, units
from ketch.runtime.cgroups.systemd.manager import SystemdCgroup

_MAX = (1 << 64) - 1


@pytest.mark.parametrize(
    ("path", "unit", "parent", "directory"),
    [
        ("system.slice:docker:1234", "docker-1234.scope", "system.slice", "/system.slice/docker-1234.scope"),
        (":ketch:a", "ketch-a.scope", "system.slice", "/system.slice/ketch-a.scope"),
        ("-:ketch:a", "ketch-a.scope", "-.slice", "/ketch-a.scope"),
        ("machine.slice::a", "a.scope", "machine.slice", "/machine.slice/a.scope"),
        ("a-b-c.slice:libpod:x", "libpod-x.scope", "a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice/libpod-x.scope"),
    ],
)
def test_places(path, unit, parent, directory):
    place = units.parse(path)
    assert (place.unit, place.slice, place.path) == (unit, parent, directory)


@pytest.mark.parametrize(
    "path",
    [
        "a/b.slice:ketch:x",
        "a.scope:ketch:x",
        "a--b.slice:ketch:x",
        "-a.slice:ketch:x",
        "a-.slice:ketch:x",
        ".slice:ketch:x",
        "system.slice:ketch:",
        "system.slice:ketch:a/b",
        "system.slice:ketch:a b",
        "system.slice:ketch:..\0",
        "system.slice:ketch:" + "a" * 250,
        "system.slice:ketch:pod.slice",
        "../a.slice:k:x",
    ],
)
def test_places_that_cannot_be(path):
    """Nothing of a name can lead out of the slice's directory."""
    with pytest.raises(RuntimeFailure, match="make cgroup"):
        units.parse(path)


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_name_leads_out_of_its_slice(parent, name):
    try:
        place = units.parse(f"{parent}:k:{name}")
    except (RuntimeFailure, ValueError):  # a colon in the text
        return
    assert ".." not in place.path.split("/") and place.path.endswith(f"/k-{name}.scope")
    assert all(part.endswith(".slice") for part in place.path.split("/")[1:-1])


def test_a_slice_has_no_colon():
    """It would be one more in `slice:prefix:name`."""
    assert units.is_slice("a.slice") and not units.is_slice("a:b.slice")


def test_paths_become_units():
    """As with runc; a container without a path is in system.slice."""
    assert units.complete("", "c1") == "system.slice:ketch:c1"
    assert units.complete("a.slice:b:c", "c1") == "a.slice:b:c"
    for path in ("/a/b", "a", "a:b", "a:b:c:d", "/a:b:c"):
        with pytest.raises(RuntimeFailure, match='expected cgroupsPath to be of format "slice:prefix:name"'):
            units.complete(path, "c1")


def test_directories_may_have_colons(monkeypatch):
    """A path that begins with a slash is never a unit."""
    monkeypatch.setattr(common, "_layout", common.Layout({}, "/sys/fs/cgroup"))
    assert common.at("/a:b:c").describe() == {"version": 2, "dir": "/sys/fs/cgroup/a:b:c"}
    unit = common.at("a.slice:b:c").describe()
    assert unit == {"version": 2, "dir": "/sys/fs/cgroup/a.slice/b-c.scope", "unit": "b-c.scope"}
    assert common.open(unit).describe() == unit


def test_scopes_need_the_unified_hierarchy(monkeypatch):
    monkeypatch.setattr(common, "_layout", common.Layout({"memory": "/sys/fs/cgroup/memory"}, "/sys/fs/cgroup/unified"))
    with pytest.raises(RuntimeFailure, match="unified hierarchy"):
        common.at("a.slice:b:c")


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, {}),
        ({"memory": {"limit": 1 << 20, "reservation": 4096}}, {"MemoryMax": 1 << 20, "MemoryLow": 4096}),
        ({"memory": {"limit": 100, "swap": 150}}, {"MemoryMax": 100, "MemorySwapMax": 50}),
        ({"memory": {"limit": -1, "swap": -1}}, {"MemoryMax": _MAX, "MemorySwapMax": _MAX}),
        ({"cpu": {"shares": 1024}}, {"CPUWeight": 39}),
        ({"cpu": {"quota": 50000}}, {"CPUQuotaPerSecUSec": 500000, "CPUQuotaPeriodUSec": 100000}),
        ({"cpu": {"quota": 1001, "period": 100000}}, {"CPUQuotaPerSecUSec": 20000, "CPUQuotaPeriodUSec": 100000}),
        ({"cpu": {"quota": -1, "period": 5000}}, {"CPUQuotaPerSecUSec": _MAX, "CPUQuotaPeriodUSec": 5000}),
        ({"cpu": {"cpus": "0-1,9", "mems": "0"}}, {"AllowedCPUs": b"\x03\x02", "AllowedMemoryNodes": b"\x01"}),
        ({"pids": {"limit": 7}}, {"TasksMax": 7}),
        ({"pids": {"limit": 0}}, {"TasksMax": _MAX}),
        ({"blockIO": {"weight": 1000}}, {"IOWeight": 10000}),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}, {}),
        (
            {
                "memory": {"limit": 5},
                "unified": {"memory.max": "7", "memory.high": "6", "pids.max": "max", "cpu.idle": "1"},
            },
            {"MemoryMax": 7, "MemoryHigh": 6, "TasksMax": _MAX},
        ),
        ({"unified": {"io.weight": "default 200"}}, {"IOWeight": 200}),
        ({"unified": {"io.weight": "8:0 300"}}, {}),
        ({"unified": {"cpu.max": "max"}}, {"CPUQuotaPerSecUSec": _MAX, "CPUQuotaPeriodUSec": 100000}),
        ({"unified": {"cpu.max": "1000 2000"}}, {"CPUQuotaPerSecUSec": 500000, "CPUQuotaPeriodUSec": 2000}),
    ],
)
def test_limits_as_properties(resources, expected):
    assert {name: value for name, (_, value) in properties.of_limits(resources)} == expected


@pytest.mark.parametrize(
    ("resources", "name"),
    [
        ({"unified": {"memory.max": "much"}}, "memory.max"),
        ({"unified": {"cpu.max": "5 0"}}, "cpu.max"),
        ({"cpu": {"cpus": "3-1"}}, "cpuset.cpus"),
        ({"cpu": {"cpus": "0-99999999999"}}, "cpuset.cpus"),
        ({"cpu": {"cpus": "a"}}, "cpuset.cpus"),
    ],
)
def test_limits_that_cannot_be(resources, name):
    with pytest.raises(RuntimeFailure, match=f"set `{name}`"):
        properties.of_limits(resources)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"period": 50000}, (400000, 50000)),
        ({"quota": 30000}, (300000, 100000)),
        ({"quota": 30000, "period": 50000}, (600000, 50000)),
        ({"shares": 1024}, None),
    ],
)
def test_half_of_a_quota_is_completed_by_what_is_there(tmp_path, monkeypatch, given, told):
    """A unit's period without its quota would be no quota."""
    (tmp_path / "cpu.max").write_text("20000 100000\n")
    for name in ("cpu.weight", "cpu.idle"):
        (tmp_path / name).write_text("")
    changes = []
    monkeypatch.setattr(scopes, "change", lambda _unit, wanted: changes.append(dict(wanted)))
    SystemdCgroup(str(tmp_path), "/", "x.scope").update({"cpu": given})
    values = [changes[0].get(name) for name in ("CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec")]
    assert values == ([None, None] if told is None else [("t", number) for number in told])


def test_the_end_of_a_scope_is_told_as_that_of_a_cgroup(monkeypatch):
    monkeypatch.setattr(scopes, "Bus", lambda: None)
    monkeypatch.setattr(scopes, "_say", lambda *_: False)
    with pytest.raises(FileNotFoundError):
        scopes.change("x.scope", [])


@given(st.sets(st.integers(0, 200), max_size=20))
def test_sets_of_processors(numbers):
    """Bit n of the set is processor n."""
    found = properties.bits("cpuset.cpus", ",".join(map(str, numbers)))
    assert {n for n in range(len(found) * 8) if found[n // 8] >> n % 8 & 1} == numbers


def test_a_scope_has_no_limit_of_tasks_unless_asked_for():
    """A unit without TasksMax would have the machine's DefaultTasksMax."""
    found = dict(properties.of_new_scope("x", "a.slice", 17, {}))
    assert found["TasksMax"] == ("t", _MAX) and found["PIDs"] == ("au", [17]) and found["Slice"] == ("s", "a.slice")
    asked = properties.of_new_scope("x", "a.slice", 17, {"pids": {"limit": 5}})
    assert [value for name, value in asked if name == "TasksMax"] == [("t", 5)]
