"""Start message for the launcher, and what a start needs on disk: the bundle, the network's files."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, cast

import msgspec
from msgspec import Struct

from ketch.engine.aio import snapshot_work
from ketch.engine.containers import shared_namespaces
from ketch.engine.devices import requests
from ketch.engine.init import program as init
from ketch.engine.model.namespaces.user import through
from ketch.engine.runtimes.catalog import BUILT_IN
from ketch.engine.spec import bundle
from ketch.errors import KetchError
from ketch.failpoints import followed
from ketch.runtime.cgroups.systemd import annotations as scope_annotations
from ketch.runtime.cgroups.systemd import units
from ketch.runtime.process.foreign import remains

if TYPE_CHECKING:
    from ketch.engine.apparmor.profiles import AppArmorProfiles
    from ketch.engine.cgroups import ContainerCgroups
    from ketch.engine.files.container_view import ContainerViews
    from ketch.engine.logs.drivers import LogDrivers
    from ketch.engine.model.namespaces.mode import NamespaceMode
    from ketch.engine.model.records import Container
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.networks.legacy_links import Links
    from ketch.engine.networks.sandbox import Sandboxes
    from ketch.engine.paths import ContainerPaths
    from ketch.engine.runtimes.catalog import Runtimes
    from ketch.images.store import ImageStore
    from ketch.runtime.oci_types import OciConfig, OciMount
    from ketch.runtime.protocol import StartContainer
    from ketch.storage.snapshots.overlay import Snapshots

_encode = msgspec.json.Encoder().encode


class StartMessages(Struct, frozen=True, eq=False):
    """Writes what starts need, and describes it."""

    store: ContainerStore
    paths: ContainerPaths
    cgroups: ContainerCgroups
    images: ImageStore
    snapshots: Snapshots
    views: ContainerViews
    log_drivers: LogDrivers
    sandboxes: Sandboxes
    links: Links
    runtimes: Runtimes
    apparmor: AppArmorProfiles
    device_specs: list[str]  # directories

    async def prepare(self, container: Container) -> StartContainer:
        """Write bundle and network files; return the launcher's message."""
        self.views.check_files(container)
        log = await self.log_drivers.message(container)
        cgroup = self.cgroups.choose(container)
        container.apparmor_profile = self.apparmor.chosen(container.host)
        await self.apparmor.prepare(container.apparmor_profile)
        bundle_dir, spec = self._write(container, cgroup)
        image = self.images.resolve(container.image_id)
        mounts = await snapshot_work.run_to_end(self.snapshots, self.snapshots.mounts, container.id, image.chain_ids)
        rootfs = through(container.user_namespace, mounts)
        message: StartContainer = {
            "op": "start",
            "id": container.id,
            "bundle": bundle_dir,
            "run_dir": self.paths.run_dir(container.id),
            "rootfs": cast("list[OciMount]", rootfs),
            "tty": container.config.tty,
            "stdin": container.config.open_stdin,
            "stdin_once": container.config.stdin_once,
            "pidns": self._pid_namespace(container.host.pid),
            "timing": followed() is not None,
            "userns": container.user_namespace is not None,
            "cgroup": cgroup,
            "log": log,
        }
        runtime = self.runtimes.find(container.host.runtime or BUILT_IN)
        if runtime is None:
            message["namespaces"] = bundle.new_namespaces(spec)
        else:
            if units.is_unit_path(cgroup):
                runtime["command"].append("--systemd-cgroup")
            message["runtime"], message["place"] = runtime, self.paths.mounts
            os.makedirs(runtime["root"], mode=0o700, exist_ok=True)
            remains.record(message["run_dir"], runtime)
        return message

    def _write(self, container: Container, cgroup: str) -> tuple[str, OciConfig]:
        """The bundle (its directory, its document), and what its mounts and its monitor expect to be there."""
        directory = self.paths.directory(container.id)
        try:
            self.sandboxes.check_start(container)
        except KetchError as e:
            e.message = f"failed to set up container networking: {e.message}"
            raise
        if (other := container.host.network.container) is not None:
            self._take_names(container, shared_namespaces.other(self.store, other, "network"))
        shared_namespaces.check_users(self.store, container)
        init_program = init.make(self.paths.data_root) if container.host.init else ""
        spec = bundle.build(container, directory, cgroup, partial(shared_namespaces.path, self.store), init_program)
        if units.is_unit_path(cgroup):
            spec["annotations"] = {f"{scope_annotations.PREFIX}Before": f"['{units.LAST}']", **spec["annotations"]}
        requests.satisfy(container.host.device_requests or (), spec, self.device_specs)
        bundle.add_environment(spec["process"], self.links.environment(container))
        for name in ("hostname", "hosts", "resolv.conf"):
            with open(os.path.join(directory, name), "w", encoding="utf-8") as f:
                os.fchmod(f.fileno(), 0o644)  # for every user of the container, whatever ketchd's umask is or was
                if name == "hostname":
                    f.write(bundle.hostname(container) + "\n")
        bundle_dir = os.path.join(directory, "bundle")
        os.makedirs(bundle_dir, mode=0o700, exist_ok=True)
        with open(os.path.join(bundle_dir, "config.json"), "wb") as f:
            f.write(_encode(spec))
        os.makedirs(self.paths.log_dir(container.id), mode=0o700, exist_ok=True)
        os.makedirs(self.paths.run_dir(container.id), mode=0o700, exist_ok=True)
        return bundle_dir, spec

    @staticmethod
    def _take_names(container: Container, other: Container) -> None:
        """A container in another's network has its names: it finds itself in the other's /etc/hosts."""
        container.config.hostname = bundle.hostname(other)
        container.config.domainname = other.config.domainname

    def _pid_namespace(self, mode: NamespaceMode) -> str:
        """``new``, ``host``, or the path of another container's."""
        if mode.container is not None:
            return shared_namespaces.path(self.store, mode.container, "pid")
        return "host" if mode.is_host else "new"
