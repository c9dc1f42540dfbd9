"""Changes of a container that wait for its next start: environment, published ports, mounts.

    update ──► change ──► container.pending ──► apply (at a start): the configuration is another one
                              ▲                     └──► take_back, when the start fails
                              └──────────────────────────────┘

What waits (`Pending`) is kept as the values that the fields of the configuration will have, not as the steps that lead
to them: a change of the limits, or of the networks, in the meantime is not undone by it.  Labels have no bearing on a
process and change at once.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from ketch.engine.aio import snapshot_work
from ketch.engine.containers import validate
from ketch.engine.model import pending as pending_record
from ketch.engine.model.namespaces.mode import ModeKind
from ketch.engine.model.records import ContainerConfig, HostConfig, Pending, PortBinding
from ketch.engine.spec import bundle
from ketch.engine.volumes import idmaps
from ketch.engine.volumes.mount_spec import check_target, parse_bind
from ketch.errors import InvalidArgument, KetchError
from ketch.network.ports import requests
from ketch.threads import run_to_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from sqlite3 import Connection

    from ketch.engine.model.records import Container
    from ketch.engine.model.requests import Changes, Ports
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.volumes.container_volumes import ContainerVolumes
    from ketch.engine.volumes.store import VolumeStore
    from ketch.images.store import ImageStore
    from ketch.oci.config import StringSet
    from ketch.storage.snapshots.overlay import Snapshots
    from ketch.undo import AsyncUndo

Strings = list[str]


def apply(store: ContainerStore, container: Container) -> Pending | None:
    """Apply a container's pending changes before its start; returns the old values, for `take_back`.

    The record is saved as it will be: a daemon that dies in the middle of the start leaves the new configuration.
    """
    if (waiting := container.pending) is None:
        return None
    before = pending_record.exchange(container, waiting)
    container.pending = None
    try:
        store.save(container)
    except BaseException:
        pending_record.exchange(container, before)
        container.pending = waiting
        raise
    return before


def take_back(store: ContainerStore, container: Container, before: Pending | None, why: BaseException) -> None:
    """Undo `apply` after a failed start."""
    if before is None:
        return
    container.pending = pending_record.or_none(pending_record.exchange(container, before))
    store.save(container)
    if isinstance(why, KetchError) and why.hint is None:
        why.hint = f"changes wait for its start; drop them with: ketch update --pending-reset {container.name}"


class PendingChanges(Struct, frozen=True, eq=False):
    """Accepts pending changes, and drops them."""

    images: ImageStore
    snapshots: Snapshots
    volumes: VolumeStore
    container_volumes: ContainerVolumes

    async def change(self, container: Container, wanted: Changes, undo: AsyncUndo) -> None:
        """Check changes and record them as pending, or (labels) apply them; ``undo`` takes them back.

        InvalidArgument, NotFound and others say what is wrong.
        """
        before, labels = container.pending, container.config.labels
        new = _copy(container)
        new.config.env = _environment(new.config.env or [], wanted)
        self._publish(new, wanted)
        await self._mount(new, wanted, undo)
        validate.check(new.config, new.host)
        requests.requests(_plain(new.host.port_bindings), new.config.exposed_ports, new.host.publish_all_ports)
        bundle.build(new, "/", "/", lambda _ref, _kind: "")
        undo.callback(setattr, container, "pending", before)
        container.pending = pending_record.difference(container, new)
        undo.callback(setattr, container.config, "labels", labels)
        container.config.labels = _labels(labels or {}, wanted)

    @contextlib.contextmanager
    def volumes_made(self, container: Container) -> Iterator[Callable[[Connection], None]]:
        """A step that marks the volumes of what waits as completely made, for the transaction that saves it."""
        points = (container.pending or Pending()).mount_points or []
        with self.volumes.made([point.name for point in points if point.type == "volume"], container.id) as also:
            yield also

    async def reset(self, container: Container) -> None:
        """Drop the pending changes, with the anonymous volumes that were made for them."""
        points = (container.pending or Pending()).mount_points or []
        container.pending = None
        kept = {point.name for point in container.mounts}
        dropped = _with(container, mounts=[p for p in points if p.name not in kept])
        await self.container_volumes.remove_anonymous(dropped)

    def _publish(self, new: Container, wanted: Changes) -> None:
        bindings = {_port(port): list(bound or ()) for port, bound in (new.host.port_bindings or {}).items()}
        exposed = dict(new.config.exposed_ports or {})
        config = self.images.resolve(new.image_id).config.config
        for key, chosen in (wanted.port_bindings_remove or {}).items():
            port = _port(key)
            gone = [b for b in bindings.get(port, ()) if not chosen or b in chosen]
            if not gone or (chosen and len(gone) < len(chosen)):
                raise InvalidArgument(f"remove published port {key}: the container does not publish it so")
            bindings[port] = [b for b in bindings[port] if b not in gone]
            if not bindings[port]:
                del bindings[port]
                if port not in ((config.exposed_ports if config else None) or {}):
                    exposed.pop(port, None)
        for key, chosen in (wanted.port_bindings or {}).items():
            first, last, proto = requests.parse_port_key(key)
            if first != last:
                raise InvalidArgument(f"publish {key}: give each port of a range by itself")
            port = f"{first}/{proto}"
            exposed.setdefault(port, {})
            bindings.setdefault(port, []).extend(b for b in chosen or [PortBinding()] if b not in bindings[port])
        if wanted.port_bindings and new.host.network.kind is not ModeKind.NETWORK:
            raise InvalidArgument(
                f"publish ports of `{new.name}`: it has no network of its own (--network {new.host.network_mode})"
            )
        if wanted.port_bindings or wanted.port_bindings_remove:
            new.host.port_bindings = dict(bindings)
            new.config.exposed_ports = exposed

    async def _mount(self, new: Container, wanted: Changes, undo: AsyncUndo) -> None:
        """Plan the new mounts as a creation does; volumes that are made for them go when ``undo`` is called."""
        removed = [check_target(target) for target in wanted.mounts_remove or ()]
        tmpfs = dict(new.host.tmpfs or {})
        there = {point.destination for point in new.mounts} | {check_target(t) for t in tmpfs}
        for target in removed:
            if target not in there:
                raise InvalidArgument(f"remove mount {target}: nothing is mounted there", hint="see: ketch inspect")
        if not (removed or wanted.binds or wanted.volumes or wanted.mounts):
            return
        volumes: StringSet = {target: {} for target in wanted.volumes or ()}
        fresh = _with(new, mounts=[], config=ContainerConfig(volumes=volumes))
        # The volumes of a container that runs are in use under its own id.
        fresh.id = f"{new.id}-pending"
        fresh.host = HostConfig(binds=wanted.binds, mounts=wanted.mounts, volume_driver=new.host.volume_driver)
        known = {volume.name for volume in self.volumes.list()}
        undo.push_async_callback(self.container_volumes.remove_new, fresh, known)
        undo.callback(self.volumes.release, new.id)
        await self.container_volumes.make_image_trees(fresh.host)
        self.container_volumes.planner().plan(fresh.config, fresh.host, fresh.mounts, (), new.id)
        chains = self.images.resolve(new.image_id).chain_ids
        user = new.config.user
        await snapshot_work.run_to_end(self.snapshots, idmaps.resolve, self.snapshots, chains, user, fresh.mounts)
        if any(point.type == "volume" for point in fresh.mounts):
            await run_to_end(self.container_volumes.populate, fresh, chains)
        self.container_volumes.announce_new(fresh, known)
        gone = {*removed, *(point.destination for point in fresh.mounts)}
        _forget(new, tmpfs, gone)
        new.host.binds = [*(new.host.binds or ()), *(wanted.binds or ())]
        new.host.mounts = [*(new.host.mounts or ()), *(wanted.mounts or ())]
        new.config.volumes = {**(new.config.volumes or {}), **volumes}
        new.mounts = sorted([*new.mounts, *fresh.mounts], key=lambda point: point.destination.count("/"))


def _copy(container: Container) -> Container:
    """A copy of the container with its pending changes applied."""
    new = _with(
        container, config=msgspec.structs.replace(container.config), host=msgspec.structs.replace(container.host)
    )
    new.mounts = list(container.mounts)
    if new.pending is not None:
        pending_record.exchange(new, new.pending)
    return new


def _with(container: Container, **values: Any) -> Container:
    return msgspec.structs.replace(container, **values)


def _environment(env: Strings, wanted: Changes) -> Strings:
    result = list(env)
    for name in wanted.env_remove or ():
        if not any(item.partition("=")[0] == name for item in result):
            raise InvalidArgument(f"remove environment variable {name}: the container has none of this name")
        result = [item for item in result if item.partition("=")[0] != name]
    added: Strings = []  # in front of what the image brings, as at the creation
    for item in wanted.env or ():
        name, equals, _ = item.partition("=")
        if not equals or not name:
            raise InvalidArgument(f"invalid environment variable: {item}", hint="write NAME=VALUE")
        positions = [i for i, known in enumerate(result) if known.partition("=")[0] == name]
        if positions:
            result = [known for i, known in enumerate(result) if i not in positions[1:]]
            result[positions[0]] = item
        else:
            added.append(item)
    return added + result


def _labels(labels: dict[str, str], wanted: Changes) -> dict[str, str]:
    removed = set(wanted.labels_remove or ())
    return {**{key: value for key, value in labels.items() if key not in removed}, **(wanted.labels or {})}


# -- ports ---------------------------------------------------------------------------------------


def _port(key: str) -> str:
    first, last, proto = requests.parse_port_key(key)
    return f"{first}/{proto}" if first == last else f"{first}-{last}/{proto}"


def _plain(bindings: Ports | None) -> dict[str, list[dict[str, str]] | None]:
    plain: dict[str, list[dict[str, str]] | None] = msgspec.to_builtins(bindings or {})
    return plain


# -- mounts --------------------------------------------------------------------------------------


def _forget(new: Container, tmpfs: dict[str, str], gone: set[str]) -> None:
    """Remove the mounts at these targets from every field that has them."""
    new.host.tmpfs = {target: words for target, words in tmpfs.items() if check_target(target) not in gone}
    new.host.binds = [spec for spec in new.host.binds or () if parse_bind(spec).destination not in gone]
    new.host.mounts = [m for m in new.host.mounts or () if check_target(m.target) not in gone]
    new.config.volumes = {t: v for t, v in (new.config.volumes or {}).items() if check_target(t) not in gone}
    new.mounts = [point for point in new.mounts if point.destination not in gone]
