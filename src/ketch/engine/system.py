"""``info``, ``version`` and ``system df``: facts of the engine and its machine, in Docker's JSON."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import platform
import time
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch import __version__
from ketch.engine import cgroups
from ketch.engine.devices import specs
from ketch.engine.init import program as init
from ketch.engine.logs import options as log_options
from ketch.engine.model.api_version import API_VERSION, MIN_API_VERSION
from ketch.engine.model.records import Status
from ketch.engine.model.reports import DiskUsage
from ketch.engine.spec import limit_support
from ketch.notation import architectures, times
from ketch.runtime.cgroups import common
from ketch.storage import lost
from ketch.storage.sizes import size_on_disk
from ketch.storage.snapshots import quota
from ketch.threads import in_own_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from ketch.engine.apparmor.profiles import AppArmorProfiles
    from ketch.engine.events.bus import EventBus
    from ketch.engine.images.registries import Registries
    from ketch.engine.model.records import LogConfig
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.runtimes.catalog import Runtimes
    from ketch.engine.userns.service import UserNamespaces
    from ketch.engine.volumes.store import VolumeStore
    from ketch.images.store import ImageStore
    from ketch.notation.api_objects import ApiObject
    from ketch.storage.snapshots.overlay import Snapshots

_PLUGINS = {
    "Volume": ["local"],
    "Network": ["bridge", "host", "ipvlan", "macvlan", "null"],
    "Authorization": None,
    "Log": [name for name in log_options.DRIVERS if name != "none"],
}
_NO_SWARM = {
    "NodeID": "",
    "NodeAddr": "",
    "LocalNodeState": "inactive",
    "ControlAvailable": False,
    "Error": "",
    "RemoteManagers": None,
}


def architecture() -> str:
    """The machine's architecture by its OCI name."""
    return architectures.goarch(platform.machine())


def _security_options(apparmor: AppArmorProfiles, user_namespaces: UserNamespaces, *, rootless: bool) -> list[str]:
    """The security options of a container that asks for none."""
    confined = ["name=apparmor"] if apparmor.by_default else []
    users = ["name=userns"] if user_namespaces.usual else []
    own = ["name=cgroupns"] if cgroups.default_namespace() == "private" else []
    users_own = ["name=rootless"] if rootless else []
    return [*confined, "name=seccomp,profile=builtin", *users_own, *users, *own]


def _limits() -> ApiObject:
    """The limits of containers' resources that this machine's cgroups can keep."""
    found = limit_support.supported(common.layout())
    names = ("MemoryLimit", "SwapLimit", "CpuCfsQuota", "CPUShares", "CPUSet", "PidsLimit", "OomKillDisable")
    return {name: found[name] for name in names} | {"CpuCfsPeriod": found["CpuCfsQuota"]}


def machine() -> ApiObject:
    """The machine and its system."""
    kernel, release = os.uname(), _os_release()
    return {
        "KernelVersion": kernel.release,
        "OperatingSystem": release.get("PRETTY_NAME", "Linux"),
        "OSVersion": release.get("VERSION_ID", ""),
        "OSType": "linux",
        "Architecture": platform.machine(),
        "NCPU": os.cpu_count() or 1,
        "MemTotal": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "Name": kernel.nodename,
    }


class SystemService(Struct, frozen=True, eq=False):
    """The operations ``version``, ``info`` and ``df``."""

    engine_id: str
    data_root: str
    store: ContainerStore
    images: ImageStore
    snapshots: Snapshots
    volumes: VolumeStore
    events: EventBus
    registries: Registries
    runtimes: Runtimes
    log_default: LogConfig
    labels: list[str]
    proxies: dict[str, str]
    device_specs: list[str]
    live_restore: Callable[[], bool]
    cgroup_driver: str
    user_namespaces: UserNamespaces
    apparmor: AppArmorProfiles
    rootless: Callable[[], list[str]] | None

    def version(self) -> ApiObject:
        """The body of ``GET /version``."""
        kernel = os.uname().release
        details = {
            "ApiVersion": API_VERSION,
            "MinAPIVersion": MIN_API_VERSION,
            "Arch": architecture(),
            "Os": "linux",
            "KernelVersion": kernel,
            "Experimental": "false",
            "GitCommit": "",
            "GoVersion": "none",
            "BuildTime": "",
        }
        python = platform.python_version()
        return {
            "Platform": {"Name": "Ketch"},
            "Components": [
                {"Name": "Engine", "Version": __version__, "Details": details},
                {"Name": "ketch-runtime", "Version": __version__, "Details": {"Python": python}},
            ],
            "Version": __version__,
            "ApiVersion": API_VERSION,
            "MinAPIVersion": MIN_API_VERSION,
            "GitCommit": "",
            "GoVersion": f"none (Python {python})",
            "Os": "linux",
            "Arch": architecture(),
            "KernelVersion": kernel,
            "BuildTime": "",
        }

    def info(self, warnings: Sequence[str] = ()) -> ApiObject:
        """The body of ``GET /info``; ``warnings`` are what other parts have found."""
        states = [c.state.status for c in self.store.all()]
        return {
            "ID": self.engine_id,
            "Containers": len(states),
            "ContainersRunning": states.count(Status.RUNNING),
            "ContainersPaused": states.count(Status.PAUSED),
            "ContainersStopped": len(states) - states.count(Status.RUNNING) - states.count(Status.PAUSED),
            "Images": len(self.images.list(everything=True)),
            "Driver": self.snapshots.name,
            "DriverStatus": _driver_status(self.snapshots, self.data_root),
            "Plugins": _PLUGINS,
            **_limits(),
            "IPv4Forwarding": True,
            "Debug": logging.getLogger().isEnabledFor(logging.DEBUG),
            "NFd": len(os.listdir("/proc/self/fd")),
            "NGoroutines": len(asyncio.all_tasks()),
            "SystemTime": times.fixed(time.time_ns()),
            "LoggingDriver": self.log_default.type or "json-file",
            "CgroupDriver": "none" if common.layout().forbidden else self.cgroup_driver,
            "CgroupVersion": _cgroup_version(),
            "NEventsListener": self.events.listeners,
            **machine(),
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": self.registries.info(),
            "GenericResources": None,
            "DockerRootDir": self.data_root,
            "HttpProxy": self.proxies.get("http-proxy", ""),
            "HttpsProxy": self.proxies.get("https-proxy", ""),
            "NoProxy": self.proxies.get("no-proxy", ""),
            "Labels": self.labels,
            "ExperimentalBuild": False,
            "ServerVersion": __version__,
            "Runtimes": self.runtimes.listing(),
            "DefaultRuntime": self.runtimes.default,
            "Swarm": _NO_SWARM,
            "LiveRestoreEnabled": self.live_restore(),
            "Isolation": "",
            "InitBinary": init.name(),
            "ContainerdCommit": {"ID": ""},
            "RuncCommit": {"ID": ""},
            "InitCommit": {"ID": ""},
            "SecurityOptions": _security_options(
                self.apparmor, self.user_namespaces, rootless=self.rootless is not None
            ),
            "CDISpecDirs": self.device_specs,
            **_discovered(self.device_specs),
            "FirewallBackend": {"Driver": "nftables"},
            "Warnings": [
                *limit_support.warnings(common.layout()),
                *(self.rootless() if self.rootless is not None else ()),
                *self.apparmor.warnings,
                *warnings,
                *self.snapshots.warnings,
                *self.store.warnings,
                *lost.warnings(self.data_root),
            ]
            or None,
        }

    async def df(self, kinds: Collection[str]) -> DiskUsage:
        """Measure the disk usage of some kinds of objects: ``image``, ``container``, ``volume``."""
        images = self.images.list() if "image" in kinds else []
        containers = self.store.all() if "container" in kinds else []
        written = {c.id: await in_own_thread(functools.partial(self.snapshots.usage, c.id)) for c in containers}
        found = self.volumes.list() if "volume" in kinds else []
        volumes = {v.name: await in_own_thread(functools.partial(size_on_disk, v.mountpoint)) for v in found}
        layers = await asyncio.to_thread(self.images.layers_size) if "image" in kinds else 0
        return DiskUsage(images=images, layers=layers, containers=written, volumes=volumes)


def _discovered(directories: Sequence[str]) -> ApiObject:
    """The devices that are specified, if there are any."""
    found = [{"Source": "cdi", "ID": name} for name in specs.find(directories).devices]
    return {"DiscoveredDevices": found} if found else {}


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _cgroup_version() -> str:
    """That of containers' cgroups, else of the machine's."""
    here = common.layout()
    return str(common.machine_version() if here.forbidden else here.version)


def _driver_status(snapshots: Snapshots, data_root: str) -> list[list[str]]:
    rows = snapshots.status()
    return [["Backing Filesystem", quota.backing(data_root)[1]], *rows] if rows else []
