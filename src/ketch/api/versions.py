"""Older versions of the API: the fields that they did not have, and the defaults that they had.

A client that names an old version gets what that version promised.  Docker ignores a field in a request of a version
that did not have it; each row of these tables has its test in ``tests/integration/api/test_versions.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ketch.engine.model.records import BindOptions, HostConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.api.wire.container_requests import CreateBody, UpdateBody

Version = tuple[int, int]


class _Change(NamedTuple):
    """A change of ``create``: what is done to the body of a request of a version before ``since``."""

    since: Version
    apply: Callable[[CreateBody, HostConfig], None]


def _shareable_ipc(_body: CreateBody, host: HostConfig) -> None:
    host.ipc_mode = host.ipc_mode or "shareable"


def _recursive_binds(_body: CreateBody, host: HostConfig) -> None:
    for options in _bind_options(host):
        options.non_recursive = False


def _no_console_size(_body: CreateBody, host: HostConfig) -> None:
    host.console_size = None


def _no_mountpoints(_body: CreateBody, host: HostConfig) -> None:
    for options in _bind_options(host):
        options.create_mountpoint = False


def _no_annotations(_body: CreateBody, host: HostConfig) -> None:
    host.annotations = None


def _no_start_interval(body: CreateBody, _host: HostConfig) -> None:
    if body.healthcheck is not None:
        body.healthcheck.start_interval = 0


def _no_subpaths(_body: CreateBody, host: HostConfig) -> None:
    for mount in host.mounts or ():
        if mount.volume_options is not None:
            mount.volume_options.subpath = ""


_CREATE = (
    _Change((1, 40), _shareable_ipc),
    _Change((1, 40), _recursive_binds),
    _Change((1, 42), _no_console_size),
    _Change((1, 42), _no_mountpoints),
    _Change((1, 43), _no_annotations),
    _Change((1, 44), _no_start_interval),
    _Change((1, 45), _no_subpaths),
)
_PIDS_LIMIT_OF_UPDATE = (1, 40)
_ANNOTATIONS_OF_ROWS = (1, 46)
_ONLY_ANONYMOUS_VOLUMES = (1, 42)
_INFO_WITHOUT = (((1, 42), ("KernelMemory",)), ((1, 50), ("BridgeNfIptables", "BridgeNfIp6tables")))


def _bind_options(host: HostConfig) -> list[BindOptions]:
    return [mount.bind_options for mount in host.mounts or () if mount.bind_options is not None]


def read_create(body: CreateBody, version: Version) -> None:
    """Make the body of ``create`` what it means in that version."""
    if version < _CREATE[-1].since:
        host = body.host_config = body.host_config or HostConfig()
        for change in _CREATE:
            if version < change.since:
                change.apply(body, host)


def read_update(body: UpdateBody, version: Version) -> None:
    """Make the body of ``update`` what it means in that version."""
    if version < _PIDS_LIMIT_OF_UPDATE:
        body.pids_limit = None


def prunes_named_volumes(version: Version) -> bool:
    """Whether a prune of volumes takes those with names, too, unless told otherwise."""
    return version < _ONLY_ANONYMOUS_VOLUMES


def shown_row(row: dict[str, Any], version: Version) -> dict[str, Any]:
    """A row of ``ps`` in that version."""
    if version < _ANNOTATIONS_OF_ROWS:
        row["HostConfig"].pop("Annotations", None)
    return row


def shown_info(info: dict[str, Any], version: Version) -> dict[str, Any]:
    """The answer to ``info`` with the fields that later versions have dropped, none of which is true here."""
    dropped = {name: False for until, names in _INFO_WITHOUT if version < until for name in names}
    return info | dropped
