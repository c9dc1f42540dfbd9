"""The ids that users of a rootless daemon's containers have on the machine.

Root inside is the user; the others are the user's subordinate ids, which newuidmap(1) and newgidmap(1) map.  Root of a
container needs neither: all ids that the container has are there to be given, and stay what they are.
"""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Iterable, Sequence

import msgspec

from ketch import programs
from ketch.errors import FailedPrecondition
from ketch.linux import ns
from ketch.rootless import permission

_PROGRAMS = ("newuidmap", "newgidmap")
_FILES = ("/etc/subuid", "/etc/subgid")
_MAPS = ("uid_map", "gid_map")
_MOST_LINES = 340  # of a map (user_namespaces(7))
_OTHERS = ("CAP_SETUID", "CAP_SETGID")  # to give away more than one's own id (user_namespaces(7))
_ROOTS = "CAP_SETFCAP"  # to give root's
Ranges = Sequence[tuple[int, int]]
Triples = tuple[tuple[int, int, int], ...]  # (first inside, first outside, count)


class UserIds(msgspec.Struct, frozen=True):
    """The ids of users and groups; ``alone``: there is root and nobody else, for want of what is named.

    ``ours``: nobody else needs to allow them.
    """

    uids: Triples
    gids: Triples
    alone: str = ""
    ours: bool = False

    def write(self, pid: int) -> None:
        """Give a process's new user namespace the ids (FailedPrecondition)."""
        if self.alone or self.ours:
            texts = {} if self.ours else {"setgroups": "deny"}
            texts |= zip(_MAPS, map(_lines, (self.uids, self.gids)), strict=True)
            for name, text in texts.items():
                _write(f"/proc/{pid}/{name}", text)
            return
        for program, triples in zip(_PROGRAMS, (self.uids, self.gids), strict=True):
            words = [str(number) for triple in triples for number in triple]
            path = programs.find(program) or program
            done = subprocess.run(
                [path, str(pid), *words], capture_output=True, text=True, check=False, env=programs.environment()
            )
            if done.returncode:
                raise _refused(done.stderr.strip(), "are the lines of /etc/subuid and /etc/subgid for this user right?")


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="ascii") as f:
            f.write(text)
    except OSError as e:
        raise _refused(os.strerror(e.errno or 0).lower(), "") from e


def _refused(reason: str, otherwise: str) -> FailedPrecondition:
    """The error of a map that was not written; a setting may forbid that instead of the namespace itself."""
    return FailedPrecondition(
        f"map the ids of containers' users: {reason}", hint=permission.forbidding_setting() or otherwise
    )


def available(uids: Ranges, gids: Ranges, why_none: str = "") -> UserIds:
    """The ids that this user can have (FailedPrecondition); ``uids``, ``gids``: the subordinate ones, (first, count).

    ``why_none``: the reason why nobody knows of any.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        return _of_root(gid)
    found = {program: programs.find(program) for program in _PROGRAMS}
    absent = [program for program, path in found.items() if path is None]
    powerless = list(filter(None, (_powerless(path) for path in found.values() if path is not None)))
    alone = ""
    if absent:
        alone = f"{' and '.join(absent)} not found (package uidmap)"
    elif powerless:
        alone = powerless[0]
    elif not (uids and gids):
        without = [path for path, ranges in zip(_FILES, (uids, gids), strict=True) if not ranges]
        has = "has" if len(without) == 1 else "have"
        alone = why_none or f"{' and '.join(without)} {has} no line for this user ({uid})"
    if alone:
        return UserIds(((0, uid, 1),), ((0, gid, 1),), alone)
    return UserIds(_triples(uid, uids), _triples(gid, gids))


def _of_root(gid: int) -> UserIds:
    """All ids of the user namespace that this process is root of, as they are (FailedPrecondition)."""
    if not ns.may(_ROOTS):
        raise FailedPrecondition(
            f"make a user namespace: root of this container lacks {_ROOTS}, without which nobody is given root's id",
            hint="add that capability to the container, or start ketchd as another user of it",
        )
    uids, gids = (_present(name) for name in _MAPS)
    if ns.may(*_OTHERS):
        one = "the container that this is has one user itself" if sum(count for _, _, count in uids) == 1 else ""
        return UserIds(uids, gids, one, ours=True)
    return UserIds(((0, 0, 1),), ((0, gid, 1),), f"root of this container lacks {' or '.join(_OTHERS)}")


def _present(name: str) -> Triples:
    with open(f"/proc/self/{name}", encoding="ascii") as f:
        rows = [line.split() for line in f]
    return tuple((int(first), int(first), int(count)) for first, _, count in rows)


def _triples(own: int, ranges: Ranges) -> Triples:
    """A map in which nobody is mapped twice, which the kernel refuses, and nobody is the machine's root.

    Lines of the files may name ids again, or the user's own.
    """
    found, inside = [(0, own, 1)], 1
    for first, count in distinct(ranges, {0, own}):
        found.append((inside, first, count))
        inside += count
    if len(found) > _MOST_LINES:
        raise FailedPrecondition(
            f"map the ids of containers' users: this user has {len(found) - 1} ranges of subordinate ids, and a map has"
            f" {_MOST_LINES} lines at most",
            hint="have fewer and longer ones in /etc/subuid and /etc/subgid",
        )
    return tuple(found)


def distinct(ranges: Ranges, others: Iterable[int]) -> list[tuple[int, int]]:
    """The ranges in their order, without what earlier ones have and without these ``others``; adjacent ones joined."""
    found: list[tuple[int, int]] = []
    taken = [(one, 1) for one in others]
    for first, count in ranges:
        at, end = first, first + count
        for start, size in sorted(taken):
            if at < start < end:
                found.append((at, start - at))
            if start < end:
                at = max(at, start + size)
        if at < end:
            found.append((at, end - at))
        taken.append((first, count))
    joined: list[tuple[int, int]] = []
    for first, count in found:
        before = joined.pop() if joined and sum(joined[-1]) == first else (first, 0)
        joined.append((before[0], before[1] + count))
    return joined


def _lines(triples: Triples) -> str:
    return "".join(f"{inside} {outside} {count}\n" for inside, outside, count in triples)


def _powerless(path: str) -> str:
    """The reason why a program cannot do what its owner, or file capabilities, let it do; empty: it can."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as f:
        if any(line.split() == ["NoNewPrivs:", "1"] for line in f):
            return f"{path} gains no rights, as no program of this process does (no_new_privs was set before its start)"
    if os.statvfs(path).f_flag & os.ST_NOSUID:
        return f"{path} gains no rights: its file system is mounted nosuid"
    if not os.stat(path).st_mode & stat.S_ISUID and not _has_capabilities(path):
        return f"{path} has no rights: `chmod u+s {path}`, or install its package (uidmap) again"
    return ""


def _has_capabilities(path: str) -> bool:
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError as e:
        if e.errno in (errno.ENODATA, errno.ENOTSUP):
            return False
        raise
