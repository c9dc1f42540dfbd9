"""Launcher and monitor: starts, failures and what they leave, exits, zombies, memory, descriptors."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ketch import pidfd
from ketch.engine.monitors.run_directory import read_exit
from ketch.errors import RuntimeFailure
from ketch.runtime.cgroups import common
from ketch.runtime.process.loop import Loop
from ketch.runtime.process.oom import OomWatch
from tests.support.boxes.monitor_box import NOBODY, Peer, children, connect, open_fds, process, process_title, pss_kib
from tests.support.boxes.runtime_box import orphaned_cgroups
from tests.support.run import session
from tests.support.waiting import eventually, patient, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")


async def gone(pid: int) -> None:
    """Wait until a process that is not ours has ended."""
    try:
        fd = pidfd.open_process(pid)
    except ProcessLookupError:
        return
    ended = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_reader(fd, lambda: ended.done() or ended.set_result(None))
    try:
        await asyncio.wait_for(ended, patient(10))
    finally:
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)


@pytest.mark.parametrize(
    ("args", "code"), [(["true"], 0), (["sh", "-c", "exit 42"], 42), (["sh", "-c", "kill -TERM $$; exit 1"], 1)]
)
async def test_exit_code(yard, args, code):
    assert await (await yard.start(args)).code() == code


async def test_signals(yard):
    one = await yard.start(["sh", "-c", "trap 'exit 5' USR1; echo up; while :; do sleep 1; done"])
    peer = await Peer().attach(one.monitor, start="start")
    await peer.until(b"up\n")
    await one.monitor.kill(signal.SIGUSR1)
    assert await one.code() == 5
    other = await yard.start(["sleep", "100"])
    await other.monitor.kill(signal.SIGKILL)
    assert await other.code() == 137
    await other.monitor.kill(signal.SIGKILL)  # too late, and no fault
    peer.close()


async def test_everything_is_in_its_place_when_the_exit_is_told(yard):
    one = await yard.create(["sh", "-c", "echo out; exit 3"])
    pid = one.monitor_pid()
    await one.monitor.start()
    exit_ = await one.monitor.exited
    assert read_exit(one.run_dir) == exit_
    assert not exit_.oom
    assert orphaned_cgroups(f"{yard.box.parent}/0") == []
    assert b"out\n" in Path(one.log_dir, "log").read_bytes()
    await gone(pid)
    assert sorted(os.listdir(one.run_dir)) == ["exit.json"]


async def test_a_program_that_is_not_there(yard):
    with pytest.raises(RuntimeFailure, match="no-such-program") as caught:
        await yard.start(["no-such-program"])
    assert caught.value.kind == "program_not_found"
    await leaves_nothing(yard)


async def test_a_set_up_that_fails_late(yard):
    """After the network was offered: the answer to "start" says why, whether it comes before or behind the failure."""
    for _ in range(10):
        with pytest.raises(RuntimeFailure, match="nobody-here"):
            await yard.start(["true"], {"annotations": {"dev.ketch.user": "nobody-here"}})
        await leaves_nothing(yard)


async def test_a_bundle_that_is_not_there(yard):
    message = yard.message(["true"])
    os.unlink(f"{message['bundle']}/config.json")
    monitor = await yard.launcher.start_container(message)
    with pytest.raises(RuntimeFailure, match=r"config\.json"):
        (await monitor.created()).close()
    await leaves_nothing(yard)


async def test_too_little_memory_for_the_set_up(yard):
    """The child is killed after it was told to go and before its program runs: that is no start."""
    with pytest.raises(RuntimeFailure, match="memory limit is too small"):
        await yard.start(["true"], {"linux.resources.memory": {"limit": 400 << 10}})
    await leaves_nothing(yard)


async def test_memory_that_ran_out_before_it_was_watched(yard):
    """A monitor hears that the program runs while it runs: it may have wanted too much by then."""
    limits = {"linux.resources.memory": {"limit": 32 << 20, "swap": 32 << 20}}
    script = "(x=y; while :; do x=$x$x$x$x; done); read line"
    one = await yard.start(["sh", "-c", script], limits, stdin=True)
    told = asyncio.get_running_loop().create_future()
    one.monitor.on_oom = lambda: told.done() or told.set_result(None)
    if not one.monitor.ooms:
        await asyncio.wait_for(told, patient(15))
    cgroup = common.at(f"{yard.box.parent}/{yard.box.count - 1}")
    # v1 tells before it kills; who comes in between is told by the kernel at once.
    await eventually(cgroup.oom_kills, "nobody was killed")
    heard: list[int] = []
    watch = OomWatch(Loop(), lambda: heard.append(1))
    watch.begin(cgroup)
    watch.end()
    assert (heard, watch.count) == ([1], 1)
    await one.monitor.kill(signal.SIGKILL)
    await one.code()


class Scope:
    """A cgroup of v2 whose counter, as long as it is there, is that of its processes; ``around`` is its parent's."""

    version = 2

    def __init__(self, path: str) -> None:
        self.path, self.around = path, 7

    def watch_oom(self) -> int:
        if not os.path.exists(self.path):
            return -1
        fd = os.open(f"{self.path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        os.pread(fd, 4096, 0)
        return fd

    def oom_kills(self) -> int:
        return 0

    def oom_kills_around(self) -> int:
        return self.around


@pytest.mark.parametrize(
    ("changed", "heard", "around", "kills"),
    [(True, False, 8, 1), (True, True, 8, 1), (True, False, 7, 0), (False, False, 8, 0)],
    ids=["a kill", "a kill soon after a change", "another counter", "somebody else's kill"],
)
def test_a_kill_in_a_cgroup_that_is_gone(changed, heard, around, kills):
    """systemd may remove it before its counters are read: that one has changed is known, and what the parent has.

    When a change was heard, the next one may be lost: the kernel puts its announcement off.
    """
    root = common.layout().unified
    if root is None:
        pytest.skip("this machine has no cgroup v2")
    scope = Scope(f"{root}/{session.SESSION}-gone")
    os.mkdir(scope.path)
    told: list[int] = []
    loop = Loop()
    loop.on_deadline = lambda: setattr(loop, "running", False)
    watch = OomWatch(loop, lambda: told.append(1))
    try:
        watch.begin(scope)
        if changed:
            with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
                with open(f"{scope.path}/cgroup.procs", "w", encoding="ascii") as f:
                    f.write(str(process.pid))
                process.kill()
            events = Path(scope.path, "cgroup.events")
            until(lambda: "populated 0" in events.read_text(encoding="ascii"), "it is empty")
        for _ in range(2 if heard else 0):  # the second time nothing is new
            loop.deadline, loop.running = time.monotonic(), True
            loop.run()
    finally:
        os.rmdir(scope.path)
    scope.around = around
    watch.look()
    watch.end()
    assert (watch.kills, told) == (kills, [1] * kills)


@pytest.mark.parametrize(("before", "kills"), [(6, 1), (7, 0), (None, 0)])
def test_a_kill_in_a_cgroup_that_was_never_seen(before, kills):
    """A program may run, and be killed, while the monitor has yet to hear that it is ready to run."""
    told: list[int] = []
    watch = OomWatch(Loop(), lambda: told.append(1))
    watch.begin(Scope("/nowhere"), before)
    watch.look()
    watch.end()
    assert (watch.kills, told) == (kills, [1] * kills)


async def leaves_nothing(yard):
    """The run directory is empty, no process and no cgroup is left."""
    run_dir = yard.directory / "run" / f"c{yard.box.count}"
    await eventually(
        lambda: not os.listdir(run_dir) and not monitors_of(yard),
        lambda: f"the run directory has {os.listdir(run_dir)}, the launcher {monitors_of(yard)}",
    )
    assert orphaned_cgroups(f"{yard.box.parent}/{yard.box.count - 1}") == []


def monitors_of(yard):
    """Those that have said so: what the launcher forks in advance has another title, or none of its own yet."""
    return [pid for pid in children(yard.launcher._process.pid) if process_title(pid).startswith("ketch-monitor")]


async def test_memory_is_watched_before_the_program_runs(yard):
    """When it has ended, systemd removes the cgroup at once, maybe before anybody hears that it has run."""
    one = await yard.create(["true"], {"linux.resources.memory": {"limit": 32 << 20}})
    kind = "memory.events" if common.layout().version == 2 else "anon_inode:[eventfd]"
    files = Path(f"/proc/{one.monitor_pid()}/fd")
    await eventually(lambda: any(kind in os.readlink(file) for file in files.iterdir()), f"it has no {kind}")
    await one.monitor.start()
    await one.code()


async def test_a_start_that_is_never_requested(yard):
    """ketchd dies between created and start: the monitor undoes everything and ends."""
    one = await yard.create(["sleep", "100"])
    one.monitor.disconnect()
    await leaves_nothing(yard)
    assert await connect(one.run_dir) is None
    yard.containers.clear()


async def test_a_child_that_is_killed_before_its_start(yard):
    one = await yard.create(["sleep", "100"])
    os.kill(one.created.pid, signal.SIGKILL)
    await eventually(lambda: state_of(one.created.pid) in ("Z", "gone"), "the child does not die")
    with pytest.raises(RuntimeFailure, match="died"):
        await one.monitor.start()
    await leaves_nothing(yard)
    yard.containers.clear()


async def test_abandon(yard):
    one = await yard.create(["sleep", "100"])
    await one.monitor.abandon()
    await leaves_nothing(yard)
    yard.containers.clear()


async def test_another_launcher_when_it_was_killed(yard):
    first = await yard.start(["sleep", "100"])
    os.kill(yard.launcher._process.pid, signal.SIGKILL)
    await gone(yard.launcher._process.pid)
    others = await asyncio.gather(*(yard.start(["sh", "-c", "exit 4"]) for _ in range(3)))
    assert [await other.code() for other in others] == [4, 4, 4]
    await first.monitor.kill(signal.SIGTERM)
    await first.monitor.kill(signal.SIGKILL)
    assert await first.code() == 137


async def test_zombies_are_reaped(yard):
    kinds = [{"type": kind} for kind in ("mount", "uts", "ipc", "network")]
    one = await yard.start(["sh", "-c", "sleep 100 & wait"], {"linux.namespaces": kinds}, pidns="host")
    pid = one.monitor_pid()
    peer = Peer()
    # Its child outlives it and becomes the monitor's when it ends.
    await peer.exec(one.monitor, "e1", ["sh", "-c", "(sleep 0.05; exit 7) & exit 0"], stdin=False)
    await peer.rest()
    for _ in range(300):
        states = [state_of(child) for child in children_of(pid)]
        if len(states) == 1 and "Z" not in states:
            break
        await asyncio.sleep(0.01)
    assert states == ["S"]
    await one.monitor.kill(signal.SIGKILL)
    assert await one.code() == 137
    peer.close()


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
        return f.read().split()


def state_of(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            return f.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "gone"


async def test_out_of_memory_is_told(yard):
    one = await yard.start(
        ["sh", "-c", "x=0123456789abcdef; while :; do x=$x$x; done"], {"linux.resources.memory": {"limit": 16 << 20}}
    )
    exit_ = await asyncio.wait_for(one.monitor.exited, patient(15))
    assert exit_.code in (2, 137)
    assert exit_.oom


async def test_memory_of_twenty_monitors(yard):
    """The budget is 2 MiB each; with every reference counted, as before Python 3.12, it is kept at a hundred only."""
    running = [await yard.start(["sleep", "100"]) for _ in range(20)]
    peers = [await Peer().attach(one.monitor) for one in running[:3]]
    sizes = [pss_kib(one.monitor_pid()) for one in running]
    # On cgroup v2 a monitor hears of the first process later, and goes after it into its pid namespace.  On a quiet
    # machine it is a tenth more than on a busy one: all that monitors do after a start has been done.
    old_limit = 2500 if common.layout().version == 1 else 2600
    assert sum(sizes) / len(sizes) < (2048 if sys.version_info >= (3, 12) else old_limit), sizes
    for peer in peers:
        peer.close()


async def test_descriptors_are_given_back(yard):
    one = await yard.start(["sleep", "100"])
    pid, launcher = one.monitor_pid(), yard.launcher._process.pid
    await work(one, "warm")
    before = open_fds(pid), open_fds(launcher), len(os.listdir("/proc/self/fd"))
    for number in range(8):
        await work(one, str(number))
        assert await (await yard.start(["true"])).code() == 0
    for old in yard.containers[1:]:
        old.monitor.disconnect()
    now = before
    for _ in range(300):
        now = open_fds(pid), open_fds(launcher), len(os.listdir("/proc/self/fd"))
        if all(n <= b for n, b in zip(now, before, strict=True)):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(
        f"{before} → {now}: " + str([os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")])
    )


async def work(one, name):
    """Everything that opens something: exec that runs, fails, is refused; attach that ends in several ways."""
    peer = Peer()
    await peer.exec(one.monitor, f"run-{name}", ["echo", "x"])
    await peer.rest()
    peer.close()
    peer = Peer()
    with pytest.raises(RuntimeFailure):
        await peer.exec(one.monitor, f"fail-{name}", ["no-such-program"])
    peer.close()
    with pytest.raises(RuntimeFailure):
        await (other := Peer()).attach(one.monitor, output="frames", start={"wrong": 1})
    other.close()
    other._given.close()
    await one.monitor.exec(f"tty-{name}", process(["true"], tty=True), None, NOBODY)
    peer = await Peer().attach(one.monitor, stdin=True)
    peer.close()


async def test_a_request_nobody_knows(yard):
    one = await yard.start(["sleep", "100"])
    with pytest.raises(RuntimeFailure, match="unknown"):
        await one.monitor._call({"op": "dance"})
    await one.monitor._call({"op": "status"})


async def test_monitor_stays_out_of_the_way(yard):
    """Its own session, no signal from ketchd's terminal ends it, its name says whose it is, stdio is not ketchd's."""
    one = await yard.start(["sleep", "100"])
    pid = one.monitor_pid()
    assert os.getsid(pid) == pid
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    assert (await one.monitor._call({"op": "status"}))["state"] == "running"
    assert Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode() == f"ketch-monitor {one.name}"
    assert {os.readlink(f"/proc/{pid}/fd/{n}") for n in (0, 1, 2)} == {"/dev/null"}


async def test_memory_pressure_takes_the_container_first(yard):
    one = await yard.start(["sleep", "100"], {"process.oomScoreAdj": 300})
    pid = await one.monitor.exec("e1", process(["sleep", "99"]), None, NOBODY)
    scores = [Path(f"/proc/{n}/oom_score_adj").read_text() for n in (one.monitor_pid(), one.created.pid, pid)]
    assert scores[1:] == ["300\n", "300\n"]
    if not may_lower_oom_score():
        pytest.skip("lowering oom_score_adj is not permitted here")
    assert scores[0] == "-998\n"


def may_lower_oom_score():
    return subprocess.run(["sh", "-c", "echo -998 >/proc/self/oom_score_adj"], capture_output=True).returncode == 0


async def test_interpreter_is_out_of_reach(yard):
    """What a container could see as its parent's program is a sealed copy in memory."""
    one = await yard.start(["sleep", "100"])
    assert "memfd:" in os.readlink(f"/proc/{one.monitor_pid()}/exe")
    with pytest.raises(OSError, match="busy|permitted|denied"):
        os.open(f"/proc/{one.monitor_pid()}/exe", os.O_WRONLY)


async def test_long_paths(yard, tmp_path):
    yard.directory = tmp_path / ("d" * 120)
    one = await yard.start(["true"])
    assert await one.code() == 0
    assert json.loads(Path(one.run_dir, "exit.json").read_text())["code"] == 0
