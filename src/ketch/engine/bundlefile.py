"""The bundle of a container's last start, read back from the disk."""

from __future__ import annotations

import os

import msgspec


class _Linux(msgspec.Struct):
    cgroups_path: str = msgspec.field(name="cgroupsPath", default="")


class _Spec(msgspec.Struct):
    linux: _Linux = msgspec.field(default_factory=_Linux)


_decode = msgspec.json.Decoder(_Spec).decode


def cgroups_path(directory: str) -> str:
    """The cgroup that it names, for the container whose files are in ``directory``; empty when nothing says so."""
    try:
        with open(os.path.join(directory, "bundle", "config.json"), "rb") as f:
            return _decode(f.read()).linux.cgroups_path
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):  # never started, or broken: it is written anew
        return ""
