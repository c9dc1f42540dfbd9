"""The image configuration (image-spec v1.1 §config) as typed structs."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from ketch.errors import InvalidArgument
from ketch.notation import moments

StringSet = dict[str, Any]  # a set in Go's JSON: what counts are the keys, the values are empty objects
DockerHealthcheck = dict[str, Any]  # Docker's own, unknown to OCI: kept as an image has it, read where it is used


class RunConfig(msgspec.Struct, rename="pascal", kw_only=True, omit_defaults=True):
    """``config``: the defaults of containers that are made from the image."""

    user: str | None = None
    exposed_ports: StringSet | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: StringSet | None = None
    working_dir: str | None = None
    labels: dict[str, str] | None = None
    stop_signal: str | None = None
    on_build: list[str] | None = None
    shell: list[str] | None = None
    healthcheck: DockerHealthcheck | None = None
    args_escaped: bool | None = None


class RootFS(msgspec.Struct, kw_only=True):
    """``rootfs``: the layers' diff ids, lowest first."""

    type: str = "layers"
    diff_ids: list[str] = msgspec.field(default_factory=list)


class History(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One step of how the image was made; ``empty_layer`` steps changed no files."""

    created: str | None = None
    created_by: str | None = None
    author: str | None = None
    comment: str | None = None
    empty_layer: bool = False


class ImageConfig(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The whole configuration; unknown members are kept in the blob and ignored here.

    Without an operating system it is for Linux, as with Docker; an architecture that is not told stays empty.
    """

    architecture: str = ""
    os: str = ""
    created: str | None = None
    author: str | None = None
    comment: str | None = None
    docker_version: str | None = None
    variant: str | None = None
    os_version: str | None = msgspec.field(name="os.version", default=None)
    config: RunConfig | None = None
    rootfs: RootFS = msgspec.field(default_factory=RootFS)
    history: list[History] | None = None

    def __post_init__(self) -> None:
        self.os = self.os or "linux"


def decode(data: bytes, *, made: bool = True) -> ImageConfig:
    """A configuration from JSON (msgspec.DecodeError, UnicodeDecodeError, and InvalidArgument in Docker's words).

    As Docker reads it: names match without regard to case, a null is nothing, a command may be a text.  ``made``: the
    layers of its history are there; of an image that is still to be made they are not.
    """
    try:
        facts = msgspec.json.decode(data) if data else None
    except msgspec.DecodeError as e:
        if "truncated" in str(e):
            raise InvalidArgument("unexpected end of JSON input", hint="the image's configuration is cut short") from e
        raise
    if not data:
        raise InvalidArgument("unexpected end of JSON input", hint="the image's configuration is empty")
    facts = {} if facts is None else _matched(facts, ImageConfig)
    if made and isinstance(facts, dict) and "rootfs" not in facts:
        raise InvalidArgument("invalid image JSON, no RootFS key")
    try:
        config = msgspec.convert(facts, ImageConfig)
    except msgspec.ValidationError as e:
        if words := _mismatch(str(e)):
            raise InvalidArgument(words, hint=f"the image's configuration: {e}") from e
        raise
    steps = config.history or []
    for created in (config.created, *(step.created for step in steps)):
        if created is not None and (complaint := moments.complaint(created)):
            raise InvalidArgument(complaint, hint="the image's configuration has a time that is none")
    if made and sum(not step.empty_layer for step in steps) > len(config.rootfs.diff_ids):
        raise InvalidArgument("too many non-empty layers in History section")
    return config


_PARTS: dict[str, type[msgspec.Struct]] = {"config": RunConfig, "rootfs": RootFS, "history": History}
_WRONG_TYPE = re.compile(r"Expected `([^`]*)`, got `([a-z]*)`(?: - at `\$(\.[A-Za-z_.]*)`)?")
_GO_VALUES = {"int": "number", "float": "number", "str": "string"}
_GO_TYPES = {
    "created": "time.Time",
    "history": "[]v1.History",
    "diff_ids": "[]layer.DiffID",
    "config": "container.Config",
    "rootfs": "image.RootFS",
    "ExposedPorts": "nat.PortSet",
    "Volumes": "map[string]struct {}",
    "Healthcheck": "container.HealthConfig",
}
_GO_KINDS = {"str": "string", "bool": "bool", "array": "[]string", "object": "map[string]string"}
_COMMANDS = frozenset(("Cmd", "Entrypoint"))


def _mismatch(error: str) -> str:
    """A value of another type than its field's, in Go's words; empty when it is within a list or a map."""
    match = _WRONG_TYPE.fullmatch(error)
    if match is None:
        return ""
    expected, got, path = match[1], _GO_VALUES.get(match[2], match[2]), (match[3] or "")[1:]
    if not path:
        return f"json: cannot unmarshal {got} into Go value of type image.Image"
    field = path.rpartition(".")[2]
    kind = _GO_TYPES.get(field) or next(go for name, go in _GO_KINDS.items() if name in expected)
    return f"json: cannot unmarshal {got} into Go struct field Image.{path} of type {kind}"


def _matched(facts: Any, kind: type[msgspec.Struct]) -> Any:
    """An object with its names as the struct has them, without nulls; of equal names the last counts."""
    if not isinstance(facts, dict):
        return facts
    names = {field.encode_name.lower(): field.encode_name for field in msgspec.structs.fields(kind)}
    found: dict[str, Any] = {}
    for written, value in facts.items():
        name = names.get(written.lower())
        if name is None or value is None:
            continue
        part = _PARTS.get(name) if kind is ImageConfig else None
        if part is not None:
            value = [_matched(item, part) for item in value] if isinstance(value, list) else _matched(value, part)
        found[name] = [value] if name in _COMMANDS and isinstance(value, str) else value
    return found


def parse_time(text: str | None) -> int:
    """RFC 3339 → ns since 1970, negative for times before; 0 for nothing, and for what 64 bits cannot tell."""
    found = moments.rfc3339(text or "") or 0
    return found if abs(found) < 1 << 63 else 0
