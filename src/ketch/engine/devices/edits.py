"""Changes that specified devices make to a container's configuration (CDI 1.0, SPEC.md, OCI edits)."""

from __future__ import annotations

import os
import stat
from errno import ENOENT
from typing import TYPE_CHECKING, cast

from ketch.errors import DeviceNotFound, FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.engine.devices.specs import DescribedDevice, DeviceHook, DeviceNode, Edits, Specification
    from ketch.runtime.oci_types import OciConfig, OciDevice, OciHook, OciHooks

_HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer")
_LATER = ("poststart", "poststop")
_FAILED = "CDI device injection failed"
_KINDS = {stat.S_IFCHR: "c", stat.S_IFBLK: "b", stat.S_IFIFO: "p"}


def apply(spec: OciConfig, chosen: Iterable[tuple[Specification, DescribedDevice]]) -> None:
    """Give a container some devices, and once what their specifications say of all of them.

    FailedPrecondition, or DeviceNotFound, when that cannot be done.
    """
    seen: set[str] = set()
    for specification, device in chosen:
        name = f"{specification.kind}={device.name}"
        parts = [device.container_edits]
        if specification.kind not in seen:
            seen.add(specification.kind)
            parts.insert(0, specification.container_edits)
        for edits in parts:
            try:
                _apply(spec, edits)
            except OSError as e:
                kind = DeviceNotFound if e.errno == ENOENT else FailedPrecondition
                raise kind(f"{_FAILED}: {name}: {e.filename}: {(e.strerror or str(e)).lower()}") from e
            except InvalidArgument as e:
                raise FailedPrecondition(f"{_FAILED}: {name}: {e.message}") from e


def _apply(spec: OciConfig, edits: Edits) -> None:
    if edits.intel_rdt:
        raise InvalidArgument("it wants groups of resctrl, which Ketch does not make")
    process, linux = spec["process"], spec["linux"]
    names = {line.partition("=")[0] for line in edits.env}
    process["env"] = [line for line in process["env"] if line.partition("=")[0] not in names] + edits.env
    for node in edits.device_nodes:
        device, access = _node(node)
        linux["devices"] = [one for one in linux.get("devices") or [] if one["path"] != device["path"]] + [device]
        if device["type"] != "p":
            kind = device["type"].replace("u", "c")  # one without buffers, which cgroups tell from no other
            rule = {"allow": True, "type": kind, "major": device["major"], "minor": device["minor"]}
            linux["resources"].setdefault("devices", []).append({**rule, "access": access})  # type: ignore[typeddict-item]
    for mount in edits.mounts:
        kept = [one for one in spec["mounts"] if one["destination"] != mount.container_path]
        options = mount.options if {"bind", "rbind"} & {*mount.options} or mount.type else [*mount.options, "bind"]
        place = {"destination": mount.container_path, "source": mount.host_path, "type": mount.type or "bind"}
        spec["mounts"] = [*kept, {**place, "options": options}]  # type: ignore[typeddict-item]
    for interface in edits.net_devices:
        linux.setdefault("netDevices", {})[interface.host_interface_name] = {"name": interface.name}
    for hook in edits.hooks:
        if hook.hook_name in _LATER:
            raise InvalidArgument(f"its hook `{hook.path}` is to be run at {hook.hook_name}: Ketch runs those before")
        if hook.hook_name not in _HOOKS:
            raise InvalidArgument(f"`{hook.hook_name}` is no hook")
        points = cast("dict[str, list[OciHook]]", spec.setdefault("hooks", cast("OciHooks", {})))
        points.setdefault(hook.hook_name, []).append(_hook(hook))
    groups = process["user"].setdefault("additionalGids", [])
    groups += [gid for gid in edits.additional_gids if gid not in groups]
    if not groups:
        del process["user"]["additionalGids"]


def _node(node: DeviceNode) -> tuple[OciDevice, str]:
    """The node, and what may be done with it."""
    kind: str = node.type
    major, minor, mode = node.major, node.minor, node.file_mode
    if not kind or (kind != "p" and major is None):
        info = os.stat(node.host_path or node.path)
        found = _KINDS.get(stat.S_IFMT(info.st_mode), "")
        if not found or (kind and kind.replace("u", "c") != found):
            raise InvalidArgument(f"{node.host_path or node.path}: not a device node of the type `{kind or 'c, b, p'}`")
        kind, major, minor = found, os.major(info.st_rdev), os.minor(info.st_rdev)
        mode = stat.S_IMODE(info.st_mode) if mode is None else mode
    device: OciDevice = {"path": node.path, "type": kind, "major": major or 0, "minor": minor or 0}
    device["fileMode"] = 0o666 if mode is None else mode
    if node.uid is not None:
        device["uid"] = node.uid
    if node.gid is not None:
        device["gid"] = node.gid
    return device, node.permissions or "rwm"


def _hook(hook: DeviceHook) -> OciHook:
    made: OciHook = {"path": hook.path, "args": hook.args, "env": hook.env}
    if hook.timeout is not None:
        made["timeout"] = hook.timeout
    return made
