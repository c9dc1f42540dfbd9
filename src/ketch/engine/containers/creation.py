"""Creation of containers: configuration and image become a record, volumes and a writable root."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from ketch.engine.aio import snapshot_work
from ketch.engine.cgroups import default_namespace as default_cgroup_namespace
from ketch.engine.containers import shared_namespaces, validate
from ketch.engine.files import working_directory
from ketch.engine.logs import options as log_options
from ketch.engine.model import merge, names
from ketch.engine.model.namespaces.mode import ModeKind
from ketch.engine.model.namespaces.user import UsernsMode
from ketch.engine.model.records import Container, LogConfig, MountPoint
from ketch.engine.networks import service as network_service
from ketch.engine.runtimes.catalog import BUILT_IN
from ketch.engine.spec import bundle, limits, secrets
from ketch.engine.stats.counters import timed
from ketch.engine.volumes import container_volumes, idmaps, mount_plan, mount_spec
from ketch.errors import InvalidArgument
from ketch.failpoints import failpoint
from ketch.oci.config import RunConfig
from ketch.storage.snapshots import quota
from ketch.threads import in_own_thread, run_to_end
from ketch.undo import AsyncUndo

if TYPE_CHECKING:
    from ketch.engine.cgroups import ContainerCgroups
    from ketch.engine.events.bus import EventBus
    from ketch.engine.files.directories import ContainerDirectories
    from ketch.engine.model.defaults import ContainerDefaults
    from ketch.engine.model.namespaces.user import UserNamespace
    from ketch.engine.model.records import AppliedDefaults, HostConfig
    from ketch.engine.model.requests import NewContainer
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.networks.legacy_links import Links
    from ketch.engine.runtimes.catalog import Runtimes
    from ketch.engine.stats.counters import Counters
    from ketch.engine.userns.service import UserNamespaces
    from ketch.engine.volumes.container_volumes import ContainerVolumes
    from ketch.engine.volumes.store import VolumeStore
    from ketch.images.model import Image
    from ketch.images.store import ImageStore
    from ketch.network.manager import NetworkManager
    from ketch.storage.snapshots.overlay import Snapshots


class Creation(Struct, frozen=True, eq=False):
    """The operation ``create``."""

    store: ContainerStore
    images: ImageStore
    snapshots: Snapshots
    volumes: VolumeStore
    container_volumes: ContainerVolumes
    directories: ContainerDirectories
    network: NetworkManager
    links: Links
    user_namespaces: UserNamespaces
    events: EventBus
    log_default: LogConfig
    defaults: ContainerDefaults
    cgroups: ContainerCgroups
    runtimes: Runtimes
    counters: Counters

    @timed("create")
    async def create(self, wanted: NewContainer) -> tuple[Container, list[str]]:
        """A new container from an image that is here (NotFound otherwise); returns it with warnings."""
        config, host = wanted.config, wanted.host
        name = names.check(wanted.name) if wanted.name else ""
        if name:
            self.store.check_free(name)
        log_options.apply_defaults(host.log_config, self.log_default)
        applied = self.defaults.complete(host)
        warnings = validate.check(config, host)
        if not host.runtime and self.runtimes.default != BUILT_IN:
            host.runtime = self.runtimes.default  # it keeps that, whatever later settings say
        if host.runtime:
            warnings += self.runtimes.check(host.runtime)
        secrets.check(host)
        self.cgroups.check_parent(host.cgroup_parent)
        limits.normalize(host)
        if config.network_disabled:
            host.network_mode = "none"
        shared_namespaces.resolve(host, self.store)
        if not host.cgroupns_mode:
            host.cgroupns_mode = default_cgroup_namespace()
        shared_namespaces.without_label(host)
        await self.user_namespaces.ready(UsernsMode.parse(host.userns_mode))
        with self.user_namespaces.of_container(host) as user_namespace:
            container = await self._created(wanted, name, user_namespace, applied)
        if not wanted.ahead:
            self.container_volumes.announce(container)
            self.events.of_container(container, "create")
            if not container.is_ephemeral:
                await self.store.flush()
        return container, warnings

    def adopt(self, container: Container, wanted: NewContainer) -> None:
        """Give a container that was made ahead its row, and the program that is wanted of it."""
        config = merge.merge(wanted.config, self.images.resolve(container.image_id).config.config or RunConfig())
        container.path, container.args = merge.command_of(config)
        container.config.cmd = config.cmd
        container.session, container.created = wanted.session, time.time_ns()
        if container.name in self.store.names:
            container.name = names.generate(self.store.names)
        self.store.add(container)
        self.store.removals.end([container.id])
        self.events.of_container(container, "create")

    async def _created(
        self, wanted: NewContainer, name: str, user_namespace: UserNamespace | None, applied: AppliedDefaults | None
    ) -> Container:
        """The container, whose row is written."""
        config, host = wanted.config, wanted.host
        networking = {} if config.network_disabled else wanted.networking
        image = self.images.resolve(config.image, wanted.platform or "")
        merged = merge.merge(config, image.config.config or RunConfig())
        path, args = merge.command_of(merged)
        container = Container(
            id=names.new_id(),
            name=name or names.generate(self.store.names),
            created=time.time_ns(),
            image_id=image.id,
            image_ref=config.image,
            config=merged,
            host=host,
            path=path,
            args=args,
            user_namespace=user_namespace,
            session=wanted.session,
            defaults=applied,
        )
        if not host.network_mode or host.network_mode == "default":
            host.network_mode = "bridge"
        container.networks, container.desired_macs = network_service.settings_of(host.network, networking, self.network)
        self.links.resolve(container)
        main = host.network.network if host.network.kind is ModeKind.NETWORK else ""
        merged.mac_address = container.desired_macs.get(main, "") or merged.mac_address
        # Every complaint about values belongs here and not to the start.
        bundle.build(container, "/", "/", lambda _ref, _kind: "")
        size = quota.parse(host.storage_opt)
        self.snapshots.check_limit(size)
        with self.images.pinned(image):
            await self._make(container, image, size, wanted)
        failpoint("create.row-written")
        return container

    async def _make(self, container: Container, image: Image, size: int, wanted: NewContainer) -> None:
        """Make the volumes, files and row, or nothing of them."""
        config, host = container.config, container.host
        directory = config.working_dir
        async with AsyncUndo() as undo:
            undo.push_async_callback(self.volumes.discard, container.id)
            if image.chain_ids:
                await snapshot_work.run_to_end(self.snapshots, self.snapshots.view, image.chain_ids)
            lacks_directory = await snapshot_work.run_to_end(
                self.snapshots, working_directory.is_missing, self.snapshots, image.chain_ids, directory
            )
            await self.container_volumes.make_image_trees(host)
            inherited = self._inherited(host)
            self.container_volumes.planner().plan(config, host, container.mounts, inherited, container.id)
            if not wanted.below_read_only:
                mount_plan.keep_below_writable(container.mounts)
            failpoint("create.volumes-made")
            await snapshot_work.run_to_end(
                self.snapshots, idmaps.resolve, self.snapshots, image.chain_ids, config.user, container.mounts
            )
            if any(point.type == "volume" for point in container.mounts):
                await run_to_end(self.container_volumes.populate, container, image.chain_ids, inherited)
            undo.push_async_callback(in_own_thread, functools.partial(self.directories.remove, container.id))
            if wanted.ahead:
                self.store.begin_without_row(container.id)
            mapped = container.user_namespace is not None
            await snapshot_work.run_to_end(
                self.snapshots, self.snapshots.prepare, container.id, image.chain_ids, size, mapped
            )
            failpoint("create.snapshot-made")
            if not wanted.ahead:
                with self.volumes.made(container_volumes.names(container), container.id) as also:
                    self.store.add(container, also=also)
            undo.pop_all()
        if lacks_directory:
            await snapshot_work.run_to_end(
                self.snapshots, working_directory.make, self.snapshots, container.id, image.chain_ids, directory
            )

    def _inherited(self, host: HostConfig) -> list[MountPoint]:
        """The mounts of ``--volumes-from CONTAINER[:OPTIONS]``; of several at one place the last."""
        result: dict[str, MountPoint] = {}
        for spec in host.volumes_from or ():
            ref, writable = mount_spec.parse_volumes_from(spec)
            if not self.store.has(ref):
                raise InvalidArgument(f"No such container: {ref}", hint="it is named by --volumes-from")
            for point in self.store.get(ref).mounts:
                result[point.destination] = msgspec.structs.replace(point, rw=point.rw and writable, mode="")
        return list(result.values())
