"""The spare: taken by the next container that it suits, replaced, and ended with its launcher."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from ketch.errors import RuntimeFailure
from ketch.linux import mount
from ketch.runtime.cgroups import birth
from tests.support.boxes.monitor_box import Peer, children, process_title
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")

LOOK = """
    exec 2>&1; id; hostname; echo $$; env | sort; ls -l /proc/self/fd | grep -c .
    grep -E '^(Seccomp|CapEff|NoNewPrivs|SigBlk|SigIgn):' /proc/self/status; ulimit -n; umask; pwd
    cat /proc/self/oom_score_adj; cat /proc/self/cgroup | cut -d: -f2; cat /proc/net/dev | grep -c :
    ls /dev /dev/shm; cat /proc/sys/kernel/hostname; cat /proc/mounts | wc -l; readlink /proc/self/ns/cgroup | wc -c
"""


def spares(yard):
    """Spares that wait for a container."""
    return [pid for pid, name in children(yard.launcher._process.pid).items() if name == "ketch-spare"]


async def spare(yard):
    """The spare, when there is one, and its first process."""
    until(lambda: spares(yard), "there is no spare")
    [pid] = spares(yard)
    [first] = children(pid)
    return pid, first


async def said(one):
    """What a program says, and its exit code."""
    peer = await Peer().attach(one.monitor, start="start")
    await one.monitor.start()
    out = await peer.rest()
    peer.close()
    return out, await one.code()


@pytest.mark.parametrize("options", [{}, {"tty": True}, {"stdin": True}], ids=["pipes", "terminal", "input"])
async def test_a_container_takes_it_and_is_as_any_other(yard, options):
    args = ["sh", "-c", f"{LOOK}\n exit 3"]
    pid, first = await spare(yard)
    forked = await yard.create(args, namespaces=[], **options)
    assert forked.monitor_pid() != pid
    expected = await said(forked)
    one = await yard.create(args, **options)
    assert one.monitor_pid() == pid
    # It is the first process itself, or forks that into its cgroup, and ends.
    assert (one.created.pid == first) != birth.saves_time("/any")
    assert process_title(pid) == f"ketch-monitor {one.name}"
    until(lambda: process_title(one.created.pid) == f"ketch-monitor {one.name}", "it does not say whose it is")
    assert Path(f"/proc/{pid}/comm").read_text() == "ketch-monitor\n"
    assert await said(one) == expected
    assert expected[1] == 3
    assert (await spare(yard))[0] != pid


async def test_it_is_kept_for_a_container_that_it_suits(yard):
    pid, _ = await spare(yard)
    kinds = [{"type": kind} for kind in ("mount", "pid", "uts")]
    host = await yard.start(["sleep", "100"], {"linux.namespaces": kinds})
    assert host.monitor_pid() != pid
    assert list(spares(yard)) == [pid]
    other = await yard.start(["sleep", "100"])
    assert other.monitor_pid() == pid


def shared_memory(pid):
    """KiB of writable memory that a process has in common with others, which is copied when it is written to."""
    found, writable = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            writable = words[1] == "rw-p"
        elif writable and words[0] in ("Shared_Clean:", "Shared_Dirty:"):
            found += int(words[1])
    return found


async def test_the_first_process_has_copied_its_memory_while_it_waits(yard):
    pid, first = await spare(yard)
    until(lambda: shared_memory(first) < 64, "it has memory in common with others")
    assert shared_memory(pid) > 1024  # the monitor's, which stays for long, is the launcher's


async def test_two_at_once(yard):
    pid, _ = await spare(yard)
    both = await asyncio.gather(yard.start(["sh", "-c", "exit 1"]), yard.start(["sh", "-c", "exit 2"]))
    assert pid in [one.monitor.process for one in both]
    assert sorted([await one.code() for one in both]) == [1, 2]


async def test_what_was_mounted_meanwhile(yard, tmp_path):
    """A bind mount's source is looked up among the mounts of now."""
    pid, _ = await spare(yard)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount.mount("later", str(disk), "tmpfs")
    try:
        (disk / "file").write_text("well")
        bind = {"destination": "/mnt", "type": "bind", "source": str(disk), "options": ["rbind"]}
        one = await yard.create(["cat", "/mnt/file"], {"+mounts": [bind]})
        assert one.monitor_pid() == pid
        assert b"well" in (await said(one))[0]
    finally:
        mount.umount2(str(disk))


def made_ahead(pid):
    """How many file systems a process has made and not mounted."""
    found = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")]
    return found.count("anon_inode:[fscontext]")


async def test_file_systems_are_those_of_the_container(yard):
    """Those that were made with the last one's options serve where the options are the same, and each only once."""

    async def mounts_of(*sizes):
        pid, first = await spare(yard)
        until(lambda: not shared_memory(first) > 64, "it is not ready")
        ahead = made_ahead(first)
        entries = [
            {"destination": f"/mnt/{n}", "type": "tmpfs", "source": "t", "options": ["mode=755", f"size={size}k"]}
            for n, size in enumerate(sizes)
        ]
        script = "cd /mnt; for n in *; do ls $n; > $n/file; done; grep /mnt /proc/mounts; cut -d' ' -f2,3 /proc/mounts"
        one = await yard.create(["sh", "-c", script], {"+mounts": entries})
        assert one.monitor_pid() == pid
        out, code = await said(one)
        assert (code, b"file\n" in out) == (0, False)
        return ahead, [line for line in out.decode().splitlines() if line]

    none, first = await mounts_of(64, 64)
    assert none == 0
    assert sum("size=64k" in line for line in first) == 2
    some, second = await mounts_of(64, 64)
    assert some >= 3
    assert second == first
    _, third = await mounts_of(128, 64)
    assert [size in line for line, size in zip(third, ("size=128k", "size=64k"), strict=False)] == [True, True]
    assert third[2:] == first[2:]


@pytest.mark.parametrize("which", ["spare", "first"])
async def test_one_that_was_killed(yard, which):
    pid, first = await spare(yard)
    os.kill(pid if which == "spare" else first, signal.SIGKILL)
    until(lambda: pid not in children(yard.launcher._process.pid), "it does not end")
    one = await yard.start(["sh", "-c", "exit 4"])
    assert await one.code() == 4
    assert (await spare(yard))[0] != pid


async def test_a_set_up_that_fails(yard):
    for args, changes, why in (
        (["no-such-program"], {}, "no-such-program"),
        (["true"], {"annotations": {"dev.ketch.user": "nobody-here"}}, "nobody-here"),
        (["true"], {"+mounts": [{"destination": "/proc/self", "type": "tmpfs", "source": "x"}]}, "/proc/self"),
        (["true"], {"hostname": "no json"}, ""),
        (["true"], {"root.path": "nowhere", "mounts": []}, ""),
    ):  # the spare after each one has read its bundle, if that is there
        pid, first = await spare(yard)
        message = yard.message(args, changes)
        if "hostname" in changes:
            os.truncate(f"{message['bundle']}/config.json", 100)
        elif not why:
            os.unlink(f"{message['bundle']}/config.json")
        monitor = await yard.launcher.start_container(message)
        with pytest.raises(RuntimeFailure, match=why or r"config\.json"):
            (await monitor.created()).close()
            await monitor.start()
        until(lambda p=pid, f=first: not os.path.exists(f"/proc/{p}") and not os.path.exists(f"/proc/{f}"), "they live")
        assert os.listdir(message["run_dir"]) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_it_ends_with_its_launcher(yard, number):
    """Whatever was forked beside it lives on."""
    pid, first = await spare(yard)
    other = await yard.start(["sleep", "100"], namespaces=[])
    assert other.monitor_pid() != pid
    os.kill(yard.launcher._process.pid, number)
    until(lambda: not os.path.exists(f"/proc/{pid}") and not os.path.exists(f"/proc/{first}"), "they live on")
