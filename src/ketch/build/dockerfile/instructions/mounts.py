"""``RUN --mount=…`` and ``RUN --device=…``: comma-separated options.

Values may have variables, so mounts are read twice: when the file is (`check_mount`) and when they are known.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from ketch.build.dockerfile import suggest
from ketch.build.dockerfile.arguments import quoted
from ketch.build.dockerfile.errors import DockerfileError
from ketch.notation import booleans, digits, sizes

if TYPE_CHECKING:
    from collections.abc import Callable

TYPES = ("bind", "cache", "secret", "ssh", "tmpfs")
SHARING = ("locked", "private", "shared")

_FIELD = re.compile(r'(?:"(?P<quoted>(?:[^"]|"")*)"|(?P<plain>[^",]*))(?:,|\Z)')
_KEYS = (
    *("type", "from", "source", "target", "readonly", "id", "sharing", "required", "size", "mode", "uid", "gid"),
    *("src", "dst", "destination", "ro", "rw", "readwrite", "env"),
)
_WITH_OWNER = ("cache", "secret", "ssh")
_LARGEST = (1 << 32) - 1


class RunMount(msgspec.Struct, kw_only=True):
    """One mount of a command; ``id`` names a cache, a secret or an agent; None is not given."""

    type: str = "bind"
    source_stage: str = ""
    source: str = ""
    target: str = ""
    read_only: bool | None = None
    id: str = ""
    sharing: str = ""
    required: bool = False
    size: int = 0
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    env: str | None = None


class RunDevice(msgspec.Struct, kw_only=True):
    """A device by its name in the container device interface."""

    name: str = ""
    required: bool = False


def check_mount(text: str) -> None:
    """Check a mount as far as that is possible before variables are known (DockerfileError)."""
    for key, value in _options(text, "mounts"):
        if key.lower() == "from" and value and re.search(r"\$.", value):
            raise DockerfileError(
                f"'{key.lower()}' doesn't support variable expansion, define alias stage instead", word=value
            )


def source_stage(text: str) -> str:
    """The stage or image that a mount is of, nothing where it is none."""
    return next((value or "" for key, value in reversed(_options(text, "mounts")) if key.lower() == "from"), "")


def read_mount(text: str, expand: Callable[[str], str] = lambda text: text) -> RunMount:
    """A mount, each of its values expanded (DockerfileError)."""
    mount = RunMount()
    for key, value in _options(text, "mounts"):
        _set(mount, key.lower(), key, None if value is None else expand(value))
    _check(mount)
    if mount.read_only is None:
        mount.read_only = mount.type not in ("cache", "tmpfs")
    return mount


def read_device(text: str) -> RunDevice:
    """A device (DockerfileError)."""
    device = RunDevice()
    for key, value in _options(text, "devices"):
        name = key.lower()
        if name == "required":
            device.required = True if value is None else _truth(name, value)
        elif name == "name" and value is not None:
            if device.name:
                raise DockerfileError(f"device name already set to {device.name}")
            device.name = value
        elif not device.name:
            device.name = key if value is None else f"{key}={value}"
        elif value is None:
            raise DockerfileError(f"invalid field '{key}' must be a key=value pair", word=key)
        else:
            why = suggest.hint(name, ("name", "required"))
            raise DockerfileError(f"unexpected key '{name}' in '{key}={value}'{why}", word=key)
    return device


def _options(text: str, what: str) -> list[tuple[str, str | None]]:
    """The fields of a line of comma-separated values, each cut at its equals sign."""
    fields: list[str] = []
    if not text:
        raise DockerfileError(f"failed to parse csv {what}: EOF")
    at, more = 0, True
    while more:
        match = _FIELD.match(text, at)
        if match is None:
            column = text.find('"', at) + 1
            message = f'failed to parse csv {what}: parse error on line 1, column {column}: bare " in non-quoted field'
            raise DockerfileError(message, word=text)
        fields.append(match["plain"] if match["quoted"] is None else match["quoted"].replace('""', '"'))
        at, more = match.end(), match[0].endswith(",")
    cut = [field.partition("=") for field in fields]
    return [(key, value if equals else None) for key, equals, value in cut]


def _set(mount: RunMount, key: str, written: str, value: str | None) -> None:
    """Set what one option says."""
    if key in ("readonly", "ro", "readwrite", "rw"):
        mount.read_only = (True if value is None else _truth(key, value)) == key.startswith(("readonly", "ro"))
    elif key == "required" and (value is None or mount.type in ("secret", "ssh")):
        _only(mount, key, "secret", "ssh")
        mount.required = True if value is None else _truth(key, value)
    elif value is None:
        raise DockerfileError(f"invalid field '{written}' must be a key=value pair", word=written)
    elif key == "type":
        mount.type = _one_of("mount type", value, TYPES)
    elif key == "sharing":
        mount.sharing = _one_of("sharing value", value, SHARING)
    elif key in _TEXTS:
        setattr(mount, _TEXTS[key], value)
    elif key in ("mode", "uid", "gid"):
        setattr(mount, key, _number(key, value))
    elif key == "size":
        _only(mount, key, "tmpfs")
        found = sizes.parse(value)
        if found is None:
            raise _invalid(key, value)
        mount.size = found
    elif key == "required":
        _only(mount, key, "secret", "ssh")
    else:
        why = suggest.hint(key, _KEYS)
        raise DockerfileError(f"unexpected key '{key}' in '{written}={value}'{why}", word=written)


_TEXTS = {
    "from": "source_stage",
    "source": "source",
    "src": "source",
    "target": "target",
    "dst": "target",
    "destination": "target",
    "id": "id",
    "env": "env",
}


def _only(mount: RunMount, key: str, *types: str) -> None:
    if mount.type not in types:
        raise DockerfileError(f"unexpected key '{key}' for mount type '{mount.type}'", word=key)


def _invalid(key: str, value: str) -> DockerfileError:
    return DockerfileError(f"invalid value for {key}: {value}", word=value)


def _truth(key: str, value: str) -> bool:
    found = booleans.parse(value)
    if found is None:
        raise _invalid(key, value)
    return found


def _one_of(what: str, value: str, options: tuple[str, ...]) -> str:
    if value.lower() not in options:
        raise DockerfileError(f"unsupported {what} {quoted(value)}{suggest.hint(value, options)}", word=value)
    return value.lower()


def _number(key: str, value: str) -> int:
    if key == "mode":
        found = int(value, 8) if re.fullmatch(r"[0-7]{1,20}", value, re.ASCII) else None
    else:
        found = digits.whole(value, _LARGEST)
    if found is None or found > _LARGEST:
        raise DockerfileError(f"invalid value {value} for {key}", word=value)
    return found


def _check(mount: RunMount) -> None:
    """Refuse what does not go together."""
    kind = mount.type
    for name in ("mode", "uid", "gid"):
        if getattr(mount, name) is not None and kind not in _WITH_OWNER:
            raise DockerfileError(f"{name} not allowed for {quoted(kind)} type mounts")
    if kind == "secret":
        if mount.source_stage:
            raise DockerfileError("secret mount should not have a from")
        if mount.sharing:
            raise DockerfileError("secret mount should not define sharing")
        if not (mount.source or mount.target or mount.id):
            raise DockerfileError("invalid secret mount. one of source, target required")
        if mount.source and mount.id:
            raise DockerfileError("both source and id can't be set")
    if mount.sharing and kind != "cache":
        raise DockerfileError(f"invalid cache sharing set for {kind} mount")
