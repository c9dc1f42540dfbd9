"""Volumes with options, parts of volumes, images as mounts, owners of files, backups: with the real clients."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import subprocess
import tarfile

import pytest

from ketch.runtime.rootfs import host_mount
from tests.support.rawapi import Api

ME = 1000


@pytest.fixture
def mine(tmp_path):
    """A directory of an ordinary user."""
    place = tmp_path / "mine"
    place.mkdir()
    (place / "note").write_text("x", encoding="utf-8")
    for path in (place, place / "note"):
        os.chown(path, ME, ME)
    return place


def owners(place) -> dict[str, tuple[int, int]]:
    return {name: (s.st_uid, s.st_gid) for name in os.listdir(place) for s in [os.lstat(place / name)]}


def volume(client, *options: str) -> str:
    return client("volume", "create", *options).out.strip()


@pytest.fixture
def volumes(client):
    """Names that are removed at the end."""
    names: list[str] = []
    yield names
    client.engine.remove_all()
    client("volume", "rm", "-f", *names)


# -- whose files ---------------------------------------------------------------------------------


@pytest.mark.ketch_only
def test_files_belong_to_the_directorys_owner(client, mine):
    script = "stat -c %u:%g /m/note; mkdir /m/dir; touch /m/dir/file /m/new; chown 33:33 /m/new"
    assert client("run", "--rm", "-v", f"{mine}:/m:idmap", "busybox", "sh", "-c", script).out == "0:0\n"
    assert owners(mine) == {"note": (ME, ME), "dir": (ME, ME), "new": (33, 33)}
    assert owners(mine / "dir") == {"file": (ME, ME)}


@pytest.mark.ketch_only
@pytest.mark.parametrize("user", ["1234:1235", "nobody"])
def test_files_belong_to_the_owner_whoever_runs(client, mine, user):
    client("run", "--rm", "-u", user, "-v", f"{mine}:/m:idmap", "busybox", "touch", "/m/new")
    assert owners(mine)["new"] == (ME, ME)


def test_without_it_files_belong_to_the_containers_user(client, mine):
    client("run", "--rm", "-v", f"{mine}:/m", "busybox", "touch", "/m/new")
    assert owners(mine)["new"] == (0, 0)


@pytest.mark.ketch_only
def test_a_full_mapping(engine, mine):
    option = f"type=bind,src={mine},dst=/m,idmap=uids={ME}-7-1;gids={ME}-8-1"
    out = engine.ketch("run", "--rm", "--mount", option, "busybox", "stat", "-c", "%u:%g", "/m/note").out
    assert out == "7:8\n"


@pytest.mark.parametrize("word", ["idmap=nonsense", "idmap=uids=1-2", "idmap=uids=0-0-2#1-5-1"])
def test_wrong_mappings_are_refused(client, mine, word):
    result = client("run", "--rm", "-v", f"{mine}:/m:{word}", "busybox", "true", check=False)
    assert result.code == 125
    assert "idmap" in result.err


@pytest.mark.ketch_only
def test_a_file_system_that_cannot_map_owners_says_so(client):
    result = client("run", "--rm", "-v", "/proc:/m:idmap", "busybox", "true", check=False)
    assert result.code == 125
    assert "file system of the source must support id-mapped mounts" in result.err


# -- volumes with options ------------------------------------------------------------------------


@pytest.mark.ketch_only  # dockerd mounts it in its own namespace, where the test does not look
def test_a_volume_in_memory_lives_while_it_is_used(client, volumes):
    volumes.append(volume(client, "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,uid=3", "kt-memory"))
    place = json.loads(client("volume", "inspect", "kt-memory").out)[0]["Mountpoint"]
    assert not host_mount.is_mounted(place)
    client("run", "-d", "--name", "one", "-v", "kt-memory:/t", "busybox", "sleep", "1000")
    assert host_mount.is_mounted(place)
    assert client("exec", "one", "stat", "-f", "-c", "%T", "/t").out == "tmpfs\n"
    client("exec", "one", "touch", "/t/x")
    assert client("run", "--rm", "-v", "kt-memory:/t", "busybox", "ls", "/t").out == "x\n"
    assert host_mount.is_mounted(place)
    client("rm", "-f", "one")
    assert not host_mount.is_mounted(place)


def test_a_directory_as_volume_outlives_it(client, volumes, mine):
    volumes.append(volume(client, "-o", "type=none", "-o", f"device={mine}", "-o", "o=bind", "kt-dir"))
    assert client("run", "--rm", "-v", "kt-dir:/d", "busybox", "cat", "/d/note").out == "x"
    client("run", "-d", "--name", "one", "-v", "kt-dir:/d", "busybox", "sleep", "1000")
    assert client("volume", "rm", "kt-dir", check=False).code == 1
    client("rm", "-f", "one")
    client("volume", "rm", "kt-dir")
    assert (mine / "note").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["o=bind"], 'missing required option: "device"'),
        (["type=tmpfs"], 'missing required option: "device"'),
        (["colour=red"], 'invalid option: "colour"'),
    ],
)
def test_options_that_mean_nothing(client, options, said):
    flags = [word for option in options for word in ("-o", option)]
    result = client("volume", "create", *flags, "kt-wrong", check=False)
    assert result.code == 1
    assert said in result.err


def test_a_failed_mount_is_the_containers_error(client, volumes):
    volumes.append(volume(client, "-o", "type=none", "-o", "device=/does/not/exist", "-o", "o=bind", "kt-none"))
    result = client("run", "--rm", "-v", "kt-none:/d", "busybox", "true", check=False)
    assert result.code in (125, 127)
    assert "failed to mount local volume" in result.err and "no such file or directory" in result.err


def test_mounted_volumes_survive_a_killed_daemon(own_engine):
    engine = own_engine
    engine.start()
    engine.add_busybox()
    client = engine.docker
    volume(client, "-o", "type=tmpfs", "-o", "device=tmpfs", "kt-memory")
    place = json.loads(client("volume", "inspect", "kt-memory").out)[0]["Mountpoint"]
    container = client("run", "-d", "--name", "one", "-v", "kt-memory:/t", "busybox", "sleep", "1000").out.strip()
    client("exec", "one", "touch", "/t/x")
    engine.stop(signal.SIGKILL)
    engine.start()
    assert client("run", "--rm", "-v", "kt-memory:/t", "busybox", "ls", "/t").out == "x\n"
    engine.stop(signal.SIGKILL)
    with open(f"{engine.exec_root}/run/{container}/monitor.pid", encoding="ascii") as f:
        os.kill(int(f.read()), signal.SIGKILL)
    engine.start()
    assert not host_mount.is_mounted(place)
    client("rm", "-f", "one")
    client("volume", "rm", "kt-memory")


# -- --mount -------------------------------------------------------------------------------------


def test_a_part_of_a_volume(client, volumes):
    volumes.append("kt-parts")
    script = "mkdir -p /d/a/b; echo deep > /d/a/b/f; ln -s /etc /d/out; echo one > /d/file"
    client("run", "--rm", "-v", "kt-parts:/d", "busybox", "sh", "-c", script)
    base = "type=volume,src=kt-parts,dst=/p,volume-subpath="
    assert client("run", "--rm", "--mount", base + "a/b", "busybox", "cat", "/p/f").out == "deep\n"
    assert client("run", "--rm", "--mount", base + "file", "busybox", "cat", "/p").out == "one\n"
    for wrong in ("nothing", "out", "../..", "/etc"):
        assert client("run", "--rm", "--mount", base + wrong, "busybox", "true", check=False).code in (125, 127)


def test_an_image_as_mount(client):
    base = "type=image,src=busybox,dst=/img"
    assert "busybox" in client("run", "--rm", "--mount", base, "busybox", "ls", "/img/bin").out
    assert client("run", "--rm", "--mount", base, "busybox", "touch", "/img/x", check=False).code == 1
    assert "busybox" in client("run", "--rm", "--mount", base + ",image-subpath=bin", "busybox", "ls", "/img").out
    client("create", "--name", "one", "--mount", base, "busybox")
    (shown,) = json.loads(client("inspect", "one").out)[0]["Mounts"]
    assert (shown["Type"], shown["RW"]) == ("image", False)
    assert shown["Name"] == "busybox"


def test_bind_of_what_is_mounted_below(client, tmp_path):
    """bind-recursive: by default what is mounted below comes along, and is read-only with the rest."""
    (tmp_path / "below").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path / "below"], check=True)
    try:
        (tmp_path / "below" / "in").touch()
        base = f"type=bind,src={tmp_path},dst=/m"

        def run(options: str, *command: str) -> int:
            return client("run", "--rm", "--mount", base + options, "busybox", *command, check=False).code

        assert run("", "test", "-e", "/m/below/in") == 0
        assert run(",bind-recursive=disabled", "test", "-e", "/m/below/in") == 1
        assert run(",readonly", "touch", "/m/below/x") == 1
        assert run(",readonly,bind-recursive=writable", "touch", "/m/below/x") == 0
        assert run(",readonly,bind-recursive=writable", "touch", "/m/x") == 1
        assert run(",readonly,bind-recursive=readonly,bind-propagation=rprivate", "touch", "/m/below/y") == 1
    finally:
        subprocess.run(["umount", "-l", tmp_path / "below"], check=True)


def test_options_of_the_new_volume(client, volumes):
    volumes.append("kt-new")
    option = (
        "type=volume,src=kt-new,dst=/d,volume-label=a=b,volume-driver=local,volume-opt=type=tmpfs,volume-opt=device=tmpfs,"
        '"volume-opt=o=size=1m,uid=5"'
    )
    assert client("run", "--rm", "--mount", option, "busybox", "stat", "-c", "%u", "/d").out == "5\n"
    shown = json.loads(client("volume", "inspect", "kt-new").out)[0]
    assert shown["Labels"] == {"a": "b"}
    assert shown["Options"] == {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=5"}


@pytest.mark.parametrize("option", ["-v", "--mount"])
def test_nocopy(client, volumes, option):
    volumes.append("kt-nocopy")
    text = "kt-nocopy:/bin/d:nocopy" if option == "-v" else "src=kt-nocopy,dst=/bin/d,volume-nocopy"
    text = text.replace("/bin/d", "/etc")
    assert client("run", "--rm", option, text, "busybox", "ls", "/etc/passwd", check=False).code == 1


def test_tmpfs_options_of_the_api(engine):
    api = Api(engine.socket)

    def create(*options: list[str]):
        mount = {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"Options": options}}
        body = {"Image": "busybox", "Cmd": ["grep", " /t ", "/proc/mounts"], "HostConfig": {"Mounts": [mount]}}
        return api("POST", "/containers/create", body)

    status, made = create(["exec"])
    assert status == 201, made
    api.must("POST", f"/containers/{made['Id']}/start")
    api.must("POST", f"/containers/{made['Id']}/wait")
    assert b"noexec" not in api.must("GET", f"/containers/{made['Id']}/logs", stdout=1)
    for option, words in (
        (["uid", "7"], "invalid option: uid"),
        (["size", "1m"], "invalid option: size"),
        (["nosuid"], "invalid option: nosuid"),
        (["a", "b", "c"], "invalid option array length"),
        ([], "invalid option array length"),
    ):
        status, answer = create(option)
        assert (status, answer["message"]) == (400, f'invalid mount config for type "tmpfs": {words}')


@pytest.mark.parametrize(
    "mount",
    [
        {"Binds": ["own-etc:/etc"]},
        {"Binds": ["HOST:/etc"]},
        {"Binds": ["HOST:/etc:ro"]},
        {"Tmpfs": {"/etc": ""}},
        {"Mounts": [{"Type": "tmpfs", "Target": "/etc"}]},
        {"Mounts": [{"Type": "bind", "Source": "HOST", "Target": "/etc"}]},
    ],
    ids=str,
)
def test_a_mount_on_etc_is_below_the_files_of_the_engine(engine, tmp_path, mount):
    """hosts, hostname and resolv.conf are on top of it, whatever it is."""
    host = json.loads(json.dumps(mount).replace("HOST", str(tmp_path)))
    if ":ro" in str(mount):  # else there would be nothing to mount them on
        for name in ("hosts", "hostname", "resolv.conf"):
            (tmp_path / name).touch()
    script = "cat /etc/hostname; grep -c name /etc/hosts; test -s /etc/resolv.conf && echo resolv; echo x > /etc/own"
    body = {"Image": "busybox", "Hostname": "myname", "Cmd": ["sh", "-c", script], "HostConfig": host}
    api = Api(engine.socket)
    made = api.must("POST", "/containers/create", body)["Id"]
    api.must("POST", f"/containers/{made}/start")
    api.must("POST", f"/containers/{made}/wait")
    log = api.must("GET", f"/containers/{made}/logs", stdout=1)
    assert [word for word in (b"myname\n", b"1\n", b"resolv\n") if word not in log] == []
    if "HOST" in str(mount) and ":ro" not in str(mount):
        assert (tmp_path / "own").read_text() == "x\n"
    api.must("DELETE", f"/containers/{made}", v=1)
    api("DELETE", "/volumes/own-etc")


@pytest.mark.ketch_only  # dockerd sees no mounts that are made here
@pytest.mark.parametrize(
    ("mode", "kind", "takes"),
    [
        ("rshared", "shared", False),
        ("shared", "shared", False),
        ("slave", "shared or slave", False),
        ("rprivate", "", True),
    ],
)
@pytest.mark.parametrize("option", ["Binds", "Mounts"])
def test_propagation_needs_a_mount_that_has_it(engine, tmp_path, mode, kind, takes, option):
    place = tmp_path / "a b"
    place.mkdir()
    (place / "in").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    try:
        (place / "in").mkdir()
        subprocess.run(["mount", "--make-private", place], check=True)
        source = str(place / "in")
        host = {
            "Binds": [f"{source}:/x:{mode}"],
            "Mounts": [{"Type": "bind", "Source": source, "Target": "/x", "BindOptions": {"Propagation": mode}}],
        }
        api = Api(engine.socket)
        body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {option: host[option]}}
        made = api.must("POST", "/containers/create", body)["Id"]
        status, answer = api("POST", f"/containers/{made}/start")
        if takes:
            assert status == 204, answer
        else:
            words = f"path {source} is mounted on {place} but it is not a {kind} mount"
            assert (status >= 400, words in answer["message"]) == (True, True), answer
            subprocess.run(["mount", "--make-shared", place], check=True)
            api.must("POST", f"/containers/{made}/start")
        api.must("POST", f"/containers/{made}/wait")
    finally:
        subprocess.run(["umount", place], check=True)


def test_mounts_are_ordered_by_their_depth(engine, tmp_path):
    (tmp_path / "marker").touch()
    host = {"Binds": [f"{tmp_path}:/a/b/c", "deep:/a"], "Tmpfs": {"/a/b": ""}}
    body = {"Image": "busybox", "Cmd": ["ls", "/a/b/c/marker"], "HostConfig": host}
    api = Api(engine.socket)
    made = api.must("POST", "/containers/create", body)["Id"]
    api.must("POST", f"/containers/{made}/start")
    assert api.must("POST", f"/containers/{made}/wait")["StatusCode"] == 0
    api.must("DELETE", f"/containers/{made}", v=1)
    api("DELETE", "/volumes/deep")


def test_an_image_mount_as_inspect_shows_it(engine):
    mount = {"Type": "image", "Source": "busybox:latest", "Target": "/x"}
    api = Api(engine.socket)
    made = api.must("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Mounts": [mount]}})
    assert made["Warnings"] == ["Image mount is an experimental feature"]
    (point,) = api.must("GET", f"/containers/{made['Id']}/json")["Mounts"]
    assert point.pop("Source").startswith("/")
    assert point == {
        "Type": "image",
        "Name": "busybox:latest",
        "Destination": "/x",
        "Mode": "",
        "RW": False,
        "Propagation": "rprivate",
    }


# -- verbs ---------------------------------------------------------------------------------------


def test_prune_says_how_much(client):
    name = volume(client)
    volume(client, "kt-named")
    client("run", "--rm", "-v", f"{name}:/d", "busybox", "dd", "if=/dev/zero", "of=/d/x", "bs=1M", "count=2")
    out = client("volume", "prune", "-f").out
    assert name in out and "kt-named" not in out
    assert "Total reclaimed space: 2.09" in out
    assert "kt-named" in client("volume", "prune", "-af").out


def test_lists_and_filters(client, volumes):
    volumes.append(volume(client, "--label", "a=b", "kt-labelled"))
    volumes.append(volume(client, "kt-plain"))
    client("create", "--name", "one", "-v", "kt-plain:/d", "busybox")
    assert client("volume", "ls", "-q", "--filter", "label=a=b").out == "kt-labelled\n"
    assert client("volume", "ls", "-q", "--filter", "dangling=false", "--filter", "name=kt-").out == "kt-plain\n"
    assert client("volume", "ls", "-q", "--filter", "dangling=perhaps", check=False).code == 1
    assert client("volume", "ls", "--filter", "name=kt-p").out.splitlines()[1].split() == ["local", "kt-plain"]
    again = volume(client, "kt-plain")
    assert again == "kt-plain"


# -- backup and restore ----------------------------------------------------------------------------


@pytest.mark.ketch_only
def test_a_backup_holds_everything_and_comes_back(engine, tmp_path):
    client, archive = engine.ketch, tmp_path / "backup.tar"
    script = """mkdir -p /d/sub; echo hello > /d/sub/f; ln /d/sub/f /d/hard; ln -s /etc/passwd /d/soft; mkfifo /d/fifo
        chown 12:34 /d/sub/f; chmod 4711 /d/sub/f; touch -d '2001-02-03 04:05:06' /d/sub; touch /d/.wh.kept
        chmod 1777 /d"""
    try:
        client("run", "--rm", "-v", "kt-from:/d", "busybox", "sh", "-c", script)
        place = json.loads(client("volume", "inspect", "kt-from").out)[0]["Mountpoint"]
        os.setxattr(f"{place}/sub/f", "user.note", b"\0\xff")
        client("volume", "backup", "-o", str(archive), "kt-from")
        client("volume", "restore", "-i", str(archive), "kt-to")
        there = json.loads(client("volume", "inspect", "kt-to").out)[0]["Mountpoint"]
        assert _picture(there) == _picture(place)
        assert os.path.samefile(f"{there}/sub/f", f"{there}/hard")
        assert os.getxattr(f"{there}/sub/f", "user.note") == b"\0\xff"
        refused = client("volume", "restore", "-i", str(archive), "kt-to", check=False)
        assert refused.code == 1 and "not empty" in refused.err
        client("run", "--rm", "-v", "kt-to:/d", "busybox", "touch", "/d/later")
        client("volume", "restore", "--force", "-i", str(archive), "kt-to")
        assert _picture(there) == _picture(place)
    finally:
        client("volume", "rm", "-f", "kt-from", "kt-to")


def _picture(root: str) -> list[tuple]:
    """What everything below a directory looks like."""
    seen = []
    for directory, names, files in os.walk(root):
        for name in sorted([*names, *files, "."]):
            status = os.lstat(os.path.join(directory, name))
            kind, size = stat.S_IFMT(status.st_mode), status.st_size if stat.S_ISREG(status.st_mode) else 0
            where = os.path.relpath(os.path.join(directory, name), root)
            seen.append((where, kind, status.st_mode, status.st_uid, status.st_gid, size, status.st_mtime_ns))
    return sorted(seen)


def test_a_broken_archive_changes_nothing(engine):
    client = engine.ketch
    try:
        client("run", "--rm", "-v", "kt-safe:/d", "busybox", "touch", "/d/mine")
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("new"))
            archive.addfile(tarfile.TarInfo("../escape"))
        for bad in (data.getvalue(), data.getvalue()[:700], b"nonsense" * 100):
            result = client("volume", "restore", "--force", "kt-safe", stdin=bad, check=False)
            assert result.code == 1
            assert client("run", "--rm", "-v", "kt-safe:/d", "busybox", "ls", "-A", "/d").out == "mine\n"
        assert client("volume", "restore", "kt-made", stdin=b"nonsense" * 100, check=False).code == 1
        assert client("volume", "inspect", "kt-made", check=False).code == 1
    finally:
        client("volume", "rm", "-f", "kt-safe")


@pytest.mark.ketch_only
def test_a_volume_in_use_is_not_restored(engine):
    client = engine.ketch
    client("run", "-d", "--name", "one", "-v", "kt-busy:/d", "busybox", "sleep", "1000")
    try:
        result = client("volume", "restore", "--force", "kt-busy", stdin=b"\0" * 1024, check=False)
        assert result.code == 1 and "running containers use it: one" in result.err
        assert client("volume", "backup", "kt-busy").code == 0
    finally:
        client("rm", "-f", "one")
        client("volume", "rm", "kt-busy")


def test_only_proc_is_mounted_on_proc(engine, tmp_path):
    """What is written there decides about labels and parameters: in somebody's files it would decide about nothing."""
    try:
        for flags in (
            ("-v", f"{tmp_path}:/proc"),
            ("-v", "notproc:/proc"),
            ("-v", "/:/proc"),
            ("-v", "/sys:/x/../proc"),
            ("--mount", f"type=bind,src={tmp_path},dst=/proc,readonly"),
            ("--tmpfs", "/proc"),
        ):
            done = engine.docker("run", "--rm", *flags, "busybox", "true", check=False)
            assert done.code != 0, flags
            assert "proc" in done.err, (flags, done.err)
        assert os.listdir(tmp_path) == []
        assert engine.docker("run", "--rm", "-v", "/proc:/proc", "busybox", "cat", "/proc/version").code == 0
    finally:
        engine.remove_all()
        engine.docker("volume", "rm", "-f", "notproc")


# -- what is mounted later -----------------------------------------------------------------------


@pytest.fixture
def mounted(tmp_path):
    """A mount of the host's that is private at first."""
    place = tmp_path / "host"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    subprocess.run(["mount", "--make-private", place], check=True)
    yield place
    subprocess.run(["umount", "-R", place], check=True)


@pytest.mark.ketch_only  # a dockerd of the tests has a mount namespace of its own
def test_mounts_inside_a_shared_bind_reach_the_host_and_come_from_there(client, mounted):
    words = ("run", "-d", "--privileged", "--name", "box", "-v", f"{mounted}:/x:rshared", "busybox", "sleep", "1000")
    refused = client(*words, check=False)
    assert f"path {mounted} is mounted on {mounted} but it is not a shared mount" in refused.err
    client("rm", "box")
    subprocess.run(["mount", "--make-shared", mounted], check=True)
    client(*words)
    client("exec", "box", "sh", "-c", "mkdir /x/in /x/out && mount -t tmpfs tmpfs /x/in && touch /x/in/side")
    assert os.path.ismount(mounted / "in")
    assert os.listdir(mounted / "in") == ["side"]
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", mounted / "out"], check=True)
    (mounted / "out" / "side").touch()
    assert client("exec", "box", "ls", "/x/out").out == "side\n"
    slave = client("run", "--rm", "-v", f"{mounted}:/x:rslave", "busybox", "grep", " /x ", "/proc/self/mountinfo").out
    assert "master:" in slave
    assert "shared:" not in slave


def test_binds_around_the_daemons_directory_are_slaves(engine, client):
    for number, source in enumerate(("/", engine.data_root, os.path.join(engine.data_root, "volumes"))):
        client("create", "--name", f"box{number}", "-v", f"{source}:/x:ro", "busybox")
        assert engine.inspect(f"box{number}")["Mounts"][0]["Propagation"] == "rslave"
    client("create", "--name", "beside", "-v", "/etc:/x", "busybox")
    assert engine.inspect("beside")["Mounts"][0]["Propagation"] == "rprivate"
    for words in (("-v", "/:/x:private"), ("--mount", "type=bind,src=/,dst=/x,bind-propagation=slave")):
        refused = client("create", *words, "busybox", check=False)
        assert 'must use either propagation mode "rslave" or "rshared" when mount source is within' in refused.err


def test_anonymous_volumes_are_not_read_only(client):
    refused = client("create", "--mount", "type=volume,dst=/x,readonly", "busybox", check=False)
    assert "must not set ReadOnly mode when using anonymous volumes" in refused.err
