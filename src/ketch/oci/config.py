"""The image configuration (image-spec v1.1 §config) as typed structs."""

from __future__ import annotations

import calendar
import re
import time
from typing import Any

import msgspec

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)\Z", re.ASCII)


class RunConfig(msgspec.Struct, rename="pascal", kw_only=True, omit_defaults=True):
    """``config``: what a container made from the image runs, unless told otherwise."""

    user: str | None = None
    exposed_ports: dict[str, Any] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: dict[str, Any] | None = None
    working_dir: str | None = None
    labels: dict[str, str] | None = None
    stop_signal: str | None = None
    on_build: list[str] | None = None
    shell: list[str] | None = None
    healthcheck: dict[str, Any] | None = None
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
    """The whole configuration; unknown members are kept in the blob and ignored here."""

    architecture: str
    os: str
    created: str | None = None
    author: str | None = None
    comment: str | None = None
    variant: str | None = None
    config: RunConfig | None = None
    rootfs: RootFS = msgspec.field(default_factory=RootFS)
    history: list[History] | None = None


def parse_time(text: str | None) -> int:
    """RFC 3339 → ns since the epoch; 0 for nothing, nonsense, or times before 1970."""
    match = _TIME.match(text or "")
    if not match:
        return 0
    try:
        seconds = calendar.timegm(time.strptime(match[1], "%Y-%m-%dT%H:%M:%S"))
    except ValueError:  # a day that no month has
        return 0
    if match[3] != "Z":
        sign = -1 if match[3][0] == "-" else 1
        seconds -= sign * (int(match[3][1:3]) * 3600 + int(match[3][4:]) * 60)
    return max(seconds * 1_000_000_000 + int((match[2] or "0").ljust(9, "0")), 0)


def format_time(ns: int) -> str:
    """ns since the epoch → RFC 3339 in UTC."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09}Z"
