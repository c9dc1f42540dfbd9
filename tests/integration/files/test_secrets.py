"""``--secret``: the content is in the container's memory and in no other place."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess

import pytest

pytestmark = pytest.mark.ketch_only
WORD = "kraken-under-the-keel"


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "password"
    path.write_text(WORD, encoding="utf-8")
    path.chmod(0o600)
    return path


def test_a_file_for_every_user_by_default(engine, source):
    ketch = engine.ketch
    shown = ketch(
        "run",
        "--rm",
        "-u",
        "1000",
        "--read-only",
        "--secret",
        f"id=db,src={source}",
        "busybox",
        "sh",
        "-c",
        "cat /run/secrets/db; ls -ln /run/secrets; grep /run/secrets /proc/mounts; touch /run/secrets/x 2>&1",
        check=False,
    ).out
    assert shown.startswith(WORD)
    assert "-r--r--r--    1 0        0 " in shown
    assert any(f" /run/secrets {kind} ro,nosuid,nodev,noexec" in shown for kind in ("tmpfs", "ramfs"))
    assert "Read-only file system" in shown


def test_owners_modes_and_places(engine, source):
    ketch = engine.ketch
    (source.parent / "other").write_bytes(b"\0\xff binary")
    ketch(
        "run",
        "-d",
        "--name",
        "box",
        "--secret",
        f"id=db,src={source},target=password,mode=0400,uid=1000,gid=1001",
        "--secret",
        f"id=key,src={source.parent}/other,target=/etc/app/key.bin",
        "--tmpfs",
        "/run",
        "busybox",
        "sleep",
        "1000",
    )
    shown = ketch("exec", "box", "stat", "-c", "%a %u %g %n", "/run/secrets/password", "/etc/app/key.bin").out
    assert shown == "400 1000 1001 /run/secrets/password\n444 0 0 /etc/app/key.bin\n"
    assert ketch("exec", "-u", "1000", "box", "cat", "/run/secrets/password").out == WORD
    assert ketch("exec", "-u", "1002", "box", "cat", "/run/secrets/password", check=False).code == 1
    assert (
        ketch("exec", "box", "sha256sum", "/etc/app/key.bin").out[:64] == hashlib.sha256(b"\0\xff binary").hexdigest()
    )


def test_secrets_are_read_at_each_start(engine, source):
    ketch = engine.ketch
    ketch("create", "--name", "box", "--secret", f"id=db,src={source}", "busybox", "cat", "/run/secrets/db")
    assert ketch("start", "-a", "box").out == WORD
    source.write_text("changed", encoding="utf-8")
    assert ketch("start", "-a", "box").out == "changed"
    source.unlink()
    failed = ketch("start", "box", check=False)
    assert failed.code == 1
    assert f"read secret `db` from `{source}`: no such file or directory" in failed.err
    source.write_bytes(b"x" * (500 * 1024 + 1))
    failed = ketch("start", "box", check=False)
    assert failed.code == 1 and "a regular file of 500 KiB at most" in failed.err


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("id=db,src=relative/path", "is not an absolute path"),
        ("id=db,src=/nonexistent", "No such file or directory"),
        ("id=db,src=/etc", "is not a regular file"),
        ("id=../x,src=/etc/hostname", "invalid secret id"),
        ("id=db,src=/etc/hostname,target=a/b", "invalid target"),
        ("id=db,src=/etc/hostname,mode=999", "mode is octal"),
        ("id=db,src=/etc/hostname,mode=7777", "out of range"),
        ("id=db,src=/etc/hostname,uid=me", "uid and gid are numbers"),
        ("id=db", "id and src are required"),
        ("id=db,env=HOME", "would have to be stored"),
    ],
)
def test_nonsense_is_refused(engine, value, words):
    failed = engine.ketch("create", "--secret", value, "busybox", check=False)
    assert failed.code in (1, 125) and words in failed.err


def test_two_secrets_need_two_places(engine, source):
    both = ("--secret", f"id=a,src={source}", "--secret", f"id=b,src={source},target=a")
    failed = engine.ketch("create", *both, "busybox", check=False)
    assert "more than one has the target /run/secrets/a" in failed.err


def test_secrets_are_stored_nowhere_else(own_engine, source):
    own_engine.start()
    own_engine.add_busybox()
    ketch = own_engine.ketch
    ketch(
        "run",
        "-d",
        "--name",
        "box",
        "--secret",
        f"id=db,src={source}",
        "--health-cmd",
        "true",
        "busybox",
        "sleep",
        "1000",
    )
    facts = json.loads(ketch("inspect", "box").out)[0]
    assert facts["HostConfig"]["Secrets"] == [{"ID": "db", "Target": "/run/secrets/db"}]
    assert str(source) not in json.dumps(facts) and WORD not in json.dumps(facts)
    for root in (own_engine.data_root, own_engine.exec_root):
        found = subprocess.run(["grep", "-rl", "-D", "skip", WORD, root], capture_output=True, text=True, check=False)
        assert found.stdout == ""
    with open(f"/proc/{facts['State']['Pid']}/stat", encoding="ascii") as f:
        monitor = int(f.read().split()[3])
    for pid in (monitor, facts["State"]["Pid"]):
        assert WORD.encode() not in memory(pid)
    # It survives the daemon, and a start by the next one.
    own_engine.stop(signal.SIGKILL)
    own_engine.start()
    assert ketch("exec", "box", "cat", "/run/secrets/db").out == WORD
    ketch("restart", "-t", "0", "box")
    assert ketch("exec", "box", "cat", "/run/secrets/db").out == WORD
    said = ketch("inspect", "--as", "run", "box")
    assert "--secret id=db,src=SOURCE_OF_db" in said.out and "put it in" in said.err


def memory(pid: int) -> bytes:
    """What a process can write to, of itself."""
    found = b""
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
        for line in maps:
            span, access = line.split()[:2]
            if not access.startswith("rw"):
                continue
            first, last = (int(word, 16) for word in span.split("-"))
            mem.seek(first)
            found += mem.read(last - first)
    return found


def test_the_mount_point_stays_as_an_empty_directory(engine, source):
    ketch = engine.ketch
    ketch("run", "--name", "box", "--secret", f"id=db,src={source}", "busybox", "true")
    facts = json.loads(ketch("inspect", "box").out)[0]
    upper = facts["GraphDriver"]["Data"]["UpperDir"]
    assert os.listdir(f"{upper}/run/secrets") == []
