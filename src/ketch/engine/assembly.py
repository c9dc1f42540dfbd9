"""Assembly of the engine: every service, made of the parts that it uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.build.cache.pruning.keeper import CacheKeeper, CacheStores
from ketch.engine.build.command.container import CommandContainers
from ketch.engine.build.command.networks import CommandNetworks
from ketch.engine.build.executor import BuildExecutor
from ketch.engine.build.remains import BuildRemains
from ketch.engine.build.service import BuildService, ServiceParts
from ketch.engine.containers.creation import Creation
from ketch.engine.containers.details import Details
from ketch.engine.containers.lifecycle import Lifecycle
from ketch.engine.containers.listeners import Listeners
from ketch.engine.containers.orphans import Orphans
from ketch.engine.containers.pending_changes import PendingChanges
from ketch.engine.containers.removal import Removal
from ketch.engine.containers.service import ContainerService
from ketch.engine.containers.start_message import StartMessages
from ketch.engine.containers.startup import Startup
from ketch.engine.containers.stopping import Stopping
from ketch.engine.containers.update import Updates
from ketch.engine.engine import Engine
from ketch.engine.execs.health import HealthChecks
from ketch.engine.execs.service import ExecService
from ketch.engine.files.container_view import ContainerViews
from ketch.engine.files.directories import ContainerDirectories
from ketch.engine.files.service import FileService
from ketch.engine.images.commit import CommitService
from ketch.engine.images.manifests import ManifestService
from ketch.engine.images.pull import PullService
from ketch.engine.images.push import PushService
from ketch.engine.images.service import ImageService
from ketch.engine.live.containers import LiveContainers
from ketch.engine.live.direct import DirectSignals
from ketch.engine.live.shared_pids import SharedPids
from ketch.engine.live.takeover import Takeover
from ketch.engine.logs.drivers import LogDrivers
from ketch.engine.logs.service import LogService
from ketch.engine.networks.dns_names import DnsNames
from ketch.engine.networks.legacy_links import Links
from ketch.engine.networks.link_changes import LinkChanges
from ketch.engine.networks.sandbox import Sandboxes
from ketch.engine.networks.service import NetworkService
from ketch.engine.oneshot.ahead import ContainerAhead
from ketch.engine.oneshot.service import OneShots
from ketch.engine.prune import PruneService
from ketch.engine.restore.reconnection import Reconnection
from ketch.engine.restore.service import Restore
from ketch.engine.restore.state import StateRestore
from ketch.engine.restore.sweep import Sweep
from ketch.engine.runtimes.control import RuntimeControl
from ketch.engine.sessions import ProgramSessions
from ketch.engine.stats.counters import Counters
from ketch.engine.stats.samples import Samples
from ketch.engine.system import SystemService
from ketch.engine.volumes.backup import VolumeBackups
from ketch.engine.volumes.container_volumes import ContainerVolumes

if TYPE_CHECKING:
    from ketch.engine.build.builder import Builder
    from ketch.engine.parts import Parts


class _Foundation:
    """Objects that several services share, beside the parts themselves."""

    def __init__(self, p: Parts) -> None:
        self.live = LiveContainers()
        self.counters = Counters()
        self.links = Links(p.store)
        self.container_volumes = ContainerVolumes(p.volumes, p.images, p.snapshots, p.events, p.interruption)
        self.views = ContainerViews(p.store, self.live, p.paths, p.images, p.snapshots, p.volumes)
        self.log_drivers = LogDrivers(p.paths, p.journald_socket)
        self.sandboxes = Sandboxes(
            manager=p.network,
            thread=p.network_thread,
            store=p.store,
            live=self.live,
            paths=p.paths,
            events=p.events,
            links=self.links,
            names=DnsNames(p.dns_defaults, p.network.outside),
            defaults=p.dns_defaults,
            host_gateway=p.host_gateway,
        )
        self.link_changes = LinkChanges(p.store, self.links, self.sandboxes)
        self.direct = DirectSignals(p.paths, p.cgroups)
        self.shared_pids = SharedPids(p.store, p.paths, p.cgroups, self.live, p.tasks)
        self.orphans = Orphans(p.store, self.live, p.paths, p.cgroups, self.direct, self.sandboxes)
        self.directories = ContainerDirectories(p.store, p.paths, p.snapshots, p.remover)
        self.removal = Removal(
            store=p.store,
            live=self.live,
            events=p.events,
            cgroups=p.cgroups,
            orphans=self.orphans,
            link_changes=self.link_changes,
            container_volumes=self.container_volumes,
            directories=self.directories,
            counters=self.counters,
        )
        changes = PendingChanges(p.images, p.snapshots, p.volumes, self.container_volumes)
        self.control = RuntimeControl(p.paths, p.cgroups)
        self.updates = Updates(p.store, self.live, p.events, self.control, changes)
        self.execs = ExecService(p.store, self.live, p.paths, p.events, self.links, self.views, p.apparmor)


def assemble(p: Parts) -> Engine:
    """The engine, not started yet."""
    base = _Foundation(p)
    life = _lifecycle(p, base)
    containers = _containers(p, base, life)
    images = ImageService(p.images, p.store, p.events, p.tasks)
    pulls = PullService(p.images, p.registries, p.events)
    pushes = PushService(p.images, p.registries, p.events)
    networks = NetworkService(
        p.network, p.network_thread, p.store, base.live, p.events, base.sandboxes, p.network_options
    )
    oneshots = _oneshots(p, base, containers)
    return Engine(
        containers=containers,
        execs=base.execs,
        oneshots=oneshots,
        files=FileService(p.store, base.views, p.images, p.snapshots, p.events, p.tasks, base.counters),
        images=images,
        registries=p.registries,
        manifests=ManifestService(p.paths.data_root, p.registries),
        pulls=pulls,
        pushes=pushes,
        builds=_builds(p, base, pulls, pushes),
        system=_system(p),
        commits=CommitService(
            store=p.store,
            live=base.live,
            paths=p.paths,
            images=p.images,
            snapshots=p.snapshots,
            views=base.views,
            events=p.events,
            tasks=p.tasks,
            containers=containers,
            counters=base.counters,
        ),
        events=p.events,
        volumes=p.volumes,
        backups=VolumeBackups(p.volumes, p.store, p.tasks),
        networks=networks,
        prunes=PruneService(
            container_service=containers,
            container_volumes=base.container_volumes,
            network_service=networks,
            volume_store=p.volumes,
            image_service=images,
            image_store=p.images,
            pulls=pulls,
            events=p.events,
        ),
        sessions=ProgramSessions(containers, networks, oneshots, p.tasks),
        counters=base.counters,
        parts=p,
        live=base.live,
        container_volumes=base.container_volumes,
        sandboxes=base.sandboxes,
        life=life,
        build_remains=BuildRemains(p.paths, p.snapshots, base.orphans),
        restore=_restore(p, base, life),
    )


def _oneshots(p: Parts, base: _Foundation, containers: ContainerService) -> OneShots:
    ahead = ContainerAhead(p.private, containers.creation, containers.life.startup, base.live, p.cgroups, p.tasks)
    return OneShots(containers, base.execs, p.tasks, ahead)


def _system(p: Parts) -> SystemService:
    return SystemService(
        engine_id=p.engine_id,
        data_root=p.paths.data_root,
        store=p.store,
        images=p.images,
        snapshots=p.snapshots,
        volumes=p.volumes,
        events=p.events,
        registries=p.registries,
        runtimes=p.runtimes,
        log_default=p.log_default,
        labels=p.labels,
        proxies=p.proxies,
        device_specs=p.device_specs,
        live_restore=p.live_restore,
        cgroup_driver=p.cgroups.driver,
        user_namespaces=p.user_namespaces,
        apparmor=p.apparmor,
        rootless=p.rootless,
    )


def _builds(p: Parts, base: _Foundation, pulls: PullService, pushes: PushService) -> BuildService:
    executor = _build_executor(p, base)

    def make() -> Builder:
        from ketch.engine.build.run import making  # protobuf and the graph's rooms, which no start needs

        return making.make(
            making.BuilderParts(
                root=p.builds.root,
                store=p.images,
                snapshots=p.builds.layers,
                executor=executor,
                records=p.builds.records,
                contexts=p.builds.contexts,
                sources=p.builds.sources,
                registries=p.registries,
                pulls=pulls,
                pushes=pushes,
                events=p.events,
                tasks=p.tasks,
                max_parallelism=p.builds.max_parallelism,
                denied=p.builds.denied,
            )
        )

    stores = CacheStores(
        records=p.builds.records,
        snapshots=p.builds.layers,
        image_layers=p.images.layer_names,
        disk=p.paths.data_root,
        kept=[p.builds.mounts, p.builds.sources.repositories, p.builds.sources.versions],
        copies=p.builds.contexts,
    )
    parts = ServiceParts(
        history=p.builds.history,
        keeper=CacheKeeper(stores, p.builds.rules),
        executor=executor,
        events=p.events,
        root=p.builds.root,
    )
    return BuildService(parts, make)


def _build_executor(p: Parts, base: _Foundation) -> BuildExecutor:
    networks = CommandNetworks(
        manager=p.network,
        thread=p.network_thread,
        names=base.sandboxes.names,
        store=p.store,
        paths=p.paths,
        defaults=p.dns_defaults,
        host_gateway=p.host_gateway,
    )
    return BuildExecutor(
        paths=p.paths,
        cgroups=p.cgroups,
        snapshots=p.snapshots,
        layers=p.builds.layers,
        containers=CommandContainers(p.launcher, networks),
        caches=p.builds.mounts,
        user_namespaces=p.user_namespaces,
        apparmor=p.apparmor,
        later=p.remover.later,
    )


def _lifecycle(p: Parts, base: _Foundation) -> Lifecycle:
    messages = StartMessages(
        store=p.store,
        paths=p.paths,
        cgroups=p.cgroups,
        images=p.images,
        snapshots=p.snapshots,
        views=base.views,
        log_drivers=base.log_drivers,
        sandboxes=base.sandboxes,
        links=base.links,
        runtimes=p.runtimes,
        apparmor=p.apparmor,
        device_specs=p.device_specs,
    )
    health = HealthChecks(p.store, p.events, p.tasks, base.execs, base.counters)
    return Lifecycle(
        store=p.store,
        live=base.live,
        cgroups=p.cgroups,
        events=p.events,
        tasks=p.tasks,
        startup=Startup(p.launcher, messages, base.sandboxes, base.container_volumes, base.links, base.orphans),
        stopping=Stopping(p.store, base.live, p.events, base.direct, base.shared_pids),
        removal=base.removal,
        orphans=base.orphans,
        link_changes=base.link_changes,
        listeners=Listeners(base.execs.ended, base.execs.lost, health),
        counters=base.counters,
    )


def _containers(p: Parts, base: _Foundation, life: Lifecycle) -> ContainerService:
    creation = Creation(
        store=p.store,
        images=p.images,
        snapshots=p.snapshots,
        volumes=p.volumes,
        container_volumes=base.container_volumes,
        directories=base.directories,
        network=p.network,
        links=base.links,
        user_namespaces=p.user_namespaces,
        events=p.events,
        log_default=p.log_default,
        defaults=p.container_defaults,
        cgroups=p.cgroups,
        runtimes=p.runtimes,
        counters=base.counters,
    )
    return ContainerService(
        store=p.store,
        live=base.live,
        events=p.events,
        images=p.images,
        snapshots=p.snapshots,
        cgroups=p.cgroups,
        sandboxes=base.sandboxes,
        link_changes=base.link_changes,
        creation=creation,
        removal=base.removal,
        life=life,
        stopping=life.stopping,
        updates=base.updates,
        control=base.control,
        log_service=LogService(base.live, p.paths, base.views, base.log_drivers),
        samples=Samples(p.store, p.cgroups, p.network, p.network_thread),
        details=Details(p.paths, base.links, base.log_drivers, p.images, p.snapshots),
    )


def _restore(p: Parts, base: _Foundation, life: Lifecycle) -> Restore:
    states = StateRestore(
        store=p.store,
        live=base.live,
        paths=p.paths,
        cgroups=p.cgroups,
        images=p.images,
        snapshots=p.snapshots,
        orphans=base.orphans,
        removal=base.removal,
        updates=base.updates,
        life=life,
        execs=base.execs,
    )
    return Restore(
        store=p.store,
        live=base.live,
        volumes=p.volumes,
        network=p.network,
        network_thread=p.network_thread,
        takeover=Takeover(p.store, base.live, p.tasks, p.paths, p.cgroups, base.shared_pids),
        states=states,
        reconnection=Reconnection(base.live, p.tasks, base.sandboxes, p.volumes),
        sweep=Sweep(p.store, p.paths, p.snapshots, base.orphans, base.directories),
        life=life,
    )
