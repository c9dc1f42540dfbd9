"""The image configuration (image-spec v1.1 §config) as typed structs."""

from __future__ import annotations

from typing import Any

import msgspec

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
    variant: str | None = None
    config: RunConfig | None = None
    rootfs: RootFS = msgspec.field(default_factory=RootFS)
    history: list[History] | None = None

    def __post_init__(self) -> None:
        self.os = self.os or "linux"


def decode(data: bytes) -> ImageConfig:
    """A configuration from JSON (msgspec.DecodeError); ``diff_ids`` may be null, as Go writes an empty list."""
    try:
        return msgspec.json.decode(data, type=ImageConfig)
    except msgspec.ValidationError:
        facts = msgspec.json.decode(data)
        rootfs = facts.get("rootfs") if isinstance(facts, dict) else None
        if not isinstance(rootfs, dict) or rootfs.get("diff_ids", ()) is not None:
            raise
        del rootfs["diff_ids"]
        return msgspec.convert(facts, ImageConfig)


def parse_time(text: str | None) -> int:
    """RFC 3339 → ns since the epoch; 0 for nothing, nonsense, or times before 1970."""
    return max(moments.rfc3339(text or "") or 0, 0)
