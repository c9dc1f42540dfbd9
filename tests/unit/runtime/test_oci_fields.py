"""Every field of the OCI specification: known with its type, and done or refused, as docs/oci.md says."""

from __future__ import annotations

import copy
import glob
import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import RuntimeFailure
from ketch.linux import caps
from ketch.runtime import namespaces
from ketch.runtime.cgroups import refusals
from ketch.runtime.cgroups.v1.manager import CgroupV1
from ketch.runtime.cgroups.v2.manager import CgroupV2
from ketch.runtime.oci_cli import features
from ketch.runtime.rootfs import mounts
from ketch.runtime.rootfs.planned import BundlePlaces
from ketch.runtime.security import seccomp, seccomp_compiler, sysctl
from ketch.runtime.validation import check, fields
from tests.support.source.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTROLLERS = ("memory", "cpu", "cpuset", "pids", "blkio", "hugetlb", "devices", "rdma", "net_cls", "net_prio")
# Texts that other modules look up, which know every one that the specification has.
LOOKED_UP = {
    "linux.namespaces[].type": namespaces.FLAGS,
    "linux.seccomp.defaultAction": [*seccomp_compiler.ACTIONS, "SCMP_ACT_NOTIFY"],
    "linux.seccomp.syscalls[].action": [*seccomp_compiler.ACTIONS, "SCMP_ACT_NOTIFY"],
    "linux.seccomp.syscalls[].args[].op": seccomp_compiler.OPERATORS,
    "linux.seccomp.flags[]": seccomp.FLAGS,
}
_ROW = re.compile(r"^\| `([\w.\[\]]+)` \| ([\w ]+) \|", re.MULTILINE)


def facts() -> dict[str, dict[str, Any]]:
    with open(os.path.join(ROOT, "tests/data/oci-fields.json"), encoding="utf-8") as file:
        found: dict[str, dict[str, Any]] = json.load(file)
    return found


def leaves(kind: Any, path: str = "", required: bool = False) -> Iterator[tuple[str, Any, bool]]:
    """(path, type, whether it must be there) of each field below one of the table's types."""
    if isinstance(kind, dict):
        for name, of in kind.items():
            yield from leaves(of, f"{path}.{name.rstrip('!')}" if path else name.rstrip("!"), name.endswith("!"))
    elif isinstance(kind, list):
        yield from leaves(kind[0], f"{path}[]", required)
    else:
        yield path, kind, required


def example(kind: Any) -> Any:
    """A value of one of the table's types, with everything in it."""
    if isinstance(kind, dict):
        return {name.rstrip("!"): example(of) for name, of in kind.items()}
    if isinstance(kind, list):
        return [example(kind[0])]
    if isinstance(kind, tuple):
        return kind[0]
    return {"string": "text", "bool": True, "any": 1}[kind] if kind not in fields.RANGES else 1


def whole() -> dict[str, Any]:
    """A configuration with all fields, also those that are refused."""
    document: dict[str, Any] = example(fields.CONFIG)
    document["ociVersion"] = "1.2.0"
    document["linux"]["namespaces"] = [{"type": "network"}]
    document["linux"]["resources"]["devices"][0] |= {"type": "c", "access": "rw"}
    document["linux"]["mountLabel"] = document["process"]["selinuxLabel"] = ""  # which not every kernel has
    document["process"]["execCPUAffinity"] = {"initial": "0", "final": "0-3,7"}
    document["process"]["env"] = ["NAME=value"]
    return document


def without(document: dict[str, Any], path: str) -> None:
    *parents, last = path.split(".")
    for name in parents:
        document = document[name]
    del document[last]


def accepted() -> dict[str, Any]:
    document = whole()
    for path in fields.REFUSED:
        without(document, path)
    return document


def rows() -> dict[str, str]:
    with open(os.path.join(ROOT, "docs/oci.md"), encoding="utf-8") as file:
        found = _ROW.findall(file.read())
    assert len(dict(found)) == len(found)
    return dict(found)


def covers(row: str, path: str) -> bool:
    return path == row or path.startswith((f"{row}.", f"{row}[]"))


def test_the_table_has_the_fields_of_the_specification() -> None:
    known = {path: (kind, required) for path, kind, required in leaves(fields.CONFIG) if path != "vm.*"}
    assert sorted(known) == sorted(facts())
    for path, fact in facts().items():
        kind, required = known[path]
        assert required == fact.get("required", False), path
        if isinstance(fact["type"], list):
            assert set(LOOKED_UP.get(path, kind)) >= set(fact["type"]) or kind == "string", path
        elif fact["type"] == "integer":
            assert kind in fields.RANGES, path
        else:
            assert kind == {"boolean": "bool"}.get(fact["type"], fact["type"]), path


def test_texts_that_are_looked_up_are_known() -> None:
    for path, known in LOOKED_UP.items():
        assert set(facts()[path]["type"]) <= set(known), path


def state_of(path: str) -> str:
    """What the code does with a field."""
    if any(covers(refused, path) for refused in fields.REFUSED):
        return "refused"
    names = path.removeprefix("linux.resources.").split(".")
    if names[0].removesuffix("[]") not in fields.RESOURCES or not path.startswith("linux.resources."):
        return "done"
    resources: Any = example(leaf_of(fields.RESOURCES, names))
    for version in (1, 2):
        try:
            refusals.check(resources, version, CONTROLLERS)
        except RuntimeFailure:
            return f"cgroup v{3 - version}"
    return "done"


def leaf_of(kind: Any, names: list[str]) -> Any:
    """A part of the table with one field alone (and what must stand beside it)."""
    if not names:
        return kind
    name = names[0].removesuffix("[]")
    found = next(key for key in kind if key.rstrip("!") == name)
    of = [leaf_of(kind[found][0], names[1:])] if names[0].endswith("[]") else leaf_of(kind[found], names[1:])
    return {found: of}


def test_the_page_tells_the_state_of_every_field() -> None:
    table, wrong = rows(), {}
    for path in [*facts(), "vm"]:
        row = max((row for row in table if covers(row, path)), key=len, default="")
        if table.get(row) != state_of(path):
            wrong[path] = (table.get(row, "no row"), state_of(path))
    assert wrong == {}
    assert [row for row in table if not any(covers(row, path) for path in [*facts(), "vm"])] == []


def test_what_is_done_is_read_somewhere() -> None:
    """The name of each field is a string in the runtime, outside of the table."""
    text = ""
    for path in glob.glob(f"{ROOT}/src/ketch/runtime/**/*.py", recursive=True):
        if not path.endswith(("validation/fields.py", "/oci_types.py", "/features.py")):
            with open(path, encoding="utf-8") as file:
                text += file.read()
    words = set(re.findall(r"\"\w+\"|'\w+'", text))
    names = {path: path.removesuffix("[]").rpartition(".")[2] for path in facts() if state_of(path) != "refused"}
    missing = {path for path, name in names.items() if name != "*" and not {f'"{name}"', f"'{name}'"} & words}
    assert missing == set()


@pytest.mark.parametrize("path", fields.REFUSED)
def test_a_refused_field_is_named(path: str) -> None:
    document = accepted()
    *parents, last = path.split(".")
    place, source = document, whole()
    for name in parents:
        place, source = place.setdefault(name, {}), source[name]
    place[last] = source[last]
    with pytest.raises(RuntimeFailure, match=f"^{re.escape(path)} is not supported: {re.escape(fields.REFUSED[path])}"):
        check.check_config(document)  # type: ignore[arg-type]
    place[last] = None  # as if it were not there
    check.check_config(document)  # type: ignore[arg-type]
    head, _, name = path.partition(".")
    if head == "process":
        with pytest.raises(RuntimeFailure, match=re.escape(path)):
            check.check_process({"cwd": "/", name: source[last]})  # type: ignore[misc]


def test_everything_else_is_accepted() -> None:
    check.check_config(accepted())  # type: ignore[arg-type]
    document = accepted()
    document["unknown"] = {"a": 1}
    document["process"]["unknown"] = None
    document["hooks"] = None
    check.check_config(document)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("process.user.uid", "0", "process.user.uid is not a whole number"),
        ("process.user.uid", 1.0, "process.user.uid is not a whole number"),
        ("process.user.uid", -1, "process.user.uid is -1, not in 0…4294967295"),
        ("process.terminal", 1, "process.terminal is not true or false"),
        ("process.env", ["A=b", 7], "process.env[1] is not a string"),
        ("process.env", [None], "process.env[0] is not a value"),
        ("process.env", ["A=", "B"], "process.env has `B`, which is no NAME=value"),
        ("process.env", ["=A"], "process.env has `=A`, which is no NAME=value"),
        ("process.consoleSize", {"height": 1, "width": 65536}, "process.consoleSize.width is 65536, a terminal has"),
        ("process.rlimits", [{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}], "process.rlimits: `RLIMIT_CORE`'s soft"),
        ("root.path", "", "root.path is missing"),
        ("annotations", {"": "a"}, "annotations has a value without a name"),
        ("process.cwd", None, "process.cwd is missing"),
        ("process.rlimits", [{"type": "RLIMIT_CORE", "soft": 1}], "process.rlimits[0].hard is missing"),
        ("hooks.poststop", [{"path": "/x", "timeout": 0}], "hooks.poststop[0].timeout is 0, not in 1…"),
        ("hooks", [], "hooks is not an object"),
        ("mounts", {}, "mounts is not a list"),
        ("linux.rootfsPropagation", "public", "linux.rootfsPropagation `public` is none of private, rprivate,"),
        ("linux.sysctl", {"net.a": 1}, "linux.sysctl.net.a is not a string"),
        ("linux.resources.pids", {}, "linux.resources.pids.limit is missing"),
        ("linux.resources.devices", [{"allow": True, "type": "x"}], "linux.resources.devices[0].type `x` is none of a"),
        ("linux.resources.devices", [{"allow": True, "access": "rwa"}], "linux.resources.devices[0].access `rwa` has"),
        ("process.execCPUAffinity", {"final": "3-1"}, "process.execCPUAffinity.final: `3-1` is no list"),
        ("ociVersion", None, "ociVersion is missing"),
        ("ociVersion", "1.2", "ociVersion `1.2` is no version (SemVer 2.0.0)"),
    ],
)
def test_what_is_wrong_is_named(path: str, value: object, message: str) -> None:
    document = accepted()
    *parents, last = path.split(".")
    place = document
    for name in parents:
        place = place[name]
    place[last] = value
    with pytest.raises(RuntimeFailure) as caught:
        check.check_config(document)  # type: ignore[arg-type]
    assert caught.value.message.startswith(f"read config.json: {message}")


@pytest.mark.parametrize("field", ["process.selinuxLabel", "linux.mountLabel"])
def test_labels_need_selinux(field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = accepted()
    parent, _, name = field.partition(".")
    document[parent][name] = "system_u:object_r:container_file_t:s0:c1,c2"
    monkeypatch.setattr(check, "PROC", str(tmp_path))
    (tmp_path / "filesystems").write_text("nodev\tsysfs\nnodev\tselinuxfs\n\text4\n")
    check.check_config(document)  # type: ignore[arg-type]
    (tmp_path / "filesystems").write_text("nodev\tsysfs\n\text4\n")
    with pytest.raises(RuntimeFailure, match=f"{field} `system_u:.*` is not supported: the kernel has no SELinux"):
        check.check_config(document)  # type: ignore[arg-type]


def test_options_that_bind_mounts_do_not_have_are_told() -> None:
    mounts_: list[Any] = [
        {
            "destination": "/a",
            "type": "none",
            "source": "/x",
            "options": ["rbind", "ro", "rprivate", "idmap", "size=1"],
        },
        {"destination": "/b", "type": "bind", "source": "/x", "options": ["rw", "nosuid", "rnoexec", "defaults"]},
        {"destination": "/c", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]},
    ]
    (told,) = check.ineffective_options({"mounts": mounts_})
    assert told == "mount `/a`: a bind mount does not have these options: size=1"


@pytest.mark.parametrize("destination", ["/", "", "//", "/a/.."])
def test_nothing_hides_the_root(destination: str) -> None:
    with pytest.raises(RuntimeFailure, match="would hide the container's root"):
        mounts.plan([{"destination": destination, "type": "tmpfs", "source": "tmpfs"}])


def test_a_bind_without_a_source() -> None:
    place = BundlePlaces("/bundle", "/bundle/rootfs")
    with pytest.raises(RuntimeFailure, match='to rootfs at "/a": it has no source'):
        mounts.plan([{"destination": "/a", "type": "bind"}], place)


@pytest.mark.parametrize(
    "name",
    [
        *("net/../kernel/core_pattern", "net/ipv4/../../kernel/panic", "net//ipv4/ip_forward", "net/./ipv4/ip_forward"),
        *("fs.mqueue./../../kernel/panic", "net.", "net/", "net..ipv4", "/net/ipv4/ip_forward", ""),
    ],
)
def test_names_of_kernel_parameters_lead_nowhere_else(name: str) -> None:
    plan = namespaces.Plan([{"type": kind} for kind in namespaces.FLAGS])
    with pytest.raises(RuntimeFailure, match="is no name of a kernel parameter|not in a separate kernel namespace"):
        sysctl.check({name: "1"}, plan)
    sysctl.check({"net.ipv4.ip_forward": "1", "net/ipv4/conf/eth0.1/forwarding": "1", "fs.mqueue.msg_max": "9"}, plan)


def test_which_mounts_are_labelled() -> None:
    label = "system_u:object_r:container_file_t:s0:c1,c2"
    entries: list[Any] = [
        {"destination": "/a", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=1m"]},
        {"destination": "/b", "type": "tmpfs", "source": "tmpfs", "options": ["context=own"]},
        {"destination": "/c", "type": "devpts", "source": "devpts"},
        {"destination": "/d", "type": "mqueue", "source": "mqueue"},
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs"},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"},
        {"destination": "/e", "type": "none", "source": "/x", "options": ["bind"]},
        {"destination": "/f", "type": "bind", "source": "/x"},
    ]
    planned = mounts.plan(entries, None, label)
    context = [option for mount in planned for option in mount.options.data if option.startswith("context=")]
    assert context == [f"context={label}", "context=own", f"context={label}"]
    assert [mount.label for mount in planned] == [label if entry["type"] == "mqueue" else "" for entry in entries]
    assert not any(mount.label or "context=" in str(mount.options.data) for mount in mounts.plan(entries[2:]))


def test_a_limit_that_is_listed_twice() -> None:
    limit = {"type": "RLIMIT_CORE", "soft": 1, "hard": 1}
    with pytest.raises(RuntimeFailure, match=r"process\.rlimits has `RLIMIT_CORE` twice"):
        check.check_process({"cwd": "/", "rlimits": [limit, limit]})  # type: ignore[list-item]


@given(st.data())
def test_any_document_is_checked_without_an_accident(data: st.DataObject) -> None:
    """One value anywhere is replaced by any other: the answer is yes, or an error of ours that names a place."""
    document: Any = accepted()
    place, key = document, data.draw(st.sampled_from(sorted(document)))
    while isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    json_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
    place[key] = data.draw(
        st.recursive(json_values, lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=4)
    )
    before = copy.deepcopy(document)
    try:
        check.check_config(document)
    except RuntimeFailure as e:
        assert e.step == "config"
    assert repr(document) == repr(before)


@pytest.mark.parametrize("text", ["1.0.0", "1.2.1", "1.0.2-dev", "1.0.0-rc.1+build.5", "0.0.0-a-b"])
def test_versions(text: str) -> None:
    assert check.is_version(text)


@pytest.mark.parametrize(
    "text", ["", "1", "1.2", "1.2.x", "01.2.3", "1.2.3-", "1.2.3+", "1.2.3-a..b", "v1.2.3", "1.2.3 "]
)
def test_no_versions(text: str) -> None:
    assert not check.is_version(text)


def test_capabilities_that_nobody_has_are_told() -> None:
    known = caps.names(caps.get()[1])[:1]
    told = check.warnings({"capabilities": {"bounding": ["CAP_FLY", *known], "ambient": ["CAP_FLY", "CAP_SWIM"]}})
    assert told == ["ignoring unknown or unavailable capabilities: CAP_FLY, CAP_SWIM"]
    assert check.warnings({"capabilities": {"bounding": known}}) == []
    raised = {"permitted": known, "inheritable": [], "ambient": known}
    (told_of_ambient,) = check.warnings({"capabilities": raised})  # type: ignore[typeddict-item]
    assert told_of_ambient.startswith(f"can't raise ambient capability {known[0]}: ")
    assert check.warnings({}) == []


@pytest.mark.parametrize(
    ("resources", "version", "name"),
    [
        ({"memory": {"kernel": 1 << 20}}, 1, "memory.kernel"),
        ({"memory": {"useHierarchy": False}}, 2, "memory.useHierarchy"),
        ({"memory": {"swappiness": 0}}, 2, "memory.swappiness"),
        ({"cpu": {"realtimeRuntime": 1000}}, 2, "cpu.realtimeRuntime"),
        ({"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 10}]}}, 2, "weightDevice.leafWeight"),
        ({"unified": {"memory.high": "1"}}, 1, "unified"),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}, 1, "hugepageLimits"),
        ({"cpu": {"mems": "0"}}, 1, "cpu.mems"),
        ({"devices": [{"allow": False}]}, 1, "devices"),
        ({"pids": {"limit": 1}}, 1, "pids.limit"),
    ],
)
def test_limits_that_a_cgroup_cannot_have_are_named(resources: Any, version: int, name: str) -> None:
    with pytest.raises(RuntimeFailure, match=rf"^linux\.resources\.\S*{re.escape(name)} is not supported: "):
        refusals.check(resources, version, ("memory", "cpu", "blkio"))


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_nothing_need_nothing(version: int) -> None:
    """What clients send along: zeros, empty lists, -1."""
    none: Any = {
        "devices": [],
        "memory": {
            "limit": -1,
            "swap": -1,
            "swappiness": 2**64 - 1,
            "kernelTCP": 0,
            "disableOOMKiller": False,
            "useHierarchy": True,
        },
        "cpu": {"quota": -1, "cpus": "", "realtimeRuntime": 0},
        "pids": {"limit": -1},
        "blockIO": {"leafWeight": 0, "weightDevice": None},
        "network": {"classID": None, "priorities": []},
        "unified": {},
        "hugepageLimits": None,
    }
    refusals.check(none, version, ())


FILES = (
    (
        1,
        {"rdma": {"mlx5_0": {"hcaHandles": 2, "hcaObjects": 2000}}},
        {"rdma.max": "mlx5_0 hca_handle=2 hca_object=2000"},
    ),
    (2, {"rdma": {"mlx5_0": {"hcaObjects": 0}}}, {"rdma.max": "mlx5_0 hca_object=0"}),
    (1, {"network": {"classID": 0x100001}}, {"net_cls.classid": "1048577"}),
    (1, {"network": {"priorities": [{"name": "lo", "priority": 500}]}}, {"net_prio.ifpriomap": "lo 500"}),
    (1, {"blockIO": {"leafWeight": 20}}, {"blkio.leaf_weight": "20"}),
    (
        1,
        {"blockIO": {"weight": 10, "weightDevice": [{"major": 8, "minor": 0, "weight": 30, "leafWeight": 40}]}},
        {"blkio.weight": "10", "blkio.bfq.weight_device": "8:0 30", "blkio.leaf_weight_device": "8:0 40"},
    ),
    (
        1,
        {"cpu": {"realtimePeriod": 5000, "realtimeRuntime": 100}},
        {"cpu.rt_period_us": "5000", "cpu.rt_runtime_us": "100"},
    ),
    (2, {"cpu": {"burst": 100, "idle": 1}}, {"cpu.max.burst": "100", "cpu.idle": "1"}),
    (2, {"memory": {"limit": 8, "swap": 9}}, {"memory.max": "8", "memory.swap.max": "1"}),
    (2, {"blockIO": {"weight": 10}}, {"io.weight": "1"}),
)


@pytest.mark.parametrize(("version", "resources", "written"), FILES)
def test_limits_that_few_machines_have(tmp_path: Path, version: int, resources: Any, written: dict[str, str]) -> None:
    """Which file gets which text; where the kernel lacks one of the files, the limit is refused by its name."""
    directory = str(tmp_path)
    cgroup = CgroupV2(directory) if version == 2 else CgroupV1(dict.fromkeys(CONTROLLERS, directory))
    for name in written:
        (tmp_path / name).write_text("")
    cgroup.update(resources)
    assert {name: (tmp_path / name).read_text() for name in written} == written
    (kind,) = resources
    if kind in ("blockIO", "cpu", "memory"):
        for name in written:
            (tmp_path / name).unlink()
        (tmp_path / "memory.max").write_text("")
        with pytest.raises(
            RuntimeFailure, match=rf"^linux\.resources\.{kind}\.\w+ is not supported: the kernel has no"
        ):
            cgroup.update(resources)


@pytest.mark.parametrize(("version", "name"), [(1, "memory.usage_in_bytes"), (2, "memory.current")])
def test_a_limit_that_is_exceeded_already(tmp_path: Path, version: int, name: str) -> None:
    directory = str(tmp_path)
    cgroup = CgroupV2(directory) if version == 2 else CgroupV1({"memory": directory})
    (tmp_path / name).write_text("100")
    (tmp_path / ("memory.max" if version == 2 else "memory.limit_in_bytes")).write_text("")
    cgroup.update({"memory": {"limit": 100, "checkBeforeUpdate": True}})
    cgroup.update({"memory": {"limit": -1, "checkBeforeUpdate": True}})
    cgroup.update({"memory": {"limit": 99}})
    with pytest.raises(RuntimeFailure, match="rejecting memory limit 99 as it is lower than current usage 100"):
        cgroup.update({"memory": {"limit": 99, "checkBeforeUpdate": True}})


def test_features_say_what_the_table_says() -> None:
    told: Any = features.document()
    assert (told["linux"]["intelRdt"], told["linux"]["netDevices"]) == ({"enabled": False}, {"enabled": True})
    assert "linux.intelRdt" in fields.REFUSED
    assert told["hooks"] == list(fields.CONFIG["hooks"])
    assert set(told["linux"]["namespaces"]) == set(facts()["linux.namespaces[].type"]["type"])
    assert told["linux"]["memoryPolicy"]["modes"] == sorted(facts()["linux.memoryPolicy.mode"]["type"])
    assert set(told["linux"]["seccomp"]["actions"]) <= set(facts()["linux.seccomp.defaultAction"]["type"])


def test_new_limits_are_checked_as_well() -> None:
    check.check_resources({"cpu": {"shares": 2}, "unknown": 1})
    with pytest.raises(RuntimeFailure, match=r"resources\.cpu\.shares is not a whole number"):
        check.check_resources({"cpu": {"shares": "2"}})
