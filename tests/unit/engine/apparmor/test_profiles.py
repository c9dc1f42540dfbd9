"""AppArmor profiles of containers: which one each gets, which files the default one lets it change."""

from __future__ import annotations

import re
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ketch.engine.apparmor import policy, profiles
from ketch.engine.apparmor.profiles import AppArmorProfiles, requested
from ketch.engine.model.records import HostConfig
from ketch.errors import FailedPrecondition
from ketch.runtime.security import apparmor
from tests.support.programs import need
from tests.support.waiting import patient


def pattern(glob: str) -> re.Pattern[str]:
    """A file pattern of apparmor.d(5) as a regular expression."""
    words = {"**": ".*", "*": "[^/]*", "{": "(?:", "}": ")", ",": "|"}
    parts = re.split(r"(\*\*|\*|\[.*?\]|[{},])", glob)
    return re.compile("".join(words.get(part, part if part[:1] == "[" else re.escape(part)) for part in parts))


def rules(kind: str) -> list[re.Pattern[str]]:
    """The patterns of files to which the profile denies a kind of access."""
    found = re.findall(r"deny (/\S+) (\w+),", policy.profile("unconfined"))
    return [pattern(glob) for glob, letters in found if kind in letters]


def denied(path: str, kind: str) -> bool:
    return any(rule.fullmatch(path) for rule in rules(kind))


@pytest.mark.parametrize(
    "path",
    [
        "/proc/1/oom_score_adj",
        "/proc/31/attr/apparmor/exec",
        "/proc/9/task/9/comm",
        "/proc/sys/kernel/shmmax",
        "/proc/sys/kernel/shm_rmid_forced",
        "/proc/sys/kernel/sem",
        "/proc/sys/kernel/msgmnb",
        "/sys/fs/cgroup/cgroup.procs",
        "/sys/fs/cgroup/mine/memory.max",
        "/etc/passwd",
        "/procs/x",
        "/dev/shm/sys",
    ],
)
def test_what_a_container_may_change(path: str) -> None:
    assert not denied(path, "w")


@pytest.mark.parametrize(
    "path",
    [
        "/proc/sysrq-trigger",
        "/proc/mtrr",
        "/proc/acpi/wakeup",
        "/proc/bus/pci/00/02.0",
        "/proc/fs/nfsd/threads",
        "/proc/irq/5/smp_affinity",
        "/proc/s/x",
        "/proc/scsi/scsi",
        "/proc/sysvipc/shm",
        "/proc/sys/fs/binfmt_misc/register",
        "/proc/sys/k",
        "/proc/sys/keys/root_maxkeys",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/vm/panic_on_oom",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/s",
        "/proc/sys/kernel/seccomp/actions_logged",
        "/proc/sys/kernel/sysrq",
        "/sys/class/net/lo/mtu",
        "/sys/f",
        "/sys/fs/bpf/x",
        "/sys/fs/cgroups/x",
        "/sys/fs/fuse/connections/1/abort",
        "/sys/kernel/uevent_helper",
        "/sys/kernel/security/apparmor/.remove",
        "/sys/power/state",
    ],
)
def test_what_a_container_may_not_change(path: str) -> None:
    for kind in "wl":
        assert denied(path, kind)


@pytest.mark.parametrize(
    "path",
    [
        "/proc/kcore",
        "/proc/sysrq-trigger",
        "/sys/firmware/acpi/tables/DSDT",
        "/sys/devices/virtual/powercap/intel-rapl/intel-rapl:0/energy_uj",
        "/sys/kernel/security/apparmor/profiles",
    ],
)
def test_what_a_container_may_not_read(path: str) -> None:
    assert denied(path, "r")
    assert not denied("/sys/class/net/lo/mtu", "r")


words = st.lists(st.from_regex(r"[abk]{1,3}/?", fullmatch=True), min_size=1, max_size=4)


@settings(max_examples=40)
@given(words, st.from_regex(r"[abkx]{1,4}(/[abkx]{1,2})?", fullmatch=True))
@example(["sys/", "1"], "sys")
@example(["sys/", "1"], "sy")
def test_others_are_all_that_begin_with_none_of_the_words(kept: list[str], path: str) -> None:
    kept = [word for word in kept if not any(word.startswith(other) and word != other for other in kept)]
    matched = any(pattern(glob).fullmatch(path) for glob in policy.patterns_of_others(kept))
    above = {word.removesuffix("/") for word in kept}  # a directory in which all is kept
    assert matched == (not any(path.startswith(word) for word in kept) and path not in above)


def test_the_profile_for_nested_containers() -> None:
    """Mounts and the user namespace's own settings are allowed; what is hidden stays so."""
    source = policy.profile("unconfined", policy.NESTING)
    assert f"profile {policy.NESTING} " in source
    assert "  mount,\n" in source
    denied = re.findall(r"deny (\S+)", source)
    assert "/proc/kcore" in denied
    assert not [path for path in denied if path.startswith(("mount", "/proc/*", "/proc/sys/"))]
    assert f"peer={policy.NAME}" not in source


@pytest.mark.parametrize("name", policy.NAMES)
@pytest.mark.parametrize("daemon", ["unconfined", "/usr/bin/ketchd", "snap.ketch.ketchd"])
def test_the_compiler_takes_it(daemon: str, name: str) -> None:
    """It needs no kernel with AppArmor for that."""
    source = policy.profile(daemon, name)
    assert f'signal (receive) peer="{daemon}",' in source
    done = subprocess.run(
        [need("apparmor_parser"), "--skip-kernel-load", "--skip-cache", "--stdout"],
        input=source.encode(),
        capture_output=True,
        check=False,
        timeout=patient(30),
    )
    assert done.returncode == 0, done.stderr
    assert name.encode() in done.stdout


def test_the_profile_that_options_name() -> None:
    for options, name in (
        (None, ""),
        (["seccomp=unconfined"], ""),
        (["apparmor=one"], "one"),
        (["apparmor:one"], "one"),
        (["apparmor=one", "apparmor=two:three"], "two:three"),
        (["apparmor=one", "apparmor="], ""),
    ):
        assert requested(HostConfig(security_opt=options)) == name


def test_a_kernel_without_apparmor(tmp_path, monkeypatch) -> None:
    for text, on in ((None, False), ("N\n", False), ("Y\n", True)):
        path = tmp_path / "enabled"
        if text is not None:
            path.write_text(text)
        monkeypatch.setattr(apparmor, "_ENABLED", str(path))
        assert apparmor.enabled() is on


def test_names_of_profiles(tmp_path, monkeypatch) -> None:
    path = tmp_path / "profiles"
    path.write_text("ketch-default (enforce)\nsnap.x (complain)\n/usr/bin/man (enforce)\n")
    monkeypatch.setattr(apparmor, "_PROFILES", str(path))
    assert [name for name in ("ketch-default", "ketch", "x", "/usr/bin/man") if apparmor.is_loaded(name)] == [
        "ketch-default",
        "/usr/bin/man",
    ]
    own = tmp_path / "current"
    for text, name in (
        ("unconfined\n", "unconfined"),
        ("/usr/bin/a b (enforce)\n", "/usr/bin/a b"),
        ("", "unconfined"),
    ):
        own.write_text(text)
        monkeypatch.setattr(apparmor, "_OWN", str(own))
        assert apparmor.own_profile() == name


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Have files in place of the kernel's: whether AppArmor is on, and its profiles (None: no securityfs)."""
    monkeypatch.delenv("container", raising=False)  # the tests themselves may run in one

    def have(on: bool, loaded: str | None, compiler: str = "/bin/false") -> AppArmorProfiles:
        (tmp_path / "enabled").write_text("Y\n" if on else "N\n")
        (tmp_path / "profiles").unlink(missing_ok=True)
        if loaded is not None:
            (tmp_path / "profiles").write_text(loaded)
        monkeypatch.setattr(apparmor, "_ENABLED", str(tmp_path / "enabled"))
        monkeypatch.setattr(apparmor, "_PROFILES", str(tmp_path / "profiles"))
        monkeypatch.setattr(profiles.programs, "find", lambda _name: compiler or None)
        monkeypatch.setattr(profiles, "_USUAL_PLACE", str(tmp_path / "nowhere"))
        return AppArmorProfiles()

    return have


def chosen(found: AppArmorProfiles, *options: str, privileged: bool = False) -> str:
    return found.chosen(HostConfig(security_opt=list(options), privileged=privileged))


def test_which_profile_a_container_gets(kernel) -> None:
    confining = kernel(True, "other (enforce)\n")
    assert [chosen(confining), chosen(confining, privileged=True)] == ["ketch-default", "unconfined"]
    for option, name in (("other", "other"), ("nope", "nope"), ("unconfined", "unconfined"), ("", "ketch-default")):
        assert chosen(confining, f"apparmor={option}") == name
    assert chosen(confining, "apparmor=other", privileged=True) == "other"
    assert chosen(confining, "apparmor=docker-default") == "ketch-default"
    assert chosen(kernel(True, "docker-default (enforce)\n"), "apparmor=docker-default") == "docker-default"
    # Nobody compiles the default one, or the kernel has no AppArmor at all.
    for found in (kernel(True, "", compiler=""), kernel(True, None), kernel(False, None)):
        assert [chosen(found), chosen(found, privileged=True), chosen(found, "apparmor=x")] == ["", "", "x"]


def test_the_reason_why_containers_are_unconfined(kernel, monkeypatch) -> None:
    assert [kernel(False, None).warnings, kernel(True, "").warnings] == [[], []]
    lacking = [
        (kernel(True, None), "securityfs is not mounted"),
        (kernel(True, "", compiler=""), "apparmor_parser is not installed"),
    ]
    monkeypatch.setenv("container", "oci")
    lacking.append((kernel(True, ""), "ketchd runs in a container"))
    for found, why in lacking:
        assert found.warnings == [f"WARNING: AppArmor is enabled, but {why}: containers run without a default profile"]
        assert [found.by_default, chosen(found), chosen(found, "apparmor=x")] == [False, "", "x"]


async def test_only_the_default_profile_is_loaded_and_only_if_it_is_absent(kernel, caplog) -> None:
    await kernel(True, "ketch-default (enforce)\n").prepare("ketch-default")
    absent = kernel(True, "ketch (enforce)\n")
    await absent.prepare("other")
    with pytest.raises(FailedPrecondition, match="AppArmor enabled on system but the ketch-default profile could not"):
        await absent.prepare("ketch-default")
    await absent.begin()  # no reason not to start
    assert "`/bin/false` failed with output: 1" in caplog.text
    for path, why in (("/etc/passwd", "permission denied"), ("/nowhere/apparmor_parser", "no such file or directory")):
        broken = kernel(True, "", compiler=path)
        with pytest.raises(FailedPrecondition, match=f"could not be loaded: run `{path}`: {why}"):
            await broken.prepare("ketch-default")
        await broken.begin()
    with pytest.raises(FailedPrecondition, match="apparmor_parser is not installed"):
        await kernel(True, "", compiler="").prepare("ketch-default")
