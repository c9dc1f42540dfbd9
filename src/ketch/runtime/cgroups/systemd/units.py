"""Names of systemd's units: what ``slice:prefix:name`` means, and where a unit's cgroup is (systemd.slice(5))."""

from __future__ import annotations

from ketch.errors import RuntimeFailure
from ketch.runtime.cgroups import delegation

_DEFAULT_SLICE, _USERS_SLICE = "system.slice", "user.slice"
_ROOT_SLICE = "-.slice"
# What systemd stops before our scopes when it stops everything: this unit, and before that all services, ketchd among
# them, which so can stop its containers in order.  A slice that is stopped takes its scopes along at once otherwise.
LAST = "basic.target"
_LONGEST = 255  # a unit's name (UNIT_NAME_MAX), which is also that of a directory
_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.\\@")


class Place:
    """A scope: its unit, the slice that it is in, its cgroup's path below the hierarchy's root."""

    __slots__ = ("path", "slice", "unit")

    def __init__(self, unit: str, parent: str) -> None:
        self.unit = unit
        self.slice = parent
        self.path = f"{slice_path(parent)}/{unit}"


def is_unit_path(cgroups_path: str) -> bool:
    """Whether a cgroups path names a unit: ``slice:prefix:name``, where one of directories begins with a slash."""
    return not cgroups_path.startswith("/") and cgroups_path.count(":") == 2


def default_slice() -> str:
    """The slice of containers that name none: as with other engines, one of the machine's systemd, or of the user's."""
    return _USERS_SLICE if delegation.users_runtime() else _DEFAULT_SLICE


def complete(cgroups_path: str, container_id: str) -> str:
    """The ``slice:prefix:name`` of a spec's ``cgroupsPath``; without one a scope of the default slice.

    RuntimeFailure: it is a path of directories.
    """
    if not cgroups_path:
        return f"{default_slice()}:ketch:{container_id}"
    if not is_unit_path(cgroups_path):
        raise RuntimeFailure(
            'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, '
            f'got "{cgroups_path}" instead',
            step="cgroups",
            hint="leave out --systemd-cgroup for a path of directories",
        )
    return cgroups_path


def parse(cgroups_path: str) -> Place:
    """The place of ``slice:prefix:name``; RuntimeFailure: there can be no such unit."""
    parent, prefix, name = cgroups_path.split(":")
    if name.endswith(".slice"):
        raise _impossible(cgroups_path, "a container is a scope, and processes cannot be in a slice itself")
    unit = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    if not name or len(unit) > _LONGEST or not _CHARACTERS.issuperset(unit):
        raise _impossible(cgroups_path, f"`{unit}` is no name of a unit")
    parent = _ROOT_SLICE if parent == "-" else parent or default_slice()
    return Place(unit, parent)


def slice_path(name: str) -> str:
    """The path of a slice's cgroup: ``a-b.slice`` is in ``a.slice``; RuntimeFailure: it is no slice's name."""
    if name == _ROOT_SLICE:
        return ""
    stem = name.removesuffix(".slice")
    parts = stem.split("-")
    if stem == name or len(name) > _LONGEST or not all(parts) or not _CHARACTERS.issuperset(name):
        raise _impossible(name, "a slice is named `xxx.slice`, with single dashes between the names of its parents")
    return "".join(f"/{'-'.join(parts[:end])}.slice" for end in range(1, len(parts) + 1))


def is_slice(name: str) -> bool:
    """Whether there can be a slice of that name, the root's excepted."""
    try:
        return slice_path(name) != ""
    except RuntimeFailure:
        return False


def _impossible(what: str, why: str) -> RuntimeFailure:
    return RuntimeFailure(f"make cgroup `{what}`: {why}", step="cgroups")
