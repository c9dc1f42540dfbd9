"""``update``: new limits and another restart policy, at once when it runs; the rest waits (`pending_changes`).

What a request leaves out (or gives as 0 or an empty string) stays as it is, which is dockerd's rule; of the processes 0
means, as -1 does, that there is no limit.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from ketch.engine.containers import validate
from ketch.engine.model.records import ContainerConfig, HostConfig
from ketch.engine.spec import limits
from ketch.errors import Conflict, InvalidArgument
from ketch.failpoints import failpoint
from ketch.undo import AsyncUndo

if TYPE_CHECKING:
    from ketch.engine.containers.pending_changes import PendingChanges
    from ketch.engine.events.bus import EventBus
    from ketch.engine.live.containers import LiveContainers
    from ketch.engine.model.records import Container
    from ketch.engine.model.requests import Resources, Update
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.runtimes.control import RuntimeControl

Strings = list[str]


def check(wanted: Resources) -> None:
    """Check what does not depend on the container (InvalidArgument)."""
    # Whether a limit of swap is right depends on the limit of memory, which the container may have already.
    alone = wanted if wanted.memory else msgspec.structs.replace(wanted, memory_swap=0)
    validate.check(ContainerConfig(image="any"), _merged(HostConfig(), alone))


class Updates(Struct, frozen=True, eq=False):
    """The operation ``update``."""

    store: ContainerStore
    live: LiveContainers
    events: EventBus
    control: RuntimeControl
    changes: PendingChanges

    async def update(self, container: Container, wanted: Update) -> Strings:
        """Check, apply and store; returns warnings (InvalidArgument, Conflict, RuntimeFailure from the cgroup)."""
        async with self.live.of(container.id).lock:
            if container.state.going:
                raise Conflict(
                    f'Cannot update container {container.id}: Container is marked for removal and cannot be "update"'
                )
            before = container.host
            try:
                host = _merged(before, wanted.resources)
            except (InvalidArgument, Conflict) as e:
                raise type(e)(f"Cannot update container {container.id}: {e.message}", hint=e.hint) from e
            warnings = validate.check(container.config, host)
            if wanted.pending_reset:
                await self.changes.reset(container)
            changes = container.state.running and limits.resources(host) != limits.resources(before)
            async with AsyncUndo() as undo:
                undo.callback(self.store.save_best_effort, container)  # as it was, after what stands below
                if wanted.changes is not None:
                    await self.changes.change(container, wanted.changes, undo)
                undo.callback(_take, container, before, applied=True)
                _take(container, host, applied=not changes)
                with self.changes.volumes_made(container) as also:
                    self.store.save(container, also=also)
                failpoint("update.saved")
                if changes:
                    await self.apply(container)
                undo.pop_all()
            self.events.of_container(container, "update")
        return warnings

    async def apply(self, container: Container) -> None:
        """Bring the cgroup of a running container in line with its record (RuntimeFailure, OSError)."""
        with contextlib.suppress(FileNotFoundError):  # it has ended just now: they count from its next start on
            await self.control.update(container, limits.resources(container.host))
        failpoint("update.applied")
        container.limits_pending = False
        self.store.save_best_effort(container, durable=False)


def _take(container: Container, host: HostConfig, *, applied: bool) -> None:
    container.host, container.limits_pending = host, not applied


def _merged(host: HostConfig, wanted: Resources) -> HostConfig:
    """A copy of ``host`` with the changes (InvalidArgument and Conflict for inconsistent limits)."""
    if host.nano_cpus and (wanted.cpu_period or wanted.cpu_quota):
        raise InvalidArgument(
            "Conflicting options: CPU period or quota cannot be updated as NanoCPUs has already been set"
        )
    if (host.cpu_period or host.cpu_quota) and wanted.nano_cpus:
        raise InvalidArgument(
            "Conflicting options: NanoCPUs cannot be updated as CPU period or quota has already been set"
        )
    if wanted.memory and not wanted.memory_swap and 0 < host.memory_swap < wanted.memory:
        raise InvalidArgument(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    policy = wanted.restart_policy
    if policy is not None and policy.name not in ("", "no") and host.auto_remove:
        raise Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
    changes = {name: value for name, value in msgspec.structs.asdict(wanted).items() if value}
    changes.pop("restart_policy", None)
    if wanted.pids_limit == 0:
        changes["pids_limit"] = -1
    if policy is not None and policy.name:
        changes["restart_policy"] = policy
    return msgspec.structs.replace(host, **changes)
