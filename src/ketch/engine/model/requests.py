"""Requests that change objects: ``update`` and ``commit``."""

from __future__ import annotations

import msgspec
from msgspec import Struct, field

from ketch.engine.model.records import (
    ContainerConfig,
    EndpointSettings,
    HostConfig,
    Mount,
    PortBinding,
    RestartPolicy,
    Wire,
)
from ketch.oci.config import StringSet  # noqa: TC001 - msgspec reads the annotation at run time

Strings = list[str]
Ports = dict[str, list[PortBinding] | None]


class NewContainer(Struct, kw_only=True):
    """A request to ``create``; ``networking`` has the settings of each network, by its name or id.

    ``below_read_only``: what is mounted below a read-only bind is read-only, too, unless the mount says otherwise.
    ``session``: the one that it ends with.  ``ahead``: nobody has asked for it yet, and it gets no row.
    """

    config: ContainerConfig
    host: HostConfig
    networking: dict[str, EndpointSettings]
    name: str | None = None
    platform: str | None = None
    below_read_only: bool = True
    session: str = ""
    ahead: bool = False


class Changes(Wire):
    """``Changes`` in the body of ``update``: removals are applied before additions.

    A variable or label replaces the one of its name, a mount the one at its place; a binding is one more binding of its
    port.  Ports to take away are ``80/tcp`` with the bindings meant, or with none: all of them.
    """

    env: Strings | None = None
    env_remove: Strings | None = None
    labels: dict[str, str] | None = None
    labels_remove: Strings | None = None
    port_bindings: Ports | None = None
    port_bindings_remove: Ports | None = None
    binds: Strings | None = None
    volumes: StringSet | None = None
    mounts: list[Mount] | None = None
    mounts_remove: Strings | None = None


class Resources(Wire):
    """Docker's part of the body of ``update``: fields of ``HostConfig`` that can change while a container runs."""

    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    nano_cpus: int = 0
    memory: int = 0
    memory_reservation: int = 0
    memory_swap: int = 0
    blkio_weight: int = 0
    pids_limit: int | None = None
    restart_policy: RestartPolicy | None = None


class Update(msgspec.Struct, kw_only=True, frozen=True):
    """A request to ``update``; ``pending_reset`` drops pending changes before ``changes`` are applied."""

    resources: Resources
    changes: Changes | None = None
    pending_reset: bool = False


class ImportOptions(Struct, kw_only=True):
    """The name of an imported image, and its own words about itself."""

    repo: str = ""
    tag: str = ""
    changes: list[str] = []
    message: str = ""
    platform: str = ""


class CommitOptions(Struct, kw_only=True):
    """The options of ``docker commit``; ``config`` takes precedence over the container's configuration."""

    repo: str = ""
    tag: str = ""
    comment: str = ""
    author: str = ""
    pause: bool = True
    changes: list[str] = field(default_factory=list)
    config: ContainerConfig | None = None
