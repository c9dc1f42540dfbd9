"""The part of the unified hierarchy in which a process without the machine's rights may make cgroups.

Whoever owns a cgroup may make others in it (cgroups(7), "Cgroup delegation").  There are two that a user may own:

    their systemd's   a login has it; what is in it are units, which that systemd makes when it is asked
    the process's     given by a service with Delegate=yes, an engine whose container this is, the administrator

In systemd's nobody else makes directories but below a unit with Delegate=yes.  In either, a cgroup whose controllers
serve its children has no process itself.
"""

from __future__ import annotations

import os
from errno import ESRCH

from ketch.linux import ns
from ketch.runtime.cgroups import files, tree

LEAF = "ketchd"  # the cgroup for the processes of one that is given to us
_TOUCHED = ("", "/cgroup.procs", "/cgroup.subtree_control")
_ROUNDS = 100  # a process may fork while it is moved
_UNITS = (".scope", ".service")


def users_runtime() -> str:
    """The runtime directory of the user whose systemd runs; empty without one, or with the machine's rights."""
    if not ns.LIMITED:
        return ""
    path = f"/run/user/{ns.outside_uid()}"
    return path if os.path.isdir(f"{path}/systemd") else ""


def manager(unified: str) -> str:
    """The path of the cgroup of the user's systemd (user@.service(5)); empty: there is none, or it is not theirs."""
    if not (runtime := users_runtime()):
        return ""
    uid = os.path.basename(runtime)
    path = f"/user.slice/user-{uid}.slice/user@{uid}.service"
    return path if _is_ours(unified + path) else ""


def own(unified: str) -> str | None:
    """The path of the cgroup that was given to this process (empty: the top); None: the one it is in is others'."""
    for line in files.read("/proc/self", "cgroup").splitlines():
        if line.startswith("0::/") and not line.startswith("0::/.."):
            path = line[3:].rstrip("/")
            path = path.removesuffix(f"/{LEAF}")
            return path if _is_ours(unified + path) else None
    return None


def unit_path(path: str) -> str:
    """The part of a cgroup's path that leads to its unit, of a user's systemd; empty: it is in none."""
    before, service, rest = path.partition("/user@")
    if not service:
        return ""
    found = f"{before}{service}{rest.partition('/')[0]}"
    for name in rest.split("/")[1:]:
        found = f"{found}/{name}"
        if name.endswith(_UNITS):
            return found
    return ""


def may_make(directory: str) -> bool:
    """Whether a cgroup is there and ours, or can be made."""
    while not os.path.exists(directory):
        directory = os.path.dirname(directory)
    return _is_ours(directory)


def vacate(directory: str) -> None:
    """Move the processes in a cgroup itself to one in it, so that its controllers can serve its children.

    Those of other pid namespaces, which have no number here, stay.  The root of the hierarchy needs no such thing.
    """
    if not files.exists(directory, "cgroup.events"):
        return
    for _ in range(_ROUNDS):
        pids = [pid for pid in files.read(directory, "cgroup.procs").split() if pid != "0"]
        if not pids:
            return
        tree.make(f"{directory}/{LEAF}")
        for pid in pids:
            try:
                files.write(f"{directory}/{LEAF}", "cgroup.procs", pid)
            except OSError as e:
                if e.errno != ESRCH:
                    raise


def _is_ours(directory: str) -> bool:
    return all(os.access(directory + name, os.W_OK) for name in _TOUCHED)
