"""What the engine's services share: the concrete parts that the daemon built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ketch.engine.aio.background import BackgroundTasks
from ketch.engine.aio.serial_thread import SerialThread
from ketch.engine.live.containers import LiveContainers
from ketch.engine.model.records import LogConfig
from ketch.runtime.logs import journald

if TYPE_CHECKING:
    from ketch.engine.cgroups import ContainerCgroups
    from ketch.engine.events.bus import EventBus
    from ketch.engine.images.registries import Registries
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.monitors.launcher import Launcher
    from ketch.engine.networks.legacy_links import Links
    from ketch.engine.networks.sandbox import Sandboxes
    from ketch.engine.paths import ContainerPaths
    from ketch.engine.volumes.store import VolumeStore
    from ketch.images.store import ImageStore
    from ketch.network.manager import NetworkManager
    from ketch.storage.removal import Remover
    from ketch.storage.snapshots.overlay import Snapshots


@dataclass(eq=False)
class Context:
    """The engine's parts; built once by the daemon."""

    paths: ContainerPaths
    cgroups: ContainerCgroups
    store: ContainerStore
    images: ImageStore
    snapshots: Snapshots
    volumes: VolumeStore
    events: EventBus
    launcher: Launcher
    network: NetworkManager
    registries: Registries
    remover: Remover
    log_default: LogConfig = field(default_factory=LogConfig)
    journald_socket: str = journald.SOCKET
    network_thread: SerialThread = field(default_factory=lambda: SerialThread("network"))
    live: LiveContainers = field(default_factory=LiveContainers)
    tasks: BackgroundTasks = field(default_factory=BackgroundTasks)
    sandboxes: Sandboxes = field(init=False)
    links: Links = field(init=False)
