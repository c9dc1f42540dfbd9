"""A database older than the files on the disk: refused, or unknown files are kept and recovered."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import signal
import sqlite3
import subprocess

import pytest

from tests.support.boxes.crash_box import read
from tests.support.boxes.crash_matrix import REPAIRS
from tests.support.boxes.damage import database, overwrite, refused, repaired
from tests.support.engines import busybox_tar
from tests.support.waiting import patient, until

pytestmark = pytest.mark.ketch_only
DATABASE = ("ketch.db", "ketch.db-wal", "ketch.db-shm", "ketch.db-mark", "ketch.db-reserve")


def tree(root: str) -> dict[str, tuple[int, int]]:
    """Every path below a data root, with inode and size."""
    found = {}
    for place, directories, files in os.walk(root):
        for name in (*directories, *files):
            status = os.lstat(path := os.path.join(place, name))
            found[os.path.relpath(path, root)] = (status.st_ino, status.st_size if name in files else 0)
    return found


def copied(engine, target: str) -> None:
    """The database's files as they are, or back from there."""
    os.makedirs(target, exist_ok=True)
    for name in DATABASE:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(target, name))
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(os.path.join(engine, name), os.path.join(target, name))


@pytest.mark.parametrize("how", ["gone", "empty", "cut", "damaged", "damaged at its end", "older", "all gone"])
def test_the_log_of_a_killed_daemon(own_engine, how):
    own_engine.start()
    own_engine.add_busybox()
    own_engine.client("create", "--name", "early", "busybox")
    copied(own_engine.data_root, early := own_engine.root + "/early")
    own_engine.client("run", "--name", "late", "busybox", "sh", "-c", "echo kept >/file")
    own_engine.client("run", "-d", "--name", "up", "busybox", "sleep", "1000")
    own_engine.client("update", "--restart", "no", "up")  # what is last in the log has been acknowledged
    own_engine.stop(signal.SIGKILL)
    copied(own_engine.data_root, kept := own_engine.root + "/kept")
    log = database(own_engine) + "-wal"
    if how in ("gone", "all gone"):
        os.unlink(log)
        if how == "all gone":
            os.unlink(database(own_engine) + "-shm")
    elif how == "empty":
        os.truncate(log, 0)
    elif how == "cut":
        os.truncate(log, 32 + 4120 * 5)
    elif how.startswith("damaged"):
        data = read(log)
        frames = next(n for n in range(1000) if data[40 + n * 4120 : 48 + n * 4120] != data[16:24])
        overwrite(log, 32 + 4120 * (6 if how == "damaged" else frames - 1) + 500, b"?")
    else:
        shutil.copyfile(early + "/ketch.db-wal", log)
    before = tree(own_engine.data_root)
    said = refused(own_engine)
    assert database(own_engine) in said
    assert "--repair" in said
    assert tree(own_engine.data_root) == before
    copied(kept, own_engine.data_root)
    own_engine.start()
    states = own_engine.client("ps", "-a", "--format", "{{.Names}} {{.State}}").out.splitlines()
    assert sorted(states) == ["early created", "late exited", "up running"]
    assert not os.path.exists(own_engine.data_root + "/lost")


@pytest.mark.parametrize("table", ["containers", "images", "volumes"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=str)
def test_tables_that_were_emptied(own_engine, table, number):
    own_engine.start()
    own_engine.add_busybox()
    own_engine.client("run", "--name", "one", "-v", "hold:/v", "busybox", "touch", "/v/file")
    own_engine.stop(number)
    with contextlib.closing(sqlite3.connect(database(own_engine))) as db, db:
        db.execute("DELETE FROM image_names")
        db.execute(f"DELETE FROM {table}")
    before = tree(own_engine.data_root)
    said = refused(own_engine)
    assert "--repair" in said
    assert tree(own_engine.data_root) == before
    os.unlink(database(own_engine) + "-mark")
    assert f"has no {table}" in refused(own_engine)
    repaired(own_engine)
    own_engine.start()
    assert own_engine.client("ps", "-a", "--format", "{{.Names}}").out == "one\n"
    assert own_engine.client("volume", "ls", "-q").out == "hold\n"
    own_engine.client("start", "-a", "one")


def test_objects_without_a_row_are_kept_and_recovered(own_engine):
    own_engine.start()
    own_engine.add_busybox()
    own_engine.stop()
    copied(own_engine.data_root, old := own_engine.root + "/old")
    own_engine.start()
    own_engine.client("import", "-", "ship", stdin=busybox_tar())
    image = own_engine.client("inspect", "-f", "{{.Id}}", "ship").out.strip()
    options = ("--name", "crew", "-e", "A=b", "-w", "/tmp", "-v", "hold:/v", "--cap-add", "SYS_TIME")
    own_engine.client("run", *options, "ship", "sh", "-c", "id >/tmp/id; touch /v/file")
    crew = own_engine.client("inspect", "-f", "{{.Id}}", "crew").out.strip()
    own_engine.client("create", "--name", "never", "ship", "true")
    own_engine.client("run", "--name", "up", "-d", "ship", "sleep", "1000")
    up = own_engine.client("inspect", "-f", "{{.Id}} {{.State.Pid}}", "up").out.split()
    own_engine.stop()
    copied(old, own_engine.data_root)  # a backup of the database, and nothing else
    own_engine.start()
    assert own_engine.client("ps", "-aq").out == ""
    os.kill(int(up[1]), 0)  # what runs is not killed on suspicion
    assert os.path.isdir(f"{own_engine.data_root}/containers/{up[0]}/upper")
    lost = own_engine.data_root + "/lost"
    (kept,) = glob.glob(f"{lost}/*/containers/{crew}/upper/tmp/id")
    assert read(kept)
    assert glob.glob(lost + "/*/layers/*/diff/bin")
    assert lost in own_engine.log()
    assert os.path.isdir(own_engine.data_root + "/volumes/hold/_data")
    own_engine.stop(signal.SIGKILL)
    said = repaired(own_engine)
    assert "crew is made anew from its bundle" in said
    own_engine.start()
    states = own_engine.client("ps", "-a", "--format", "{{.Names}} {{.State}}").out.splitlines()
    assert sorted(states) == ["crew exited", "up running"]
    assert own_engine.client("exec", "up", "echo", "runs").out == "runs\n"
    assert own_engine.client("inspect", "-f", "{{.Image}}", "crew").out.strip() == image
    assert own_engine.client("inspect", "-f", "{{.Config.WorkingDir}} {{.HostConfig.CapAdd}}", "crew").out == (
        "/tmp [CAP_SYS_TIME]\n"
    )
    own_engine.client("cp", "crew:/tmp/id", own_engine.root + "/id")
    assert read(own_engine.root + "/id").startswith(b"uid=0")
    own_engine.client("start", "-a", "crew")
    own_engine.client("volume", "inspect", "hold")


def test_lost_things_are_pruned_when_asked(own_engine):
    own_engine.start()
    own_engine.stop()
    foreign = f"{own_engine.data_root}/containers/{'ab' * 32}/upper"
    os.makedirs(foreign)
    open(foreign + "/file", "wb").close()
    os.makedirs(f"{own_engine.data_root}/layers/lost+found")
    own_engine.start()
    assert "belongs to nothing that is known" in own_engine.log()
    assert "--prune-lost" in own_engine.client("info", "-f", "{{.Warnings}}").out
    own_engine.stop()
    assert os.path.exists(f"{own_engine.data_root}/layers/lost+found")
    done = subprocess.run(
        [*own_engine.command(), "--prune-lost"], capture_output=True, text=True, timeout=patient(30), check=False
    )
    assert done.returncode == 0, done.stderr
    assert os.listdir(own_engine.data_root + "/lost") == []


@pytest.mark.parametrize("point", REPAIRS)
def test_a_repair_that_is_killed(own_engine, point):
    """A start afterwards has everything when the repair had decided, and so has the next repair."""
    own_engine.start()
    own_engine.add_busybox()
    names = ["c0", "c1"]
    for name in names:
        own_engine.client("create", "--name", name, "busybox", "true")
    own_engine.stop(signal.SIGKILL)
    environment = {**os.environ, "KETCH_FAULT": point}
    done = subprocess.run([*own_engine.command(), "--repair"], env=environment, timeout=patient(30), check=False)
    assert done.returncode == -signal.SIGKILL
    if point in REPAIRS[3:]:  # decided: the next start carries it out
        own_engine.start()
        assert sorted(own_engine.client("ps", "-a", "--format", "{{.Names}}").out.split()) == names
        own_engine.stop(signal.SIGKILL)
    repaired(own_engine)
    own_engine.start()
    assert sorted(own_engine.client("ps", "-a", "--format", "{{.Names}}").out.split()) == names
    own_engine.client("start", "-a", "c1")


def test_two_daemons_race_for_one_data_root(own_engine):
    commands = [[*own_engine.command(), "--pidfile", f"{own_engine.root}/pid{n}"] for n in range(4)]
    running = [subprocess.Popen(one, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for one in commands]
    try:
        until(lambda: sum(one.poll() is not None for one in running) == 3, "more than one has it")
        until(own_engine.answers, "the one that has it does not answer")
    finally:
        for one in running:
            one.terminate()
        said = [one.communicate(timeout=patient(20))[1] for one in running]
    assert sum("in use by another ketchd" in text for text in said) == 3
