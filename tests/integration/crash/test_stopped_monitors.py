"""Containers whose monitor does not answer: stopped, without its socket, or no descriptor is free.

Whether ketchd was there before (connected) or takes the containers over (not reached yet), what needs no monitor works,
what needs one says so within seconds, and when the monitor goes on all is as before.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.boxes.crash_box import pids_of, read, running
from tests.support.leaks import Census
from tests.support.rawapi import Api
from tests.support.waiting import until

pytestmark = pytest.mark.ketch_only
ANSWER_S = 10


def cgroup(engine, ident: str) -> str:
    root = "/sys/fs/cgroup/freezer" if os.path.isdir("/sys/fs/cgroup/freezer") else "/sys/fs/cgroup"
    return f"{root}/{engine.name}/{ident}"


class Stopped:
    """A container with a stopped monitor."""

    def __init__(self, engine, name: str) -> None:
        self.taken_over = False
        one = engine.inspect(name)
        self.id, self.pid = one["Id"], one["State"]["Pid"]
        self.monitor = int(read(f"{engine.exec_root}/run/{self.id}/monitor.pid"))
        self.cgroup = cgroup(engine, self.id)
        self.stop()

    def stop(self) -> None:
        os.kill(self.monitor, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.monitor, signal.SIGCONT)

    def left(self) -> list[str]:
        """What of it lives."""
        living = [f"process {pid}" for pid in (self.pid, self.monitor) if running(pid)]
        return living + ([self.cgroup] if os.path.isdir(self.cgroup) else [])


@pytest.fixture
def alone(file_engine):
    """The daemon, which every test may kill and start; what it has of images stays."""
    if not os.path.exists(file_engine.log_path):
        file_engine.start()
        file_engine.add_busybox()
    os.truncate(file_engine.log_path, 0)
    before = Census.take(file_engine.name)
    file_engine.stopped = []
    yield file_engine
    for one in file_engine.stopped:
        with contextlib.suppress(ProcessLookupError):
            one.go_on()
    if file_engine.process is None:
        file_engine.start()
    file_engine.remove_all()
    # The daemon and its launcher may be other processes now; of monitors the cgroups would tell.
    assert before.leaks(but=("process",)) == []


@pytest.fixture(params=["connected", "taken over"])
def one(request, alone):
    """A container ``one`` with a stopped monitor, beside ``other``, whose monitor is well."""
    alone.client("run", "-d", "-t", "--name", "one", "busybox", "sh", "-c", "echo up; exec sleep 12345")
    alone.client("run", "-d", "--name", "other", "busybox", "sleep", "12345")
    until(lambda: "up" in alone.client("logs", "one").out, "it does not print")
    stopped = Stopped(alone, "one")
    alone.stopped.append(stopped)
    if request.param == "taken over":
        stopped.taken_over = True
        alone.stop(signal.SIGKILL)
        alone.start()
    return stopped


def answer(engine, method: str, path: str, body=None, **query) -> tuple[int, object]:
    """Of a daemon that does not wait for the monitor: it stays stopped; status 0 when none comes."""
    return Api(engine.socket)(method, path, body, timeout=ANSWER_S, **query)


def test_others_do_not_wait(alone, one):
    assert alone.client("ps", "--format", "{{.Names}} {{.State}}").out.split() == ["other", "running", "one", "running"]
    assert alone.client("exec", "other", "echo", "well").out == "well\n"
    assert alone.inspect("one")["State"]["Pid"] == one.pid
    alone.client("rm", "-f", "-t", "0", "other", check=False)
    assert running(one.pid)


def test_commands_without_the_monitor_work(alone, one):
    assert answer(alone, "GET", "/containers/one/top")[0] == 200
    assert answer(alone, "GET", "/containers/one/stats", stream=0)[0] == 200
    assert answer(alone, "GET", "/containers/one/logs", stdout=1) == (200, b"up\r\n")
    assert answer(alone, "POST", "/containers/one/update", {"Memory": 64 << 20, "MemorySwap": 64 << 20})[0] == 200
    for verb, status in (("pause", "paused"), ("unpause", "running")):
        assert answer(alone, "POST", f"/containers/one/{verb}")[0] == 204
        assert alone.inspect("one")["State"]["Status"] == status
    assert answer(alone, "POST", "/containers/one/rename", name="two")[0] == 204


def test_commands_that_need_the_monitor_fail_clearly(alone, one):
    status, made = answer(alone, "POST", "/containers/one/exec", {"Cmd": ["true"]})
    assert status == 201
    begin = f"/exec/{made['Id']}/start"
    with ThreadPoolExecutor() as pool:  # each is waited for, but not by the others
        answers = [
            pool.submit(answer, alone, "POST", begin, {"Detach": True}),
            pool.submit(answer, alone, "POST", "/containers/one/attach", stream=1, stdout=1),
            pool.submit(answer, alone, "POST", "/containers/one/resize", h=10, w=10),
        ]
    for status, text in (one.result() for one in answers):
        assert status == 503, (status, text)
        assert "monitor" in text["message"], text
    status, text = answer(alone, "POST", begin, {"Detach": False})  # the first try counts
    assert status == 409 or (status == 503 and "monitor" in text["message"]), (status, text)


def test_all_works_when_it_goes_on(alone, one):
    if one.taken_over:  # and what waits to be accepted is of a daemon that is gone
        alone.stop(signal.SIGKILL)
        alone.start()
    made = Api(alone.socket).must("POST", "/containers/one/exec", {"Cmd": ["touch", "/late"]})
    with alone.docker.piped("wait", "one") as wait, alone.docker.piped("logs", "-f", "one") as logs:
        logs.expect("up")
        answer(alone, "POST", f"/exec/{made['Id']}/start", {"Detach": True})
        one.go_on()
        until(lambda: alone.client("exec", "one", "echo", "well", check=False).out == "well\n", "it does not answer")
        # An exec that was answered with an error is not carried out later.
        assert alone.client("exec", "one", "ls", "/late", check=False).code != 0
        assert alone.client("inspect", "-f", "{{.State.Pid}}", "one").out == f"{one.pid}\n"
        alone.client("stop", "-t", "0", "one")
        wait.expect("137\n")
        assert logs.wait() == 0
    until(lambda: one.left() == [], lambda: f"it lives: {one.left()}")


@pytest.mark.parametrize("verb", ["stop", "kill", "restart", "rm"])
def test_it_is_ended(alone, one, verb):
    if verb == "rm":
        assert answer(alone, "DELETE", "/containers/one", force=1)[0] == 204
    else:
        query = {} if verb == "kill" else {"t": 0}
        assert answer(alone, "POST", f"/containers/one/{verb}", **query)[0] == 204
    if verb == "restart":
        assert not running(one.pid)
        assert alone.client("exec", "one", "echo", "well").out == "well\n"
        return
    until(lambda: one.left() == [], lambda: f"it lives: {one.left()}")
    if verb == "rm":
        assert answer(alone, "GET", "/containers/one/json")[0] == 404
        return
    state = alone.inspect("one")["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 137)
    assert "up" in alone.client("logs", "one").out
    alone.client("start", "one")
    assert alone.client("exec", "one", "echo", "well").out == "well\n"


def test_stop_lets_it_end_by_itself(alone):
    """The signal goes past the monitor, and the end that it records is the program's own."""
    script = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.1; done"
    alone.client("run", "-d", "--name", "one", "busybox", "sh", "-c", script)
    until(lambda: "up" in alone.client("logs", "one").out, "it does not print")
    alone.stopped.append(Stopped(alone, "one"))
    assert answer(alone, "POST", "/containers/one/stop", t=8)[0] == 204
    assert alone.inspect("one")["State"]["ExitCode"] == 7
    assert alone.client("logs", "one").out == "up\nbye\n"


TRAP = "trap 'exit %d' TERM; echo up; while :; do sleep 0.1; done"


@pytest.fixture(params=["connected", "taken over"])
def shared(request, alone):
    """What has the two containers' monitors stopped: ``home``, and ``guest`` in its pid namespace."""

    def stop(*names: str) -> dict[str, Stopped]:
        stopped = {name: Stopped(alone, name) for name in names}
        alone.stopped += stopped.values()
        if request.param == "taken over":
            alone.stop(signal.SIGKILL)
            alone.start()
        return stopped

    for name, code, more in (("home", 7, ()), ("guest", 8, ("--pid", "container:home"))):
        alone.client("run", "-d", "--name", name, *more, "busybox", "sh", "-c", TRAP % code)
        until(lambda name=name: "up" in alone.client("logs", name).out, "it does not print")
    return stop


def ends_as(engine, name: str, code: int) -> None:
    until(lambda: engine.inspect(name)["State"]["Status"] == "exited", f"{name} does not end")
    assert engine.inspect(name)["State"]["ExitCode"] == code, name


@pytest.mark.parametrize("names", [("home", "guest"), ("guest",), ("home",)], ids=" ".join)
@pytest.mark.parametrize(("verb", "code"), [("stop", 7), ("kill", 137), ("rm", None)])
def test_the_pid_namespace_of_others(alone, shared, names, verb, code):
    """It ends when all in it are reaped, also by the monitor of a guest, who dies with it; the exit code is its own."""
    stopped = shared(*names)
    if verb == "rm":
        assert answer(alone, "DELETE", "/containers/home", force=1)[0] == 204
        assert answer(alone, "GET", "/containers/home/json")[0] == 404
    else:
        assert answer(alone, "POST", f"/containers/home/{verb}", **({"t": 8} if verb == "stop" else {}))[0] == 204
        ends_as(alone, "home", code)
    ends_as(alone, "guest", 137)
    for one in stopped.values():
        until(lambda one=one: one.left() == [], lambda one=one: f"it lives: {one.left()}")


def test_the_pid_namespace_of_others_ends_by_itself(alone, shared):
    """Nobody asked for it, so nobody is there who would look after its guest."""
    stopped = shared("guest")
    os.kill(alone.inspect("home")["State"]["Pid"], signal.SIGKILL)
    ends_as(alone, "home", 137)
    ends_as(alone, "guest", 137)
    until(lambda: stopped["guest"].left() == [], lambda: f"it lives: {stopped['guest'].left()}")


def test_a_guest_ends_alone(alone, shared):
    stopped = shared("home", "guest")
    assert answer(alone, "POST", "/containers/guest/stop", t=8)[0] == 204
    ends_as(alone, "guest", 8)
    assert running(stopped["home"].pid)
    assert read(f"/proc/{stopped['home'].monitor}/stat").rpartition(b")")[2].split()[0] == b"T"


def test_a_frozen_guest(alone, shared):
    """It is killed by the kernel like any other, and does not notice before it goes on."""
    shared()
    assert answer(alone, "POST", "/containers/guest/pause")[0] == 204
    assert answer(alone, "POST", "/containers/home/kill")[0] == 204
    ends_as(alone, "home", 137)
    ends_as(alone, "guest", 137)


def test_it_is_killed_while_it_is_stopped(alone, one):
    os.kill(one.monitor, signal.SIGKILL)
    until(lambda: alone.inspect("one")["State"]["Status"] == "exited", "its end is not noticed")
    assert alone.inspect("one")["State"]["ExitCode"] == 137
    until(lambda: one.left() == [], lambda: f"it lives: {one.left()}")


def test_many_restarts(alone):
    """A stopped monitor accepts no more than some connections: that ketchd does not wait for one."""
    alone.client("run", "-d", "--name", "one", "busybox", "sleep", "12345")
    one = Stopped(alone, "one")
    alone.stopped.append(one)
    alone.stop(signal.SIGKILL)
    run_dir = os.open(f"{alone.exec_root}/run/{one.id}", os.O_PATH)
    try:
        fill(f"/proc/self/fd/{run_dir}/control.sock")
    finally:
        os.close(run_dir)
    alone.start()
    assert alone.inspect("one")["State"]["Running"]
    one.go_on()
    until(lambda: alone.client("exec", "one", "echo", "well", check=False).out == "well\n", "it does not answer")


def fill(path: str) -> None:
    """Leave as many connections of daemons that are gone as wait to be accepted."""
    for _ in range(100):
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as one:
            one.setblocking(False)
            try:
                one.connect(path)
            except BlockingIOError:
                return
    raise AssertionError("a stopped monitor accepts any number of connections")


@pytest.mark.parametrize("wiped", ["socket", "run directory", "exec root"])
def test_its_names_are_gone(alone, wiped):
    alone.client("run", "-d", "--name", "one", "busybox", "sleep", "12345")
    one = Stopped(alone, "one")
    alone.stopped.append(one)
    alone.stop(signal.SIGKILL)
    run_dir = f"{alone.exec_root}/run/{one.id}"
    if wiped == "socket":
        os.unlink(f"{run_dir}/control.sock")
    else:
        shutil.rmtree(run_dir if wiped == "run directory" else alone.exec_root)
    alone.start()
    assert alone.inspect("one")["State"]["Running"]
    one.go_on()
    until(lambda: alone.client("exec", "one", "echo", "well", check=False).out == "well\n", "it does not answer")
    alone.stop(signal.SIGKILL)
    one.stop()
    shutil.rmtree(alone.exec_root)
    alone.start()
    assert answer(alone, "DELETE", "/containers/one", force=1)[0] == 204
    until(lambda: one.left() == [], lambda: f"it lives: {one.left()}")


def test_it_is_ended_long_after_its_names_were_lost(alone):
    """Tries to reach it come seldom by then; whoever ends it does not wait for the next one."""
    alone.client("run", "-d", "--name", "one", "busybox", "sleep", "12345")
    one = Stopped(alone, "one")
    alone.stopped.append(one)
    alone.stop(signal.SIGKILL)
    shutil.rmtree(alone.exec_root)
    alone.start()
    asked = b"its run directory was lost"
    until(lambda: read(alone.log_path).count(asked) > 7, "it is not asked for", timeout_s=15)  # the next pause: 6.4 s
    assert answer(alone, "DELETE", "/containers/one", force=1)[0] == 204
    until(lambda: one.left() == [], lambda: f"it lives: {one.left()}")


def test_networks_change_before_it_is_taken_over(alone):
    """Its monitor has the sockets of its names: they are answered for its new networks when they can be had."""
    for name in ("quay", "pier", "dock"):
        alone.client("network", "create", name)
    alone.client("run", "-d", "--name", "other", "--network", "dock", "busybox", "sleep", "12345")
    alone.client("run", "-d", "--name", "one", "--network", "quay", "busybox", "sleep", "12345")
    alone.client("network", "connect", "pier", "one")
    one = Stopped(alone, "one")
    alone.stopped.append(one)
    alone.stop(signal.SIGKILL)
    alone.start()
    alone.client("network", "connect", "dock", "one")
    alone.client("network", "disconnect", "pier", "one")
    assert set(alone.inspect("one")["NetworkSettings"]["Networks"]) == {"quay", "dock"}
    one.go_on()
    until(lambda: alone.client("exec", "one", "ping", "-c1", "other", check=False).code == 0, "names are not answered")


def test_no_descriptors_for_what_is_taken_over(alone):
    """Containers that cannot be taken over for want of descriptors are when there are some again; none is lost."""
    names = [f"c{n}" for n in range(8)]
    alone.client("network", "create", "quay")
    for name in names:
        alone.client("run", "-d", "--name", name, "--network", "quay", "busybox", "sleep", "12345")
    pids = {name: alone.inspect(name)["State"]["Pid"] for name in names}
    alone.stopped += [Stopped(alone, name) for name in names]
    alone.stop(signal.SIGKILL)
    alone.start()
    pid = alone.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir(f"/proc/{pid}/fd")))  # the limit is about numbers
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1, hard))
    for one in alone.stopped:
        one.go_on()
    until(lambda: b"Too many open files" in read(alone.log_path), "all descriptors were there", 40)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    for name in names:
        until(lambda name=name: alone.client("exec", name, "true", check=False).code == 0, f"{name} is not taken over")
        assert alone.inspect(name)["State"]["Pid"] == pids[name]
    for name in names:  # each asks its own resolver
        until(lambda name=name: alone.client("exec", name, "nslookup", "c0", check=False).code == 0, "no names", 40)


def test_a_stopped_launcher(alone):
    """It would carry out the start some time: it is replaced, and the next start works."""
    children = read(f"/proc/{alone.process.pid}/task/{alone.process.pid}/children").split()
    (launcher,) = [int(c) for c in children if read(f"/proc/{int(c)}/cmdline").startswith(b"ketch-launcher")]
    os.kill(launcher, signal.SIGSTOP)
    alone.client("create", "--name", "one", "busybox", "sleep", "12345")
    status, text = answer(alone, "POST", "/containers/one/start")
    assert status == 503
    assert "launcher" in text["message"]
    assert not running(launcher)
    assert answer(alone, "POST", "/containers/one/start")[0] == 204
    assert len(pids_of(cgroup(alone, alone.inspect("one")["Id"]))) == 1


def test_ketchd_ends_beside_a_stopped_launcher(alone):
    children = read(f"/proc/{alone.process.pid}/task/{alone.process.pid}/children").split()
    (launcher,) = [int(c) for c in children if read(f"/proc/{int(c)}/cmdline").startswith(b"ketch-launcher")]
    os.kill(launcher, signal.SIGSTOP)
    assert alone.stop() == 0
    assert not running(launcher)
