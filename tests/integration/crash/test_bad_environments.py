"""A full disk, a read-only one, no descriptors left, broken files: a clear sentence, and nothing is removed."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import sqlite3
import struct
import subprocess
import time

import pytest

from tests.support.boxes.crash_box import listed, read
from tests.support.boxes.damage import database, fill, overwrite, refused, repaired
from tests.support.containers import LOOP, body
from tests.support.rawapi import Api
from tests.support.waiting import until

pytestmark = pytest.mark.ketch_only


@pytest.fixture
def small(own_engine):
    """An engine whose data root is a file system of its own, 32 MB."""
    os.makedirs(own_engine.data_root)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", own_engine.data_root], check=True)
    try:
        own_engine.start()
        own_engine.add_busybox()
        yield own_engine
        own_engine.remove_all()
        own_engine.stop()
    finally:
        subprocess.run(["umount", "-l", own_engine.data_root], check=True)
        own_engine.process = None
        own_engine.data_root += "2"  # what the fixture ends with works without it


def test_full_disk(small):
    api = Api(small.socket)
    api.must("POST", "/containers/create", body("made"), name="made")
    small.client("run", "-d", "--name", "talker", "busybox", "sh", "-c", LOOP)
    small.client("run", "-d", "--name", "brief", "busybox", "sleep", "1000")
    status, archive = api("GET", "/images/busybox/get")
    assert status == 200
    full = fill(small.data_root)
    for path, what in (
        ("/containers/create?name=late", body("late")),
        ("/volumes/create", {"Name": "late"}),
        ("/networks/create", {"Name": "late"}),
        ("/containers/made/start", None),
    ):
        status, answer = api("POST", path, what)
        assert status == 500, (path, status, answer)
        assert "no space left" in answer["message"] or "disk is full" in answer["message"], (path, answer)
    status, answer = api("POST", "/images/load", archive)
    assert "no space left" in json.dumps(answer) or "disk is full" in json.dumps(answer) or status == 200
    assert api("GET", "/containers/late/json")[0] == api("GET", "/volumes/late")[0] == 404
    api.must("POST", "/containers/brief/kill")  # an end is known although nobody can write it down
    assert api.must("POST", "/containers/brief/wait")["StatusCode"] == 137
    assert small.client("exec", "talker", "echo", "runs").out == "runs\n"
    os.unlink(full)
    lines = len(small.client("logs", "talker").out.splitlines())
    until(lambda: len(small.client("logs", "talker").out.splitlines()) > lines, "it does not log again")
    api.must("POST", "/containers/made/start")
    for path, what in (("/containers/create?name=late", body("late")), ("/volumes/create", {"Name": "late"})):
        api.must("POST", path, what)
    small.stop(signal.SIGKILL)
    small.start()
    states = small.client("ps", "-a", "--format", "{{.Names}} {{.State}}").out.splitlines()
    assert sorted(states) == ["brief exited", "late created", "made running", "talker running"]
    api.must("DELETE", "/volumes/late")


def test_read_only_data_root(small):
    small.client("run", "--name", "one", "busybox", "true")
    small.stop()
    subprocess.run(["mount", "-o", "remount,ro", small.data_root], check=True)
    said = refused(small)
    assert "read-only" in said.lower()
    assert small.data_root in said
    subprocess.run(["mount", "-o", "remount,rw", small.data_root], check=True)
    small.start()
    assert small.client("ps", "-a", "--format", "{{.Names}}").out == "one\n"


ERRORS = {
    "enospc": (500, "no space left on device"),
    "erofs": (500, "read-only file system"),
    "eio": (500, "input/output error"),
    "edquot": (500, "disk quota exceeded"),
    "emfile": (503, "too many open files"),
}
REQUESTS = {
    "database.commit": ("/networks/create", {"Name": "late"}),
    "create.snapshot-made": ("/containers/create?name=late", body("late")),
    "volume.directory-made": ("/volumes/create", {"Name": "late"}),
    "start.bundle-written": ("/containers/made/start", None),
    "network.veth-made": ("/containers/made/start", None),
    "image.blob-written": ("/images/create?fromSrc=-&repo=late", bytes(10240)),
}


def test_errors_of_the_kernel(own_engine):
    """Wherever one strikes: a sentence, nothing half-done, and the next request works."""
    switch = os.path.join(own_engine.root, "switch")
    own_engine.settings = {"KETCH_FAULT": f"@{switch}"}
    own_engine.start()
    own_engine.add_busybox()
    api = Api(own_engine.socket)
    api.must("POST", "/containers/create", body("made"), name="made")
    before = _everything(own_engine.data_root)
    for point, (path, what) in REQUESTS.items():
        for error, (status, words) in ERRORS.items():
            with open(switch, "w", encoding="ascii") as f:
                f.write(f"{point}={error}")
            answered, answer = api("POST", path, what)
            os.truncate(switch, 0)
            message = json.dumps(answer) if not isinstance(answer, bytes) else answer.decode()
            assert words in message.lower(), (point, error, message)
            assert answered == status or point.startswith(("image.", "network.")), (point, error, answered)
            assert _everything(own_engine.data_root) == before, (point, error)
    for path, what in list(REQUESTS.values())[:5]:
        api.must("POST", path, what)


def _everything(root: str) -> set[str]:
    """What a request could leave behind: directories of objects, blobs, layers."""
    places = ("containers", "volumes", "layers", "content/blobs/sha256", "content/ingest")
    found = {f"{place}/{name}" for place in places for name in listed(f"{root}/{place}")}
    with contextlib.closing(sqlite3.connect(f"file:{root}/ketch.db?mode=ro", uri=True)) as db:
        for table in ("containers", "volumes", "images", "networks", "network_endpoints"):
            found.add(f"{table}: {db.execute(f'SELECT count(*) FROM {table}').fetchone()[0]}")
    return found


def test_no_descriptors_left(own_engine):
    own_engine.start()
    own_engine.add_busybox()
    own_engine.client("run", "-d", "--name", "one", "busybox", "sleep", "1000")
    api, pid = Api(own_engine.socket), own_engine.process.pid
    api.must("POST", "/containers/create", body("two"), name="two")
    limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    now = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (now + 2, limit[1]))
    status, answer = api("POST", "/containers/two/start")
    assert status in (500, 503), answer
    assert "too many open files" in answer["message"]
    with contextlib.ExitStack() as held:
        for _ in range(20):  # more than it can accept
            one = held.enter_context(socket.socket(socket.AF_UNIX))
            one.connect(own_engine.socket)
        before, begin, said = _cpu_s(pid), time.monotonic(), os.path.getsize(own_engine.log_path)
        time.sleep(3.5)  # the measured time itself
        assert os.path.getsize(own_engine.log_path) - said < 1000, own_engine.log()
        assert _cpu_s(pid) - before < 0.5 * (time.monotonic() - begin), "it spins"
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
    until(lambda: api("GET", "/_ping", timeout=5)[0] == 200, "it does not recover")
    api.must("POST", "/containers/two/start")
    assert own_engine.client("ps", "-q").out.count("\n") == 2


def _cpu_s(pid: int) -> float:
    fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# -- the database ----------------------------------------------------------------------------------


@pytest.fixture
def filled(own_engine):
    """An engine with twelve containers, one of which runs, a volume with a file in it, and a network."""
    own_engine.start()
    own_engine.add_busybox()
    api = Api(own_engine.socket)
    own_engine.client("run", "--rm", "-v", "hold:/v", "busybox", "sh", "-c", "echo kept >/v/file")
    own_engine.client("network", "create", "quay")
    for n in range(11):
        api.must("POST", "/containers/create", body(""), name=f"c{n}")
    own_engine.client("run", "-d", "--name", "up", "-v", "hold:/v", "busybox", "sleep", "1000")
    return own_engine


def page_with(engine, table: str) -> int:
    """The file offset of a leaf page of a table."""
    path = database(engine)
    with contextlib.closing(sqlite3.connect(path)) as db:
        root = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()[0]
    data = read(path)
    page = data[(root - 1) * 4096 : root * 4096]
    if page[0] == 5:  # an interior page: its first child
        root = struct.unpack(">I", page[(at := struct.unpack(">H", page[12:14])[0]) : at + 4])[0]
    return (root - 1) * 4096


def looks_after_repair(engine, least: int) -> None:
    said = repaired(engine)
    assert "damaged-1" in said
    assert os.path.exists(database(engine) + ".damaged-1")
    engine.start()
    names = engine.client("ps", "-a", "--format", "{{.Names}}").out.split()
    assert len(names) >= least
    lost = os.path.join(engine.data_root, "lost")
    assert len(names) + (len(os.listdir(lost)) if os.path.isdir(lost) else 0) >= 11
    assert engine.client("run", "--rm", "-v", "hold:/v", "busybox", "cat", "/v/file").out == "kept\n"
    if "up" in names:
        assert engine.client("exec", "up", "echo", "runs").out == "runs\n"


@pytest.mark.parametrize(
    ("damage", "least"), [("page", 1), ("first page", 12), ("middle", 1), ("cut", 0), ("log", 12)], ids=str
)
def test_damaged_database(filled, damage, least):
    path = database(filled)
    if damage == "cut":
        filled.client("rm", "-f", "up")  # or it runs on without anybody who knows it
    if damage == "log":  # commits that were not checkpointed: its rows are in the log alone
        filled.stop(signal.SIGKILL)
        overwrite(path + "-wal", 0, b"garbage!" * 4)
    else:
        filled.stop()
        assert not os.path.exists(path + "-wal")
    if damage == "page":
        overwrite(path, page_with(filled, "containers"), os.urandom(4096))
    elif damage == "first page":
        overwrite(path, 0, os.urandom(4096))
    elif damage == "middle":
        overwrite(path, page_with(filled, "containers") + 1000, os.urandom(1500))
    elif damage == "cut":
        pages = struct.unpack(">I", read(path)[28:32])[0]  # what is behind them is kept for a full disk
        os.truncate(path, pages // 2 * 4096)
    said = refused(filled)
    assert path in said
    assert "--repair" in said
    before = sorted(os.listdir(f"{filled.data_root}/containers")), sorted(os.listdir(f"{filled.data_root}/layers"))
    refused(filled)
    assert (
        sorted(os.listdir(f"{filled.data_root}/containers")),
        sorted(os.listdir(f"{filled.data_root}/layers")),
    ) == before
    looks_after_repair(filled, least)


@pytest.mark.parametrize("damage", ["empty", "gone"])
def test_lost_database(filled, damage):
    """An empty file is a new database to SQLite, and would have everything swept away."""
    filled.client("rm", "-f", "up")
    filled.stop()
    kept = set(os.listdir(f"{filled.data_root}/containers"))
    if damage == "empty":
        os.truncate(database(filled), 0)
    else:
        os.unlink(database(filled))
    assert "missing or empty" in refused(filled)
    repaired(filled)
    filled.start()
    assert filled.client("run", "--rm", "-v", "hold:/v", "busybox", "cat", "/v/file").out == "kept\n"
    assert kept == set(os.listdir(f"{filled.data_root}/lost"))


def test_one_row_that_cannot_be_read(filled):
    up = json.loads(filled.client("inspect", "up").out)[0]
    filled.stop(signal.SIGKILL)
    with contextlib.closing(sqlite3.connect(database(filled))) as db:
        with db:
            for table in ("containers", "images", "volumes"):
                name = {"containers": "name = 'up'", "volumes": "name = 'hold'"}.get(table, "1")
                db.execute(f"UPDATE {table} SET record = substr(record, 1, length(record) - 9) WHERE {name}")
    filled.start()
    assert "up" in filled.log()
    assert "cannot be read" in filled.log()
    assert len(filled.client("ps", "-aq").out.split()) == 11
    result = filled.client("create", "--name", "up", "busybox", check=False)
    assert "already in use" in result.err
    assert "--repair" in filled.client("inspect", "up", check=False).err
    assert "container up" in json.dumps(Api(filled.socket).must("GET", "/info")["Warnings"])
    assert filled.client("run", "--rm", "busybox", "echo", "works").out == "works\n"  # its image was made anew
    os.kill(up["State"]["Pid"], 0)
    assert os.path.isdir(f"{filled.data_root}/containers/{up['Id']}/upper")
    filled.client("volume", "prune", "-f")
    assert read(f"{filled.data_root}/volumes/hold/_data/file") == b"kept\n"
    filled.stop()
    with contextlib.closing(sqlite3.connect(database(filled))) as db:
        assert db.execute("SELECT count(*) FROM containers").fetchone() == (12,)
    os.kill(up["State"]["Pid"], signal.SIGKILL)
    repaired(filled)


def test_a_cgroup_that_cannot_be(filled):
    """Earlier versions took a parent with a NUL byte: such a container does not start, and can be removed."""
    filled.stop(signal.SIGKILL)
    with contextlib.closing(sqlite3.connect(database(filled))) as db, db:
        (record,) = db.execute("SELECT record FROM containers WHERE name = 'c1'").fetchone()
        changed = json.loads(record)
        changed["HostConfig" if "HostConfig" in changed else "host"]["CgroupParent"] = "/a\0b"
        db.execute("UPDATE containers SET record = ? WHERE name = 'c1'", (json.dumps(changed).encode(),))
    filled.start()
    result = filled.client("start", "c1", check=False)
    assert "its cgroup parent has a NUL byte" in result.err
    filled.client("rm", "-f", "c1")
    assert "c1" not in filled.client("ps", "-a", "--format", "{{.Names}}").out.split()
    assert "Traceback" not in filled.log()


# -- other files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "json object"),
        ("\x00\xff", "daemon.json"),
        ("[]", "not a json object"),
        ('{"mtu": "big"}', "mtu must be a number"),
        ('{"labels": "a=b"}', "labels must be a list of texts"),
        ('{"hosts": ["unix:///x"]}', "specified both as a flag and in the configuration file"),
        ('{"log-opts": {"max-size": 5}}', "log-opts must be texts by name"),
        ('{"bip": 5}', "bip must be a text"),
    ],
)
def test_broken_settings(own_engine, tmp_path, text, message):
    path = tmp_path / "daemon.json"
    path.write_text(text, encoding="latin-1")
    own_engine.extra = ["--config-file", str(path)]
    assert message in refused(own_engine).lower()
    own_engine.extra = []


def test_stale_pid_file_and_socket(own_engine):
    with open(own_engine.pidfile, "w", encoding="ascii") as f:
        f.write("1\n")
    os.utime(own_engine.pidfile, (1, 1))  # from before the process began that has this pid now
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as s:
        s.bind(own_engine.socket)
    own_engine.start()
    assert read(own_engine.pidfile) == b"%d\n" % own_engine.process.pid
    assert "in use by another ketchd" in refused(own_engine)
    assert own_engine.answers()
    assert read(own_engine.pidfile) == b"%d\n" % own_engine.process.pid


def test_pid_file_of_another_daemon(own_engine):
    """Of whatever kind: as long as it lives the file is its own, and stays as it is; a zombie owns nothing."""
    with subprocess.Popen(["sleep", "1000"]) as other:
        with open(own_engine.pidfile, "w", encoding="ascii") as f:
            f.write(f"{other.pid}\n")
        said = refused(own_engine)
        assert f"process {other.pid} (sleep)" in said
        assert read(own_engine.pidfile) == b"%d\n" % other.pid
        os.kill(other.pid, signal.SIGKILL)
        until(lambda: read(f"/proc/{other.pid}/stat").split()[2] == b"Z", "it does not die")
        own_engine.start()
        assert read(own_engine.pidfile) == b"%d\n" % own_engine.process.pid
    with open(own_engine.pidfile, "w", encoding="ascii") as f:
        f.write("1\n")  # somebody has taken the place
    own_engine.stop()
    assert read(own_engine.pidfile) == b"1\n"
    os.unlink(own_engine.pidfile)
