"""The machine's cgroup hierarchies, and the interface of a container's cgroup in all of them.

v1: every controller (or group of controllers) is a hierarchy mounted on its own; v2: one hierarchy.  Hybrid
machines have both, with the controllers on v1, and count as v1.  A container's cgroup is one path, made in every
hierarchy.  The child makes it (`create`) and joins it before its cgroup namespace is made; the monitor and ketchd
come back to it with `open` and what `describe` gave.
"""

from __future__ import annotations

import os
from errno import ENOENT

from ketch.contexts import suppress
from ketch.errors import KetchError, RuntimeFailure
from ketch.linux.ns import LIMITED
from ketch.runtime.cgroups import delegation, files
from ketch.runtime.failure import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from ketch.runtime.cgroups.readings import CgroupReading
    from ketch.runtime.oci_types import OciResources
    from ketch.runtime.protocol import Cgroups
else:
    Protocol = object  # typing itself stays out of the monitors


class Cgroup(Protocol):
    """A container's cgroup; numbers are bytes, nanoseconds and counts."""

    version: int

    def describe(self) -> Cgroups:
        """The arguments of `open`, as plain JSON."""

    def make(self, resources: OciResources | None = None) -> None:
        """Make it with its limits, and the settings that a process needs to enter.

        What is only directories is made without processes, and what is there stays.  A scope of systemd is made with
        the calling process in it.
        """

    def join(self) -> None:
        """Move the calling single-threaded process in."""

    def give(self, uid: int) -> None:
        """Let a user of the host make cgroups below it and move processes in it, where that is safe (v2 alone)."""

    def check(self, resources: OciResources) -> None:
        """Raise RuntimeFailure for a limit that it cannot have."""

    def update(self, resources: OciResources) -> None:
        """Apply OCI ``linux.resources``, checked before the first of them is set."""

    def stats(self) -> CgroupReading:
        """Counters by controller, without controllers that the machine lacks."""

    def pids(self) -> list[int]:
        """Host pids of every process inside."""

    def kill(self) -> None:
        """SIGKILL every process inside."""

    def freeze(self, frozen: bool) -> None:
        """Pause or resume every process inside."""

    def is_frozen(self) -> bool:
        """True while paused."""

    def oom_kills(self) -> int:
        """The number of processes inside that the kernel killed for want of memory."""

    def oom_kills_around(self) -> int:
        """The same of the cgroup that this one is in, with all that are in that; 0 where nobody counts so."""

    def watch_oom(self) -> int:
        """A descriptor that says when memory runs out (see `process.oom`), the caller's to close; -1: no such thing."""

    def remove(self) -> None:
        """Remove the cgroup, which must have no process any more; idempotent."""


class Layout:
    """``hierarchies``: {controller: mount point} of v1; ``unified``: where v2 is mounted, or None.

    ``given``: the path of the cgroup of v2 in which a process without the machine's rights may make others (see
    `delegation`); it has no other hierarchies then.  Empty: all are its.  ``manager``: it is the user's systemd's.

    ``forbidden``: there are some, and such a process may make cgroups in none.  It has neither then, and containers'
    cgroups are those of v1 without a hierarchy: nothing is made, counted or limited.  A user's ketchd leaves limits out
    and says so, ``ketch-runtime`` refuses them.
    """

    __slots__ = ("forbidden", "given", "hierarchies", "manager", "unified")

    def __init__(
        self, hierarchies: dict[str, str], unified: str | None, *, given: str = "", forbidden: bool = False
    ) -> None:
        self.hierarchies = hierarchies
        self.unified = unified
        self.given = given
        self.manager = False
        self.forbidden = forbidden

    @property
    def controlled(self) -> list[str]:
        """The mount points of hierarchies with controllers."""
        found = [place for name, place in self.hierarchies.items() if not name.startswith("name=")]
        return found or ([self.unified] if self.unified else [])

    @property
    def version(self) -> int:
        """2 only when no controller is on v1."""
        return 1 if self.forbidden or any(not name.startswith("name=") for name in self.hierarchies) else 2


_layout: Layout | None = None


def layout() -> Layout:
    """This machine's hierarchies, read once."""
    global _layout
    if _layout is None:
        _layout = _of_machine()
        if LIMITED and not any(os.access(place, os.W_OK) for place in _layout.controlled):
            _layout = _given(_layout.unified)
    return _layout


def _given(unified: str | None) -> Layout:
    """The hierarchy that is left to a process without the machine's rights."""
    manager = delegation.manager(unified) if unified else ""
    given = manager or (delegation.own(unified) if unified else None)
    if given is None:
        return Layout({}, None, forbidden=True)
    here = Layout({}, unified, given=given)
    here.manager = bool(manager)
    return here


def forbid_unless_ours(path: str) -> None:
    """Have this process make no cgroups where it could not make ``path``: what was given to it is elsewhere."""
    global _layout
    here = layout()
    if here.given and not delegation.may_make((here.unified or "") + os.path.normpath(path)):
        _layout = Layout({}, None, forbidden=True)


def machine_version() -> int:
    """The version of this machine's cgroups, whoever may make some."""
    return _of_machine().version


def _of_machine() -> Layout:
    return parse_mountinfo(files.read("/proc/self", "mountinfo"))


def parse_mountinfo(text: str) -> Layout:
    """The cgroup mounts of a mountinfo file (proc_pid_mountinfo(5)); of several for one controller the first."""
    hierarchies: dict[str, str] = {}
    unified = None
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        left, right = before.split(), after.split()
        if not separator or len(left) < 5 or len(right) < 3:
            continue
        mount_point = left[4].replace("\\040", " ")
        if right[0] == "cgroup2":
            unified = unified or mount_point
        elif right[0] == "cgroup":
            for option in right[2].split(","):
                if option not in ("rw", "ro", "xattr", "noprefix", "clone_children") and (
                    "=" not in option or option.startswith("name=")
                ):
                    hierarchies.setdefault(option, mount_point)
    return Layout(hierarchies, unified)


def create(path: str, resources: OciResources | None, annotations: Mapping[str, str] | None = None) -> Cgroup:
    """Make the cgroup ``path`` with its limits; who `join`s it next is the calling process.

    ``annotations`` of the configuration may have properties for a scope of systemd's.
    Raises RuntimeFailure with step ``cgroups``; what was made then is removed again.
    """
    manager = at(path, annotations)
    if resources:
        manager.check(resources)
    try:
        manager.make(resources)
    except BaseException as e:
        try:
            manager.remove()
        except OSError as second:
            e.add_note(f"clean up: {second}")
        if not isinstance(e, OSError):
            raise
        what = f"set `{e.filename}`" if e.filename else f"make cgroup `{path}`"
        if e.errno == ENOENT and e.filename:
            hint = "is its controller in `cgroup.controllers`?"
            raise RuntimeFailure(
                f"{what}: no cgroup here has this limit", step="cgroups", errno=ENOENT, hint=hint
            ) from e
        detail = f"{what}: {e.strerror}" if (e.strerror or "").startswith("write") else what
        raise failure("cgroups", detail, e) from e
    return manager


def make_meanwhile(path: str) -> None:
    """Make the directories of the cgroup ``path`` for another process, which is at work yet before it `create`s it.

    That one tells what goes wrong.  Of v2 there is but one, which is not worth a monitor's memory.
    """
    if path.startswith("/") and layout().version == 1:
        with suppress(OSError, KetchError):
            at(path).make()


def open(cgroups: Cgroups) -> Cgroup:
    """The cgroup that `describe` described; nothing is touched until a method is called."""
    if "unit" in cgroups:
        from ketch.runtime.cgroups.systemd.manager import SystemdCgroup

        return SystemdCgroup(cgroups["dir"], layout().unified or "", cgroups["unit"])
    if cgroups.get("version") == 2:
        return _unified(cgroups["dir"])
    return _hierarchies(dict(cgroups.get("dirs") or {}))


def is_anywhere(cgroups: Cgroups) -> bool:
    """Whether `describe` described a cgroup: there is none where they are forbidden (`Layout`)."""
    return cgroups.get("dirs") != {}


def prune(path: str) -> None:
    """Remove the cgroup ``path``, a parent of containers' cgroups, in every hierarchy where it is empty."""
    here = layout()
    for root in {*here.hierarchies.values(), *((here.unified,) if here.unified else ())}:
        try:
            os.rmdir(root + os.path.normpath("/" + path))
        except OSError:
            continue  # in use, or never made


def exists(path: str) -> bool:
    """Whether the cgroup ``path`` exists in any hierarchy."""
    here = layout()
    roots = {*here.hierarchies.values(), *((here.unified,) if here.unified else ())}
    return any(os.path.isdir(root + os.path.normpath("/" + path)) for root in roots)


def has_devices() -> bool:
    """Whether access to devices can be limited: on v1 by a controller, on v2 by a program.

    Both need the machine's rights, whoever owns the cgroup.
    """
    here = layout()
    return not LIMITED and (here.version == 2 or "devices" in here.hierarchies)


def own_paths() -> dict[str, str]:
    """{controller ("" for v2): cgroup path} of the calling process (/proc/self/cgroup)."""
    found = {}
    for line in files.read("/proc/self", "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(","):
            found[name] = path
    return found


def unified_dir_of(pid: int) -> str:
    """The v2 cgroup directory that process ``pid`` is in."""
    for line in files.read(f"/proc/{pid}", "cgroup").splitlines():
        if line.startswith("0::"):
            return (layout().unified or "/sys/fs/cgroup") + line[3:].rstrip("/")
    raise RuntimeFailure(f"find the cgroup of process {pid}: no unified hierarchy", step="cgroups")


def at(path: str, annotations: Mapping[str, str] | None = None) -> Cgroup:
    """The cgroup ``path`` on this machine, whether it exists or not (to remove what a killed child made).

    ``slice:prefix:name`` is a scope of systemd; everything else is a path of directories below each hierarchy's root.
    """
    if not path.startswith("/") and path.count(":") == 2:
        return _scope(path, annotations)
    path = os.path.normpath("/" + path.lstrip("/"))
    if path == "/":
        raise RuntimeFailure(f"make cgroup `{path}`: not a path below the root", step="cgroups")
    here = layout()
    if here.version == 2:
        if here.unified is None:
            raise RuntimeFailure("make cgroup: no cgroup file system is mounted", step="cgroups")
        return _unified(here.unified + path, here.unified + _top(here, path))
    return _hierarchies({name: mount_point + path for name, mount_point in here.hierarchies.items()})


def _top(here: Layout, path: str) -> str:
    """The path of the topmost cgroup above another whose controllers are ours to enable."""
    top = delegation.unit_path(path) if here.manager else here.given
    return top if path.startswith(f"{top}/") else ""


def _scope(path: str, annotations: Mapping[str, str] | None) -> Cgroup:
    here = layout()
    if here.forbidden:
        raise RuntimeFailure(
            f"make cgroup `{path}`: no systemd of this user runs here, and no cgroup is given to them",
            step="cgroups",
            hint="log in as the user (`su` and `sudo` start none), or use the cgroupfs driver",
        )
    if here.version != 2 or here.unified is None:
        raise RuntimeFailure(
            f"make cgroup `{path}`: with systemd's scopes all controllers have to be on the unified hierarchy (v2)",
            step="cgroups",
            hint="use the cgroupfs driver, or boot with systemd.unified_cgroup_hierarchy=1",
        )
    from ketch.runtime.cgroups.systemd.manager import SystemdCgroup

    return SystemdCgroup.at(path, here.unified + (here.given if here.manager else ""), annotations)


def prepare() -> None:
    """Read the hierarchies and import what their version needs: for processes that fork others."""
    if layout().version == 2:
        _unified("")
    else:
        _hierarchies({})


# Of the two versions a machine has one, and to import the other would take time in each call of ketch-runtime.


def _hierarchies(directories: dict[str, str]) -> Cgroup:
    from ketch.runtime.cgroups.v1.manager import CgroupV1

    return CgroupV1(directories)


def _unified(directory: str, root: str = "/sys/fs/cgroup") -> Cgroup:
    from ketch.runtime.cgroups.v2.manager import CgroupV2

    return CgroupV2(directory, root)
