"""Locks between daemons: other users hold nobody up, daemons still exclude each other."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from ketch.errors import Conflict, FailedPrecondition
from ketch.network import locks
from ketch.storage import file_lock
from tests.support.netns import in_new_host

pytestmark = pytest.mark.ketch_only

# Binds the names that locks had when they were abstract sockets, as an ordinary user, and says so.
_SQUATTER = """
import os, socket, sys, time
os.setgid(65534); os.setuid(65534)
kept = []
for name in sys.argv[1:]:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        s = socket.socket(socket.AF_UNIX, kind)
        s.bind("\\0" + name)
        if kind == socket.SOCK_STREAM:
            s.listen(1)
        kept.append(s)
        break
print("bound", flush=True)
time.sleep(1000)
"""


def test_an_ordinary_user_holds_nobody_up(own_engine):
    names = ["ketch/subnets", f"ketch/table/ketch-{own_engine.name}", "ketch/table/ketch"]
    with subprocess.Popen([sys.executable, "-I", "-c", _SQUATTER, *names], stdout=subprocess.PIPE) as squatter:
        try:
            assert squatter.stdout.readline() == b"bound\n"
            own_engine.start()
            own_engine.client("network", "create", "back")
            own_engine.client("network", "rm", "back")
        finally:
            squatter.kill()


def test_nothing_is_bound_to_an_abstract_name(engine):
    with open(f"/proc/{open(engine.pidfile).read().strip()}/net/unix", encoding="utf-8") as f:
        assert [line for line in f if line.split()[-1].startswith("@ketch")] == []


def test_the_directory_is_roots_alone(monkeypatch, tmp_path):
    place = tmp_path / "locks"
    monkeypatch.setattr(file_lock, "_directory_path", str(place))
    with file_lock.take_named("one"):
        assert os.stat(place).st_mode & 0o7777 == 0o700
        assert os.stat(place / "one").st_mode & 0o7777 == 0o600
    for bad in (0o777, 0o750):
        os.chmod(place, bad)
        with pytest.raises(FailedPrecondition, match="other users can get in"):
            file_lock.take_named("one")
    os.chmod(place, 0o700)
    os.chown(place, 65534, 65534)
    with pytest.raises(FailedPrecondition, match="other users can get in"):
        file_lock.take_named("one")
    os.rename(place, tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", place)
    with pytest.raises(OSError, match="locks"):
        file_lock.take_named("one")


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("kept")
    os.symlink(tmp_path / "victim", tmp_path / "lock")
    with pytest.raises(OSError, match="lock"):
        file_lock.take(str(tmp_path / "lock"))
    assert (tmp_path / "victim").read_text() == "kept"


def test_one_holder_at_a_time(tmp_path):
    path = str(tmp_path / "lock")
    first = file_lock.take(path)
    with pytest.raises(file_lock.Held) as caught:
        file_lock.take(path)
    assert caught.value.pid == str(os.getpid())
    threading.Timer(0.2, first.close).start()
    file_lock.take(path, wait_s=20).close()


@in_new_host
def test_daemons_exclude_each_other_in_one_namespace() -> None:
    with locks.claim_table("ketch"):
        with pytest.raises(Conflict, match="another ketchd"):
            locks.claim_table("ketch")
        locks.claim_table("ketch-other").close()
    locks.claim_table("ketch").close()


def test_namespaces_of_their_own_do_not_meet() -> None:
    held = []

    def hold() -> None:
        held.append(locks.claim_table("ketch-elsewhere"))

    in_new_host(hold)()
    in_new_host(hold)()
    for lock in held:
        lock.close()


def test_a_lock_ends_with_its_process(tmp_path):
    path = str(tmp_path / "lock")
    code = "import sys, time; from ketch.storage import file_lock; kept = file_lock.take(sys.argv[1]); "
    code += "print(flush=True); time.sleep(1000)"
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(file_lock.Held):
            file_lock.take(path)
        other.kill()
        other.wait()
        file_lock.take(path).close()
