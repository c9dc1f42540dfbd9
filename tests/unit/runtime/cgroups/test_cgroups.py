"""cgroups without a kernel: finding hierarchies, translating limits, and the device program of v2, interpreted."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import RuntimeFailure
from ketch.linux import ns
from ketch.runtime.cgroups import common, files, monitors, tree
from ketch.runtime.cgroups.v1 import devices as devices_v1
from ketch.runtime.cgroups.v2 import cpu, io, memory
from ketch.runtime.cgroups.v2 import devices as devices_v2
from ketch.runtime.process.children.init import _with_default_devices

if TYPE_CHECKING:
    from pathlib import Path

    from ketch.runtime.oci_types import OciDeviceRule

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
"""
UNIFIED = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"


def test_hybrid_counts_as_v1() -> None:
    layout = common.parse_mountinfo(HYBRID)
    assert layout.version == 1
    assert layout.unified == "/sys/fs/cgroup/unified"
    assert layout.hierarchies == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "memory": "/sys/fs/cgroup/memory",
        "name=systemd": "/sys/fs/cgroup/systemd",
    }


def test_unified() -> None:
    layout = common.parse_mountinfo(UNIFIED)
    assert (layout.version, layout.unified, layout.hierarchies) == (2, "/sys/fs/cgroup", {})


def test_systemd_alone_on_v1_is_still_v2() -> None:
    lines = [line for line in HYBRID.splitlines() if "memory" not in line and "cpu" not in line]
    assert common.parse_mountinfo("\n".join(lines)).version == 2


@given(st.text())
def test_any_text_is_a_mountinfo(text: str) -> None:
    common.parse_mountinfo(text)


def test_shares_become_weights_in_order() -> None:
    assert (cpu.weight(2), cpu.weight(1024), cpu.weight(262144)) == (1, 39, 10000)
    assert io.weight(10) == 1
    assert io.weight(1000) == 10000


@given(st.integers(), st.integers())
def test_weights_are_monotonic_and_in_range(a: int, b: int) -> None:
    low, high = sorted((a, b))
    assert 1 <= cpu.weight(low) <= cpu.weight(high) <= 10000
    assert 1 <= io.weight(low) <= io.weight(high) <= 10000


def test_swap() -> None:
    assert memory.swap_max(100, 250) == "150"
    assert memory.swap_max(100, 100) == "0"
    assert memory.swap_max(0, -1) == "max"
    for limit, swap in ((0, 10), (100, 50)):
        with pytest.raises(RuntimeFailure):
            memory.swap_max(limit, swap)


def test_numbers() -> None:
    assert (files.number("12"), files.number("max"), files.number("junk", 7)) == (12, 2**64 - 1, 7)


def test_device_lines() -> None:
    assert devices_v1.lines({"allow": False}) == ["a"]
    assert devices_v1.lines({"type": "c", "major": 1, "minor": 3, "access": "rw"}) == ["c 1:3 rw"]
    assert devices_v1.lines({"type": "b", "access": "m"}) == ["b *:* m"]
    assert devices_v1.lines({"type": "c", "major": 136, "minor": -1, "access": "rwm"}) == ["c 136:* rwm"]
    # Behind an `a` the kernel reads nothing: these would be everything.
    assert devices_v1.lines({"allow": True, "access": "r"}) == ["b *:* r", "c *:* r"]
    assert devices_v1.lines({"type": "a", "major": 1, "minor": 3}) == ["b 1:3 rwm", "c 1:3 rwm"]


LETTERS = {"m": 1, "r": 2, "w": 4}
RULE = st.fixed_dictionaries(
    {"allow": st.booleans(), "access": st.sets(st.sampled_from("rwm"), min_size=1).map(lambda s: "".join(sorted(s)))},
    optional={"type": st.sampled_from("abc"), "major": st.integers(0, 2), "minor": st.integers(0, 2)},
)


def expected(rules: list[dict[str, Any]], kind: str, major: int, minor: int, wanted: str) -> bool:
    """The meaning of a list, as an execution of it: each rule adds or removes accesses of the devices it matches."""
    granted: set[str] = set()
    for rule in rules:
        if rule.get("type", "a") not in ("a", kind):
            continue
        if rule.get("major", major) != major or rule.get("minor", minor) != minor:
            continue
        granted = granted | set(rule["access"]) if rule["allow"] else granted - set(rule["access"])
    return set(wanted) <= granted


def interpret(program: bytes, kind: str, major: int, minor: int, wanted: str) -> bool:
    """Enough of BPF to run what the assembler emits; anything else is an error."""
    code = [struct.unpack("=BBhi", program[i : i + 8]) for i in range(0, len(program), 8)]
    access = sum(LETTERS[letter] for letter in wanted)
    context = {0: access << 16 | {"b": 1, "c": 2}[kind], 4: major, 8: minor}
    registers = [0] * 11
    at = 0
    while True:
        op, regs, offset, immediate = code[at]
        dst, src = regs & 15, regs >> 4
        at += 1
        if op == 0x61:
            registers[dst] = context[offset]
        elif op == 0xBC:
            registers[dst] = registers[src]
        elif op == 0x54:
            registers[dst] &= immediate
        elif op == 0x74:
            registers[dst] >>= immediate
        elif op == 0xB7:
            registers[dst] = immediate
        elif op == 0x55:
            at += offset if registers[dst] != immediate else 0
        elif op == 0x45:
            at += offset if registers[dst] & immediate else 0
        elif op == 0x05:
            at += offset
        elif op == 0x95:
            return bool(registers[0])
        else:
            raise AssertionError(f"unexpected opcode {op:#x}")


@given(
    st.lists(RULE, max_size=6),
    st.sampled_from("bc"),
    st.integers(0, 2),
    st.integers(0, 2),
    st.sets(st.sampled_from("rwm"), min_size=1).map("".join),
)
def test_the_device_program_means_what_the_rules_say(
    rules: list[dict[str, Any]], kind: str, major: int, minor: int, wanted: str
) -> None:
    program = devices_v2.program(rules)
    assert interpret(program, kind, major, minor, wanted) == expected(rules, kind, major, minor, wanted)


@pytest.mark.parametrize("containers", [[], ["one/box"]])
def test_monitors_are_waited_for_where_no_container_is(tmp_path, monkeypatch, containers):
    """A container is not in every hierarchy, and its monitor does not end in any of them."""
    for name in ("one/monitors", "two/monitors", *containers):
        (tmp_path / "p" / name).mkdir(parents=True)
    roots = {name: str(tmp_path / "p" / name) for name in ("one", "two")}
    monkeypatch.setattr(common, "_layout", common.Layout({"memory": roots["one"]}, roots["two"]))
    waits = []
    monkeypatch.setattr(tree, "remove", lambda _path, wait_s: waits.append(wait_s > 0))
    monitors.remove("/", with_parent=False)
    assert waits == [not containers] * 2


# -- rules that a container's first process adds -------------------------------------------------

DENY: OciDeviceRule = {"allow": False, "access": "rwm"}
NULL: OciDeviceRule = {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"}


@pytest.fixture
def v2_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with cgroup v2, and its rights."""
    monkeypatch.setattr(common, "_layout", common.Layout({}, "/sys/fs/cgroup"))
    monkeypatch.setattr(common, "LIMITED", False)
    monkeypatch.setattr(ns, "LIMITED", False)


@pytest.mark.parametrize(
    "last",
    [
        {"allow": True},
        {"allow": True, "type": "a", "access": "mwr"},
        {"allow": True, "major": -1, "minor": None, "access": "rwm"},
    ],
)
@pytest.mark.usefixtures("v2_machine")
def test_everything_is_allowed_by_a_last_rule(last: OciDeviceRule) -> None:
    assert _with_default_devices({"devices": [DENY, last]}) == {"devices": [DENY, last]}


@pytest.mark.parametrize(
    "last",
    [
        {"allow": True, "access": "r"},
        {"allow": True, "type": "c", "access": "rwm"},
        {"allow": True, "major": 1, "access": "rwm"},
    ],
)
@pytest.mark.usefixtures("v2_machine")
def test_a_last_rule_for_less_than_everything_leaves_the_rest_denied(last: OciDeviceRule) -> None:
    rules = _with_default_devices({"devices": [last]})["devices"]
    assert rules[:2] == [DENY, last]
    assert len(rules) > 2


@pytest.mark.parametrize("rules", [[], [NULL], [DENY, NULL]])
@pytest.mark.usefixtures("v2_machine")
def test_without_the_machines_rights_there_are_none(
    rules: list[OciDeviceRule], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _with_default_devices({"devices": rules})["devices"]
    monkeypatch.setattr(common, "LIMITED", True)
    monkeypatch.setattr(ns, "LIMITED", True)
    assert _with_default_devices({"devices": rules}) == {"devices": []}
    assert _with_default_devices({}) == {}


def test_a_rule_for_one_number_is_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[bytes] = []

    def load(code: bytes) -> int:
        loaded.append(code)
        raise PermissionError

    monkeypatch.setattr("ketch.linux.bpf.load_cgroup_device", load)
    devices_v2.apply(str(tmp_path), {"devices": [{"allow": True, "major": -1}]})
    assert loaded == []
    with pytest.raises(PermissionError):
        devices_v2.apply(str(tmp_path), {"devices": [{"allow": True, "minor": 3}]})
    assert loaded
