"""The engine of a program's own: it begins with the first program, ends with the last, and leaves nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import ketch
from ketch.errors import FailedPrecondition, NotFound
from tests.support.programs import need
from tests.support.waiting import patient, until

pytestmark = pytest.mark.ketch_only
PROGRAM = """
import sys, ketch
engine = ketch.Engine(state=sys.argv[1])
if not engine.images.exists("busybox"):
    engine.images.bootstrap("busybox")
box = engine.container("busybox", ["sleep", "1000"]).start()
print(box.id, flush=True)
print(engine.run("busybox", sys.argv[2]).text, flush=True)
"""


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """A state directory with an image in it, and a path that is longer than the address of a socket."""
    need("busybox")
    path = tmp_path_factory.mktemp("private") / ("a-directory-with-a-long-name" * 5)
    with ketch.Engine(path) as engine:
        engine.images.bootstrap("busybox")
    yield str(path)
    nothing_left(str(path))


def nothing_left(state: str) -> None:
    """Neither processes nor cgroups nor mounts are left of a state directory's engine."""
    until(lambda: not running(state), lambda: f"its engine ends: {running(state)}")
    name = cgroup_of(state)
    found = [path for path, folders, _ in os.walk("/sys/fs/cgroup") if name in folders]
    assert found == []
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        assert state not in f.read()
    assert not os.path.exists(f"{state}/ketch.sock")


def cgroup_of(state: str) -> str:
    from ketch.daemon.settings import private

    return str(private.of(state)["cgroup_parent"]).strip("/")


def running(state: str) -> list[str]:
    """Processes of the engine: ketchd by its arguments, monitors by their files, containers by their cgroup."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                words = f.read().decode(errors="replace").replace("\0", " ")
            with open(f"/proc/{pid}/cgroup", encoding="utf-8") as f:
                cgroups = f.read()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if pid != str(os.getpid()) and (f"--private {state}" in words or cgroup_of(state) in cgroups):
            found.append(f"{pid} {words}")
    return found


def started(state: str, script: str) -> subprocess.Popen[str]:
    """A program with a container that sleeps, and another that runs a script."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, state, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert len(process.stdout.readline()) == 65, process.stderr.read() if process.stderr else ""
    return process


def test_it_ends_with_its_program(state):
    with contextlib.closing(ketch.Engine(state)) as engine:
        with ThreadPoolExecutor(4) as threads:  # all of which find none
            said = list(threads.map(lambda word: engine.run("busybox", ["echo", word]).text, "abcd"))
        assert said == ["a\n", "b\n", "c\n", "d\n"]
        assert len([line for line in running(state) if "--private" in line]) == 1
        mode = os.stat(f"{state}/ketch.sock").st_mode & 0o777
        assert (mode, os.stat(state).st_mode & 0o777) == (0o600, 0o700)
    nothing_left(state)


def test_it_is_nobodys_child(state):
    """A program that is strict about what it leaves open is not warned, and no zombie of an engine is left to it."""
    script = """
import os, sys, time, ketch
with ketch.Engine(sys.argv[1]) as engine:
    assert engine.run("busybox", ["echo", "here"]).text == "here\\n"
del engine
try:
    os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)
except ChildProcessError:
    print("no child")
"""
    words = [sys.executable, "-X", "dev", "-W", "error", "-c", script, state]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=patient(60))
    assert (done.returncode, done.stdout, done.stderr) == (0, "no child\n", "")
    nothing_left(state)


def test_a_state_directory_by_a_link(state, tmp_path):
    """Is the same engine, also for a program that comes while it ends."""
    (tmp_path / "link").symlink_to(state)
    for path in (state, tmp_path / "link", state):
        with ketch.Engine(path) as engine:
            assert engine.run("busybox", ["echo", "here"]).text == "here\n"
    nothing_left(state)


def test_one_after_another(state):
    """A program that begins while the last one's engine ends waits for that."""
    for _ in range(2):
        with ketch.Engine(state) as engine:
            assert engine.run("busybox", ["echo", "here"]).text == "here\n"
    nothing_left(state)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_program_that_is_killed(state, number):
    """In the midst of a run; ^C is an exception."""
    with started(state, "sleep 1000") as program:
        until(lambda: sum("sleep 1000" in line for line in running(state)) >= 2, "both containers run")
        program.send_signal(number)
        errors = program.communicate(timeout=patient(30))[1]
    assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)
    nothing_left(state)


def test_programs_share_it(state):
    """Several begin at once, each with its containers, and the last one alone ends the engine."""
    programs = [started(state, "echo done; sleep 1000") for _ in range(3)]
    daemons = [line for line in running(state) if "--private" in line]
    assert len(daemons) == 1, daemons
    with ketch.Engine(state) as engine:
        for program in programs:
            program.kill()
            program.communicate()
        assert engine.run("busybox", ["echo", "still"]).text == "still\n"
        assert [line for line in running(state) if "--private" in line] == daemons
    nothing_left(state)


def test_a_killed_engine(state):
    """The next request starts another one, which removes what the former one left."""
    engine = ketch.Engine(state)
    box = engine.container("busybox", ["sleep", "1000"]).start()
    with open(f"{state}/ketchd.pid", encoding="utf-8") as f:
        os.kill(int(f.read()), signal.SIGKILL)
    until(lambda: not os.path.exists(f"{state}/none") and not answers(engine), "it is dead")
    assert engine.run("busybox", ["echo", "again"]).text == "again\n"
    with pytest.raises(NotFound):
        box.exec(["true"])
    assert not any("sleep 1000" in line for line in running(state))
    engine.close()
    nothing_left(state)


def answers(engine: ketch.Engine) -> bool:
    return engine.access._is_open()


def test_networks(state):
    """Made when a container wants one, and gone with the engine."""
    links = set(os.listdir("/sys/class/net"))
    with ketch.Engine(state) as engine:
        with engine.container("busybox", ["httpd", "-f", "-h", "/etc"], ports={80: None}) as box:
            assert "eth0" in box.exec(["ls", "/sys/class/net"]).text
            assert box.address(80)[0] == "127.0.0.1"
            name = box.inspect()["Name"].strip("/")
            found = engine.run("busybox", ["wget", "-qO-", f"http://{name}/passwd"], network=True).text
            assert found.startswith("root:")
            built = engine.images.build(dockerfile=f"FROM busybox\nRUN wget -qO/f http://{name}/passwd\n", tag="built")
            assert engine.run(built, ["cat", "/f"]).text == found
            engine.images.remove(built)
        assert set(os.listdir("/sys/class/net")) > links
    nothing_left(state)
    assert set(os.listdir("/sys/class/net")) == links


def test_a_directory_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedPrecondition, match="as the state directory: Not a directory"):
        ketch.Engine(tmp_path / "file" / "state").info()
