"""Parts of the engine that the daemon makes from its settings and gives to the services."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from ketch.build.cache.pruning.policy import PruneOptions
    from ketch.build.cache.records import CacheRecords
    from ketch.build.sources.kept.stores import SourceStores
    from ketch.engine.aio.background import BackgroundTasks
    from ketch.engine.aio.serial_thread import SerialThread
    from ketch.engine.apparmor.profiles import AppArmorProfiles
    from ketch.engine.build.cache_mounts import CacheMounts
    from ketch.engine.build.history import BuildHistory
    from ketch.engine.build.snapshots import EngineBuildSnapshots
    from ketch.engine.cgroups import ContainerCgroups
    from ketch.engine.events.bus import EventBus
    from ketch.engine.images.registries import Registries
    from ketch.engine.model.defaults import ContainerDefaults
    from ketch.engine.model.records import LogConfig
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.monitors.launcher import Launcher
    from ketch.engine.paths import ContainerPaths
    from ketch.engine.runtimes.catalog import Runtimes
    from ketch.engine.spec.etc_files import DnsDefaults
    from ketch.engine.userns.service import UserNamespaces
    from ketch.engine.volumes.store import VolumeStore
    from ketch.images.store import ImageStore
    from ketch.network.manager import NetworkManager
    from ketch.storage.contexts.copies import ContextCopies
    from ketch.storage.interruption import Interruption
    from ketch.storage.removal import Remover
    from ketch.storage.snapshots.overlay import Snapshots


class BuildParts(Struct, frozen=True, kw_only=True, eq=False):
    """Parts for builds that are there before the first one: whose layers, cache and history outlast the daemon."""

    layers: EngineBuildSnapshots
    records: CacheRecords
    contexts: ContextCopies
    mounts: CacheMounts
    sources: SourceStores
    history: BuildHistory
    rules: Sequence[PruneOptions]  # of the collections of the cache that follow builds
    max_parallelism: int  # of operations; 0: by the processors
    denied: Collection[str]  # entitlements that no client can give
    root: str  # where contexts that came as a tar are unpacked


class Parts(Struct, frozen=True, kw_only=True, eq=False):
    """One of each; made in the event loop's thread, and closed by whoever made them."""

    engine_id: str
    paths: ContainerPaths
    cgroups: ContainerCgroups
    apparmor: AppArmorProfiles
    rootless: Callable[[], list[str]] | None  # what a daemon that is not root's lacks; None: it is root's
    store: ContainerStore
    images: ImageStore
    snapshots: Snapshots
    volumes: VolumeStore
    events: EventBus
    launcher: Launcher
    network: NetworkManager
    network_thread: SerialThread  # all of the network's blocking calls are made on it
    tasks: BackgroundTasks
    registries: Registries
    runtimes: Runtimes
    builds: BuildParts
    remover: Remover
    interruption: Interruption  # of copies out of images, which the daemon's end does not wait for
    user_namespaces: UserNamespaces
    log_default: LogConfig  # of containers that ask for no driver
    container_defaults: ContainerDefaults
    labels: list[str]  # of the daemon
    device_specs: list[str]  # directories with specifications of devices
    live_restore: Callable[[], bool]  # containers go on when the daemon ends
    private: bool  # it is there for a few programs, and as long as they are
    proxies: dict[str, str]  # that registries are asked through: http-proxy, https-proxy, no-proxy
    journald_socket: str
    dns_defaults: DnsDefaults
    host_gateway: Callable[[], Sequence[str]]  # how containers are to know the host; empty: by the bridge's addresses
    network_options: dict[str, dict[str, str]]  # by driver, of new networks that do not say otherwise
