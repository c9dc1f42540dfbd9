"""``--mount type=…,source=…,target=…`` → a Mount of the API."""

from __future__ import annotations

import csv
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


def parse(text: str) -> dict[str, Any]:
    """Comma-separated ``key=value`` fields, quoted as in CSV where a value has a comma (InvalidArgument)."""
    result: dict[str, Any] = {"Type": "volume"}
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
