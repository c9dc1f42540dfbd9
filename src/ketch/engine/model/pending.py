"""Pending changes in a container's record: the values that fields will have from its next start on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ketch.engine.model.records import Mount, MountPoint, PortBinding, Wire

if TYPE_CHECKING:
    from ketch.engine.model.records import Container

Strings = list[str]
Points = list[MountPoint]
Ports = dict[str, list[PortBinding] | None]


class Pending(Wire):
    """The values that fields will have, None where nothing changes; ``mount_points`` are ``Container.mounts``."""

    env: Strings | None = None
    exposed_ports: dict[str, Any] | None = None
    volumes: dict[str, Any] | None = None
    port_bindings: Ports | None = None
    binds: Strings | None = None
    mounts: list[Mount] | None = None
    tmpfs: dict[str, str] | None = None
    mount_points: Points | None = None


_CONFIG = ("env", "exposed_ports", "volumes")
_HOST = ("port_bindings", "binds", "mounts", "tmpfs")


def of(container: Container) -> Pending:
    """What waits for the container's next start."""
    return msgspec.convert(container.pending or {}, Pending)


def mount_points(container: Container) -> Points:
    """The mounts that a container has or will have: what they need must stay."""
    return [*container.mounts, *(of(container).mount_points or ())] if container.pending else container.mounts


def shown(container: Container) -> dict[str, Any] | None:
    """``Pending`` in an inspect answer: the fields that will be others; None without any."""
    if not container.pending:
        return None
    names = {"MountPoints"}
    return {name: value for name, value in container.pending.items() if value is not None and name not in names}


def exchange(container: Container, new: Pending) -> Pending:
    """Set the fields that ``new`` has; returns the values that they had."""
    old = Pending()
    for name in Pending.__struct_fields__:
        value = getattr(new, name)
        if value is None:
            continue
        owner: Any = container.config if name in _CONFIG else container.host if name in _HOST else container
        attribute = "mounts" if name == "mount_points" else name
        setattr(old, name, getattr(owner, attribute) or type(value)())
        setattr(owner, attribute, value)
    return old


def stored(pending: Pending) -> dict[str, Any] | None:
    """As the record of a container has it; None when nothing waits."""
    values: dict[str, Any] = msgspec.to_builtins(pending)
    return {name: value for name, value in values.items() if value is not None} or None


def difference(old: Container, new: Container) -> dict[str, Any] | None:
    """What waits in ``old`` so that it becomes ``new``."""
    result = Pending()
    for name in Pending.__struct_fields__:
        attribute = "mounts" if name == "mount_points" else name
        owners: tuple[Any, Any] = (old, new)
        if name in _CONFIG:
            owners = (old.config, new.config)
        elif name in _HOST:
            owners = (old.host, new.host)
        was, becomes = (getattr(owner, attribute) for owner in owners)
        if (was or None) != (becomes or None):
            setattr(result, name, becomes if becomes is not None else type(was)())
    return stored(result)
