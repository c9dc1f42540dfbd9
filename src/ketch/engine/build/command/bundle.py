"""OCI bundle of a build's command (runtime-spec v1.2): a container as `docker run` makes one, without a record.

There is no record of a container behind it: a command has neither name nor image, no restarts, no published ports and
no volumes, and most of what a record has would be there only to be left out again.  What both have in common is taken
from where containers take it: limits, capabilities and devices from a `HostConfig`, the rest from `runtime.defaults`.
The files that Docker puts into containers' roots (``/.dockerenv``, ``/etc/mtab``) are not there, as with BuildKit: the
layer would have them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.engine import cgroups
from ketch.engine.model.records import HostConfig
from ketch.engine.spec import bundle, limit_support, limits
from ketch.runtime import defaults
from ketch.runtime.rootfs import secrets
from ketch.runtime.security import seccomp_default
from ketch.runtime.spec import ANNOTATION_OWN_CWD, ANNOTATION_USER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.providers import BuildCommand
    from ketch.engine.build.command.networks import CommandNetwork
    from ketch.engine.model.namespaces.user import UserNamespace
    from ketch.runtime.oci_types import OciConfig, OciMount, OciNamespace, OciProcess

_RESOURCES = {
    "memory": "memory",
    "memorySwap": "memory_swap",
    "cpuShares": "cpu_shares",
    "cpuPeriod": "cpu_period",
    "cpuQuota": "cpu_quota",
    "cpusetCpus": "cpuset_cpus",
    "cpusetMems": "cpuset_mems",
}
_INFINITY = 2**64 - 1


class Surroundings(Struct, frozen=True, kw_only=True):
    """The surroundings of a command: network, cgroup, the directory that has hosts and resolv.conf.

    ``secret_env`` is a file with variables; ``users`` the user namespace, None for the host's; without an
    ``apparmor_profile`` there is no AppArmor.
    """

    network: CommandNetwork
    users: UserNamespace | None = None
    directory: str
    cgroup: str
    secret_env: str = ""
    apparmor_profile: str = ""


def build(command: BuildCommand, around: Surroundings, mounts: Sequence[OciMount]) -> OciConfig:
    """The whole ``config.json``."""
    host = _host(command)
    caps = bundle.capabilities(host)
    nodes, _ = bundle.devices(host)
    limited = limits.resources(host)
    limited["devices"] = (
        [{"allow": True, "access": "rwm"}]
        if command.insecure
        else [{"allow": False, "access": "rwm"}, *defaults.device_rules()]
    )
    spec: OciConfig = {
        "ociVersion": "1.2.0",
        "process": {**_process(command), "oomScoreAdj": defaults.possible_oom_score_adj(0)},
        "root": {"path": "rootfs", "readonly": command.root_readonly},
        "hostname": around.network.hostname,
        "mounts": _mounts(command, around, mounts),
        "annotations": {ANNOTATION_USER: command.user, ANNOTATION_OWN_CWD: ""},
        "linux": {
            "cgroupsPath": around.cgroup,
            "namespaces": _namespaces(command, around),
            "resources": limited,
            "devices": nodes,
            "maskedPaths": [] if command.insecure else list(defaults.MASKED_PATHS),
            "readonlyPaths": [] if command.insecure else list(defaults.READONLY_PATHS),
        },
    }
    if around.users is not None:
        spec["linux"]["uidMappings"], spec["linux"]["gidMappings"] = around.users.oci()
    bundle.confine(spec["process"], around.apparmor_profile)
    if not command.insecure:
        spec["linux"]["seccomp"] = seccomp_default.profile(caps)
    if around.secret_env:
        spec["annotations"][secrets.ENVIRONMENT] = around.secret_env
    return spec


def added(command: BuildCommand, apparmor_profile: str) -> OciProcess:
    """The ``process`` that is added to a running container, with its secrets: nobody writes it to a file."""
    found = _process(command)
    bundle.confine(found, apparmor_profile)
    variables = [f"{name}={value}" for name, value in command.secret_env.items()]
    return {**found, "env": [*found["env"], *variables], "annotations": {ANNOTATION_USER: command.user}}


def _process(command: BuildCommand) -> OciProcess:
    return {
        "terminal": command.tty,
        "user": {"uid": 0, "gid": 0},
        "args": list(command.args),
        "env": environment(command),
        "cwd": command.cwd or "/",
        "capabilities": bundle.capability_sets(bundle.capabilities(_host(command))),
        "noNewPrivileges": False,
        "rlimits": [
            {
                "type": f"RLIMIT_{name.upper()}",
                "soft": _INFINITY if soft < 0 else soft,
                "hard": _INFINITY if hard < 0 else hard,
            }
            for name, soft, hard in command.limits
        ],
    }


def environment(command: BuildCommand) -> list[str]:
    """The variables that may stand in a file: the command's, the proxies', and a PATH if it has none."""
    variables = [*command.env, *command.proxy_env]
    if not any(variable.startswith("PATH=") for variable in variables):
        variables.append(bundle.DEFAULT_PATH)
    return variables


def _host(command: BuildCommand) -> HostConfig:
    wanted = {_RESOURCES[name]: value for name, value in command.resources.items() if value}
    host = HostConfig(privileged=command.insecure, **wanted)  # type: ignore[arg-type]
    limits.normalize(host)
    limit_support.discard(host)
    return host


def _namespaces(command: BuildCommand, around: Surroundings) -> list[OciNamespace]:
    """Namespaces of its own, and perhaps another container's network with the users whose it is."""
    network, users = around.network.namespace, around.network.users
    found: list[OciNamespace] = [{"type": kind} for kind in ("mount", "pid", "ipc", "uts")]
    if network:
        found.append({"type": "network", "path": network})
    elif command.network != "host":
        found.append({"type": "network"})
    if cgroups.default_namespace() == "private":
        found.append({"type": "cgroup"})
    if around.users is not None:
        found.append({"type": "user", "path": users} if users else {"type": "user"})
    return found


def _mounts(command: BuildCommand, around: Surroundings, mounts: Sequence[OciMount]) -> list[OciMount]:
    """All mounts, parents before children; a command's own take the place of those that every container has."""
    replaced = {mount["destination"] for mount in mounts}
    below = ("/dev/",) if "/dev" in replaced else ()
    own: list[OciMount] = [
        {
            "destination": f"/etc/{name}",
            "type": "bind",
            "source": f"{around.directory}/{name}",
            "options": ["rbind", "ro", "nosuid", "nodev", "noexec", *(["idmap"] if around.users else [])],
        }
        for name in ("resolv.conf", "hosts")
    ]
    everywhere = defaults.mounts(shm_size=command.shm_size or 64 << 20, privileged=command.insecure)
    common = [*defaults.possible(everywhere, {one["type"] for one in _namespaces(command, around)}), *own]
    kept = [m for m in common if m["destination"] not in replaced and not m["destination"].startswith(below)]
    return [*kept, *sorted(mounts, key=lambda mount: mount["destination"])]
