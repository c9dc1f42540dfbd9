"""``--mount type=…,source=…,target=…`` ↔ a Mount of the API."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ketch.cli.options import quantities
from ketch.errors import InvalidArgument
from ketch.notation import booleans

if TYPE_CHECKING:
    from typing import Any

_KEYS = {
    "type": "Type", "source": "Source", "src": "Source", "target": "Target", "destination": "Target", "dst": "Target",
    "consistency": "Consistency",
}  # fmt: skip
_FLAGS = ("readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src")
# bind-recursive → what the engine is told; `readonly` is the strict form: an error where it cannot be had.
_RECURSIVE: dict[str, dict[str, bool]] = {
    "enabled": {},
    "disabled": {"NonRecursive": True},
    "writable": {"ReadOnlyNonRecursive": True},
    "readonly": {"ReadOnlyForceRecursive": True},
}
_IDMAP = "idmap"
# How the simple options are written back.
_WRITTEN: dict[str, dict[str, str]] = {
    "BindOptions": {"Propagation": "bind-propagation", "CreateMountpoint": "bind-create-src", "IDMap": _IDMAP},
    "VolumeOptions": {"NoCopy": "volume-nocopy", "Subpath": "volume-subpath"},
    "TmpfsOptions": {"SizeBytes": "tmpfs-size"},
    "ImageOptions": {"Subpath": "image-subpath"},
}


def parse(text: str) -> dict[str, Any]:
    """Comma-separated ``key=value`` fields, quoted as in CSV where a value has a comma (InvalidArgument)."""
    result: dict[str, Any] = {"Type": "volume"}
    import csv  # here: most command lines have none, and each start would pay for it

    try:
        fields = next(csv.reader([text], strict=True), [])
    except csv.Error as e:
        raise InvalidArgument(f"invalid --mount `{text}`: {e}") from e
    for field in fields:
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if not equals and key not in (*_FLAGS, _IDMAP):
            raise InvalidArgument(f"invalid field '{field}' must be a key=value pair")
        if key in _KEYS:
            result[_KEYS[key]] = value.lower() if key == "type" else value
        else:
            _option(result, text, key, value, given=bool(equals))
    return _checked(result, text)


def _option(result: dict[str, Any], text: str, key: str, value: str, *, given: bool) -> None:
    def options(kind: str) -> dict[str, Any]:
        found: dict[str, Any] = result.setdefault(f"{kind}Options", {})
        return found

    def boolean() -> bool:
        found = booleans.parse(value) if given else True
        if found is None:
            raise InvalidArgument(f"invalid value for {key}: {value}", hint="use true or false")
        return found

    if key in ("readonly", "ro"):
        result["ReadOnly"] = boolean()
    elif key == "bind-propagation":
        options("Bind")["Propagation"] = value.lower()
    elif key == "bind-nonrecursive":
        options("Bind")["NonRecursive"] = boolean()
    elif key == "bind-recursive":
        if value not in _RECURSIVE:
            raise InvalidArgument(f'invalid value for {key}: {value} (must be "enabled", "disabled", "writable", or '
                                  '"readonly")')  # fmt: skip
        options("Bind").update(_RECURSIVE[value])
    elif key == "bind-create-src":
        options("Bind")["CreateMountpoint"] = boolean()
    elif key == _IDMAP:
        options("Bind")["IDMap"] = value
    elif key == "volume-nocopy":
        options("Volume")["NoCopy"] = boolean()
    elif key == "volume-label":
        name, _, label = value.partition("=")
        options("Volume").setdefault("Labels", {})[name] = label
    elif key == "volume-subpath":
        options("Volume")["Subpath"] = value
    elif key == "volume-driver":
        options("Volume").setdefault("DriverConfig", {})["Name"] = value
    elif key == "volume-opt":
        name, _, setting = value.partition("=")
        options("Volume").setdefault("DriverConfig", {}).setdefault("Options", {})[name] = setting
    elif key == "image-subpath":
        options("Image")["Subpath"] = value
    elif key == "tmpfs-size":
        options("Tmpfs")["SizeBytes"] = quantities.size(value, "tmpfs-size")
    elif key == "tmpfs-mode":
        try:
            options("Tmpfs")["Mode"] = int(value, 8)
        except ValueError:
            raise InvalidArgument(f"invalid --mount `{text}`: tmpfs-mode is octal, e.g. 1777") from None
    else:
        raise InvalidArgument(f"invalid --mount `{text}`: unexpected key '{key}' in '{key}={value}'")


def _checked(result: dict[str, Any], text: str) -> dict[str, Any]:
    kind = result["Type"]
    if not result.get("Target"):
        raise InvalidArgument(f"invalid --mount `{text}`: target is required")
    for other in ("Bind", "Volume", "Tmpfs", "Image"):
        if f"{other}Options" in result and other.lower() != kind:
            raise InvalidArgument(f"cannot mix '{other.lower()}-*' options with mount type '{kind}'")
    bind = result.get("BindOptions", {})
    if bind.get("ReadOnlyForceRecursive") and not result.get("ReadOnly"):
        raise InvalidArgument("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
    if bind.get("ReadOnlyForceRecursive") and bind.get("Propagation") != "rprivate":
        raise InvalidArgument(
            "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction"
        )
    if bind.get("ReadOnlyNonRecursive") and not result.get("ReadOnly"):
        raise InvalidArgument("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction")
    if kind == "bind" and result.get("Source", "").startswith("."):
        result["Source"] = os.path.abspath(result["Source"])
    return result


def text_of(mount: dict[str, Any]) -> str:
    """What `parse` reads as this mount."""
    import csv
    import io

    fields = [f"type={mount.get('Type') or 'volume'}"]
    fields += [f"source={mount['Source']}"] if mount.get("Source") else []
    fields.append(f"target={mount['Target']}")
    fields += ["readonly"] if mount.get("ReadOnly") else []
    fields += [f"consistency={mount['Consistency']}"] if mount.get("Consistency") else []
    for group, names in _WRITTEN.items():
        options = mount.get(group) or {}
        given = [(name, options[key]) for key, name in names.items() if options.get(key)]
        fields += [name if value is True else f"{name}={value}" for name, value in given]
    bind = mount.get("BindOptions") or {}
    fields += [f"bind-recursive={word}" for word, keys in _RECURSIVE.items() if any(bind.get(key) for key in keys)]
    volume = mount.get("VolumeOptions") or {}
    fields += [f"volume-label={key}={value}" for key, value in (volume.get("Labels") or {}).items()]
    driver = volume.get("DriverConfig") or {}
    fields += [f"volume-driver={driver['Name']}"] if driver.get("Name") else []
    fields += [f"volume-opt={key}={value}" for key, value in (driver.get("Options") or {}).items()]
    tmpfs = mount.get("TmpfsOptions") or {}
    fields += [f"tmpfs-mode={tmpfs['Mode']:o}"] if tmpfs.get("Mode") else []
    written = io.StringIO()
    csv.writer(written, lineterminator="").writerow(fields)
    return written.getvalue()


def long_form(mount: dict[str, Any]) -> dict[str, Any]:
    """The same in a Compose file."""
    kind = mount.get("Type") or "volume"
    options = _service_options(mount, kind)
    result = {
        "type": kind,
        "source": mount.get("Source"),
        "target": mount["Target"],
        "read_only": mount.get("ReadOnly"),
        "consistency": mount.get("Consistency"),
        kind: {key: value for key, value in options.items() if value or key == "create_host_path"},
    }
    return {key: value for key, value in result.items() if value}


def _service_options(mount: dict[str, Any], kind: str) -> dict[str, Any]:
    given = mount.get(f"{kind.capitalize()}Options") or {}
    if kind == "bind":
        recursive = (word for word, keys in _RECURSIVE.items() if any(given.get(key) for key in keys))
        return {
            "propagation": given.get("Propagation"),
            "create_host_path": bool(given.get("CreateMountpoint")),
            "recursive": next(recursive, ""),
        }
    names = {
        "volume": {"NoCopy": "nocopy", "Subpath": "subpath", "Labels": "labels"},
        "tmpfs": {"SizeBytes": "size", "Mode": "mode"},
        "image": {"Subpath": "subpath"},
    }
    return {word: given.get(key) for key, word in names.get(kind, {}).items()}
