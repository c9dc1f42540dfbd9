"""Specifications of devices (Container Device Interface 1.0, SPEC.md): the files that vendors put into two directories.

    /etc/cdi/nvidia.yaml      {"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "devices": [{"name": "0", …}], …}

A device is named ``KIND=NAME``.  What the later directory says of a device counts; two files of one directory that both
have it make it none.  A file that cannot be read is as if it were not there, and is told of.
"""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from ketch.errors import InvalidArgument
from ketch.notation import documents

if TYPE_CHECKING:
    from collections.abc import Sequence

DIRECTORIES = ("/etc/cdi", "/var/run/cdi")
_SUFFIXES = (".json", ".yaml", ".yml")
_MOST = 8 << 20  # characters of a file
_Id = Annotated[int, Meta(ge=0, lt=1 << 32)]
_Number = Annotated[int, Meta(ge=0, lt=1 << 20)]  # of a device (makedev(3))


class DeviceNode(Struct, rename="camel", forbid_unknown_fields=True):
    """A node of a container's /dev; what is left out is that of the machine's node at ``host_path``."""

    path: str
    host_path: str = ""
    type: Literal["", "b", "c", "u", "p"] = ""
    major: _Number | None = None
    minor: _Number | None = None
    file_mode: _Id | None = None
    permissions: str = ""
    uid: _Id | None = None
    gid: _Id | None = None


class DeviceMount(Struct, rename="camel", forbid_unknown_fields=True):
    """A mount of the machine's files."""

    host_path: str
    container_path: str
    type: str = ""
    options: list[str] = []


class DeviceHook(Struct, rename="camel", forbid_unknown_fields=True):
    """A program that is run at a point of the container's life; ``timeout`` in seconds."""

    hook_name: str
    path: str
    args: list[str] = []
    env: list[str] = []
    timeout: int | None = None


class NetDevice(Struct, rename="camel", forbid_unknown_fields=True):
    """An interface of the machine that goes into the container's network namespace."""

    host_interface_name: str
    name: str


class Edits(Struct, rename="camel", forbid_unknown_fields=True):
    """Changes of a container's configuration."""

    env: list[str] = []
    device_nodes: list[DeviceNode] = []
    net_devices: list[NetDevice] = []
    mounts: list[DeviceMount] = []
    hooks: list[DeviceHook] = []
    additional_gids: list[_Id] = msgspec.field(default_factory=list, name="additionalGIDs")
    intel_rdt: dict[str, object] | None = None


class DescribedDevice(Struct, rename="camel", forbid_unknown_fields=True):
    """One device of a specification."""

    name: str
    annotations: dict[str, str] = {}
    container_edits: Edits = msgspec.field(default_factory=Edits)


class Specification(Struct, rename="camel", forbid_unknown_fields=True):
    """A file: the devices of one kind, and what each container with any of them gets besides."""

    cdi_version: str
    kind: str
    annotations: dict[str, str] = {}
    devices: list[DescribedDevice] = []
    container_edits: Edits = msgspec.field(default_factory=Edits)


class FoundDevices(Struct):
    """All devices that are specified: by their names, and what is wrong with files."""

    devices: dict[str, tuple[Specification, DescribedDevice]] = {}
    errors: list[str] = []

    def names_of(self, kind: str) -> list[str]:
        """The names of a kind's devices, without the kind, in the files' order."""
        return [name.partition("=")[2] for name in self.devices if name.startswith(f"{kind}=")]


def find(directories: Sequence[str]) -> FoundDevices:
    """Read all specifications in some directories, the later one first in rank."""
    found = FoundDevices()
    for directory in directories:
        try:
            paths = _files(directory)
        except OSError as e:
            found.errors.append(f"CDI specifications in {directory}: {(e.strerror or str(e)).lower()}")
            continue
        of_this: dict[str, tuple[Specification, DescribedDevice]] = {}
        twice: set[str] = set()
        for path in paths:
            try:
                specification = read(path)
            except InvalidArgument as e:
                found.errors.append(e.message)
                continue
            for device in specification.devices:
                name = f"{specification.kind}={device.name}"
                if name in of_this:
                    twice.add(name)
                    found.errors.append(f"device {name}: two files in {directory} have it")
                of_this[name] = (specification, device)
        found.devices = {**{k: v for k, v in found.devices.items() if k not in twice}, **of_this}
        for name in twice:
            del found.devices[name]
    return found


def _files(directory: str) -> list[str]:
    try:
        return sorted(os.path.join(directory, name) for name in os.listdir(directory) if name.endswith(_SUFFIXES))
    except (FileNotFoundError, NotADirectoryError):
        return []


def read(path: str) -> Specification:
    """Read one file, JSON or YAML (InvalidArgument: it is none)."""
    try:
        with open(path, encoding="utf-8", opener=_open) as f:
            text = f.read(_MOST + 1)
        if len(text) > _MOST:
            raise ValueError("it is too large")
        specification = msgspec.convert(_document(path, text), Specification)
        if b"\\u0000" in msgspec.json.encode(specification):  # nor can it have half a surrogate pair
            raise ValueError("it has a character that no path can have")
    except (OSError, ValueError, msgspec.ValidationError) as e:
        raise InvalidArgument(f"CDI specification {path}: {e}") from e
    vendor, slash, name = specification.kind.partition("/")
    if not (vendor and slash and name) or not specification.cdi_version.startswith(("0.", "1.")):
        raise InvalidArgument(
            f"CDI specification {path}: kind `{specification.kind}` of version "
            f"`{specification.cdi_version}` is not known"
        )
    return specification


def _open(path: str, flags: int) -> int:
    """Open a file, and nothing that has to be waited for."""
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ValueError("not a file")
    return fd


def _document(path: str, text: str) -> object:
    if path.endswith(".json"):
        if documents.is_too_deep(text):
            raise ValueError("it is nested too deeply")
        return json.loads(text)
    import yaml  # type: ignore[import-untyped] # here: most machines have no such files

    try:
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # the one in C is ten times as fast
    except (yaml.YAMLError, RecursionError) as e:
        raise ValueError(f"not YAML: {e}") from e
