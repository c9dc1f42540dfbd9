"""OCI bundle of a container (runtime-spec v1.2): its record becomes ``bundle/config.json``.

Pure except for ``devices`` (which looks at host device nodes): record and paths in, an `OciConfig` out.  The
values are Docker's defaults: capabilities, masked paths, mounts and the seccomp profile come from
``ketch.runtime``, which also carries them out.
"""

from __future__ import annotations

import contextlib
import os
import stat
from errno import ENOENT
from typing import TYPE_CHECKING

from ketch import trees
from ketch.engine.init import program as init
from ketch.engine.spec import interface_settings, limits, secrets, security_options
from ketch.engine.volumes import mount_plan, propagation
from ketch.errors import DeviceNotFound, InvalidArgument
from ketch.notation import digits, signals
from ketch.runtime import defaults

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.engine.model.execs import ExecConfig
    from ketch.engine.model.namespaces.user import UserNamespace
    from ketch.engine.model.records import Container, DeviceMapping, HostConfig
    from ketch.runtime.oci_types import (
        OciCapabilities,
        OciConfig,
        OciDevice,
        OciDeviceRule,
        OciMount,
        OciNamespace,
        OciProcess,
        OciRlimit,
    )

# For a repair that finds nothing of a container but its directory.
NAME, IMAGE, IMAGE_NAME = "dev.ketch.name", "dev.ketch.image", "dev.ketch.image-name"
RUNTIME = "dev.ketch.runtime"  # as it was asked for; empty: the built-in one
USERNS = "dev.ketch.userns"
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment(container: Container, *, tty: bool, extra: Sequence[str] = ()) -> list[str]:
    """The process's environment: PATH, HOSTNAME, TERM, then the container's own, then ``extra``; last wins."""
    merged: dict[str, str] = {}
    base = [DEFAULT_PATH, f"HOSTNAME={hostname(container)}", *(["TERM=xterm"] if tty else [])]
    for item in (*base, *(container.config.env or ()), *extra):
        key, equals, _ = item.partition("=")
        if equals:
            merged[key] = item
        else:  # `-e NAME` for a name that the client's own environment lacks takes it away
            merged.pop(key, None)
    return list(merged.values())


def add_environment(process: OciProcess, more: Sequence[str]) -> None:
    """Put variables before those of an OCI ``process``, which win."""
    own = {item.partition("=")[0] for item in process["env"]}
    process["env"] = [*(item for item in more if item.partition("=")[0] not in own), *process["env"]]


def hostname(container: Container) -> str:
    """The host name inside: the host's own with ``--uts host`` or ``--network host``, else as configured."""
    if container.config.hostname:
        return container.config.hostname
    if container.host.uts.is_host or container.host.network.is_host:
        return os.uname().nodename
    return container.id[:12]


def capabilities(host: HostConfig) -> list[str]:
    """Docker's default set with ``--cap-drop`` and then ``--cap-add`` applied; ALL is understood."""
    known = defaults.ALL_CAPS

    def full(names: list[str] | None, field: str) -> list[str]:
        result = []
        for name in names or ():
            upper = name.upper()
            cap = upper if upper in ("ALL",) or upper.startswith("CAP_") else f"CAP_{upper}"
            if cap != "ALL" and cap not in known:
                raise InvalidArgument(
                    f'invalid {field}: unknown capability: "{cap}"', hint="see capabilities(7) for the names"
                )
            result.append(cap)
        return result

    add, drop = full(host.cap_add, "CapAdd"), full(host.cap_drop, "CapDrop")
    if host.privileged:
        chosen = list(known)
    elif "ALL" in add:
        chosen = [c for c in known if c not in drop]
    elif "ALL" in drop:
        chosen = [c for c in known if c in add]
    else:
        chosen = [c for c in known if c in add or (c in defaults.DEFAULT_CAPS and c not in drop)]
    return chosen


def arguments(container: Container) -> list[str]:
    """The program that is executed, with its arguments."""
    args = [container.path, *container.args]
    return [init.DESTINATION, "--", *args] if container.host.init else args


def process(container: Container, caps: list[str], no_new_privs: bool) -> OciProcess:
    """The OCI ``process`` of the container's own command."""
    host, config = container.host, container.config
    size = host.console_size
    result: OciProcess = {
        "terminal": config.tty,
        "user": {"uid": 0, "gid": 0},
        "args": arguments(container),
        "env": environment(container, tty=config.tty),
        "cwd": config.working_dir or "/",
        "capabilities": capability_sets(caps),
        "noNewPrivileges": no_new_privs,
        "rlimits": _rlimits(host),
        "oomScoreAdj": defaults.possible_oom_score_adj(host.oom_score_adj),
    }
    if size and len(size) == 2 and any(size):
        result["consoleSize"] = {"height": size[0] & 0xFFFF, "width": size[1] & 0xFFFF}
    return result


def confine(process_: OciProcess, apparmor_profile: str) -> None:
    """Give an OCI process its AppArmor profile; an empty name: there is no AppArmor here."""
    if apparmor_profile:
        process_["apparmorProfile"] = apparmor_profile


def capability_sets(caps: list[str]) -> OciCapabilities:
    """OCI's five sets; inheritable and ambient stay empty (CVE-2022-24769)."""
    return {"bounding": caps, "effective": caps, "permitted": caps}


def _rlimits(host: HostConfig) -> list[OciRlimit]:
    infinity = 2**64 - 1
    return [
        {
            "type": f"RLIMIT_{u.name.upper()}",
            "soft": infinity if u.soft < 0 else u.soft,
            "hard": infinity if u.hard < 0 else u.hard,
        }
        for u in host.ulimits or ()
    ]


def _is_device(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)


def devices(host: HostConfig) -> tuple[list[OciDevice], list[OciDeviceRule]]:
    """(OCI ``linux.devices``, extra device cgroup rules) for ``--device`` and ``--device-cgroup-rule``."""
    nodes = _host_devices() if host.privileged else []
    rules: list[OciDeviceRule] = []
    for mapping in host.devices or ():
        for source, target in _device_paths(mapping):
            info = os.stat(source)
            if not _is_device(info):
                raise InvalidArgument(
                    f'error gathering device information while adding custom device "{source}": not a device node'
                )
            node = _node(target, info)
            nodes.append(node)
            rules.append(
                {
                    "allow": True,
                    "type": node["type"],
                    "major": node["major"],
                    "minor": node["minor"],
                    "access": mapping.cgroup_permissions or "rwm",
                }
            )
    rules.extend(_cgroup_rule(rule) for rule in host.device_cgroup_rules or ())
    return nodes, rules


def _device_paths(mapping: DeviceMapping) -> list[tuple[str, str]]:
    """(path on the host, path in the container) of each device of ``--device``: of a directory all below it."""
    host_path, place = mapping.path_on_host, "/" + (mapping.path_in_container or mapping.path_on_host).lstrip("/")
    what = f'error gathering device information while adding custom device "{host_path}"'
    try:
        info = os.stat(host_path)
    except OSError as e:
        kind = DeviceNotFound if e.errno == ENOENT else InvalidArgument
        raise kind(f"{what}: {(e.strerror or str(e)).lower()}") from e
    if not stat.S_ISDIR(info.st_mode):
        return [(host_path, place)]
    found = [(os.path.join(host_path, name), os.path.join(place, name)) for name, _ in sorted(_nodes_below(host_path))]
    if not found:
        raise InvalidArgument(f"{what}: no device nodes in this directory")
    return found


def _tunnels() -> list[OciDevice]:
    """The node by which who owns a network makes devices in it that a program feeds: pasta(1), slirp4netns(1)."""
    try:
        return [_node(_TUN, os.stat(_TUN))]
    except FileNotFoundError:
        return []


_TUN = "/dev/net/tun"
_MOST_ENTRIES = 20_000
_OWN_DEVICES = frozenset(("pts", "shm", "mqueue", "fd", "console", "core", "stdin", "stdout", "stderr", "ptmx"))


def _host_devices() -> list[OciDevice]:
    """Every device node of the host's /dev, for a privileged container; terminals and the like are its own."""
    return [_node(f"/dev/{name}", info) for name, info in _nodes_below("/dev", without=_OWN_DEVICES)]


def _nodes_below(path: str, without: frozenset[str] = frozenset()) -> list[tuple[str, os.stat_result]]:
    """(path below it, status) of each device node below a directory; entries ``without`` are left out.

    InvalidArgument for a tree that is too large to be one of devices.
    """
    nodes, seen = [], 0
    top_fd = os.open(path, trees.DIRECTORY)
    try:
        with trees.Descent(top_fd) as at:
            for name in at.walk():
                if name is None or (not at.depth and name in without):
                    continue
                seen += 1
                if seen > _MOST_ENTRIES:
                    raise InvalidArgument(f"find the devices below `{path}`: it has more than {_MOST_ENTRIES} entries")
                with contextlib.suppress(FileNotFoundError):  # it went just now
                    info = os.stat(name, dir_fd=at.fd, follow_symlinks=False)
                    if stat.S_ISDIR(info.st_mode):
                        at.enter(name)
                    elif _is_device(info):
                        nodes.append((f"{at.prefix}{name}", info))
    finally:
        os.close(top_fd)
    return nodes


def _node(path: str, info: os.stat_result) -> OciDevice:
    return {
        "path": path,
        "type": "c" if stat.S_ISCHR(info.st_mode) else "b",
        "major": os.major(info.st_rdev),
        "minor": os.minor(info.st_rdev),
        "fileMode": stat.S_IMODE(info.st_mode),
        "uid": info.st_uid,
        "gid": info.st_gid,
    }


def _cgroup_rule(rule: str) -> OciDeviceRule:
    words = rule.split(" ")
    kind, numbers, access = (*words, "", "", "")[:3] if len(words) == 3 else ("", "", "")
    major, colon, minor = numbers.partition(":")
    valid = all(n == "*" or digits.whole(n, 0xFFFFFFFF) is not None for n in (major, minor)) and colon
    if kind not in ("a", "b", "c") or not valid or not 1 <= len(access) <= 3 or set(access) - set("rwm"):
        raise InvalidArgument(f"invalid device cgroup rule format: '{rule}'", hint="use e.g. 'c 1:3 rwm'")
    result: OciDeviceRule = {"allow": True, "type": kind, "access": access}
    if major != "*":
        result["major"] = int(major)
    if minor != "*":
        result["minor"] = int(minor)
    return result


def _namespaces(container: Container, namespace_of: Callable[[str, str], str]) -> list[OciNamespace]:
    """``namespace_of(container ref, kind)`` gives the path of another container's namespace."""
    host = container.host
    result: list[OciNamespace] = [{"type": "mount"}]
    modes = (
        ("network", host.network),
        ("pid", host.pid),
        ("ipc", host.ipc),
        ("uts", host.uts),
        ("cgroup", host.cgroupns),
    )
    for kind, mode in modes:
        if mode.container is not None:
            result.append({"type": kind, "path": namespace_of(mode.container, kind)})
        elif not mode.is_host:
            result.append({"type": kind})
    if container.user_namespace is not None:
        shared = host.joined[:1]  # what is shared belongs to that container's user namespace
        result.append({"type": "user", "path": namespace_of(shared[0], "user")} if shared else {"type": "user"})
    return result


def new_namespaces(spec: OciConfig) -> list[str]:
    """The kinds of namespaces that the launcher may have ready: those that are new, but mount and cgroup."""
    entries = spec["linux"]["namespaces"]
    return [entry["type"] for entry in entries if "path" not in entry and entry["type"] not in ("mount", "cgroup")]


def file_mounts(directory: str, container: Container, within: UserNamespace | None = None) -> list[OciMount]:
    """The mounts of hostname, hosts and resolv.conf, without those that the user replaces.

    ``--read-only`` makes them read-only, too; ``within`` a user namespace they belong to its root.
    """
    options = ["rbind", "rprivate", *(["ro"] if container.host.readonly_rootfs else [])]
    if within is not None:
        options.append("idmap")
    taken = {point.destination for point in container.mounts}
    return [
        {
            "destination": f"/etc/{name}",
            "type": "bind",
            "source": f"{directory}/{name}",
            "options": options,
        }
        for name in ("resolv.conf", "hostname", "hosts")
        if f"/etc/{name}" not in taken
    ]


def build(
    container: Container,
    directory: str,
    cgroups_path: str,
    namespace_of: Callable[[str, str], str],
    init_program: str = "",
) -> OciConfig:
    """The whole ``config.json``; ``directory`` holds the container's hostname, hosts and resolv.conf.

    ``init_program`` is the path of the one for ``--init``.
    """
    host = container.host
    caps = capabilities(host)
    security = security_options.read(container, caps)
    nodes, rules = devices(host)
    if security.nests:
        nodes += _tunnels()
    limited = limits.resources(host)
    if host.privileged:
        limited["devices"] = [{"allow": True, "access": "rwm"}]
    else:
        limited["devices"] = [{"allow": False, "access": "rwm"}, *defaults.device_rules(), *rules]
    namespaces = _namespaces(container, namespace_of)
    within = container.user_namespace
    spec: OciConfig = {
        "ociVersion": "1.2.0",
        "process": process(container, caps, security.no_new_privileges),
        "root": {"path": "rootfs", "readonly": host.readonly_rootfs},
        "mounts": _mounts(container, directory, namespaces, writable_cgroups=security.writable_cgroups),
        "annotations": _annotations(container),
        "linux": {
            "cgroupsPath": cgroups_path,
            "namespaces": namespaces,
            "resources": limited,
            "devices": nodes,
            "sysctl": interface_settings.others(host, within),
            "maskedPaths": _paths(host.masked_paths, defaults.MASKED_PATHS, security.unmasked),
            "readonlyPaths": _paths(host.readonly_paths, defaults.READONLY_PATHS, security.unmasked),
        },
    }
    if any(n["type"] == "uts" and "path" not in n for n in namespaces):
        spec["hostname"] = hostname(container)
        if container.config.domainname:
            spec["domainname"] = container.config.domainname
    if within is not None:
        spec["linux"]["uidMappings"], spec["linux"]["gidMappings"] = within.oci()
    confine(spec["process"], container.apparmor_profile)
    if security.seccomp is not None:
        spec["linux"]["seccomp"] = security.seccomp
    if of_root := propagation.of_root(container.mounts):
        spec["linux"]["rootfsPropagation"] = of_root
    if host.init:
        spec["mounts"].append(
            {"destination": init.DESTINATION, "type": "bind", "source": init_program, "options": ["bind", "ro"]}
        )
    return spec


def _mounts(
    container: Container, directory: str, namespaces: list[OciNamespace], *, writable_cgroups: bool
) -> list[OciMount]:
    """The usual mounts that no mount of the user's replaces, the container's own files, and the user's mounts."""
    host = container.host
    mount_list = defaults.mounts(shm_size=host.shm_size or 64 << 20, privileged=host.privileged, ipc=host.ipc_mode)
    mount_list = defaults.possible(mount_list, {namespace["type"] for namespace in namespaces})
    if writable_cgroups:
        for mount in mount_list:
            if mount["type"] == "cgroup":
                mount["options"] = [word for word in mount["options"] if word != "ro"]
    within = container.user_namespace
    user_mounts = mount_plan.oci_mounts(container.mounts, host, within)
    replaced = {m["destination"] for m in user_mounts}
    # A /dev of the user's has its own pts and shm, as Docker sees it.
    below = ("/dev/",) if "/dev" in replaced else ()
    mount_list = [m for m in mount_list if m["destination"] not in replaced and not m["destination"].startswith(below)]
    return mount_list + _outer_first([*file_mounts(directory, container, within), *user_mounts])


def _outer_first(mounts_: list[OciMount]) -> list[OciMount]:
    """Mounts with parents before children: one on ``/etc`` must not hide that on ``/etc/hosts``."""
    return sorted(mounts_, key=lambda mount: os.path.normpath(mount["destination"]).count("/"))


def _paths(chosen: list[str] | None, default: Sequence[str], unconfined: bool) -> list[str]:
    if unconfined:
        return []
    return list(default if chosen is None else chosen)


def _annotations(container: Container) -> dict[str, str]:
    result = secrets.runtime_annotations(container.host.annotations or {}, container.host)
    result["dev.ketch.id"] = container.id
    result[NAME], result[IMAGE], result[IMAGE_NAME] = container.name, container.image_id, container.image_ref
    result[RUNTIME] = container.host.runtime
    if container.host.userns_mode:
        result[USERNS] = container.host.userns_mode
    if container.config.user:
        result["dev.ketch.user"] = container.config.user
    if container.host.group_add:
        result["dev.ketch.group-add"] = ",".join(container.host.group_add)
    return result


def exec_process(container: Container, config: ExecConfig) -> OciProcess:
    """The OCI ``process`` of ``docker exec`` in this container, with the user still a name (``username``)."""
    caps = capabilities(container.host)
    no_new_privs = security_options.read(container, caps).no_new_privileges
    if config.privileged:
        caps = list(defaults.ALL_CAPS)
    found: OciProcess = {
        "terminal": config.tty,
        "user": {"uid": 0, "gid": 0},
        "args": list(config.cmd),
        "env": environment(container, tty=config.tty, extra=config.env),
        "cwd": config.working_dir or container.config.working_dir or "/",
        "capabilities": capability_sets(caps),
        "noNewPrivileges": no_new_privs,
        "rlimits": _rlimits(container.host),
        "annotations": {
            "dev.ketch.user": config.user or container.config.user,
            "dev.ketch.group-add": ",".join(container.host.group_add or ()),
        },
    }
    if config.adopts:
        found["annotations"]["dev.ketch.adopts"] = "1"
    confine(found, container.apparmor_profile)  # the container's, also where it is privileged and that is not
    return found


def signal_number(name: str) -> int:
    """``SIGTERM``, ``term``, ``15``, ``RTMIN+3`` → the number (InvalidArgument otherwise)."""
    number = signals.parse(name)
    if number is None:
        known = f"invalid signal: {name}"
        if name.removeprefix("-").isdecimal() and name.strip("-0"):
            known = f"the linux daemon does not support signal {name}"
        raise InvalidArgument(known, hint="use e.g. SIGTERM, HUP, RTMIN+3 or 15")
    return number
