"""Recovery of objects without a row: directories under ``lost/``, and containers from their bundles.

A bundle (`engine.spec.bundle`) has the command, the environment, the user, the mounts and the capabilities of a
container's last start, and in annotations its name and image.  Published ports, networks, limits, labels and the
restart policy are not in it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from ketch.engine.apparmor import policy
from ketch.engine.model.namespaces.user import IdRange, UserNamespace
from ketch.engine.model.records import Container, ContainerConfig, HostConfig, LogConfig, MountPoint, State, Status
from ketch.engine.spec import limits
from ketch.engine.spec.bundle import IMAGE, IMAGE_NAME, NAME, RUNTIME, USERNS
from ketch.engine.volumes import idmaps
from ketch.runtime import defaults
from ketch.storage import lost

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ketch.runtime.oci_types import OciConfig, OciIdMapping, OciMount


def content(data_root: str) -> dict[str, int]:
    """Move layers and blobs that starts have put aside back to where they were; returns the number of each kind."""
    moved = {}
    for kind in ("layers", "blobs"):
        directory = os.path.join(data_root, lost.KINDS[kind])
        moved[kind] = sum(_back(path, directory) for path in lost.kept_paths(data_root, kind))
    return moved


def directory(data_root: str, container_id: str) -> bool:
    """Move a container's directory back; False when it is there or nowhere."""
    directory = os.path.join(data_root, "containers")
    paths = [p for p in lost.kept_paths(data_root, "containers") if os.path.basename(p) == container_id]
    return any(_back(path, directory) for path in paths)


def _back(path: str, directory: str) -> bool:
    target = os.path.join(directory, os.path.basename(path))
    if os.path.lexists(target):
        return False
    os.makedirs(directory, mode=0o710, exist_ok=True)
    os.rename(path, target)
    return True


def container(path: str, data_root: str, images: Collection[str], names: Collection[str]) -> Container | None:
    """A container's record from the bundle in its directory; None without a bundle or without its image.

    ``names`` are taken: it gets its id for a name then.
    """
    try:
        with open(os.path.join(path, "bundle", "config.json"), "rb") as f:
            spec: OciConfig = msgspec.json.decode(f.read())
        created = os.stat(os.path.join(path, "bundle")).st_ctime_ns
        return _from_spec(os.path.basename(path), spec, created, data_root, images, names)
    except (
        OSError,
        msgspec.DecodeError,
        msgspec.ValidationError,
        UnicodeDecodeError,
        KeyError,
        TypeError,
        AttributeError,
    ):
        return None  # never started, or broken as well


def _from_spec(
    container_id: str, spec: OciConfig, created: int, data_root: str, images: Collection[str], names: Collection[str]
) -> Container | None:
    annotations, process = spec["annotations"], spec["process"]
    image = annotations[IMAGE]
    if annotations["dev.ketch.id"] != container_id or image not in images:
        return None
    name, users = annotations[NAME], _user_namespace(spec)
    capabilities = process["capabilities"]["bounding"]
    seccomp = spec["linux"].get("seccomp")
    privileged = set(capabilities) == set(defaults.ALL_CAPS) and seccomp is None
    host = HostConfig(
        network_mode="host"
        if all(namespace["type"] != "network" for namespace in spec["linux"]["namespaces"])
        else "bridge",
        readonly_rootfs=spec["root"]["readonly"],
        privileged=privileged,
        cap_add=None if privileged else [name for name in capabilities if name not in defaults.DEFAULT_CAPS],
        cap_drop=None if privileged else [name for name in defaults.DEFAULT_CAPS if name not in capabilities],
        security_opt=["seccomp=unconfined"] if seccomp is None and not privileged else None,
    )
    profile = process.get("apparmorProfile", "")
    if profile and profile not in policy.NAMES:
        host.security_opt = [*(host.security_opt or []), f"apparmor={profile}"]
    host.userns_mode = annotations.get(USERNS, "")
    host.runtime = annotations.get(RUNTIME, "")
    limits.normalize(host)
    host.log_config = LogConfig(type="local")
    config = ContainerConfig(
        image=annotations[IMAGE_NAME],
        env=process["env"],
        cmd=process["args"],
        working_dir=process["cwd"],
        user=annotations.get("dev.ketch.user", ""),
        tty=process.get("terminal", False),
        hostname=spec.get("hostname", ""),
    )
    if config.hostname == container_id[:12]:
        config.hostname = ""
    return Container(
        id=container_id,
        name=container_id[:12] if name in names else name,
        created=created,
        image_id=image,
        image_ref=config.image,
        config=config,
        host=host,
        path=process["args"][0],
        args=process["args"][1:],
        user_namespace=users,
        mounts=[_mount(mount, data_root, users) for mount in spec["mounts"] if _is_the_users(mount, data_root)],
        state=State(status=Status.EXITED, exit_code=137, finished_at=created),
    )


def _is_the_users(mount: OciMount, data_root: str) -> bool:
    inside = os.path.join(data_root, "containers") + os.sep
    return mount.get("type") == "bind" and os.path.isabs(mount["source"]) and not mount["source"].startswith(inside)


def _user_namespace(spec: OciConfig) -> UserNamespace | None:
    """That of the bundle: what was no root of the machine's must not come back as one."""
    linux = spec["linux"]
    if all(namespace["type"] != "user" for namespace in linux["namespaces"]):
        return None
    uids, gids = (
        tuple(IdRange(*(int(one[name]) for name in ("containerID", "hostID", "size"))) for one in linux[kind])
        for kind in ("uidMappings", "gidMappings")
    )
    return UserNamespace(uids=uids, gids=gids)


def _idmap(mount: OciMount, users: UserNamespace | None) -> str:
    """The mapping of a mount, as a container has it on record."""
    if not {"idmap", "ridmap"} & {*mount.get("options", ())}:
        return idmaps.NONE if users is not None else ""
    if not mount.get("uidMappings"):
        return idmaps.CONTAINER

    def text(entries: list[OciIdMapping], inside: Callable[[int], int]) -> str:
        return "#".join(f"{one['containerID']}-{inside(one['hostID'])}-{one['size']}" for one in entries)

    uids = text(mount["uidMappings"], lambda uid: users.inside(uid, 0)[0] if users is not None else uid)
    gids = text(mount["gidMappings"], lambda gid: users.inside(0, gid)[1] if users is not None else gid)
    return f"uids={uids};gids={gids}"


def _mount(mount: OciMount, data_root: str, users: UserNamespace | None) -> MountPoint:
    source, volumes = mount["source"], os.path.join(data_root, "volumes") + os.sep
    name = source.removeprefix(volumes).partition(os.sep)[0] if source.startswith(volumes) else ""
    return MountPoint(
        type="volume" if name else "bind",
        source=source,
        destination=mount["destination"],
        name=name,
        driver="local" if name else "",
        rw="ro" not in mount.get("options", ()),
        named=bool(name),
        idmap=_idmap(mount, users),
    )
