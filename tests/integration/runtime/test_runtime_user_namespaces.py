"""Containers in a user namespace: who they are, what they own, and what of the host they are kept from."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ketch.linux import mount as m
from ketch.runtime import defaults, user_namespaces
from ketch.runtime.cgroups import common
from ketch.runtime.rootfs import overlay
from tests.support.boxes import runtime_box
from tests.support.boxes.runtime_cli import Runtime
from tests.support.waiting import patient, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.boxes.runtime_box import Box, Result

pytestmark = [pytest.mark.timeout(60), *runtime_box.NEEDED]

_FIRST, _SIZE = 300_000, 65_536
_MAP = [{"containerID": 0, "hostID": _FIRST, "size": _SIZE}]
_JOINED = (("mount", "mnt"), ("pid", "pid"))
_MIGHTY = {
    **{f"process.capabilities.{kind}": list(defaults.ALL_CAPS) for kind in ("bounding", "effective", "permitted")},
    "linux.seccomp": None,
    "linux.maskedPaths": [],
    "linux.readonlyPaths": [],
}
_SETTINGS: dict[str, Any] = {
    "linux.namespaces": [{"type": kind} for kind in (*defaults.NAMESPACES, "user")],
    "linux.uidMappings": _MAP,
    "linux.gidMappings": _MAP,
}


@pytest.fixture
def mapped(box: Box) -> Box:
    """A box whose layers are seen through the container's user namespace."""
    box.idmap = True
    return box


def run(box: Box, script: str, changes: dict[str, Any] | None = None, **options: Any) -> Result:
    return box.run(["sh", "-c", script], {**_SETTINGS, **(changes or {})}, **options)


def test_root_of_the_container_is_nobody_on_the_host_and_owns_its_files(mapped: Box) -> None:
    script = """
        id; cat /proc/self/uid_map; ls -ldn / /bin/busybox /dev /dev/null /dev/pts /dev/shm | awk '{print $3 ":" $4}'
        echo mine > /made; chown 1000:1000 /made; mkdir /tmp/d
        grep CapEff /proc/self/status
    """
    result = run(mapped, script)
    assert result.err == ""
    assert result.code == 0, result.failed
    lines = result.out.splitlines()
    assert lines[0].startswith("uid=0(root) gid=0(root)")
    assert lines[1].split() == ["0", str(_FIRST), str(_SIZE)]
    assert set(lines[2:8]) == {"0:0"}
    assert lines[8].split() == ["CapEff:", "00000000a80425fb"]
    # On the disk are the ids that the container sees: an image of it needs no translation.
    upper = next(mapped.directory.glob("c*/upper"))
    assert (upper / "made").stat().st_uid == 1000
    assert (upper / "tmp/d").stat().st_uid == 0


def test_all_namespaces_belong_to_the_user_namespace(mapped: Box) -> None:
    """A namespace that the host owned could not be changed: each of these asks for a right in one of them."""
    script = """
        set -e
        hostname other; mount -t tmpfs none /tmp; mount -t proc proc /tmp; ip link set lo up
        echo 100 > /proc/sys/net/ipv4/ip_default_ttl; cat /proc/sys/net/ipv4/ip_default_ttl
        mount -t mqueue none /tmp; hostname
    """
    result = run(mapped, script, _MIGHTY)
    assert (result.code, result.out.split(), result.err) == (0, ["100", "other"], "")


def test_devices_can_be_used_and_none_can_be_made(mapped: Box) -> None:
    given = [
        {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o600, "uid": 7, "gid": 8},
    ]
    script = """
        echo hi > /dev/null && head -c 4 /dev/zero | wc -c
        ls -ln /dev/net/tun | awk '{print $1, $3, $4, $5 $6}'
        ls -ldn /dev/net | awk '{print $3}'
        mknod /tmp/null c 1 3 || echo refused
    """
    result = run(mapped, script, {"linux.devices": given})
    assert result.out.splitlines() == ["4", "crw------- 7 8 10,200", "0", "refused"]


def test_a_device_elsewhere_is_refused_by_name(mapped: Box) -> None:
    result = run(mapped, "true", {"linux.devices": [{"path": "/null", "type": "c", "major": 1, "minor": 3}]})
    assert result.code is None
    assert "`/null`" in result.failed["message"]
    assert "below `/dev` only" in result.failed["message"]


def test_the_hosts_files_are_nobodys(mapped: Box, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    (tmp_path / "closed/data").mkdir()
    secret = tmp_path / "closed/data/secret"
    secret.write_text("of the host")
    secret.chmod(0o600)
    mount = {"destination": "/data", "type": "bind", "source": str(tmp_path / "closed/data"), "options": ["rbind"]}
    result = run(mapped, "ls -n /data | awk 'NR>1 {print $3}'; cat /data/secret", {"+mounts": [mount]})
    assert result.out == "65534\n"
    assert "Permission denied" in result.err
    assert result.code == 1


def test_what_the_host_mounts_stays_as_it_is(mapped: Box, tmp_path: Path) -> None:
    """A mighty container may mount what it likes, and has its own root; without that it would be the host's."""
    for name in ("tree/covered", "over", "read-only"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "tree/covered/secret").write_text("of the host")
    m.mount(str(tmp_path / "over"), str(tmp_path / "tree/covered"), None, m.MS_BIND)
    mounts = [
        {"destination": "/tree", "type": "bind", "source": str(tmp_path / "tree"), "options": ["rbind", "rprivate"]},
        {
            "destination": "/ro",
            "type": "bind",
            "source": str(tmp_path / "read-only"),
            "options": ["rbind", "ro", "idmap"],
        },
    ]
    script = """
        umount /tree/covered 2> /dev/null && echo unmounted; ls /tree/covered
        mkdir /tmp/x; mount --bind /tree /tmp/x 2> /dev/null && echo uncovered
        mount -o remount,rw,bind /ro 2> /dev/null && echo writable; touch /ro/made 2> /dev/null && echo made
        mount -t tmpfs none /tmp && umount /tmp && umount -l /tree && echo free
    """
    try:
        result = run(mapped, script, {**_MIGHTY, "+mounts": mounts})
    finally:
        m.umount2(str(tmp_path / "tree/covered"), m.MNT_DETACH)
    assert (result.out.split(), result.err) == (["free"], "")


@pytest.mark.parametrize("mappings", [{}, {"uidMappings": _MAP, "gidMappings": _MAP}])
def test_files_of_an_id_mapped_mount_are_the_containers(mapped: Box, tmp_path: Path, mappings: dict[str, Any]) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "old").write_text("x")
    os.chown(data / "old", 1000, 1000)
    mount = {"destination": "/data", "type": "bind", "source": str(data), "options": ["rbind", "idmap"], **mappings}
    result = run(mapped, "touch /data/new; ls -n /data | awk 'NR>1 {print $3}'", {"+mounts": [mount]})
    assert result.out.split() == ["0", "1000"]
    assert (data / "new").stat().st_uid == 0


def test_a_user_of_the_container_can_reopen_its_output(mapped: Box) -> None:
    result = run(mapped, "echo again > /dev/stdout; id -u", {"process.user": {"uid": 1000, "gid": 1000}})
    assert (result.out, result.code) == ("again\n1000\n", 0)


def test_a_user_without_a_mapping_is_refused(mapped: Box) -> None:
    result = run(mapped, "true", {"process.user": {"uid": 70000, "gid": 0}})
    assert result.code is None
    assert result.failed["message"] == (
        "become user 70000:0: invalid argument (the user namespace has no mapping for it)"
    )


def test_a_terminal_belongs_to_the_container(mapped: Box) -> None:
    result = run(mapped, "tty; ls -ln /dev/console | awk '{print $3}'", tty=True)
    assert result.out.split() == ["/dev/pts/0", "0"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"linux.uidMappings": []}, "linux.uidMappings is not given for the new user namespace"),
        ({"linux.gidMappings": [{"containerID": 0, "size": 1}]}, "which is no range of containerID, hostID and size"),
        (
            {"linux.namespaces": [{"type": kind} for kind in defaults.NAMESPACES]},
            "the container has no user namespace of its own",
        ),
        ({"linux.uidMappings": [{**_MAP[0], "containerID": 5}]}, f"the user namespace maps 5 {_FIRST} {_SIZE}"),
        ({"linux.uidMappings": [*_MAP, *_MAP]}, "two ranges must not overlap"),
    ],
)
def test_maps_that_make_no_sense_are_refused(mapped: Box, changes: dict[str, Any], message: str) -> None:
    result = run(mapped, "true", changes)
    assert result.code is None
    assert message in result.failed["message"]


@pytest.mark.skipif(common.layout().version != 2, reason="cgroups are delegated on the unified hierarchy alone")
@pytest.mark.parametrize(("options", "outcome"), [([], "0 made"), (["ro"], "65534")])
def test_a_writable_cgroup_belongs_to_the_container(mapped: Box, options: list[str], outcome: str) -> None:
    mounts = [mount for mount in defaults.mounts() if mount["type"] != "cgroup"]
    mounts.append({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options})
    script = """
        cd /sys/fs/cgroup; echo $(stat -c %u . cgroup.procs cgroup.subtree_control | uniq) > /answer
        mkdir below && echo 0 > below/cgroup.procs && echo made >> /answer
        echo 1 2> /dev/null > memory.max && echo raised >> /answer
        cat /answer
    """
    result = run(mapped, script, {"mounts": mounts})
    assert " ".join(result.out.split()) == outcome


@pytest.fixture
def other() -> Iterator[str]:
    """The path of a user namespace that somebody else made."""
    fd = user_namespaces.make(_MAP, _MAP)  # type: ignore[arg-type]
    yield f"/proc/{os.getpid()}/fd/{fd}"
    os.close(fd)


def test_a_user_namespace_is_joined(mapped: Box, other: str) -> None:
    entries = [{"type": kind} for kind in defaults.NAMESPACES] + [{"type": "user", "path": other}]
    changes = {"linux.namespaces": entries, "linux.uidMappings": [], "linux.gidMappings": []}
    result = run(mapped, "readlink /proc/self/ns/user; touch /made; ls -n /made | awk '{print $3}'", changes)
    assert (result.out.split(), result.code) == ([os.readlink(other), "0"], 0)
    changes["linux.uidMappings"] = [{"containerID": 0, "hostID": 5, "size": 1}]
    refused = run(mapped, "true", changes)
    assert f"linux.uidMappings is 0 5 1, the namespace has 0 {_FIRST} {_SIZE}" in refused.failed["message"]


def test_where_setgroups_is_denied_a_container_has_no_groups(box: Box) -> None:
    """As in the user namespaces that people make without any right."""
    program = "from ketch.linux import ns; ns.unshare_user(); print(flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        place = Path(f"/proc/{holder.pid}")
        assert holder.stdout is not None and holder.stdout.readline() == b"\n"
        for name, text in (("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")):
            (place / name).write_text(text)
        entries = [{"type": kind} for kind in defaults.NAMESPACES]
        entries.append({"type": "user", "path": f"{place}/ns/user"})
        changes: dict[str, Any] = {
            "linux.namespaces": entries,
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            **dict.fromkeys(("linux.maskedPaths", "linux.readonlyPaths"), []),
        }
        result = box.run(["sh", "-c", "id -G; cat /proc/self/setgroups"], changes)
        assert (result.out.split(), result.code) == (["0", "deny"], 0), result.failed
        refused = box.run(["true"], {**changes, "process.user": {"uid": 0, "gid": 0, "additionalGids": [1]}})
        assert "the user namespace denies setgroups" in refused.failed["message"]
    finally:
        holder.communicate(b"\n")


@pytest.mark.parametrize(("settings", "kept"), [({}, "1234"), (_SETTINGS, "65534")])
def test_the_callers_groups_are_kept_if_that_is_wanted(
    tmp_path: Path, rootfs: Path, settings: dict[str, Any], kept: str
) -> None:
    runtime = Runtime(tmp_path, rootfs)
    runtime.configure(["id", "-G"], settings)
    assert runtime("run", "one", extra_groups=[1234]).stdout.split() == ["0"]
    runtime.configure(["id", "-G"], {"annotations": {"run.oci.keep_original_groups": "1"}})
    assert runtime("run", "one", extra_groups=[1234]).stdout.split() == ["0", kept]
    runtime.box.close()


def test_the_command_line_creates_enters_and_deletes(tmp_path: Path, rootfs: Path) -> None:
    runtime = Runtime(tmp_path, rootfs)
    runtime.configure(["sleep", "100"], _SETTINGS)
    runtime.create_detached("one", tmp_path / "out")
    try:
        pid = runtime.state("one")["pid"]
        assert f"Uid:\t{_FIRST}\t" in (Path(f"/proc/{pid}/status")).read_text()
        runtime("start", "one")
        entered = runtime("exec", "one", "sh", "-c", "id -u; readlink /proc/self/ns/user; readlink /proc/1/ns/user")
        uid, own, first = entered.stdout.split()
        assert (uid, own) == ("0", first)
        assert own != os.readlink("/proc/self/ns/user")
        runtime("kill", "one", "KILL")
    finally:
        runtime("delete", "--force", "one")
    assert runtime_box.orphaned_cgroups(runtime.box.parent + "/0") == []
    runtime.box.close()


def test_the_command_line_runs_to_the_end_and_leaves_nothing_of_a_failure(tmp_path: Path, rootfs: Path) -> None:
    runtime = Runtime(tmp_path, rootfs)
    runtime.configure(["sh", "-c", "id -u; exit 3"], _SETTINGS)
    assert runtime("run", "one", code=3).stdout == "0\n"
    runtime.configure(["no-such-program"])
    for command, message in (("run", "no-such-program"), ("state", "does not exist")):
        with pytest.raises(AssertionError, match=message):
            runtime(command, "two")
    assert runtime_box.orphaned_cgroups(runtime.box.parent + "/0") == []
    runtime.box.close()


def test_many_mapped_layers_on_kernels_without_the_new_overlay_api(
    mapped: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux 6.1: all layers are there, not the first one alone."""
    mapped.here = True
    monkeypatch.setattr(overlay, "_one_by_one", False)
    for number in range(60):
        place = mapped.directory / f"layer{number}"
        place.mkdir()
        (place / f"f{number}").touch()
        mapped.lowers.insert(0, str(place))
    result = run(mapped, "ls / | grep -c ^f; echo kept > /file; stat -c %u:%g /f0 /file; rm /f1")
    assert result.out.split() == ["60", "0:0", "0:0"], result
    assert sorted(path.name for path in mapped.directory.glob("c*/upper/f*")) == ["f1", "file"]


def test_hooks_before_the_root_have_the_hosts_proc_and_the_callers_umask(tmp_path: Path, rootfs: Path) -> None:
    """Also where the bundle is closed to the container's root, and its root covers another directory."""
    tmp_path.chmod(0o700)
    runtime = Runtime(tmp_path, rootfs)
    script = "test $(umask) = 0022 && test -e /proc/self/status"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", script]}
    runtime.configure(["echo", "ran"], {**_SETTINGS, "hooks": {"createContainer": [hook]}})
    assert runtime("run", "one", umask=0o022).stdout == "ran\n"
    runtime.box.close()


def test_a_user_namespace_that_the_program_made_is_not_entered(tmp_path: Path, rootfs: Path) -> None:
    runtime = Runtime(tmp_path, rootfs)
    runtime.configure(["unshare", "-U", "sleep", "100"], _MIGHTY)
    runtime.create_detached("one", tmp_path / "out")
    try:
        pid = runtime.state("one")["pid"]
        runtime("start", "one")
        own = os.readlink("/proc/self/ns/user")
        until(lambda: os.readlink(f"/proc/{pid}/ns/user") != own, "a user namespace of the program's")
        assert runtime("exec", "one", "readlink", "/proc/self/ns/user").stdout.strip() == own
    finally:
        runtime("delete", "--force", "one")
    runtime.box.close()


def test_the_path_of_a_pid_namespace_is_the_hosts(tmp_path: Path, rootfs: Path) -> None:
    """Also if a mount namespace is joined, in which there is no such path."""
    runtime = Runtime(tmp_path, rootfs)
    command = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", "echo; exec sleep 60"]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"\n"
    child = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().strip()
    try:
        entries = [{"type": "user"}, *({"type": kind, "path": f"/proc/{child}/ns/{file}"} for kind, file in _JOINED)]
        bare: dict[str, Any] = dict.fromkeys(("mounts", "linux.maskedPaths", "linux.readonlyPaths"), [])
        bare |= {"root.readonly": False, "hostname": None, "linux.namespaces": entries}
        bare |= dict.fromkeys(("linux.uidMappings", "linux.gidMappings"), [{"containerID": 0, "hostID": 0, "size": 1}])
        runtime.configure(["echo", "ran"], bare)
        assert runtime("run", "one").stdout == "ran\n"
    finally:
        os.kill(int(child), signal.SIGKILL)
        holder.communicate()
    runtime.box.close()


def test_many_threads_make_user_namespaces_at_once() -> None:
    """Each has a child that waits, and another thread's child may hold what would end the waiting."""
    program = f"""
from concurrent.futures import ThreadPoolExecutor
import os
from ketch.runtime import user_namespaces
with ThreadPoolExecutor(8) as pool:
    for fd in pool.map(lambda _: user_namespaces.make({_MAP}, {_MAP}), range(200)):
        os.close(fd)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=patient(30))
