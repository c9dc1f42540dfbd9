"""Censuses of the machine's resources that an engine could leave behind."""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ketch.linux.libnftables import Nftables
from tests.support.run import unprivileged
from tests.support.run.session import MARK
from tests.support.waiting import patient

if TYPE_CHECKING:
    from collections.abc import Iterator

_SESSION = re.compile(r"kt\d+-")


@dataclass
class Census:
    """Names of mounts, links, firewall tables, and of the session's own cgroups and processes."""

    things: set[str]
    session: str

    @classmethod
    def take(cls, session: str) -> Census:
        """Count now. ``session`` begins the names of the session's bridges, tables and cgroups, and the mark in
        its daemons' environment.

        Other engines of the machine come and go meanwhile: what stands under another bridge's name is theirs,
        and cgroups and processes are counted by the mark only.
        """
        things = {*_mounts(), *_links(session), *_tables(session), *_cgroups(session), *_processes(session)}
        return cls(things, session)

    def leaks(self, but: tuple[str, ...] = ()) -> list[str]:
        """What is here now and was not when this census was taken, ``but`` for kinds that begin so.

        The kernel gets a moment: it destroys links of a dead network namespace by itself, some time later.
        """
        deadline = time.monotonic() + patient(20)
        while extra := {t for t in Census.take(self.session).things - self.things if not t.startswith(but)}:
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        return sorted(extra)


def _mounts():
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        for line in f:
            path = line.split()[4]
            if path not in unprivileged.MOUNTS:
                yield f"mount {path}"


def _links(session: str):
    for name in os.listdir("/sys/class/net"):
        try:
            bridge = os.path.basename(os.readlink(f"/sys/class/net/{name}/master"))
        except OSError:  # it has none, or it went while we looked
            bridge = name if os.path.exists(f"/sys/class/net/{name}/bridge") else ""
        if not bridge or bridge.startswith((session, "ketch")):
            yield "link " + name


def _tables(session: str):
    for line in Nftables().run("list tables").output.splitlines():
        name = line.split()[-1]
        if not name.startswith("ketch-") or name.startswith(f"ketch-{session}"):
            yield "nft " + line.strip()


def _cgroups(session: str):
    for path in cgroups(session):
        if session in path:
            yield "cgroup " + path


def cgroups(session: str) -> Iterator[str]:
    """Paths of the machine's cgroups but for those of test runs beside ours, which come and go, thousands deep."""
    ours = session.partition("-")[0] + "-"
    waiting = ["/sys/fs/cgroup"]  # os.walk recurses, and a container may nest them as deeply as it likes
    while waiting:
        with contextlib.suppress(FileNotFoundError), os.scandir(waiting.pop()) as entries:
            below = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
            found = [entry.path for entry in below if not _SESSION.match(entry.name) or entry.name.startswith(ours)]
            waiting += found
            yield from found


def _processes(session: str):
    """Daemons, launchers, monitors (they inherit the mark) and their children, containers."""
    marked, parents = {}, {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
                name, _, rest = f.read().partition(" (")[2].rpartition(") ")
            state, parent = rest.split()[:2]
            if state == "Z":
                continue
            parents[pid] = (parent, name)
            with open(f"/proc/{pid}/environ", "rb") as f:
                if f"\0{MARK}={session}".encode() in b"\0" + f.read():
                    marked[pid] = name
        except OSError:
            continue
    for pid, (parent, name) in parents.items():
        if pid in marked or parent in marked:
            yield f"process {pid} {name}"


_OF_NAMESPACES = ("/bin/sleep infinity", "/usr/bin/slirp4netns ", "/usr/bin/pasta ")


def descendants(pid: int) -> dict[int, str]:
    """The processes below one, monitors and what runs in containers too: their pids and command lines.

    Without what a user's engine has beside: the keeper of its namespaces, and their way outside.
    """
    children: dict[int, list[int]] = {}
    lines = {}
    for one in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError):
            with open(f"/proc/{one}/stat", encoding="utf-8", errors="replace") as f:
                state, parent = f.read().rpartition(") ")[2].split()[:2]
            with open(f"/proc/{one}/cmdline", encoding="utf-8", errors="replace") as f:
                lines[one] = f.read().replace("\0", " ").strip()
            if state != "Z":
                children.setdefault(int(parent), []).append(one)
    found, pending = {}, [pid]
    while pending:
        for one in children.get(pending.pop(), ()):
            if lines[one].startswith(_OF_NAMESPACES):
                continue
            found[one] = lines[one]
            pending.append(one)
    return found
