"""The composition root: the only place where the concrete parts are constructed and joined."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import socket
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web

from ketch.api.acceptor import Acceptor
from ketch.api.server import build_handler, build_server
from ketch.api.tls import TlsFront
from ketch.build.cache.records import CacheRecords
from ketch.build.sources.kept.stores import SourceStores
from ketch.buildkit.clients import BuildKitClients
from ketch.daemon import listen, notify, roots
from ketch.daemon.recovery import repair
from ketch.daemon.settings import builder as builder_settings
from ketch.daemon.settings import containers as container_settings
from ketch.daemon.settings import last_start
from ketch.daemon.settings import network as network_settings
from ketch.daemon.settings import registries as registry_settings
from ketch.daemon.settings import runtimes as runtime_settings
from ketch.daemon.settings import storage as storage_settings
from ketch.daemon.settings import userns as userns_settings
from ketch.engine.aio.background import BackgroundTasks
from ketch.engine.aio.serial_thread import SerialThread
from ketch.engine.apparmor.profiles import AppArmorProfiles
from ketch.engine.assembly import assemble
from ketch.engine.build.cache_mounts import CacheMounts
from ketch.engine.build.history import BuildHistory
from ketch.engine.build.snapshots import EngineBuildSnapshots
from ketch.engine.cgroups import ContainerCgroups
from ketch.engine.events.bus import EventBus
from ketch.engine.events.journal import EventJournal
from ketch.engine.model import pending, store
from ketch.engine.model.records import LogConfig
from ketch.engine.parts import BuildParts, Parts
from ketch.engine.paths import ContainerPaths
from ketch.engine.volumes import store as volume_store
from ketch.failpoints import failpoint
from ketch.images.store import ImageStore
from ketch.network.host import HostSettings
from ketch.network.manager import NetworkManager
from ketch.network.ports.outside import Outside
from ketch.storage.contexts.copies import ContextCopies
from ketch.storage.database.db import Database
from ketch.storage.interruption import Interruption
from ketch.storage.removal import Remover
from ketch.ui import address as ui_address
from ketch.ui.interface import UserInterface

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextlib import AsyncExitStack

    from ketch.daemon.settings.config import Config
    from ketch.engine.engine import Engine
    from ketch.engine.monitors.launcher import Launcher
    from ketch.rootless.namespaces import OwnNamespaces

log = logging.getLogger("ketchd")
_AFTER_THEM_S = 10  # for the rest of the daemon's end


async def build(
    config: Config, launcher: Launcher, stack: AsyncExitStack, ready: asyncio.Event, own: OwnNamespaces | None = None
) -> Engine:
    """Open the state, construct the engine and let it take over what runs; ``stack`` undoes it all.

    ``ready`` is set when the daemon's start has succeeded: a failed one ends no containers.
    """
    db = _database(config, stack)
    parts = _parts(config, db, launcher, stack, own)
    stack.push_async_callback(parts.registries.close)
    stack.callback(parts.images.close)
    stack.callback(parts.network_thread.close)
    if own is not None:
        await parts.network_thread.run(own.join_network)
        stack.push_async_callback(_leave, parts, own)
        await own.outward.begin()
    await parts.network_thread.run(parts.network.setup)
    stack.push_async_callback(_release, parts)
    failpoint("daemon.networks-up")
    await parts.network_thread.run(network_settings.default_network, config, parts.network)
    await parts.apparmor.begin()
    engine = assemble(parts)
    await engine.start()
    stack.push_async_callback(engine.close)
    stack.push_async_callback(_end_containers, config, engine, ready)
    return engine


async def _end_containers(config: Config, engine: Engine, ready: asyncio.Event) -> None:
    """Stop containers, in order, when the machine is going down as well, or they are not to go on without ketchd."""
    if not ready.is_set():
        return
    if config.live_restore and not await asyncio.to_thread(notify.machine_stops):
        log.info("running containers stay up")
        return
    limit_s = engine.life.stopping.longest_s(config.shutdown_timeout)
    if limit_s is not None:  # else what its unit allows is the limit
        notify.extend(limit_s + _AFTER_THEM_S)
    await engine.stop_containers(config.shutdown_timeout)


def _database(config: Config, stack: AsyncExitStack) -> Database:
    """The database, which is whole, and this daemon's alone."""
    repair.finish(config.data_root)
    repair.check_not_lost(config.data_root)
    with roots.private_database(config.data_root):
        db = Database(
            os.path.join(config.data_root, "ketch.db"), repair.SCHEMAS, repair.check_not_emptied(config.data_root)
        )
    stack.callback(db.close)
    stack.enter_context(listen.state_lock(db.identity, config.data_root))
    failpoint("daemon.database-open")
    return db


def _parts(config: Config, db: Database, launcher: Launcher, stack: AsyncExitStack, own: OwnNamespaces | None) -> Parts:
    """The parts of the engine."""
    journal = EventJournal(config.data_root)
    stack.callback(journal.close)
    containers = store.ContainerStore(db)
    stack.callback(containers.close)
    last_start.compare(config, containers.all())

    def users_of(volume: str) -> list[str]:
        known = [c.id for c in containers.all() if any(m.name == volume for m in pending.mount_points(c))]
        return known + containers.unreadable_with(volume)

    engine_id = _engine_id(config.data_root)
    network = _networks(config, db, engine_id, stack, own)
    remover, interruption = Remover(), Interruption()
    stack.callback(remover.close)
    paths = ContainerPaths(config.data_root, config.exec_root)
    snapshots = storage_settings.choose(config, containers.removals.pending(), remover.later, interruption.check)
    stack.callback(snapshots.close)
    builds = _BuildState(config, db)
    images = ImageStore(db, config.data_root, remover.later, builds.needed_layers)
    return Parts(
        engine_id=engine_id,
        paths=paths,
        cgroups=ContainerCgroups(paths, config.cgroup_parent, config.cgroup_base),
        apparmor=AppArmorProfiles(),
        rootless=own.warnings if own is not None else None,
        store=containers,
        images=images,
        snapshots=snapshots,
        volumes=volume_store.VolumeStore(db, config.data_root, users_of, remover.later),
        events=EventBus(journal),
        launcher=launcher,
        network=network,
        network_thread=SerialThread("network"),
        tasks=BackgroundTasks(),
        registries=registry_settings.build(config),
        runtimes=runtime_settings.build(config),
        builds=builds.parts(EngineBuildSnapshots(images, snapshots), remover),
        remover=remover,
        interruption=interruption,
        user_namespaces=userns_settings.user_namespaces(config, containers, stack),
        log_default=LogConfig(type=config.log_driver, config=config.log_opts),
        container_defaults=container_settings.defaults(config),
        labels=config.labels,
        device_specs=config.cdi_spec_dirs,
        live_restore=lambda: config.live_restore,
        private=bool(config.private),
        proxies=config.proxies,
        journald_socket=config.journald_socket,
        dns_defaults=network_settings.dns_defaults(config),
        host_gateway=partial(_host_gateway, config, own),
        network_options=config.default_network_opts,
    )


class _BuildState:
    """The state of the builder: records of its cache and copies of contexts, whose layers images must not lose."""

    def __init__(self, config: Config, db: Database) -> None:
        self._config, self._db = config, db
        self._root = os.path.join(config.data_root, "builder")
        os.makedirs(self._root, mode=0o710, exist_ok=True)
        self._records = CacheRecords(db)
        self._contexts = ContextCopies(os.path.join(self._root, "contexts"))

    def needed_layers(self) -> set[str]:
        """The layers that builds need."""
        return self._records.layers() | self._contexts.layers()

    def parts(self, layers: EngineBuildSnapshots, remover: Remover) -> BuildParts:
        """The builder's parts."""
        config = self._config
        return BuildParts(
            layers=layers,
            records=self._records,
            contexts=self._contexts,
            mounts=CacheMounts(config.data_root, layers, remover.later),
            sources=SourceStores(os.path.join(self._root, "tmp"), remover.later),
            history=BuildHistory(self._db, builder_settings.history(config)),
            rules=builder_settings.rules(config),
            max_parallelism=builder_settings.max_parallelism(config),
            denied=builder_settings.denied(config),
            root=os.path.join(self._root, "tmp"),
        )


def _networks(
    config: Config, db: Database, engine_id: str, stack: AsyncExitStack, own: OwnNamespaces | None
) -> NetworkManager:
    settings = HostSettings(
        network_settings.table_name(config),
        engine_id,
        config.host_firewall == "open",
        direct=config.allow_direct_routing,
    )
    if own is not None:
        outside = Outside()
        stack.callback(outside.close)
        settings = settings._replace(outside=outside, mtu=own.outward.mtu)
    return NetworkManager(db, settings, bases=network_settings.bases(config, engine_id))


def _host_gateway(config: Config, own: OwnNamespaces | None) -> list[str]:
    outside = own.host_address() if own is not None and not config.host_gateway_ips else ""
    return [outside] if outside else config.host_gateway_ips


def _engine_id(data_root: str) -> str:
    return hashlib.sha256(f"{data_root}{os.uname().nodename}".encode()).hexdigest()[:36]


async def _leave(parts: Parts, own: OwnNamespaces) -> None:
    """Leave the namespaces of a daemon that is not root's; they end afterwards, unless a container is in them."""
    own.needed = any(c.state.running for c in parts.store.all())
    await own.outward.close(end=not own.needed)


async def _release(parts: Parts) -> None:
    """Remove the bridge and the firewall table at the daemon's end when nothing uses them."""
    await parts.tasks.drain()
    if any(c.state.running for c in parts.store.all()):
        return
    await parts.network_thread.run(parts.network.teardown)
    failpoint("daemon.networks-down")


async def listen_and_serve(
    config: Config, engine: Engine, bound: Mapping[str, socket.socket], stack: AsyncExitStack
) -> None:
    """Accept requests on every configured address; returns when all of them listen.

    ``bound`` are the sockets of addresses that have no path, the caller's to close.
    """
    buildkit = BuildKitClients(engine)
    stack.push_async_callback(buildkit.close)
    tls = listen.tls_context(config)
    names = config.names()
    interface = UserInterface(partial(build_handler, engine, buildkit, names), names, listen.tcp_socket, tls)
    stack.push_async_callback(interface.close)
    server = build_server(engine, buildkit, names, interface.routes)
    runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=0.5)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    stack.push_async_callback(server.hear_last_requests)

    async def plain(connection: socket.socket) -> None:
        await asyncio.get_running_loop().connect_accepted_socket(server, connection)

    serving: dict[str, Callable[[socket.socket], Awaitable[object]]] = {}
    builder_tls = listen.builder_tls_context(config)
    for host in config.builder_addrs:
        serving[host] = partial(buildkit.serve, tls=builder_tls if host in bound else None)
    for host in config.hosts:
        on_network = host in bound and bound[host].family != socket.AF_UNIX
        serving[host] = TlsFront(server, tls).serve if tls is not None and on_network else plain
    for host, serve in serving.items():
        if host.startswith("unix://"):
            path = host.removeprefix("unix://")
            listener = stack.enter_context(listen.unix_socket(path, config.group))
            stack.callback(_unlink, path)
        else:
            listener = bound[host]
        acceptor = Acceptor(listener, serve, hands_over=serve is plain)
        acceptor.start()
        stack.push_async_callback(acceptor.close)
    if url := config.metrics_url():
        from ketch.daemon import metrics

        await metrics.serve(engine, bound[url], config.names(), stack)
    if url := config.ui_url():
        await interface.listen(ui_address.parse(config.ui, secured=tls is not None), bound[url])
    stack.callback(engine.interrupt)  # before requests are waited for, so that those are answered


def _unlink(path: str) -> None:
    if os.path.exists(path):
        os.unlink(path)
