"""``update``: new limits and another restart policy, at once when it runs; the rest waits (`pending_changes`).

What a request leaves out (or gives as 0 or an empty string) stays as it is, which is dockerd's rule; of the processes 0
means, as -1 does, that there is no limit.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import msgspec

from ketch import faults
from ketch.engine.containers import pending_changes, validate
from ketch.engine.model.records import ContainerConfig, HostConfig, RestartPolicy, Wire
from ketch.engine.spec import limits
from ketch.errors import Conflict, InvalidArgument
from ketch.undo import AsyncUndo

if TYPE_CHECKING:
    from ketch.engine.model.records import Container
    from ketch.engine.parts import Context

Strings = list[str]


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


class Request(Resources):
    """The whole body; ``pending_reset`` drops what waits for the next start, before ``changes`` are looked at."""

    changes: pending_changes.Changes | None = None
    pending_reset: bool = False


def check(wanted: Resources) -> None:
    """Refuse what is wrong for every container (InvalidArgument), before one is looked for."""
    # Whether a limit of swap is right depends on the limit of memory, which the container may have already.
    alone = wanted if wanted.memory else msgspec.structs.replace(wanted, memory_swap=0)
    validate.check(ContainerConfig(image="any"), _merged(HostConfig(), alone))


async def update(ctx: Context, container: Container, wanted: Request) -> Strings:
    """Check, apply and store; returns warnings (InvalidArgument, Conflict, RuntimeFailure from the cgroup)."""
    async with ctx.live.of(container.id).lock:
        if container.state.going:
            raise Conflict(f"update container {container.id}: it is marked for removal and cannot be updated")
        host = _merged(container.host, wanted)
        warnings = validate.check(container.config, host)
        if wanted.pending_reset:
            await pending_changes.reset(ctx, container)
        before = msgspec.structs.replace(container.host)
        changes = container.state.running and limits.resources(host) != limits.resources(before)
        async with AsyncUndo() as undo:
            undo.callback(ctx.store.keep, container)  # as it was, after what stands below
            if wanted.changes is not None:
                await pending_changes.change(ctx, container, wanted.changes, undo)
            undo.callback(_take, container, before, applied=True)
            _take(container, host, applied=not changes)
            ctx.store.save(container)
            faults.point("update.saved")
            if changes:
                apply(ctx, container)
            undo.pop_all()
        ctx.events.of_container(container, "update")
    return warnings


def apply(ctx: Context, container: Container) -> None:
    """Bring the cgroup of a running container in line with its record (RuntimeFailure, OSError)."""
    with contextlib.suppress(FileNotFoundError):  # it has ended just now: they count from its next start on
        ctx.cgroups.of(container).update(limits.resources(container.host))
    faults.point("update.applied")
    container.limits_pending = False
    ctx.store.keep(container, durable=False)


def _take(container: Container, host: HostConfig, *, applied: bool) -> None:
    container.limits_pending = not applied
    for name in Resources.__struct_fields__:
        setattr(container.host, name, getattr(host, name))


def _merged(host: HostConfig, wanted: Resources) -> HostConfig:
    """A copy of ``host`` with what is wanted (InvalidArgument and Conflict for what does not go together)."""
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
    changes = {
        name: value
        for name in Resources.__struct_fields__
        if name != "restart_policy" and (value := getattr(wanted, name))
    }
    if wanted.pids_limit == 0:
        changes["pids_limit"] = -1
    if policy is not None and policy.name:
        changes["restart_policy"] = policy
    return msgspec.structs.replace(host, **changes)
