"""The bundle that another runtime is given: the engine's own, in terms of the specification alone.

What the built-in runtime does beyond the specification is done here, in the mount namespace in which the other one is
called, and is a bind mount in its bundle:

    users by name                       numbers, from the container's files
    capabilities                        those that this process has, as any other runtime fails without
    HOME                                in the environment
    a part of a volume, an image        a tree that is mounted in a directory which nobody else sees
    mounts with mapped owners           the same: old runtimes overlook what asks for it
    binds, in a user namespace          the same: its root need not come to the source
    secrets                             files in memory, mounted there as well
    /dev/shm of a joined ipc namespace  that of the other container
"""

from __future__ import annotations

import os

from ketch.linux import caps
from ketch.linux import mount as m
from ketch.notation import documents
from ketch.runtime import defaults, spec
from ketch.runtime.failure import failure
from ketch.runtime.process import messages
from ketch.runtime.rootfs import docker_files, mounts, secrets
from ketch.runtime.security import apparmor, users

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciCapabilities, OciConfig, OciMount, OciProcess
    from ketch.runtime.user_namespaces import OpenUserNamespace

_DIRECTORY = "bundle"
_VERSION = "1.0.2"  # runtimes refuse versions that are younger than they are, and ignore fields that are
_OWN_OPTIONS = ("X-mount.subdir=", "idmap", "ridmap")
_RESTRICTIONS = ("ro", "nosuid", "nodev", "noexec")
_PROPAGATION = ("private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable")


def write(document: OciConfig, run_dir: str, place: str, user: OpenUserNamespace | None) -> str:
    """Write the bundle of a container whose root is mounted at `root_of` ``place``; returns its directory.

    Mounts are made in that place, which nobody else sees, and through ``user``, the container's user namespace, if they
    ask for it.  RuntimeFailure.
    """
    named, group_add = spec.named_user(document.get("annotations") or {})
    root_fd = os.open(root_of(place), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if user is None:
            docker_files.make(root_fd)
        else:
            with caps.owner_of_files(*user.root()):
                docker_files.make(root_fd)
        complete(document["process"], root_fd, named, group_add, has_all=user is not None)
    finally:
        os.close(root_fd)
    document["ociVersion"] = _VERSION
    document["root"]["path"] = root_of(place)
    document["mounts"] = _mounts(document, place, user)
    directory = os.path.join(run_dir, _DIRECTORY)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        messages.write_file(os.path.join(directory, "config.json"), documents.dumps(document).encode())
    except OSError as e:
        raise failure("config", f"write bundle `{directory}`", e) from e
    return directory


def root_of(place: str) -> str:
    """The directory in ``place`` where a container's root is mounted."""
    return os.path.join(place, "root")


def complete(process: OciProcess, root_fd: int, named: str | None, group_add: str, *, has_all: bool) -> None:
    """Put what the built-in runtime finds out by itself into an OCI process (RuntimeFailure).

    The numbers of a user that is given by name, HOME, and of its capabilities those that this process can give; unless
    it ``has_all``, as in a user namespace.
    """
    if named is not None:
        user = users.lookup(root_fd, named, group_add)
        process["user"] = {"uid": user.uid, "gid": user.gid, "additionalGids": user.groups}
        home = user.home
        available = defaults.ALL_CAPS if has_all else caps.names(caps.get()[1])
        given = process.get("capabilities") or {}
        process["capabilities"] = _capabilities(given, frozenset(available), bounding_alone=user.uid != 0)
    else:
        home = users.home_of(root_fd, users.of_spec(process.get("user") or {}).uid)
    if process.get("apparmorProfile") == apparmor.UNCONFINED:  # which this process is; without AppArmor it is an error
        del process["apparmorProfile"]
    entries = process.get("env") or []
    if not any(entry.startswith("HOME=") and entry != "HOME=" for entry in entries):
        process["env"] = [*(entry for entry in entries if entry != "HOME="), f"HOME={home or '/'}"]


def _capabilities(given: OciCapabilities, available: frozenset[str], *, bounding_alone: bool) -> OciCapabilities:
    """The sets without what is not ``available``; of an ordinary user, as Docker's, what execve leaves of them."""
    chosen = [name for name in given.get("bounding") or [] if name in available]  # the engine gives all sets the same
    return {"bounding": chosen} if bounding_alone else {"bounding": chosen, "effective": chosen, "permitted": chosen}


def _mounts(document: OciConfig, place: str, user: OpenUserNamespace | None) -> list[OciMount]:
    """The bundle's mounts; what only the built-in runtime makes is mounted below ``place`` and bound from there."""
    result: list[OciMount] = []
    for number, entry in enumerate(document.get("mounts") or []):
        target = os.path.join(place, str(number))
        [planned] = mounts.plan([entry])  # what may be mounted below /proc is the same with every runtime
        if entry["destination"] == "/dev/shm" and entry.get("type") == "tmpfs":
            result.append(_shared_memory(document, target) or entry)
        elif _is_own(entry) or (_is_bind(entry) and (user is not None or planned.destination == "/proc")):
            mounts.open_one(planned, user)
            _attach(planned.tree_fd, target, directory=planned.directory)
            result.append(_bind(target, entry["destination"], entry.get("options") or []))
        else:
            options = [option for option in entry.get("options") or [] if option != "defaults"]  # runc 1.1 knows it not
            result.append({**entry, "options": options})
    return result + _secrets(document, os.path.join(place, "secrets"), user)


def _is_own(entry: OciMount) -> bool:
    """Whether a mount is one that other runtimes do not know."""
    options = entry.get("options") or []
    mapped = entry.get("uidMappings") or entry.get("gidMappings")
    return bool(mapped) or entry.get("type") == "overlay" or any(one.startswith(_OWN_OPTIONS) for one in options)


def _is_bind(entry: OciMount) -> bool:
    return entry.get("type") == "bind" or not {"bind", "rbind"}.isdisjoint(entry.get("options") or ())


def _bind(source: str, destination: str, options: list[str]) -> OciMount:
    """The bind of a mount that is there, with the propagation and the restrictions that ``options`` name.

    It has those restrictions; crun takes off what is not named.
    """
    words = [option for option in options if option in _PROPAGATION]
    words += [name for name in _RESTRICTIONS if not {name, f"r{name}"}.isdisjoint(options)]
    return {"destination": destination, "type": "bind", "source": source, "options": ["rbind", *words]}


def _attach(tree_fd: int, place: str, *, directory: bool) -> None:
    """Mount a detached tree, whose descriptor is closed, at ``place``, which is made (RuntimeFailure)."""
    try:
        if directory:
            os.mkdir(place, 0o700)
            place_fd = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        else:
            place_fd = os.open(place, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o600)
        try:
            m.move_mount(tree_fd, place_fd)
        finally:
            os.close(place_fd)
    except OSError as e:
        raise failure("mounts", f"mount on `{place}`", e) from e
    finally:
        os.close(tree_fd)


def _shared_memory(document: OciConfig, place: str) -> OciMount | None:
    """The bind of the /dev/shm of the container whose ipc namespace is joined, if one is."""
    for entry in (document.get("linux") or {}).get("namespaces") or []:
        path = entry.get("path") or ""
        pid = path.removeprefix("/proc/").removesuffix("/ns/ipc")
        if entry["type"] == "ipc" and pid.isdigit():
            try:
                tree_fd = mounts.tree_of_container(int(pid), "/dev/shm")
            except OSError as e:
                raise failure("mounts", f"share /dev/shm of `{path}`", e) from e
            _attach(tree_fd, place, directory=True)
            return _bind(place, "/dev/shm", ["rprivate"])
    return None


def _secrets(document: OciConfig, place: str, user: OpenUserNamespace | None) -> list[OciMount]:
    """Mounts of the secrets that the engine's annotation names, from a file system in memory at ``place``."""
    found = secrets.read(document)
    if not found:
        return []
    _attach(secrets.make(found, user), place, directory=True)
    options = ["bind", "ro", "nosuid", "nodev", "noexec", "rprivate"]
    result: list[OciMount] = [{"destination": secrets.DIRECTORY, "type": "bind", "source": place, "options": options}]
    for secret in found:
        if os.path.dirname(secret.target) != secrets.DIRECTORY:
            source = os.path.join(place, secret.name)
            result.append({"destination": secret.target, "type": "bind", "source": source, "options": options})
    return result
