"""The service that knows users' subordinate ids where no files do: ``subid: sss`` in nsswitch.conf(5), an LDAP mostly.

newuidmap asks it in place of ``/etc/subuid`` and ``/etc/subgid``, by a library; getsubids(1), of the same package,
tells what it has answered.
"""

from __future__ import annotations

import subprocess

from ketch import programs
from ketch.notation import digits

_CONFIGURATION = "/etc/nsswitch.conf"
_PROGRAM = "getsubids"
_PATIENCE_S = 30.0
_LAST_ID = 2**32 - 2


def name(path: str = _CONFIGURATION) -> str:
    """The service's name, the first of the line as newuidmap reads it; empty: the files have the ids."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as f:
            lines = f.readlines()
    except OSError:
        return ""
    for line in lines:
        key, _, rest = line.partition(":")
        words = rest.split()
        if key.lower() == "subid" and words:
            return "" if words[0] == "files" else words[0]
    return ""


def ranges(service: str, user: str) -> tuple[list[tuple[int, int]], list[tuple[int, int]], str]:
    """The ids of users and of groups that it has for a user, (first, count), and the reason why there are none."""
    program = programs.find(_PROGRAM)
    said = f"`subid: {service}` in {_CONFIGURATION}"
    if program is None:
        return [], [], f"{_PROGRAM} not found (package uidmap), which asks for {said}"
    found: list[list[tuple[int, int]]] = []
    for option in ((), ("-g",)):
        try:
            done = subprocess.run(
                [program, *option, user],
                capture_output=True,
                text=True,
                check=False,
                timeout=_PATIENCE_S,
                env=programs.environment(),
            )
        except (OSError, subprocess.TimeoutExpired) as e:
            return [], [], f"{_PROGRAM}: {e}"
        found.append(_parsed(done.stdout))
    return found[0], found[1], "" if all(found) else f"no subordinate ids are known of user {user} ({said})"


def _parsed(text: str) -> list[tuple[int, int]]:
    """The ranges of lines such as ``0: dana 100000 65536``."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) != 4:
            continue
        first, count = (digits.whole(word, _LAST_ID) for word in words[2:])
        if first is not None and count and first + count <= _LAST_ID + 1:
            found.append((first, count))
    return found
