"""``diff``, ``export`` and ``commit``, through both clients, and images that other tools read."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import tarfile
import time

import docker.errors
import pytest

from tests.support import peers
from tests.support.waiting import patient

READY = "until test -e /ready; do sleep 0.01; done"


def started(client, script: str, *flags: str) -> str:
    """A container that has carried out a script, and goes on running."""
    name = client("run", "-d", *flags, "busybox", "sh", "-c", f"{script}; touch /ready; exec sleep 1000").out.strip()
    client("exec", name, "sh", "-c", READY)
    return name


def diff(client, name: str) -> list[str]:
    return sorted(line for line in client("diff", name).out.splitlines() if line != "A /ready")


@pytest.fixture
def image(client):
    """A name that is free, and whose image goes at the end."""
    yield "committed:test"
    client.engine.remove_all()
    client("rmi", "-f", "committed:test", check=False)


# -- diff ----------------------------------------------------------------------------------------


def test_diff(client):
    name = started(
        client, "mkdir /a; echo x >/a/f; rm /bin/vi; echo y >>/etc/passwd; touch -d @1 /etc/group; ln -s x /l"
    )
    expected = ["A /a", "A /a/f", "A /l", "C /bin", "C /etc", "C /etc/group", "C /etc/passwd", "D /bin/vi"]
    assert diff(client, name) == expected
    client("kill", name)
    assert diff(client, name) == expected


def test_diff_of_directories(client):
    script = (
        "mkdir /tmp/x; rmdir /tmp/x; "  # only its time is another one
        "chmod 700 /tmp; "
        "rm -r /bin; mkdir /bin"
    )
    name = client("create", "busybox", "/bin/sh").out.strip()
    assert diff(client, name) == []
    name = client("run", "-d", "busybox", "sh", "-c", script).out.strip()
    client("wait", name)
    found = diff(client, name)
    assert [line for line in found if "/bin" not in line] == ["C /tmp"]
    assert "C /bin" in found
    assert {"D /bin/sh", "D /bin/busybox"} <= set(found)


def test_diff_does_not_show_what_the_engine_needed(client):
    """The places of mounts are dockerd's own layer; those of volumes are shown."""
    name = started(client, "true", "-v", "/data")
    assert diff(client, name) == ["A /data"]


def test_diff_in_the_sdk(client, docker_py):
    name = started(client, "echo x > /new; rm /etc/group")
    found = docker_py.containers.get(name).diff()
    assert {"Path": "/new", "Kind": 1} in found
    assert {"Path": "/etc/group", "Kind": 2} in found
    assert {"Path": "/etc", "Kind": 0} in found


@pytest.mark.ketch_only
def test_diff_is_sorted(client):
    name = started(client, "for i in 3 1 2; do touch /f$i; done; mkdir /b /a; touch /b/x")
    paths = [line[2:] for line in client("diff", name).out.splitlines()]
    assert paths == sorted(paths)


# -- export --------------------------------------------------------------------------------------


def exported(client, name: str) -> tarfile.TarFile:
    done = subprocess.run(
        [client.program, "export", name], capture_output=True, check=True, env=client.engine.environment()
    )
    return tarfile.open(fileobj=io.BytesIO(done.stdout))


@pytest.mark.parametrize("running", [True, False])
def test_export(client, running):
    script = "echo x >/a; ln /a /b; ln -s a /c; mknod /d c 1 3; echo hidden >/vol/file; rm /bin/vi; touch -d @1.5 /a"
    name = started(client, script, "-v", "/vol", "--tmpfs", "/mem")
    if not running:
        client("kill", name)
    with exported(client, name) as archive:
        members = {m.name: m for m in archive}
        assert archive.extractfile("a").read() == b"x\n"
    assert members["b"].linkname == "a"
    assert members["c"].linkname == "a"
    assert (members["d"].devmajor, members["d"].devminor, members["d"].type) == (1, 3, tarfile.CHRTYPE)
    assert "vol" in members
    assert "vol/file" not in members
    assert not [n for n in members if n.startswith(("proc/", "sys/", "dev/null"))]
    assert "bin/vi" not in members
    assert "bin/busybox" in members


@pytest.mark.ketch_only
def test_export_keeps_attributes_and_exact_times(client, engine):
    name = started(client, "echo x >/a; chown 3:4 /a; chmod 4711 /a")
    pid = json.loads(client("inspect", name).out)[0]["State"]["Pid"]
    os.setxattr(f"/proc/{pid}/root/a", "user.note", b"\xff\x00bytes")
    os.utime(f"/proc/{pid}/root/a", ns=(1, 1_234_567_890_123_456_789))
    with exported(client, name) as archive:
        member = archive.getmember("a")
    assert (member.uid, member.gid, member.mode) == (3, 4, 0o4711)
    assert member.pax_headers["mtime"] == "1234567890.123456789"
    assert member.pax_headers["SCHILY.xattr.user.note"].encode("utf-8", "surrogateescape") == b"\xff\x00bytes"


def test_export_and_import(client, image, tmp_path):
    name = started(client, "echo kept >/a; rm /bin/vi")
    client("export", "-o", f"{tmp_path}/root.tar", name)
    client("import", "-c", 'CMD ["cat", "/a"]', f"{tmp_path}/root.tar", image)
    assert client("run", "--rm", image).out == "kept\n"
    assert client("run", "--rm", image, "test", "-e", "/bin/vi", check=False).code == 1


# -- commit --------------------------------------------------------------------------------------


@pytest.mark.parametrize("running", [True, False])
def test_commit(client, image, running):
    script = "echo new >/a; rm /bin/vi; echo more >>/etc/passwd; rm -r /tmp; mkdir /tmp; touch /tmp/only; chown 5:6 /a"
    name = started(client, script, "-e", "X=1", "-v", "/vol")
    if not running:
        client("kill", name)
    digest = client("commit", "-m", "a note", "-a", "somebody", name, image).out.strip()
    facts = json.loads(client("inspect", image).out)[0]
    assert facts["Id"] == digest
    assert (facts["Comment"], facts["Author"]) == ("a note", "somebody")
    assert "X=1" in facts["Config"]["Env"]
    assert facts["Config"]["Cmd"][0] == "sh"
    assert facts["Config"]["Volumes"] == {"/vol": {}}
    base = json.loads(client("inspect", "busybox").out)[0]
    assert facts["RootFS"]["Layers"][:-1] == base["RootFS"]["Layers"]
    check = "cat /a; stat -c %u:%g /a; ls /tmp; tail -1 /etc/passwd; test -e /bin/vi || echo gone"
    assert client("run", "--rm", image, "sh", "-c", check).out.split() == ["new", "5:6", "only", "more", "gone"]
    rows = client("history", "--format", "{{.Comment}}|{{.CreatedBy}}", "--no-trunc", image).out.splitlines()
    assert rows[0] == f"a note|sh -c {script}; touch /ready; exec sleep 1000"


def test_commit_with_changes(client, image):
    name = client("create", "busybox", "sh").out.strip()
    flags = []
    for change in (
        'CMD ["cat", "/etc/passwd"]',
        "ENTRYPOINT env",
        "ENV A=b C='d e'",
        "EXPOSE 80 53/udp",
        "LABEL l=1",
        "USER nobody",
        "VOLUME /data",
        "WORKDIR /tmp",
        "ONBUILD RUN x",
    ):
        flags += ["-c", change]
    client("commit", *flags, name, image)
    config = json.loads(client("inspect", image).out)[0]["Config"]
    assert config["Cmd"] == ["cat", "/etc/passwd"]
    assert config["Entrypoint"] == ["/bin/sh", "-c", "env"]
    assert {"A=b", "C=d e"} <= set(config["Env"])
    assert set(config["ExposedPorts"]) == {"80/tcp", "53/udp"}
    assert config["Labels"] == {"l": "1"}
    assert (config["User"], config["WorkingDir"]) == ("nobody", "/tmp")
    assert config["Volumes"] == {"/data": {}}
    assert config["OnBuild"] == ["RUN x"]


def test_commit_refuses(client):
    name = client("create", "busybox", "sh").out.strip()
    assert "not a valid change command" in client("commit", "-c", "FROM x", name, check=False).err
    assert "must be lowercase" in client("commit", name, "UPPER", check=False).err
    assert "No such container: nobody" in client("commit", "nobody", check=False).err


def test_commit_without_a_name(client):
    name = started(client, "echo x >/x")
    digest = client("commit", name).out.strip()
    assert json.loads(client("inspect", digest).out)[0]["RepoTags"] == []
    client("rm", "-f", name)
    client("rmi", digest)


def test_commit_of_a_commit(client, image):
    name = started(client, "echo 1 >/one; rm /bin/vi")
    client("commit", name, image)
    other = client("run", "-d", image, "sh", "-c", "rm /one; echo 2 >/two; touch /bin/vi").out.strip()
    client("wait", other)
    client("commit", other, image)
    client("rm", "-f", other)
    assert client("run", "--rm", image, "ls", "/two", "/bin/vi", "/one", check=False).out.split() == ["/bin/vi", "/two"]


def test_commit_of_what_was_not_changed(client, image):
    name = client("create", "busybox", "sh").out.strip()
    client("commit", name, image)
    facts = json.loads(client("inspect", image).out)[0]
    assert facts["RootFS"] == json.loads(client("inspect", "busybox").out)[0]["RootFS"]


def test_commit_in_the_sdk(client, docker_py, image):
    name = started(client, "echo x >/x")
    made = docker_py.containers.get(name).commit(
        repository="committed", tag="test", message="m", author="a", changes=["LABEL k=v"], conf={"User": "nobody"}
    )
    assert made.labels == {"k": "v"}
    assert made.attrs["Config"]["User"] == "nobody"
    assert made.attrs["Config"]["Cmd"][0] == "sh"  # what the given configuration leaves open is the container's


def events_since(client, since: float) -> list[str]:
    out = client("events", "--since", str(since), "--until", str(time.time()), "--format", "{{.Type}} {{.Action}}").out
    return out.splitlines()


@pytest.mark.parametrize("pause", [True, False])
def test_commit_pauses(client, image, pause):
    name = started(client, "echo x >/x")
    since = time.time()
    client("commit", f"--pause={'true' if pause else 'false'}", name, image)
    happened = [e for e in events_since(client, since) if not e.startswith("container exec")]
    expected = ["container pause", "container unpause"] if pause else []
    assert [e for e in happened if "pause" in e] == expected
    assert {"container commit", "image tag"} <= set(happened)
    assert client("exec", name, "echo", "goes on").out == "goes on\n"


@pytest.mark.ketch_only
def test_a_failed_commit_lets_the_container_go_on(client, request):
    if request.config.getoption("--storage-driver") == "fuse-overlayfs":
        pytest.skip("fuse-overlayfs lets nobody make such a file")
    name = started(client, "echo x >/.wh.x")
    result = client("commit", name, check=False)
    assert result.code == 1
    assert "/.wh.x" in result.err
    assert json.loads(client("inspect", name).out)[0]["State"]["Status"] == "running"


def test_a_paused_container_stays_paused(client, image):
    name = started(client, "echo x >/x")
    client("pause", name)
    client("commit", name, image)
    assert json.loads(client("inspect", name).out)[0]["State"]["Status"] == "paused"
    client("unpause", name)


@pytest.mark.ketch_only
def test_a_daemon_that_dies_during_a_commit(own_engine):
    own_engine.start()
    own_engine.add_busybox()
    name = started(own_engine.docker, "dd if=/dev/urandom of=/big bs=1M count=300 2>/dev/null")
    with contextlib.closing(own_engine.py()) as sdk:
        committing = own_engine.docker.piped("commit", name)
        deadline = time.monotonic() + patient(10)
        while sdk.api.inspect_container(name)["State"]["Status"] != "paused":
            assert time.monotonic() < deadline
    own_engine.stop(9)
    with committing:
        committing.wait()
    own_engine.start()
    assert own_engine.docker("exec", name, "echo", "goes on").out == "goes on\n"


def test_a_committed_image_can_be_read_elsewhere(client, image, tmp_path):
    name = started(client, "echo kept >/a; rm /bin/vi; ln /a /b; rm -r /tmp; mkdir /tmp; echo x >/tmp/in")
    client("commit", name, image)
    client("save", "-o", f"{tmp_path}/saved.tar", image)
    skopeo = peers.command("skopeo", "inspect", f"docker-archive:{tmp_path}/saved.tar")
    done = subprocess.run(skopeo, capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout)["Layers"]) == 2
    with tarfile.open(tmp_path / "saved.tar") as archive:
        manifest = json.load(archive.extractfile("manifest.json"))[0]
        with tarfile.open(fileobj=archive.extractfile(manifest["Layers"][-1])) as layer:
            members = {m.name.rstrip("/"): m for m in layer}
    assert "bin/.wh.vi" in members
    assert members["b"].linkname == "a"
    assert "a" in members
    assert not [n for n in members if n.startswith(("proc", "sys", "dev", "etc/hosts"))]
    client.engine.remove_all()
    client("rmi", image)
    client("load", "-i", f"{tmp_path}/saved.tar")
    assert client("run", "--rm", image, "cat", "/b", "/tmp/in").out == "kept\nx\n"


# -- sizes ---------------------------------------------------------------------------------------


def test_sizes_count_hard_links_once(client, docker_py):
    name = started(client, "dd if=/dev/zero of=/a bs=1000 count=100 2>/dev/null; ln /a /b; ln /a /c")
    assert docker_py.api.inspect_container(name)["State"]["Running"]
    url = docker_py.api._url("/containers/{0}/json", name)
    facts = docker_py.api.get(url, params={"size": 1}).json()
    assert facts["SizeRw"] == 100_000
    assert facts["SizeRootFs"] == 100_000 + docker_py.images.get("busybox").attrs["Size"]
    assert client("ps", "--size", "--format", "{{.Size}}").out.startswith("100kB (virtual ")


def test_no_such_container(docker_py):
    for call in (docker_py.api.diff, docker_py.api.export, docker_py.api.commit):
        with pytest.raises(docker.errors.NotFound):
            list(call("nobody"))  # an export is looked at when it is read
