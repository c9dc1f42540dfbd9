"""``/containers/{id}/archive`` as programs use it: volumes, read-only places, statuses, clients that leave."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import socket
import stat
import subprocess
import tarfile
import threading
import time
import urllib.parse

import docker.errors
import pytest
import requests

from tests.support.rawapi import Unix
from tests.support.waiting import patient, until

NOBODY = 65534


def tar_of(*files: tuple[str, bytes], **facts: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in facts.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def names(docker_py, container: str, path: str) -> list[str]:
    data = b"".join(docker_py.api.get_archive(container, path)[0])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getnames()


def read(docker_py, container: str, path: str) -> bytes:
    data = b"".join(docker_py.api.get_archive(container, path)[0])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.extractfile(archive.next()).read()


def status_of(docker_py, method: str, container: str, **query: str) -> int:
    url = docker_py.api._url("/containers/{0}/archive", container)
    return docker_py.api.request(method, url, params=query, data=b"" if method == "PUT" else None).status_code


def create(engine, *flags: str, run: bool = False, command: tuple[str, ...] = ("sleep", "1000")) -> str:
    verb = ["run", "-d"] if run else ["create"]
    return engine.docker(*verb, *flags, "busybox", *command).out.strip()


@pytest.mark.parametrize("run", [True, False])
def test_volumes_and_binds(engine, docker_py, tmp_path, run):
    (tmp_path / "of-host").write_text("host", encoding="utf-8")
    name = create(engine, "-v", "/data", "-v", f"{tmp_path}:/bind/here", "-v", "/data/inner", run=run)
    for place in ("/data", "/data/inner", "/bind/here"):
        assert docker_py.api.put_archive(name, place, tar_of(("x", place.encode())))
        assert read(docker_py, name, f"{place}/x") == place.encode()
    assert (tmp_path / "x").read_bytes() == b"/bind/here"
    assert read(docker_py, name, "/bind/here/of-host") == b"host"
    assert "data/inner/x" in names(docker_py, name, "/data")
    if not run:
        engine.docker("start", name)
    assert engine.docker("exec", name, "cat", "/data/x", "/data/inner/x").out == "/data/data/inner"


@pytest.mark.ketch_only
def test_tmpfs_of_a_running_container(engine, docker_py):
    """dockerd writes below the tmpfs, where the container does not see it."""
    name = create(engine, "--tmpfs", "/scratch", run=True)
    docker_py.api.put_archive(name, "/scratch", tar_of(("x", b"in memory")))
    assert engine.docker("exec", name, "cat", "/scratch/x").out == "in memory"
    assert read(docker_py, name, "/scratch/x") == b"in memory"


def test_files_of_the_engine(engine, docker_py):
    name = create(engine, "-h", "my-host", run=True)
    assert read(docker_py, name, "/etc/hostname") == b"my-host\n"
    assert b"my-host" in read(docker_py, name, "/etc/hosts")
    engine.docker("kill", name)
    assert read(docker_py, name, "/etc/hostname") == b"my-host\n"


@pytest.mark.parametrize("run", [True, False])
def test_read_only_places(engine, docker_py, tmp_path, run):
    name = create(engine, "--read-only", "-v", "/data", "-v", f"{tmp_path}:/ro:ro", run=run)
    for path, message in (("/", "container rootfs is marked read-only"), ("/ro", "mounted volume is marked read-only")):
        with pytest.raises(docker.errors.APIError) as e:
            docker_py.api.put_archive(name, path, tar_of(("x", b"")))
        assert e.value.status_code == 400  # the description says 403, dockerd does not
        assert e.value.explanation == message
    assert docker_py.api.put_archive(name, "/data", tar_of(("x", b"")))
    assert os.listdir(tmp_path) == []


@pytest.mark.ketch_only
def test_statuses(engine, docker_py):
    name = create(engine)
    assert [
        status_of(docker_py, method, name, **query)
        for method, query in (
            ("HEAD", {"path": "/etc/passwd"}),
            ("HEAD", {"path": "/missing"}),
            ("HEAD", {}),
            ("GET", {}),
            ("PUT", {}),
            ("GET", {"path": "/missing"}),
            ("GET", {"path": "/etc/passwd/"}),
            ("GET", {"path": "/etc/passwd/x"}),
            ("PUT", {"path": "/missing"}),
            ("PUT", {"path": "/etc/passwd"}),
            ("PUT", {"path": "/etc"}),
        )
    ] == [200, 404, 400, 400, 400, 404, 500, 500, 404, 400, 200]
    assert status_of(docker_py, "HEAD", "nobody", path="/") == 404
    engine.docker("cp", "-", f"{name}:/", stdin=link("loop", "loop"))
    assert status_of(docker_py, "GET", name, path="/loop/") == 500
    if engine.kind == "ketch":  # dockerd breaks the connection
        assert status_of(docker_py, "GET", name, path="/a\0b/") == 400


def link(name: str, target: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = tarfile.SYMTYPE, target
        archive.addfile(info)
    return buffer.getvalue()


def test_stat_header(engine, docker_py):
    name = create(engine)
    docker_py.api.put_archive(name, "/tmp", tar_of(("f", b"12345"), mode=0o4751, mtime=1_000_000_000))
    docker_py.api.put_archive(name, "/tmp", link("l", "../tmp/f"))
    facts = docker_py.api.get_archive(name, "/tmp/f")[1]
    assert facts["name"] == "f"
    assert facts["size"] == 5
    assert facts["mode"] == 0o751 | 1 << 23
    assert facts["mtime"] == "2001-09-09T01:46:40Z"
    assert facts["linkTarget"] == ""
    facts = docker_py.api.get_archive(name, "/tmp/l")[1]
    assert facts["linkTarget"] == "/tmp/f"
    assert facts["mode"] == 0o777 | 1 << 27
    assert docker_py.api.get_archive(name, "/tmp")[1]["mode"] & 1 << 31


def test_all_kinds_of_files_go_both_ways(engine, docker_py):
    name, other = create(engine), create(engine, run=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for entry, kind, target in (
            ("d", tarfile.DIRTYPE, ""),
            ("d/file", tarfile.REGTYPE, ""),
            ("d/hard", tarfile.LNKTYPE, "d/file"),
            ("d/soft", tarfile.SYMTYPE, "file"),
            ("d/fifo", tarfile.FIFOTYPE, ""),
            ("d/null", tarfile.CHRTYPE, ""),
        ):
            info = tarfile.TarInfo(entry)
            info.type, info.linkname, info.mode, info.uid, info.gid = kind, target, 0o740, 5, 6
            info.devmajor, info.devminor, info.mtime = 1, 3, 123456789
            archive.addfile(info)
    docker_py.api.put_archive(name, "/tmp", buffer.getvalue())
    docker_py.api.put_archive(other, "/tmp", b"".join(docker_py.api.get_archive(name, "/tmp/d")[0]))
    for one in (name, other):
        data = b"".join(docker_py.api.get_archive(one, "/tmp/d")[0])
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            found = {m.name: (m.type, m.linkname, m.uid, m.gid, int(m.mtime)) for m in archive}
        assert found == {
            "d": (tarfile.DIRTYPE, "", 5, 6, 123456789),
            "d/file": (tarfile.REGTYPE, "", 5, 6, 123456789),
            "d/hard": (tarfile.LNKTYPE, "d/file", 5, 6, 123456789),
            "d/soft": (tarfile.SYMTYPE, "file", 5, 6, 123456789),
            "d/fifo": (tarfile.FIFOTYPE, "", 5, 6, 123456789),
            "d/null": (tarfile.CHRTYPE, "", 5, 6, 123456789),
        }
    assert engine.docker("exec", other, "stat", "-c", "%t:%T %a", "/tmp/d/null").out == "1:3 740\n"


def test_parents_that_are_links(engine, docker_py):
    """An archive may name what is behind a link of the container, also an absolute one."""
    name = create(engine)
    docker_py.api.put_archive(name, "/", link("abs", "/etc"))
    docker_py.api.put_archive(name, "/", tar_of(("abs/new", b"1"), ("/absolute", b"2"), ("./dot/../up", b"3")))
    assert read(docker_py, name, "/etc/new") == b"1"
    assert read(docker_py, name, "/absolute") == b"2"
    assert read(docker_py, name, "/up") == b"3"


@pytest.mark.ketch_only
def test_broken_archives(engine, docker_py):
    name = create(engine)
    whole = tar_of(("x", b"y" * 5000))
    for data in (b"x" * 2000, whole[:3000], tar_of(("../out", b""))):
        with pytest.raises(docker.errors.APIError) as e:
            docker_py.api.put_archive(name, "/tmp", data)
        assert e.value.status_code in (400, 500)  # a tar without a valid header is 500, as with dockerd
    assert docker_py.api.put_archive(name, "/tmp", whole)  # nothing is left locked
    engine.docker("start", name)


def test_events(engine, docker_py):
    since = str(int(time.time()))
    name = create(engine)
    docker_py.api.put_archive(name, "/tmp", tar_of(("x", b"")))
    b"".join(docker_py.api.get_archive(name, "/tmp/x")[0])
    b"".join(docker_py.api.export(name))
    out = engine.docker(
        "events",
        "--since",
        since,
        "--until",
        str(time.time()),
        "--filter",
        f"container={name}",
        "--format",
        "{{.Action}}",
    ).out.split()
    assert out == ["create", "extract-to-dir", "archive-path", "export"]


# -- clients that leave, and many of them --------------------------------------------------------


def upload(engine, name: str, path: str = "/tmp") -> socket.socket:
    """An upload that has begun and does not go on."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(engine.socket)
    head = f"PUT /containers/{name}/archive?path={path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    data = tar_of(("big", b"z" * 5_000_000))[:3_000_000]
    sock.sendall(head.encode() + b"%x\r\n%b\r\n" % (len(data), data))
    return sock


@pytest.mark.ketch_only
def test_a_client_that_leaves_in_the_middle(engine, docker_py):
    name = create(engine)
    with contextlib.closing(upload(engine, name)):
        until(lambda: status_of(docker_py, "HEAD", name, path="/tmp/big") == 200, "the upload does not begin")
    engine.docker("start", name)  # it waits for the upload's end, and no longer
    assert engine.docker("exec", name, "true").code == 0
    descriptors = f"/proc/{engine.process.pid}/fd"
    engine.docker("rm", "-f", name)
    until(lambda: not [fd for fd in targets(descriptors) if fd.startswith("mnt:")], "a view stays open")


def targets(directory: str) -> list[str]:
    found = []
    for name in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"{directory}/{name}"))
    return found


@pytest.mark.ketch_only
def test_an_upload_does_not_hold_up_what_runs(engine, docker_py):
    name = create(engine, run=True)
    with contextlib.closing(upload(engine, name)):
        until(lambda: status_of(docker_py, "HEAD", name, path="/tmp/big") == 200, "the upload does not begin")
        engine.docker("rm", "-f", name)


@pytest.mark.ketch_only
def test_stalled_clients_do_not_stop_the_engine(engine, docker_py):
    """More of them than the event loop has threads, in both directions."""
    name = create(engine, run=True)
    engine.docker("exec", name, "dd", "if=/dev/zero", "of=/tmp/zeros", "bs=1M", "count=8")
    stalled = [upload(engine, name) for _ in range(20)]
    for _ in range(20):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(engine.socket)
        sock.sendall(f"GET /containers/{name}/archive?path=/tmp/zeros HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert sock.recv(1).startswith(b"H")
        stalled.append(sock)
    try:
        assert engine.docker("run", "--rm", "busybox", "echo", "alive").out == "alive\n"
        assert read(docker_py, name, "/etc/passwd")
    finally:
        for sock in stalled:
            sock.close()
    engine.docker("rm", "-f", name)
    until(lambda: threads(engine) < 20, "threads of clients that are gone")


def threads(engine) -> int:
    return len(os.listdir(f"/proc/{engine.process.pid}/task"))


@pytest.mark.ketch_only
def test_nothing_is_buffered_whole(engine, docker_py):
    """An archive of 200 MB goes through a daemon that grows by far less."""
    name = create(engine, run=True)
    engine.docker("exec", name, "dd", "if=/dev/zero", "of=/tmp/zeros", "bs=1M", "count=200")
    before = resident(engine)
    total = 0
    peak = before
    for chunk in docker_py.api.get_archive(name, "/tmp/zeros")[0]:
        total += len(chunk)
        peak = max(peak, resident(engine))
    assert total > 200 << 20
    assert peak - before < 30 << 20


def resident(engine) -> int:
    with open(f"/proc/{engine.process.pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.ketch_only
def test_removal_under_a_reader(engine, docker_py):
    """What is cut short does not look whole."""
    name = create(engine)
    docker_py.api.put_archive(name, "/tmp", tar_of(*((f"f{i}", b"x" * 50_000) for i in range(100))))
    stream = docker_py.api.get_archive(name, "/tmp", chunk_size=1024)[0]
    next(iter(stream))
    docker_py.api.remove_container(name)
    until(lambda: not os.path.exists(f"{engine.data_root}/containers/{name}/upper"), "its files stay")
    with pytest.raises((requests.exceptions.RequestException, tarfile.TarError)):
        data = b"".join(stream)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.getmembers()


def test_concurrent_uploads(engine, docker_py):
    name = create(engine)
    errors: list[BaseException] = []

    def work(i: int) -> None:
        with contextlib.closing(engine.py()) as sdk:
            try:
                sdk.api.put_archive(name, "/tmp", tar_of((f"file{i}", b"x" * 1000 * i)))
            except docker.errors.APIError as e:
                errors.append(e)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(patient(20))
    assert errors == []
    assert {f"tmp/file{i}" for i in range(6)} <= set(names(docker_py, name, "/tmp"))


def test_a_socket_is_left_out(engine, docker_py, tmp_path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{tmp_path}/sock")
        assert stat.S_ISSOCK((tmp_path / "sock").stat().st_mode)
        name = create(engine, "-v", f"{tmp_path}:/s")
        assert names(docker_py, name, "/s") == ["s"]


def mounts() -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        return sorted(line.split()[4] for line in f)


@pytest.mark.parametrize("run", [True, False])
def test_nothing_appears_on_the_host(engine, docker_py, tmp_path, run):
    """Not even for shared directories, one below the other, while a download is under way."""
    places = [tmp_path / "outer", tmp_path / "inner"]
    with contextlib.ExitStack() as undo:
        for place in places:
            place.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
            undo.callback(subprocess.run, ["umount", "-R", "-l", place], check=True)
            subprocess.run(["mount", "--make-shared", place], check=True)
        volumes = ["-v", f"{places[0]}:/mnt:rshared", "-v", f"{places[1]}:/mnt/sub:rshared"]
        name = create(engine, *volumes, run=run)
        docker_py.api.put_archive(name, "/mnt/sub", tar_of(("big", b"z" * 8_000_000)))
        before = mounts()
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
            sock.connect(engine.socket)
            sock.sendall(f"GET /containers/{name}/archive?path=/mnt/sub HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert sock.recv(1) == b"H"
            assert mounts() == before
        engine.docker("rm", "-fv", name)


def test_names_that_are_no_utf8(engine, docker_py):
    """A container may call its files as it likes; JSON's strings are UTF-8, and what is not becomes U+FFFD."""
    script = r"printf x > $(printf '/tmp/a\377b'); ln -s $(printf '/tmp/t\377') /tmp/link; sleep 1000"
    one = create(engine, run=True, command=("sh", "-c", script))
    until(lambda: "/tmp/link" in engine.docker("diff", one).out, "not made yet")
    assert "A /tmp/a\ufffdb\n" in engine.docker("diff", one).out
    _, found = docker_py.api.get_archive(one, "/tmp/link")
    assert found["linkTarget"] == "/tmp/t\ufffd"


@pytest.mark.parametrize("path", ["/tmp/a%FFb", "/d%FF/f", "/d%FF", "/link/f"])
def test_paths_that_are_no_utf8(engine, path):
    """Both ways, by the bytes that the container knows them by."""
    script = r"printf x > $(printf '/tmp/a\377b'); mkdir $(printf '/d\377'); printf x > $(printf '/d\377/f')"
    one = create(engine, run=True, command=("sh", "-c", rf"{script}; ln -s $(printf 'd\377') /link; sleep 1000"))
    until(lambda: "/link" in engine.docker("diff", one).out, "not made yet")
    with contextlib.closing(Unix(engine.socket)) as connection:
        connection.request("GET", f"/v1.51/containers/{one}/archive?path={path}")
        answer = connection.getresponse()
        packed = answer.read()
        assert answer.status == 200, packed
        assert json.loads(base64.b64decode(answer.headers["X-Docker-Container-Path-Stat"]))["name"]
        with tarfile.open(fileobj=io.BytesIO(packed), errors="surrogateescape") as archive:
            names = [os.fsencode(name).rstrip(b"/") for name in archive.getnames()]
        assert os.path.basename(urllib.parse.unquote_to_bytes(path)) in names
        kind = {"Content-Type": "application/x-tar"}
        connection.request("PUT", f"/v1.51/containers/{one}/archive?path=/d%FF", packed, kind)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
        connection.request("HEAD", f"/v1.51/containers/{one}/archive?path=/d%FF/{os.path.basename(path)}")
        assert connection.getresponse().status == 200


def test_cp_of_names_that_are_no_utf8(engine, client, tmp_path):
    source = os.path.join(os.fsencode(tmp_path), b"s\xff")
    with open(source, "wb") as f:
        f.write(b"text")
    one = create(engine, run=True, command=("sleep", "1000"))
    client("cp", os.fsdecode(source), f"{one}:/tmp")
    client("cp", os.fsdecode(f"{one}:/tmp/s".encode() + b"\xff"), os.fsdecode(os.fsencode(tmp_path) + b"/back\xff"))
    with open(os.path.join(os.fsencode(tmp_path), b"back\xff"), "rb") as f:
        assert f.read() == b"text"
