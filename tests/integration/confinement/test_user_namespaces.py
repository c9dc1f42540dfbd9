"""Containers with users of their own: ``--userns auto``."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support.rawapi import Api
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.engines import Engine

SLEEP = ("busybox", "sleep", "1000")
AUTO = ("--userns", "auto")
INSIDE = """
cat /proc/self/uid_map
id -u; id -g
stat -c '%u:%g' / /bin/busybox /etc/passwd /etc/hosts /etc/resolv.conf /etc/hostname /dev /dev/null /dev/shm | sort -u
echo out > /dev/stdout
cat /proc/sys/net/ipv4/ping_group_range | xargs
touch /new && chown 1000:1001 /new && stat -c '%u:%g' /new
chown 65536 /new 2>&1
mknod /node c 1 3 2>&1
hostname other 2>&1
ip link | grep -c eth0
sysctl -w net.ipv4.ip_forward=1 2>&1
su nobody -s /bin/sh -c id\\ -u
"""


@pytest.fixture(scope="module")
def auto(file_engine: Engine) -> Iterator[Engine]:
    """A daemon that has ids to give out."""
    file_engine.user_namespaces()
    file_engine.start()
    file_engine.add_busybox()
    yield file_engine


@pytest.fixture(autouse=True)
def _no_containers(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "auto" in request.fixturenames:
        request.getfixturevalue("auto").remove_all()


def first_id(engine: Engine, name: str) -> int:
    """The machine's id of a running container's root."""
    with open(f"/proc/{engine.inspect(name)['State']['Pid']}/uid_map", encoding="ascii") as f:
        inside, outside, size = map(int, f.read().split())
    assert (inside, size) == (0, 65536)
    return outside


def test_a_container_has_its_own_users(auto):
    out = auto.ketch("run", "--rm", *AUTO, "busybox", "sh", "-c", INSIDE).out.splitlines()
    assert out[0].split()[::2] == ["0", "65536"]
    assert int(out[0].split()[1]) >= 1 << 31
    assert out[1:] == [
        "0",
        "0",
        "0:0",
        "out",
        "0 65535",
        "1000:1001",
        "chown: /new: Invalid argument",
        "mknod: /node: Operation not permitted",
        "hostname: sethostname: Operation not permitted",
        "1",
        "sysctl: error setting key 'net.ipv4.ip_forward': Read-only file system",
        "65534",
    ]


def test_each_has_a_range_until_it_is_removed(auto):
    """It keeps it over restarts, also of the daemon, and it is in the record of none but its own."""
    for name in ("one", "two"):
        auto.ketch("run", "-d", "--name", name, *AUTO, *SLEEP)
    one, two = (first_id(auto, name) for name in ("one", "two"))
    assert abs(one - two) >= 65536
    assert auto.inspect("one")["HostConfig"]["IDMappings"] == dict.fromkeys(("UidMap", "GidMap"), [f"0:{one}:65536"])
    auto.stop(signal.SIGKILL)
    auto.start()
    auto.ketch("restart", "-t", "0", "one")
    assert first_id(auto, "one") == one
    auto.ketch("run", "-d", "--name", "three", *AUTO, *SLEEP)
    assert first_id(auto, "three") not in (one, two)
    assert auto.ketch("exec", "two", "cat", "/proc/self/uid_map").out.split()[1] == str(two)


def test_a_failed_creation_keeps_no_range(auto):
    name = "one"
    auto.ketch("create", "--name", name, *AUTO, *SLEEP)
    for _ in range(80):  # more than the pool has
        status, answer = Api(auto.socket)(
            "POST", "/containers/create", {"Image": "busybox", "HostConfig": {"UsernsMode": "auto"}}, name=name
        )
        assert status == 409, answer
    auto.ketch("run", "--rm", *AUTO, "busybox", "true")


def test_containers_that_are_made_at_once_have_different_ranges(auto):
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"UsernsMode": "auto"}}
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: Api(auto.socket).must("POST", "/containers/create", body)["Id"], range(16)))
    ranges = {auto.inspect(name)["HostConfig"]["IDMappings"]["UidMap"][0] for name in made}
    assert len(ranges) == 16


def test_ids_can_run_out(auto):
    auto.ketch("create", "--name", "all", "--userns", f"auto:size={1 << 22}", *SLEEP)
    failed = auto.ketch("create", *AUTO, *SLEEP, check=False)
    assert failed.code == 1
    assert f"find 65536 ids for a user namespace: of the {1 << 22} from" in failed.err
    auto.ketch("rm", "all")
    auto.ketch("run", "--rm", *AUTO, "busybox", "true")


# What dockerd 28.5.2 says with userns-remap; of the IPC namespace it says nothing until mqueue cannot be mounted.
REFUSED = {
    "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when "
    "running privileged mode": {"Privileged": True},
    "cannot share the host's network namespace when user namespaces are enabled": {"NetworkMode": "host"},
    "cannot share the host PID namespace when user namespaces are enabled": {"PidMode": "host"},
    "cannot share the host IPC namespace when user namespaces are enabled": {"IpcMode": "host"},
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_had_is_refused(auto, words):
    body = {"Image": "busybox", "HostConfig": {**REFUSED[words], "UsernsMode": "auto"}}
    status, answer = Api(auto.socket)("POST", "/containers/create", body)
    assert (status, answer["message"]) == (400, words)


def test_words_that_are_no_mode(auto):
    for word in ("keep-id", "HOST", "auto:size=x"):
        body = {"Image": "busybox", "HostConfig": {"UsernsMode": word}}
        status, answer = Api(auto.socket)("POST", "/containers/create", body)
        assert (status, answer["message"].partition(" (")[0]) == (400, f"invalid user namespace mode: {word}")


def test_namespaces_that_are_shared_belong_to_one_user_namespace(auto):
    auto.ketch("run", "-d", "--name", "web", "--ipc", "shareable", *AUTO, *SLEEP)
    auto.ketch("run", "-d", "--name", "plain", *SLEEP)
    links = {}
    for name, how in {"net": "--network", "pids": "--pid", "shm": "--ipc"}.items():
        auto.ketch("run", "-d", "--name", name, how, "container:web", *AUTO, *SLEEP)
        links[name] = auto.ketch("exec", name, "readlink", "/proc/self/ns/user").out
        assert first_id(auto, name) == first_id(auto, "web")
        auto.ketch("exec", name, "sh", "-c", "touch /x; kill -0 1; ls /sys/class/net /dev/shm /dev/mqueue")
    assert set(links.values()) == {auto.ketch("exec", "web", "readlink", "/proc/self/ns/user").out}
    out = auto.ketch(
        "run", "--rm", "--userns", "host", "--network", "container:web", "busybox", "cat", "/proc/self/uid_map"
    )
    assert out.out.split()[1] == "0"
    body = {"Image": "busybox", "HostConfig": {"UsernsMode": "auto", "NetworkMode": "container:plain"}}
    status, answer = Api(auto.socket)("POST", "/containers/create", body)
    assert status == 400
    assert "a user namespace of its own and the namespaces of container plain" in answer["message"]
    auto.ketch("run", "-d", "--name", "other", *AUTO, *SLEEP)
    body["HostConfig"] = {"UsernsMode": "auto", "NetworkMode": "container:web", "PidMode": "container:other"}
    status, answer = Api(auto.socket)("POST", "/containers/create", body)
    assert (status, answer["message"].partition(" (")[0]) == (
        400,
        "cannot share namespaces of containers in different user namespaces: other and web",
    )


def test_a_volume_is_everybodys(auto):
    """Whoever sees it finds the ids that are on the disk; only what is elsewhere is the machine's."""
    auto.ketch("run", "--rm", *AUTO, "-v", "data:/d", "busybox", "sh", "-c", "touch /d/a; chown 7:8 /d; chmod 700 /d")
    for mode in (AUTO, AUTO, ()):
        out = auto.ketch(
            "run", "--rm", *mode, "-v", "data:/d", "busybox", "sh", "-c", "echo >> /d/a; stat -c %u:%g /d /d/a"
        )
        assert out.out.split() == ["7:8", "0:0"]
    raw = auto.ketch("run", "--rm", *AUTO, "-v", "data:/d:idmap=none", "busybox", "stat", "-c", "%u:%g", "/d").out
    assert raw.split() == ["65534:65534"]
    auto.ketch("volume", "rm", "data")


def test_a_new_volume_begins_with_the_images_files_and_owners(auto):
    auto.ketch(
        "run",
        "--name",
        "made",
        *AUTO,
        "busybox",
        "sh",
        "-c",
        "mkdir /v; echo x > /v/f; chown -R 5:6 /v; chmod 4755 /v/f",
    )
    auto.ketch("commit", "made", "with-files")
    for mode in (AUTO, ()):
        out = auto.ketch("run", "--rm", *mode, "-v", "/v", "with-files", "stat", "-c", "%u:%g %a", "/v", "/v/f").out
        assert out.splitlines() == ["5:6 755", "5:6 4755"]
    auto.ketch("rm", "made")
    auto.ketch("rmi", "with-files")


def test_binds_are_the_machines_unless_asked_otherwise(auto, tmp_path):
    source = tmp_path / "src"
    source.mkdir(mode=0o755)
    os.chown(source, 1234, 1235)
    tmp_path.chmod(0o755)

    def seen(options: str, script: str) -> list[str]:
        return auto.ketch(
            "run",
            "--rm",
            *AUTO,
            "-v",
            f"{source}:/src{options}",
            "busybox",
            "sh",
            "-c",
            f"stat -c %u:%g /src; {script} 2>&1; true",
        ).out.split("\n")[:-1]

    assert seen("", "touch /src/a") == ["65534:65534", "touch: /src/a: Permission denied"]
    assert seen(":idmap", "touch /src/b") == ["0:0"]
    assert seen(":idmap=container", "touch /src/c; chown 77 /src/c") == ["1234:1235"]
    owners = {name: ((source / name).stat().st_uid, (source / name).stat().st_gid) for name in os.listdir(source)}
    assert owners == {"b": (1234, 1235), "c": (77, 0)}


def _archive(**members: tuple[int, int]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, (uid, gid) in members.items():
            entry = tarfile.TarInfo(name)
            entry.uid, entry.gid, entry.mode = uid, gid, 0o640
            tar.addfile(entry)
    return out.getvalue()


@pytest.mark.parametrize("running", [True, False])
def test_copied_files_have_the_containers_owners(auto, running, tmp_path):
    """Into its root, a volume, a bind and a directory that it made for itself, and back out."""
    os.chmod(tmp_path, 0o777)
    auto.ketch("run", "-d", "--name", "box", *AUTO, "-v", "data:/vol", "-v", f"{tmp_path}:/bind", *SLEEP)
    first = first_id(auto, "box")
    auto.ketch("exec", "box", "sh", "-c", "mkdir -m 700 /own; chown 9:9 /own")
    if not running:
        auto.ketch("stop", "-t", "0", "box")
    api = Api(auto.socket)
    for place in ("/", "/vol", "/bind", "/own"):
        status, answer = api("PUT", f"/containers/box/archive?path={place}", _archive(mine=(0, 0), yours=(10, 20)))
        assert status == 200, answer
    failed, answer = api("PUT", "/containers/box/archive?path=/", _archive(far=(70000, 0)))
    assert failed >= 400
    assert "user 70000 does not exist" in answer["message"]
    for place in ("", "/vol", "/bind", "/own"):
        got = _got(auto, f"{place}/yours")
        assert (got.uid, got.gid) == (10, 20), place
    assert ((tmp_path / "yours").stat().st_uid, (tmp_path / "yours").stat().st_gid) == (first + 10, first + 20)
    auto.ketch("start", "box")
    out = auto.ketch(
        "exec", "box", "stat", "-c", "%u:%g", "/mine", "/yours", "/vol/yours", "/bind/mine", "/own/yours"
    ).out
    assert out.split() == ["0:0", "10:20", "10:20", "0:0", "10:20"]
    auto.ketch("rm", "-f", "box")
    auto.ketch("volume", "rm", "data")


def test_copies_where_a_mounts_place_is_not_in_the_root(auto):
    """It is in a file system that the container alone has, and is made in the root for who copies."""
    auto.ketch("run", "-d", "--name", "box", *AUTO, "-v", "data:/dev/own/data", *SLEEP)
    auto.ketch("exec", "box", "touch", "/mine", "/dev/own/data/mine")
    for place in ("/mine", "/dev/own/data/mine"):
        found = _got(auto, place)
        assert (found.uid, found.gid) == (0, 0)
    upper = os.path.join(auto.data_root, "containers", auto.inspect("box")["Id"], "upper")
    assert {os.stat(f"{upper}/{name}").st_uid for name in ("mine", "dev/own", "dev/own/data")} == {0}
    auto.ketch("rm", "-f", "box")
    auto.ketch("volume", "rm", "data")


def _got(engine: Engine, path: str) -> tarfile.TarInfo:
    done = subprocess.run(
        [engine.ketch.program, "cp", f"box:{path}", "-"], env=engine.environment(), capture_output=True, check=True
    )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        return tar.getmembers()[0]


def test_capabilities_and_lists_of_files_go_through_archives(auto):
    """By which root a capability counts, and whom a list means, is said by ids as well."""
    auto.ketch("run", "-d", "--name", "box", *AUTO, *SLEEP)
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    acl = bytes.fromhex("0200000001000600ffffffff020006000500000004000400ffffffff10000600ffffffff20000400ffffffff")
    headers = {
        "SCHILY.xattr.security.capability": capability.decode(),
        "SCHILY.xattr.system.posix_acl_access": acl.decode("utf-8", "surrogateescape"),
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        entry = tarfile.TarInfo("program")
        entry.mode, entry.pax_headers = 0o755, headers
        tar.addfile(entry)
    status, answer = Api(auto.socket)("PUT", "/containers/box/archive?path=/", out.getvalue())
    assert status == 200, answer
    upper = os.path.join(auto.data_root, "containers", auto.inspect("box")["Id"], "upper", "program")
    assert os.getxattr(upper, "security.capability") == capability  # on the disk as in an image
    assert os.getxattr(upper, "system.posix_acl_access") == acl
    found = _got(auto, "/program").pax_headers
    assert {name: found[name] for name in headers} == headers
    first = first_id(auto, "box")
    seen = f"/proc/{auto.inspect('box')['State']['Pid']}/root/program"
    assert os.getxattr(seen, "security.capability") == b"\1\0\0\3" + capability[4:] + first.to_bytes(4, "little")


def test_commit_diff_and_export_have_the_owners_inside(auto):
    script = "mkdir /d; echo x > /d/f; chown 3:4 /d/f; chmod 4755 /d/f; rm /etc/group"
    auto.ketch("run", "--name", "one", *AUTO, "busybox", "sh", "-c", script)
    assert sorted(auto.ketch("diff", "one").out.splitlines()) == ["A /d", "A /d/f", "C /etc", "D /etc/group"]
    auto.ketch("commit", "one", "committed")
    for mode in (AUTO, (), AUTO):
        out = auto.ketch("run", "--rm", *mode, "committed", "stat", "-c", "%u:%g %a", "/d/f", "/d").out
        assert out.splitlines() == ["3:4 4755", "0:0 755"]
    auto.ketch("run", "-d", "--name", "two", *AUTO, "committed", "sleep", "1000")
    for name in ("one", "two"):
        done = subprocess.run(
            [auto.ketch.program, "export", name], env=auto.environment(), capture_output=True, check=True
        )
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
            found = tar.getmember("d/f")
        assert (found.uid, found.gid, found.mode) == (3, 4, 0o4755)
    auto.remove_all()
    auto.ketch("rmi", "committed")


def test_exec_as_other_users_and_on_a_terminal(auto):
    auto.ketch("run", "-d", "--name", "box", *AUTO, *SLEEP)
    assert auto.ketch("exec", "-u", "nobody", "box", "id", "-u").out == "65534\n"
    assert (
        auto.ketch("exec", "-u", "1000:1001", "box", "sh", "-c", "id -u; id -g; echo x > /dev/stdout").out
        == "1000\n1001\nx\n"
    )
    failed = auto.ketch("exec", "-u", "70000", "box", "id", check=False)
    assert failed.code != 0
    assert "become user 70000:0" in failed.out + failed.err
    with auto.ketch.terminal("exec", "-it", "box", "sh") as terminal:
        terminal.send("stat -c '%u:%g' $(tty)\n")
        terminal.expect("0:5")
        terminal.send("exit\n")
        terminal.wait()


def test_secrets_and_memory_belong_to_whom_they_are_for(auto, tmp_path):
    (tmp_path / "s").write_text("hidden")
    (tmp_path / "s").chmod(0o600)
    out = auto.ketch(
        "run",
        "--rm",
        *AUTO,
        "--secret",
        f"id=one,src={tmp_path}/s,uid=12,gid=13,mode=0400",
        "--tmpfs",
        "/t:uid=4,gid=5,mode=700",
        "busybox",
        "stat",
        "-c",
        "%u:%g %a",
        "/run/secrets/one",
        "/t",
    )
    assert out.out.splitlines() == ["12:13 400", "4:5 700"]


def _as(uid: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the machine as this user, with no rights."""
    return subprocess.run(
        ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *words],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def open_place(auto: Engine) -> Iterator[str]:
    """A directory of the machine that every user can write to, and the daemon's, whose modes alone count then."""
    place = tempfile.mkdtemp(dir="/tmp")
    os.chmod(place, 0o777)
    os.chmod(auto.root, 0o755)
    yield place
    os.chmod(auto.root, 0o711)
    shutil.rmtree(place)


def test_who_breaks_out_of_one_reaches_nothing_of_another(auto, open_place):
    """The escaped root of a container, with the machine's paths and processes before it."""
    for name in ("victim", "attacker"):
        auto.ketch("run", "-d", "--name", name, *AUTO, "-v", f"{open_place}:/shared", "-v", f"{name}:/vol", *SLEEP)
        auto.ketch("exec", name, "sh", "-c", f"umask 77; for d in / /vol /shared; do echo x > $d/{name}; done")
    attacker = first_id(auto, "attacker")
    victim = auto.inspect("victim")
    pid = str(victim["State"]["Pid"])
    upper = os.path.join(auto.data_root, "containers", victim["Id"], "upper")
    targets = [
        ("cat", f"{upper}/victim"),
        ("ls", upper),
        ("cat", os.path.join(auto.data_root, "volumes/victim/_data/victim")),
        ("cat", f"/proc/{pid}/root/victim"),
        ("cat", f"/proc/{pid}/environ"),
        ("kill", "-0", pid),
        ("nsenter", "-t", pid, "-m", "true"),
        ("nsenter", "-t", pid, "-U", "true"),
        ("cat", f"{open_place}/victim"),
        ("ls", auto.exec_root),
    ]
    for words in targets:
        done = _as(attacker, *words)
        assert done.returncode != 0, words
        assert "ermitted" in done.stderr or "ermission denied" in done.stderr, (words, done.stderr)
    assert _as(attacker, "cat", f"{open_place}/attacker").stdout == "x\n"  # the test itself can succeed
    out = auto.ketch("exec", "attacker", "sh", "-c", "cat /shared/victim; stat -c %u /shared/victim", check=False)
    assert "Permission denied" in out.err
    assert out.out.split() == ["65534"]
    auto.remove_all()
    auto.ketch("volume", "rm", "victim", "attacker")


def test_ids_of_a_program_are_those_of_the_image_on_the_disk(auto):
    """Two containers write to one image's files; nothing of their ranges is in their layers."""
    for name in ("one", "two"):
        auto.ketch("run", "--name", name, *AUTO, "busybox", "chown", "1:2", "/etc/passwd")
        upper = os.path.join(auto.data_root, "containers", auto.inspect(name)["Id"], "upper")
        for path in (upper, f"{upper}/etc", f"{upper}/etc/passwd"):
            assert os.stat(path).st_uid < 65536
        status = os.stat(f"{upper}/etc/passwd")
        assert (status.st_uid, status.st_gid) == (1, 2)


def test_health_checks_restarts_and_statistics(auto):
    """What is added to a running container and read of it from outside."""
    auto.ketch(
        "run",
        "-d",
        "--name",
        "box",
        *AUTO,
        "--health-cmd",
        "test $(id -u) = 0",
        "--health-interval",
        "100ms",
        "--restart",
        "always",
        *SLEEP,
    )
    until(lambda: auto.inspect("box")["State"]["Health"]["Status"] == "healthy", "healthy")
    uid = str(first_id(auto, "box"))
    top = Api(auto.socket).must("GET", "/containers/box/top", ps_args="-o pid,uid,comm")
    assert [uid, "sleep"] in [row[1:] for row in top["Processes"]]  # the check has processes, too
    auto.ketch("pause", "box")
    auto.ketch("unpause", "box")
    stats = json.loads(auto.ketch("stats", "--no-stream", "--format", "json", "box").out.splitlines()[0])
    assert int(stats["PIDs"]) >= 1
    os.kill(auto.inspect("box")["State"]["Pid"], signal.SIGKILL)
    until(lambda: (now := auto.inspect("box"))["RestartCount"] == 1 and now["State"]["Pid"], "a restart")
    assert first_id(auto, "box") == int(uid)


def test_a_file_system_that_maps_nothing_is_named(own_engine):
    """A container's root there cannot be seen as by others; nothing of the start is left."""
    mount = "mount -t overlay overlay -o lowerdir=$0/lower,upperdir=$0/upper,workdir=$0/work $0/data"
    begin = f'cd $0 && mkdir lower upper work data && {mount} && exec "$@"'
    own_engine.prefix = ["unshare", "--mount", "sh", "-c", begin, own_engine.root]
    own_engine.user_namespaces("--storage-driver", "vfs")
    own_engine.start()
    own_engine.add_busybox()
    failed = own_engine.ketch("run", "--name", "one", *AUTO, "busybox", "true", check=False)
    assert failed.code != 0
    assert "the file system of the source must support id-mapped mounts" in failed.err
    own_engine.ketch("run", "--rm", "--userns", "host", "busybox", "true")
