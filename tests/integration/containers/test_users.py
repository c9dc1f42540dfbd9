"""Users and groups of containers and execs, by name and number, as the kernel has them afterwards."""

from __future__ import annotations

import contextlib
import io
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.support.engines import busybox_tar
from tests.support.memory import Memory
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.support.engines import Engine

PASSWD = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n1500:x:1600:1600::/:/bin/sh\n"
GROUP = "root:x:0:\nwheel:x:10:alice,root\nalice:x:1000:\naudio:x:63:alice\n2000:x:77:\n"
LOOK = ("sh", "-c", "sed -n 's/^[UG]id:\\s*//p; s/^Groups:\\s*//p' /proc/self/status | cut -f1 | tr '\\n' ' '")


@pytest.fixture(scope="module")
def image(engine: Engine) -> str:
    """busybox with users."""
    tar, files = io.BytesIO(), {"./etc/passwd": PASSWD.encode(), "./etc/group": GROUP.encode()}
    with tarfile.open(fileobj=io.BytesIO(busybox_tar())) as source, tarfile.open(fileobj=tar, mode="w") as target:
        for member in source:
            content = source.extractfile(member) if member.isreg() else None
            if member.name == ".":
                member.mode = 0o755  # that of the temporary directory is for nobody else
            if data := files.get(f"./{member.name.removeprefix('./')}"):
                member.size, content = len(data), io.BytesIO(data)
            target.addfile(member, content)
    engine.docker("import", "-c", 'CMD ["sh"]', "-", "users", stdin=tar.getvalue())
    return "users"


USERS = [
    ("", "0 0 0 10"),
    ("root", "0 0 0 10"),
    ("0:0", "0 0 0"),
    ("alice", "1000 1000 10 63 1000"),
    ("1000", "1000 1000 10 63 1000"),
    ("+1000", "1000 1000 10 63 1000"),
    ("alice:audio", "1000 63 63"),
    ("alice:63", "1000 63 63"),
    ("1000:10", "1000 10 10"),
    ("alice:2000", "1000 2000 2000"),
    ("1500", "1500 0 0"),
    ("1:1", "1 1 1"),
    ("4242", "4242 0 0"),
    ("4242:audio", "4242 63 63"),
    (":audio", "0 63 63"),
]
UNKNOWN = [
    ("nosuch", "unable to find user nosuch: no matching entries in passwd file"),
    ("root:nosuch", "unable to find group nosuch: no matching entries in group file"),
    ("-1", "uids and gids must be in range 0-2147483647"),
    ("2147483648", "uids and gids must be in range 0-2147483647"),
]


def test_users_of_containers_and_execs(engine: Engine, image: str) -> None:
    engine.docker("run", "-d", "--name", "one", image, "sleep", "1000")
    for user, expected in USERS:
        assert engine.docker("run", "--rm", "-u", user, image, *LOOK).out.split() == expected.split(), user
        assert engine.docker("exec", "-u", user, "one", *LOOK).out.split() == expected.split(), user


def test_added_groups(engine: Engine, image: str) -> None:
    for user, added, expected in (
        ("1:1", ("audio", "7", "7"), "1 1 1 7 63"),
        ("alice", ("7",), "1000 1000 7 10 63 1000"),
        ("alice", ("audio",), "1000 1000 10 63 63 1000"),
        ("", ("2000",), "0 0 0 10 2000"),
    ):
        flags = [word for group in added for word in ("--group-add", group)]
        assert engine.docker("run", "--rm", "-u", user, *flags, image, *LOOK).out.split() == expected.split()
    engine.docker("run", "-d", "--name", "one", "-u", "alice", "--group-add", "7", image, "sleep", "1000")
    assert engine.docker("exec", "one", *LOOK).out.split() == ["1000", "1000", "7", "10", "63", "1000"]
    assert engine.docker("exec", "-u", "1:1", "one", *LOOK).out.split() == ["1", "1", "1", "7"]


def test_users_that_are_not_there(engine: Engine, image: str) -> None:
    """Refused before anything starts: an exec's client gets an error and no stream."""
    engine.docker("run", "-d", "--name", "one", image, "sleep", "1000")
    for user, message in UNKNOWN:
        run = engine.docker("run", "--rm", "-u", user, image, "true", check=False)
        assert (run.code, message in run.err) == (125, True), run.err
        done = engine.docker("exec", "-u", user, "one", "true", check=False)
        assert (done.code, done.err.strip()) == (1, f"Error response from daemon: {message}")
    with contextlib.closing(engine.py()) as client:
        answer = client.api._post_json(client.api._url("/containers/one/exec"), {"Cmd": ["true"], "User": "nosuch"})
        assert answer.status_code == 400


def _committed(engine: Engine, image: str, script: str) -> str:
    """An image whose files ``script`` has changed."""
    engine.docker("run", "--name", "change", image, "sh", "-c", script)
    engine.docker("commit", "change", "changed")
    engine.docker("rm", "change")
    return "changed"


def test_a_home_is_that_of_the_first_entry_with_the_number(engine: Engine, image: str) -> None:
    changed = _committed(engine, image, "echo 'toor:x:0:10::/toor:/bin/sh' >> /etc/passwd")
    look = ("sh", "-c", "id -u; id -g; echo $HOME")
    assert engine.docker("run", "--rm", "-u", "toor", changed, *look).out.split() == ["0", "10", "/root"]


def test_directories_in_place_of_the_files_name_nobody(engine: Engine, image: str) -> None:
    changed = _committed(engine, image, "rm /etc/passwd /etc/group; mkdir /etc/passwd /etc/group")
    for user, expected in (("", "0 0 0"), ("1:5", "1 5 5"), ("7", "7 0 0")):
        assert engine.docker("run", "--rm", "-u", user, changed, *LOOK).out.split() == expected.split(), user
    done = engine.docker("run", "--rm", "-u", "alice", changed, "true", check=False)
    assert (done.code, "unable to find user alice" in done.err) == (125, True)


def test_only_a_line_feed_ends_an_entry(engine: Engine, image: str) -> None:
    """A full name may hold what else is called the end of a line; it is nobody's second entry."""
    for end in ("\\v", "\\f", "\\034", "\\302\\205", "\\342\\200\\250"):
        entry = f"bob:x:1001:1001:Bob{end}eve:x:0:0:/home/bob:/bin/sh\\n"
        changed = _committed(engine, image, f"printf '{entry}' >> /etc/passwd")
        assert engine.docker("run", "--rm", "-u", "bob", changed, "id", "-u").out.strip() == "1001"
        done = engine.docker("run", "--rm", "-u", "eve", changed, "true", check=False)
        assert (done.code, "unable to find user eve" in done.err) == (125, True)


@pytest.mark.ketch_only  # dockerd opens what is there
@pytest.mark.parametrize("file", ["/etc/passwd", "/etc/group"])
def test_devices_in_place_of_the_files_are_not_opened(engine: Engine, image: str, file: str) -> None:
    """A watchdog begins to count when it is opened, and the daemon may open every device of the machine."""
    # No driver has this number: who opens it is told that there is no such device, who only looks is not.
    script = f"rm {file}; mknod {file} c 240 77; echo made; sleep 1000"
    engine.docker("run", "-d", "--name", "one", image, "sh", "-c", script)
    until(lambda: engine.docker("logs", "one").out, "no device")
    with contextlib.closing(engine.py()) as client:
        config = {"Cmd": ["true"], "User": "alice"}
        answer = client.api._post_json(client.api._url("/containers/one/exec"), config)
        assert (answer.status_code, "not a regular file" in answer.text) == (400, True), answer.text


@pytest.mark.ketch_only  # dockerd waits for the kernel's next message
@pytest.mark.parametrize("file", ["/etc/passwd", "/etc/group"])
def test_the_kernels_messages_are_not_read(engine: Engine, image: str, file: str) -> None:
    """Who reads /proc/kmsg waits, and takes them from those who log them; the daemon may, a container may not."""
    script = f"ln -sf /proc/kmsg {file}; echo made; sleep 1000"
    engine.docker("run", "-d", "--name", "one", image, "sh", "-c", script)
    until(lambda: engine.docker("logs", "one").out, "no link")
    with contextlib.closing(engine.py()) as client:
        for user in ("nosuch", "0:nosuch"):
            answer = client.api._post_json(client.api._url("/containers/one/exec"), {"Cmd": ["true"], "User": user})
            assert (answer.status_code, "no matching entries" in answer.text) == (400, True), answer.text
    assert engine.docker("exec", "-u", "1:5", "one", *LOOK).out.split() == ["1", "5", "5"]


@pytest.mark.ketch_only  # of the memory of ours
def test_files_of_any_size(engine: Engine, image: str) -> None:
    """The daemon reads a container's files when it looks somebody up there: they are never whole in its memory."""
    script = "yes : | head -c 15000000 >> /etc/passwd; yes a | head -c 15000000 | tr -d '\\n' >> /etc/group; sleep 1000"
    engine.docker("run", "-d", "--name", "one", image, "sh", "-c", script)
    until(lambda: engine.docker("exec", "one", "pidof", "sleep", check=False).code == 0, "not written yet")
    memory = Memory(engine.process.pid)
    with contextlib.closing(engine.py()) as client:
        for user, message in (
            ("nosuch", "unable to find user nosuch"),
            ("alice:nosuch", "unable to find group nosuch"),
        ):
            answer = client.api._post_json(client.api._url("/containers/one/exec"), {"Cmd": ["true"], "User": user})
            assert (answer.status_code, message in answer.text) == (400, True), answer.text
    assert memory.grown_mib() < 64
    assert engine.docker("exec", "-u", "alice", "one", *LOOK).out.split() == ["1000", "1000", "10", "63", "1000"]
