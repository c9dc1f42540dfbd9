"""A container's configuration from what the user asked for and what the image says (Docker's rules).

The user's word wins; environments are merged by name, ports, volumes and labels are united; an
entrypoint from the user drops the image's command.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

import msgspec

from ketch.engine.model.records import ContainerConfig, HealthConfig
from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from ketch.oci.config import RunConfig, StringSet


def as_list(value: list[str] | str | None) -> list[str]:
    """A value as a list: Docker accepts a bare string for a list of one."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def merge(config: ContainerConfig, image: RunConfig) -> ContainerConfig:
    """A new ContainerConfig; neither argument is changed.  InvalidArgument for an image of which nothing can be run."""
    _check_texts(image)
    merged = msgspec.structs.replace(config)
    asked = as_list(config.entrypoint)
    entrypoint = None if config.entrypoint is None else [word for word in asked if word]
    command = None if config.cmd is None else as_list(config.cmd)
    if not asked and not command:
        command = image.cmd
    if entrypoint is None:
        entrypoint = image.entrypoint
    elif asked and not entrypoint:  # `--entrypoint ""` resets it, with the image's command
        entrypoint = None
    merged.entrypoint, merged.cmd = entrypoint, command
    names = {item.partition("=")[0] for item in config.env or ()}
    inherited = [item for item in image.env or () if item.partition("=")[0] not in names]
    merged.env = [*(config.env or ()), *inherited]
    merged.exposed_ports = _union(image.exposed_ports, config.exposed_ports)
    merged.volumes = _union(image.volumes, config.volumes)
    merged.labels = {**(image.labels or {}), **(config.labels or {})}
    merged.user = config.user or image.user or ""
    merged.working_dir = _clean(config.working_dir or image.working_dir or "")
    merged.stop_signal = config.stop_signal or image.stop_signal or ""
    merged.shell = config.shell or image.shell
    if image.healthcheck:
        try:
            theirs = msgspec.convert(msgspec.to_builtins(image.healthcheck), HealthConfig)
        except msgspec.ValidationError as e:
            raise InvalidArgument(f"the image's health check cannot be read: {e}", hint="have it made again") from e
        merged.healthcheck = _health(config.healthcheck, theirs)
    return merged


def _clean(path: str) -> str:
    """An absolute path in its shortest form; another one as it is."""
    return posixpath.normpath("/" + path.lstrip("/")) if path.startswith("/") else path


def _check_texts(image: RunConfig) -> None:
    """Raise InvalidArgument for a NUL byte in a path, an argument or a name (labels may have one)."""
    for name in ("user", "env", "entrypoint", "cmd", "working_dir", "volumes", "exposed_ports", "stop_signal", "shell"):
        value = getattr(image, name)
        texts = [value] if isinstance(value, str) else list(value or ())
        if any("\0" in text for text in texts):
            raise InvalidArgument(f"the image's configuration has a NUL byte in `{name}`", hint="have it made again")


def _health(ours: HealthConfig | None, image: HealthConfig) -> HealthConfig:
    """The healthcheck, field by field: the user's value, else the image's."""
    if ours is None:
        return image
    fields = HealthConfig.__struct_fields__
    return HealthConfig(**{name: getattr(ours, name) or getattr(image, name) for name in fields})


def _union(first: StringSet | None, second: StringSet | None) -> StringSet | None:
    united = {**(first or {}), **(second or {})}
    return united or None


def command_of(config: ContainerConfig) -> tuple[str, list[str]]:
    """(program, arguments) that will be executed; InvalidArgument when there is none."""
    words = [*as_list(config.entrypoint), *as_list(config.cmd)]
    if not words:
        raise InvalidArgument("no command specified", hint="the image names none; give one after the image's name")
    return words[0], words[1:]
