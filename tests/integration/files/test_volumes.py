"""Mounts as the clients offer them: bind, volume, tmpfs."""

from __future__ import annotations

import json
import os
import shutil
import stat

import pytest


def test_bind(client, tmp_path):
    (tmp_path / "in").write_text("from the host\n", encoding="utf-8")
    script = "cat /m/in; echo from inside > /m/out"
    assert client("run", "--rm", "-v", f"{tmp_path}:/m", "busybox", "sh", "-c", script).out == "from the host\n"
    assert (tmp_path / "out").read_text(encoding="utf-8") == "from inside\n"


@pytest.mark.parametrize("options", [("-v", "{}:/m:ro"), ("--mount", "type=bind,src={},dst=/m,readonly")])
def test_read_only_bind(client, tmp_path, options):
    result = client("run", "--rm", options[0], options[1].format(tmp_path), "busybox", "touch", "/m/x", check=False)
    assert result.code == 1
    assert "Read-only file system" in result.err


def test_bind_of_a_file(client, tmp_path):
    path = tmp_path / "one"
    path.write_text("a file", encoding="utf-8")
    assert client("run", "--rm", "-v", f"{path}:/deep/er/one", "busybox", "cat", "/deep/er/one").out == "a file"


def test_bind_source_is_made_or_refused(client, tmp_path):
    client("run", "--rm", "-v", f"{tmp_path}/new:/m", "busybox", "touch", "/m/x")
    assert (tmp_path / "new" / "x").exists()
    result = client("run", "--rm", "--mount", f"type=bind,src={tmp_path}/none,dst=/m", "busybox", check=False)
    assert result.code == 125
    assert "does not exist" in result.err
    assert client("ps", "-aq").out == ""


def test_bind_sources_are_made_by_each_start(engine, client, tmp_path):
    made, kept = tmp_path / "a" / "made", tmp_path / "kept"
    kept.mkdir()
    words = ("-v", f"{made}:/m", "--mount", f"type=bind,src={kept},dst=/k")
    client("create", "--name", "box", *words, "busybox", "sh", "-c", "touch /m/x; ls /k")
    assert not made.parent.exists()
    for _ in range(2):
        client("start", "-a", "box")
        assert os.listdir(made) == ["x"]
        shutil.rmtree(made.parent)
    (tmp_path / "into").write_text("y", encoding="utf-8")
    client("cp", str(tmp_path / "into"), "box:/m/")
    assert os.listdir(made) == ["into"]
    kept.rmdir()
    refused = client("start", "box", check=False)
    assert f'invalid mount config for type "bind": bind source path does not exist: {kept}' in refused.err
    kept.mkdir()
    shutil.rmtree(made.parent)
    made.parent.touch()
    refused = client("start", "box", check=False)
    assert "not a directory" in refused.err


def test_a_bound_dev_is_the_hosts(client):
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        host = [line for line in f if line.split()[4] in ("/dev/pts", "/dev/shm")]
    script = "grep -E ' /dev(/pts|/shm) ' /proc/self/mountinfo | wc -l; tty; echo > /dev/null"
    with client.terminal("run", "--rm", "-it", "-v", "/dev:/dev", "busybox", "sh", "-c", script) as terminal:
        terminal.expect(rf"{len(host)}\r\n/dev/(pts/\d+|console)\r\n")
        assert terminal.wait() == 0


def test_named_volume_stays(client):
    name = f"kt-{client.name}"
    try:
        client("run", "--rm", "-v", f"{name}:/data", "busybox", "sh", "-c", "echo kept > /data/x")
        assert client("run", "--rm", "--mount", f"src={name},dst=/d", "busybox", "cat", "/d/x").out == "kept\n"
        assert client("run", "--rm", "-v", f"{name}:/d:ro", "busybox", "touch", "/d/y", check=False).code == 1
    finally:
        client.engine.docker("volume", "rm", name)


def test_new_volume_takes_the_image_files(client):
    """What the image has at the mount point is copied into a new volume."""
    assert "busybox" in client("run", "--rm", "-v", "/bin", "busybox", "ls", "/bin").out
    assert client("run", "--rm", "-v", "/root", "busybox", "stat", "-c", "%a", "/root").out.strip() in ("755", "700")


def test_anonymous_volume_goes_with_its_container(client):
    client("run", "--name", "holder", "-v", "/data", "busybox", "true")
    (mount,) = json.loads(client("inspect", "holder").out)[0]["Mounts"]
    assert mount["Type"] == "volume" and mount["Destination"] == "/data"
    client("rm", "-v", "holder")
    assert mount["Name"] not in client.engine.docker("volume", "ls", "-q").out


@pytest.mark.parametrize(
    "options", [("--tmpfs", "/t:size=1m,mode=1770"), ("--mount", "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770")]
)
def test_tmpfs(client, options):
    script = "stat -f -c %T /t; stat -c %a /t; dd if=/dev/zero of=/t/x bs=1M count=2 2>&1 | grep -c space"
    out = client("run", "--rm", *options, "busybox", "sh", "-c", script, check=False).out.split()
    assert out == ["tmpfs", "1770", "1"]


def test_volumes_from(client):
    client("run", "--name", "holder", "-v", "/data", "busybox", "sh", "-c", "echo shared > /data/x")
    assert client("run", "--rm", "--volumes-from", "holder", "busybox", "cat", "/data/x").out == "shared\n"


def test_shm_size(client):
    assert (
        client("run", "--rm", "--shm-size", "2m", "busybox", "sh", "-c", "df -k /dev/shm | tail -1").out.split()[1]
        == "2048"
    )


def test_a_volume_with_dockers_label_is_anonymous(client):
    client("volume", "create", "--label", "com.docker.volume.anonymous=", "labelled")
    client("volume", "create", "plain")
    assert "labelled" in client("volume", "prune", "-f").out.split()
    assert client("volume", "rm", "labelled", check=False).code == 1
    client("volume", "rm", "plain")


def test_an_inherited_volume_goes_with_its_last_user(client):
    client("run", "-d", "--name", "owner", "-v", "/shared", "busybox", "sleep", "1000")
    client("run", "-d", "--name", "guest", "--volumes-from", "owner", "busybox", "sleep", "1000")
    volume = client("inspect", "-f", "{{(index .Mounts 0).Name}}", "guest").out.strip()
    client("rm", "-fv", "owner")
    assert volume in client("volume", "ls", "-q").out
    client("rm", "-fv", "guest")
    assert volume not in client("volume", "ls", "-q").out


@pytest.mark.ketch_only
def test_a_mount_on_dev_is_named(engine, tmp_path):
    """It hides what a start needs, which is not what was asked for."""
    bind = ["-v", f"{tmp_path}:/dev"]
    for options, said in (([], "has no `/dev/null`"), (["-t"], "open a terminal in `/dev/pts`")):
        done = engine.client("run", "--rm", *options, *bind, "busybox", "true", check=False)
        assert done.code != 0
        assert said in done.err
        assert "what is mounted on `/dev` hides" in done.err
        if not options:
            os.mknod(tmp_path / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
