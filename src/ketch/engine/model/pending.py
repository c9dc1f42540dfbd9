"""Pending changes in a container's record: the values that fields will have from its next start on."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from ketch.engine.model.records import MountPoint, Pending

if TYPE_CHECKING:
    from ketch.engine.model.records import Container

_T = TypeVar("_T")
Points = list[MountPoint]


def mount_points(container: Container) -> Points:
    """The mounts that a container has or will have: what they need must stay."""
    waiting = container.pending
    return container.mounts if waiting is None else [*container.mounts, *(waiting.mount_points or ())]


def shown(container: Container) -> Pending | None:
    """``Pending`` in an inspect answer: the fields of the configurations that will change; None without any."""
    return None if container.pending is None else msgspec.structs.replace(container.pending, mount_points=None)


def exchange(container: Container, new: Pending) -> Pending:
    """Set the fields that ``new`` has; returns the values that they had."""
    config, host, old = container.config, container.host, Pending()
    if new.env is not None:
        old.env, config.env = config.env or [], new.env
    if new.exposed_ports is not None:
        old.exposed_ports, config.exposed_ports = config.exposed_ports or {}, new.exposed_ports
    if new.volumes is not None:
        old.volumes, config.volumes = config.volumes or {}, new.volumes
    if new.port_bindings is not None:
        old.port_bindings, host.port_bindings = host.port_bindings or {}, new.port_bindings
    if new.binds is not None:
        old.binds, host.binds = host.binds or [], new.binds
    if new.mounts is not None:
        old.mounts, host.mounts = host.mounts or [], new.mounts
    if new.tmpfs is not None:
        old.tmpfs, host.tmpfs = host.tmpfs or {}, new.tmpfs
    if new.mount_points is not None:
        old.mount_points, container.mounts = container.mounts, new.mount_points
    return old


def difference(old: Container, new: Container) -> Pending | None:
    """The pending change that turns ``old`` into ``new``; None when they are the same."""
    return or_none(
        Pending(
            env=_new_list(old.config.env, new.config.env),
            exposed_ports=_new_dict(old.config.exposed_ports, new.config.exposed_ports),
            volumes=_new_dict(old.config.volumes, new.config.volumes),
            port_bindings=_new_dict(old.host.port_bindings, new.host.port_bindings),
            binds=_new_list(old.host.binds, new.host.binds),
            mounts=_new_list(old.host.mounts, new.host.mounts),
            tmpfs=_new_dict(old.host.tmpfs, new.host.tmpfs),
            mount_points=_new_list(old.mounts, new.mounts),
        )
    )


def or_none(pending: Pending) -> Pending | None:
    """The pending changes, or None when they are empty."""
    return None if pending == Pending() else pending


def _new_list(was: list[_T] | None, becomes: list[_T] | None) -> list[_T] | None:
    """The new value, None when it is the old one."""
    return becomes or [] if (was or None) != (becomes or None) else None


def _new_dict(was: dict[str, _T] | None, becomes: dict[str, _T] | None) -> dict[str, _T] | None:
    return becomes or {} if (was or None) != (becomes or None) else None
