"""``--mount type=…,source=…,target=…`` ↔ a Mount of the API."""

from __future__ import annotations

import os

from ketch.cli.options import quantities
from ketch.cli.options.fields import get, put
from ketch.errors import InvalidArgument
from ketch.notation import booleans

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ketch.notation.api_objects import ApiObject


def _boolean(key: str, text: str) -> bool:
    found = booleans.parse(text)
    if found is None:
        raise InvalidArgument(f"invalid value for {key}: {text}", hint="use true or false")
    return found


def _mode(key: str, text: str) -> int:
    try:
        return int(text, 8)
    except ValueError:
        raise InvalidArgument(f"invalid --mount: {key} `{text}` is not octal", hint="write it like 1777") from None


def _text(_key: str, text: str) -> str:
    return text


def _word(_key: str, text: str) -> str:
    return text.lower()


# key → field of the Mount, how its value is read
_KEYS: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "type": ("Type", _word),
    "source": ("Source", _text),
    "src": ("Source", _text),
    "target": ("Target", _text),
    "destination": ("Target", _text),
    "dst": ("Target", _text),
    "readonly": ("ReadOnly", _boolean),
    "ro": ("ReadOnly", _boolean),
    "consistency": ("Consistency", _text),
    "bind-propagation": ("BindOptions.Propagation", _word),
    "bind-nonrecursive": ("BindOptions.NonRecursive", _boolean),
    "bind-create-src": ("BindOptions.CreateMountpoint", _boolean),
    "idmap": ("BindOptions.IDMap", _text),
    "volume-nocopy": ("VolumeOptions.NoCopy", _boolean),
    "volume-subpath": ("VolumeOptions.Subpath", _text),
    "volume-driver": ("VolumeOptions.DriverConfig.Name", _text),
    "image-subpath": ("ImageOptions.Subpath", _text),
    "tmpfs-size": ("TmpfsOptions.SizeBytes", lambda key, text: quantities.size(text, key)),
    "tmpfs-mode": ("TmpfsOptions.Mode", _mode),
}
# Those that may come several times: NAME=VALUE each.
_PAIRS = {"volume-label": "VolumeOptions.Labels", "volume-opt": "VolumeOptions.DriverConfig.Options"}
# bind-recursive → what the engine is told; `readonly` is the strict form: an error where it cannot be had.
_RECURSIVE: dict[str, dict[str, bool]] = {
    "enabled": {},
    "disabled": {"NonRecursive": True},
    "writable": {"ReadOnlyNonRecursive": True},
    "readonly": {"ReadOnlyForceRecursive": True},
}
# How the options are written back: all of a mount's fields but those that are said by `bind-recursive`.
_WRITTEN = {
    field: key
    for key, (field, _) in _KEYS.items()
    if key not in ("src", "dst", "destination", "ro", "bind-nonrecursive")
}


def parse(text: str) -> ApiObject:
    """Comma-separated ``key=value`` fields, quoted as in CSV where a value has a comma (InvalidArgument)."""
    result: ApiObject = {"Type": "volume"}
    import csv  # here: most command lines have none, and each start would pay for it

    try:
        fields = next(csv.reader([text], strict=True), [])
    except csv.Error as e:
        raise InvalidArgument(f"invalid --mount `{text}`: {e}") from e
    for field in fields:
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        reader = _KEYS.get(key, ("", None))[1]
        if not equals and reader is not _boolean and key != "idmap":
            raise InvalidArgument(f"invalid field '{field}' must be a key=value pair")
        if reader is not None:
            put(result, _KEYS[key][0], reader(key, value if equals or reader is not _boolean else "true"))
        elif key in _PAIRS:
            name, _, setting = value.partition("=")
            put(result, _PAIRS[key], {**(get(result, _PAIRS[key]) or {}), name: setting})
        elif key == "bind-recursive":
            result.setdefault("BindOptions", {}).update(_recursion(value))
        else:
            raise InvalidArgument(f"invalid --mount `{text}`: unexpected key '{key}' in '{key}={value}'")
    return _checked(result, text)


def _recursion(word: str) -> dict[str, bool]:
    if word not in _RECURSIVE:
        known = '"enabled", "disabled", "writable", or "readonly"'
        raise InvalidArgument(f"invalid value for bind-recursive: {word} (must be {known})")
    return _RECURSIVE[word]


def _checked(result: ApiObject, text: str) -> ApiObject:
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


def text_of(mount: ApiObject) -> str:
    """The text that `parse` reads as this mount."""
    import csv
    import io

    fields = []
    for field, key in _WRITTEN.items():
        value = get({"Type": "volume", **mount}, field)
        if value:
            text = f"{value:o}" if key == "tmpfs-mode" else value
            fields.append(key if value is True else f"{key}={text}")
    bind = mount.get("BindOptions") or {}
    fields += [f"bind-recursive={word}" for word, keys in _RECURSIVE.items() if any(bind.get(key) for key in keys)]
    for key, field in _PAIRS.items():
        fields += [f"{key}={name}={setting}" for name, setting in (get(mount, field) or {}).items()]
    written = io.StringIO()
    csv.writer(written, lineterminator="").writerow(fields)
    return written.getvalue()


def long_form(mount: ApiObject) -> ApiObject:
    """The mount in a Compose file's long form."""
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


def _service_options(mount: ApiObject, kind: str) -> ApiObject:
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
