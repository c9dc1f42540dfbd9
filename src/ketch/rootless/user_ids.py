"""The ids that users of a rootless daemon's containers have on the machine.

Root inside is the user; the others are the user's subordinate ids, which newuidmap(1) and newgidmap(1) map.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

import msgspec

from ketch import programs
from ketch.errors import FailedPrecondition

_PROGRAMS = ("newuidmap", "newgidmap")
_FILES = ("/etc/subuid", "/etc/subgid")
Ranges = Sequence[tuple[int, int]]
Triples = tuple[tuple[int, int, int], ...]  # (first inside, first outside, count)


class UserIds(msgspec.Struct, frozen=True):
    """The ids of users and groups; ``alone``: there is root and nobody else, for want of what is named."""

    uids: Triples
    gids: Triples
    alone: str = ""

    def write(self, pid: int) -> None:
        """Give a process's new user namespace the ids (FailedPrecondition)."""
        if self.alone:
            for name, text in (
                ("setgroups", "deny"),
                ("uid_map", _lines(self.uids)),
                ("gid_map", _lines(self.gids)),
            ):
                with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as f:
                    f.write(text)
            return
        for program, triples in zip(_PROGRAMS, (self.uids, self.gids), strict=True):
            words = [str(number) for triple in triples for number in triple]
            path = programs.find(program) or program
            done = subprocess.run(
                [path, str(pid), *words], capture_output=True, text=True, check=False, env=programs.environment()
            )
            if done.returncode:
                raise FailedPrecondition(
                    f"map the ids of containers' users: {done.stderr.strip()}",
                    hint="do /etc/subuid and /etc/subgid have a line for this user? is the program setuid root?",
                )


def available(uids: Ranges, gids: Ranges) -> UserIds:
    """The ids that this user can have; ``uids``, ``gids``: the subordinate ones, (first, count) each."""
    uid, gid = os.geteuid(), os.getegid()
    absent = [program for program in _PROGRAMS if programs.find(program) is None]
    alone = ""
    if absent:
        alone = f"{' and '.join(absent)} not found (package uidmap)"
    elif not (uids and gids):
        alone = f"{' and '.join(path for path, found in zip(_FILES, (uids, gids), strict=True) if not found)} "
        alone += f"has no line for this user ({uid})"
    if alone:
        return UserIds(((0, uid, 1),), ((0, gid, 1),), alone)
    return UserIds(_triples(uid, uids), _triples(gid, gids))


def _triples(own: int, ranges: Ranges) -> Triples:
    found, inside = [(0, own, 1)], 1
    for first, count in ranges:
        found.append((inside, first, count))
        inside += count
    return tuple(found)


def _lines(triples: Triples) -> str:
    return "".join(f"{inside} {outside} {count}\n" for inside, outside, count in triples)
