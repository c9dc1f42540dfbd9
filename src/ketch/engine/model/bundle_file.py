"""The bundle of a container's last start, read back from the disk."""

from __future__ import annotations

import os

import msgspec


class _Linux(msgspec.Struct):
    cgroups_path: str = msgspec.field(name="cgroupsPath", default="")


class _Mount(msgspec.Struct):
    source: str = ""


class _Spec(msgspec.Struct):
    linux: _Linux = msgspec.field(default_factory=_Linux)
    mounts: list[_Mount] = msgspec.field(default_factory=list)


_decode = msgspec.json.Decoder(_Spec).decode


def cgroups_path(directory: str) -> str:
    """The cgroup in the bundle of the container with this ``directory``; empty when it is not known."""
    return _read(directory).linux.cgroups_path


def written_in(directory: str) -> str:
    """The path of ``directory`` when the bundle was written, from the mount of ``hosts``; empty: not known."""
    end = os.path.join("containers", os.path.basename(directory), "hosts")
    found = (mount.source for mount in _read(directory).mounts if mount.source.endswith(os.sep + end))
    return os.path.dirname(next(found, ""))


def _read(directory: str) -> _Spec:
    try:
        with open(os.path.join(directory, "bundle", "config.json"), "rb") as f:
            return _decode(f.read())
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # It was never started, or the file is broken: it is written anew.
        return _Spec()
