"""What a start needs on disk, and what the launcher is told: the bundle, the network's files, the message."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec

from ketch.engine.files import container_view
from ketch.engine.logs import drivers as log_drivers
from ketch.engine.model.namespace_mode import ModeKind
from ketch.engine.spec import bundle
from ketch.errors import Conflict, InvalidArgument

if TYPE_CHECKING:
    from ketch.engine.model.namespace_mode import NamespaceMode
    from ketch.engine.model.records import Container
    from ketch.engine.parts import Context

_encode = msgspec.json.Encoder().encode


async def prepare(ctx: Context, container: Container) -> dict[str, Any]:
    """Write bundle and network files; return the message (see `runtime.process.messages`)."""
    container_view.check_files(ctx, container)
    log = await log_drivers.message(ctx, container)
    cgroup = ctx.cgroups.choose(container)
    bundle_dir = _write(ctx, container, cgroup)
    image = ctx.images.resolve(container.image_id)
    return {
        "id": container.id,
        "bundle": bundle_dir,
        "run_dir": ctx.paths.run_dir(container.id),
        "rootfs": ctx.snapshots.mounts(container.id, image.chain_ids),
        "tty": container.config.tty,
        "stdin": container.config.open_stdin,
        "stdin_once": container.config.stdin_once,
        "pidns": _pid_namespace(ctx, container.host.pid),
        "cgroup": cgroup,
        "log": log,
    }


def _write(ctx: Context, container: Container, cgroup: str) -> str:
    """The bundle, whose directory is returned, and what its mounts and its monitor expect to be there."""
    directory = ctx.paths.directory(container.id)
    for name, settings in container.networks.items():
        ctx.sandboxes.record_of(name, settings)
    spec = bundle.build(container, directory, cgroup, lambda ref, kind: _namespace_of(ctx, ref, kind))
    bundle.add_environment(spec["process"], ctx.links.environment(container))
    for name in ("hostname", "hosts", "resolv.conf"):
        with open(os.path.join(directory, name), "w", encoding="utf-8") as f:
            os.fchmod(f.fileno(), 0o644)  # for every user of the container, whatever ketchd's umask is or was
            if name == "hostname":
                f.write(bundle.hostname(container) + "\n")
    bundle_dir = os.path.join(directory, "bundle")
    os.makedirs(bundle_dir, mode=0o700, exist_ok=True)
    with open(os.path.join(bundle_dir, "config.json"), "wb") as f:
        f.write(_encode(spec))
    os.makedirs(ctx.paths.log_dir(container.id), mode=0o700, exist_ok=True)
    os.makedirs(ctx.paths.run_dir(container.id), mode=0o700, exist_ok=True)
    return bundle_dir


def _pid_namespace(ctx: Context, mode: NamespaceMode) -> str:
    """``new``, ``host``, or the path of another container's."""
    if mode.container is not None:
        return _namespace_of(ctx, mode.container, "pid")
    return "host" if mode.is_host else "new"


def _namespace_of(ctx: Context, ref: str, kind: str) -> str:
    """Path of the namespace of another, running container (``container:ref`` modes)."""
    other = ctx.store.get(ref)
    if not other.state.running:
        if kind == "network":
            state = other.state.status
            raise Conflict(f"cannot join network namespace of a non running container: container {ref} is {state}")
        raise Conflict(f"failed to join {kind.upper()} namespace: container {other.id} is not running")
    if kind == "ipc" and other.host.ipc.kind in (ModeKind.DEFAULT, ModeKind.PRIVATE, ModeKind.NONE):
        raise InvalidArgument(
            f"failed to join IPC namespace: container {other.id}: non-shareable IPC "
            "(hint: use IpcMode:shareable for the donor container)"
        )
    return f"/proc/{other.state.pid}/ns/{'net' if kind == 'network' else kind}"
