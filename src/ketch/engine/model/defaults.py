"""The daemon's defaults of containers that do not say otherwise themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.engine.model.records import AppliedDefaults, Ulimit

if TYPE_CHECKING:
    from ketch.engine.model.records import HostConfig


class ContainerDefaults(Struct, frozen=True, kw_only=True):
    """The defaults; empty values are Docker's own.  ``seccomp`` is ``unconfined`` or a profile's content."""

    init: bool = False
    no_new_privileges: bool = False
    seccomp: str = ""
    shm_size: int = 0
    ulimits: list[Ulimit] = []
    ipc_mode: str = ""
    cgroupns_mode: str = ""

    def complete(self, host: HostConfig) -> AppliedDefaults | None:
        """Write into a new container's settings what they leave open; returns what stands elsewhere, if anything."""
        if host.init is None and self.init:
            host.init = True
        host.shm_size = host.shm_size or self.shm_size
        host.ipc_mode = host.ipc_mode or self.ipc_mode
        if not host.privileged:  # which sees all cgroups without being asked
            host.cgroupns_mode = host.cgroupns_mode or self.cgroupns_mode
        named = {limit.name for limit in host.ulimits or ()}
        if added := [limit for limit in self.ulimits if limit.name not in named]:
            host.ulimits = [*(host.ulimits or ()), *added]
        if not (self.no_new_privileges or self.seccomp):
            return None
        return AppliedDefaults(no_new_privileges=self.no_new_privileges, seccomp=self.seccomp)
