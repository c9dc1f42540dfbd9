"""Resources of one process of the test run, and their removal at its end.

Daemons, launchers and monitors are known by a mark in their environment, containers by their cgroups, roots by their
names.  Tests remove what they make; this is for those that fail, and for runs that are interrupted or killed.
"""

from __future__ import annotations

import contextlib
import glob
import os
import select
import signal
import subprocess
import sys
import time

MARK = "KETCH_TEST_SESSION"
SESSION = f"kt{os.getpid()}-"  # begins the names of the process's bridges, tables, cgroups, roots and marks
_CGROUPS = "/sys/fs/cgroup"
_ENDS_WITHIN_S = 20


def guard() -> None:
    """Mark what this process starts from now on; what is left of it when this process has ended is removed."""
    clear(SESSION)  # of an older process with this number
    command = [sys.executable, "-I", "-S", os.path.abspath(__file__), str(os.getpid())]
    plain = {name: value for name, value in os.environ.items() if name != MARK}
    # In a session of its own, which ^C does not reach, and with nobody's output, for whose end somebody may wait.
    nothing = subprocess.DEVNULL
    subprocess.Popen(command, env=plain, start_new_session=True, stdin=nothing, stdout=nothing, stderr=nothing)
    os.environ[MARK] = SESSION.rstrip("-")


def clear(name: str) -> None:
    """Kill the processes and remove the cgroups and roots whose mark or name begins so (it ends in a letter or a
    dash: those of others do not begin with it)."""
    deadline = time.monotonic() + _ENDS_WITHIN_S
    while (pids := _marked(name) | _contained(name)) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    for path in _cgroups(name):
        with contextlib.suppress(OSError):
            os.rmdir(path)
    roots = glob.glob(f"/tmp/{name}*")
    for place in _mounts(roots):
        subprocess.run(["umount", "-l", place], check=False, stderr=subprocess.DEVNULL)
    subprocess.run(["rm", "-rf", *roots], check=False)  # of any depth


def _marked(name: str) -> set[int]:
    """Processes with the mark of an engine, or (without the dash) that of the whole process of the run."""
    marks = [f"\0{MARK}={name}".encode(), f"\0{MARK}={name[:-1]}\0".encode()]
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as f:
            environment = b"\0" + f.read()
            if any(mark in environment for mark in marks):
                found.add(int(pid))
    return found - {os.getpid()}


def _contained(name: str) -> set[int]:
    """Processes in the cgroups; those that are frozen go on, for they would not die."""
    found = set()
    for path in _cgroups(name):
        for file, go_on in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            with contextlib.suppress(OSError), open(os.path.join(path, file), "r+", encoding="ascii") as f:
                f.write(go_on)
        with contextlib.suppress(OSError), open(os.path.join(path, "cgroup.procs"), encoding="ascii") as f:
            found |= {int(pid) for pid in f.read().split()}
    return found - {0, os.getpid()}


def _cgroups(name: str) -> list[str]:
    """Of all hierarchies, the inner ones first; a container may nest them as deeply as it likes."""
    found = [*glob.glob(f"{_CGROUPS}/{name}*"), *glob.glob(f"{_CGROUPS}/*/{name}*")]
    for path in found:  # grows meanwhile
        with contextlib.suppress(OSError), os.scandir(path) as entries:
            found += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    return found[::-1]


def _mounts(roots: list[str]) -> list[str]:
    """Below the roots, the last one first."""
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        places = [line.split()[4] for line in f]
    return [place for place in reversed(places) if any(place.startswith(root + "/") for root in roots)]


def _main(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        select.select([os.pidfd_open(pid)], [], [])
    clear(f"kt{pid}-")


if __name__ == "__main__":
    _main(int(sys.argv[1]))
