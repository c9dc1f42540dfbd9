"""Older versions of the API: the fields and parameters that they did not have, and the defaults that they had.

A client that names an old version gets what that version promised.  Docker ignores most of what a version did not have
yet, and refuses the rest; each row of these tables has its test in ``tests/integration/api/test_versions.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from multidict import MultiDict

from ketch.api.wire.networks import EndpointBody
from ketch.engine.model.api_version import API_VERSION
from ketch.engine.model.namespaces.mode import ModeKind
from ketch.engine.model.records import BindOptions, HostConfig
from ketch.errors import InvalidArgument, UnclassifiedArgument
from ketch.network.model.record import ENDPOINT_SYSCTLS, PREDEFINED
from ketch.notation import times
from ketch.runtime.cgroups import common

if TYPE_CHECKING:
    from collections.abc import Callable

    from multidict import MultiMapping

    from ketch.api.wire.container_requests import CreateBody, UpdateBody
    from ketch.api.wire.networks import NewNetwork
    from ketch.notation.api_objects import ApiObject

Version = tuple[int, int]
_MAJOR, _MINOR = API_VERSION.split(".")
NEWEST: Version = (int(_MAJOR), int(_MINOR))


class _Change(NamedTuple):
    """A change of ``create``: what is done to the body of a request of a version before ``since``."""

    since: Version
    apply: Callable[[CreateBody, HostConfig], None]


def _no_removal(_body: CreateBody, host: HostConfig) -> None:
    host.auto_remove = False  # it was the client that removed it


def _shareable_ipc(_body: CreateBody, host: HostConfig) -> None:
    host.ipc_mode = host.ipc_mode or "shareable"


def _recursive_binds(_body: CreateBody, host: HostConfig) -> None:
    for options in _bind_options(host):
        options.non_recursive = False


def _cgroups_of_the_host(_body: CreateBody, host: HostConfig) -> None:
    if common.layout().version == 1:
        host.cgroupns_mode = host.cgroupns_mode or "host"


def _no_console_size(_body: CreateBody, host: HostConfig) -> None:
    host.console_size = None


def _no_mountpoints(_body: CreateBody, host: HostConfig) -> None:
    for options in _bind_options(host):
        options.create_mountpoint = False


def _no_annotations(_body: CreateBody, host: HostConfig) -> None:
    host.annotations = None


def _no_start_interval(body: CreateBody, _host: HostConfig) -> None:
    if body.healthcheck is not None:
        body.healthcheck.start_interval = 0


def _no_forced_recursion(_body: CreateBody, host: HostConfig) -> None:
    if any(options.read_only_force_recursive for options in _bind_options(host)):
        raise InvalidArgument("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")


def _one_network(body: CreateBody, _host: HostConfig) -> None:
    if len(names := body.endpoints) > 1:
        raise InvalidArgument(f"Container cannot be created with multiple network endpoints: {', '.join(names)}")


def _no_subpaths(_body: CreateBody, host: HostConfig) -> None:
    if any(mount.volume_options and mount.volume_options.subpath for mount in host.mounts or ()):
        raise InvalidArgument("VolumeOptions.Subpath needs API v1.45 or newer")


def _no_priorities(body: CreateBody, _host: HostConfig) -> None:
    for endpoint in body.endpoints.values():
        if endpoint is not None:
            endpoint.gw_priority = 0


def _no_images(_body: CreateBody, host: HostConfig) -> None:
    if any(mount.type == "image" for mount in host.mounts or ()):
        raise InvalidArgument('Mount type "Image" needs API v1.48 or newer')


_CREATE = (
    _Change((1, 25), _no_removal),
    _Change((1, 40), _shareable_ipc),
    _Change((1, 40), _recursive_binds),
    _Change((1, 41), _cgroups_of_the_host),
    _Change((1, 42), _no_console_size),
    _Change((1, 42), _no_mountpoints),
    _Change((1, 43), _no_annotations),
    _Change((1, 44), _no_start_interval),
    _Change((1, 44), _no_forced_recursion),
    _Change((1, 44), _one_network),
    _Change((1, 45), _no_subpaths),
    _Change((1, 48), _no_priorities),
    _Change((1, 48), _no_images),
)
# Parameters by route: older versions overlook them.
_PARAMETERS: dict[tuple[str, str], dict[str, Version]] = {
    ("POST", "/containers/create"): {"platform": (1, 41)},
    ("POST", "/containers/{id}/restart"): {"signal": (1, 42)},
    ("POST", "/containers/{id}/stop"): {"signal": (1, 42)},
    ("POST", "/containers/{id}/wait"): {"condition": (1, 30)},
    ("GET", "/containers/{id}/stats"): {"one-shot": (1, 41)},
    ("POST", "/images/create"): {"platform": (1, 32)},
    ("GET", "/images/get"): {"platform": (1, 48)},
    ("GET", "/images/json"): {"manifests": (1, 47), "shared-size": (1, 42)},
    ("POST", "/images/load"): {"platform": (1, 48)},
    ("DELETE", "/images/{name:path}"): {"platforms": (1, 50)},
    ("GET", "/images/{name:path}/get"): {"platform": (1, 48)},
    ("GET", "/images/{name:path}/history"): {"platform": (1, 48)},
    ("GET", "/images/{name:path}/json"): {"manifests": (1, 48), "platform": (1, 49)},
    ("POST", "/images/{name:path}/push"): {"platform": (1, 46)},
    ("GET", "/system/df"): {"type": (1, 42)},
}
_MAC_OF_ENDPOINTS = (1, 44)
_RECURSIVE_READ_ONLY = (1, 44)
_STRICT_MOUNTS = (1, 42)
_SYSCTLS_OF_ENDPOINTS = (1, 48)
_PIDS_LIMIT_OF_UPDATE = (1, 40)
_ANNOTATIONS_OF_ROWS = (1, 46)
_ONLY_ANONYMOUS_VOLUMES = (1, 42)
_DNS_NAMES = (1, 45)
COUNTED_CONTAINERS = (1, 51)  # in the list of images
_VIRTUAL_SIZE = (1, 44)
_DESCRIPTORS = (1, 48)  # a version later than manifests
_NAMES_OF_THE_NAMELESS = (1, 43)
_NO_CONTAINER_OF_IMAGES = (1, 45)
_SHORT_IMAGE_CONFIG = (1, 50)
_LONG_IMAGE_CONFIG: ApiObject = {
    **dict.fromkeys(("Hostname", "Domainname", "User", "Image", "WorkingDir"), ""),
    **dict.fromkeys(("AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce"), False),
    **dict.fromkeys(("Env", "Cmd", "Volumes", "Entrypoint", "OnBuild", "Labels")),
}
_DETAILED_NETWORKS = (1, 28)
_WITHOUT_IPV4 = (1, 48)
_FILTERED_BY_PATTERN = (1, 41)
_NAMED_SECURITY_OPTIONS = (1, 25)
_NONDISTRIBUTABLE = (1, 47)
_INFO_WITH = (((1, 46), ("Containerd",)), ((1, 49), ("FirewallBackend",)), ((1, 50), ("DiscoveredDevices",)))
_INFO_WITHOUT = (((1, 42), ("KernelMemory",)), ((1, 50), ("BridgeNfIptables", "BridgeNfIp6tables")))


def _bind_options(host: HostConfig) -> list[BindOptions]:
    return [mount.bind_options for mount in host.mounts or () if mount.bind_options is not None]


def read_query(method: str, route: str, query: MultiMapping[str], version: Version) -> MultiMapping[str]:
    """The parameters that the route had in that version."""
    unknown = {name for name, since in _PARAMETERS.get((method, route), {}).items() if version < since}
    if not unknown & set(query):
        return query
    return MultiDict((name, value) for name, value in query.items() if name not in unknown)


def read_create(body: CreateBody, version: Version) -> list[str]:
    """Make the body of ``create`` what it means in that version; returns warnings (InvalidArgument)."""
    host = body.host_config = body.host_config or HostConfig()
    body.name_the_default_network(host)
    for change in _CREATE:
        if version < change.since:
            change.apply(body, host)
    if version >= _STRICT_MOUNTS:
        _check_mounts(host)
    if (host.pids_limit or 0) < 0:
        host.pids_limit = None
    warnings = _read_mac(body, host, version)
    if version < _SYSCTLS_OF_ENDPOINTS and host.sysctls:
        warnings += _read_sysctls(body, host, host.sysctls)
    return warnings


def _check_mounts(host: HostConfig) -> None:
    """Refuse options of another type's (InvalidArgument); older versions, and images, hear of it in other words."""
    for mount in host.mounts or ():
        for kind, options in (
            ("Bind", mount.bind_options),
            ("Volume", mount.volume_options),
            ("Tmpfs", mount.tmpfs_options),
        ):
            if options is not None and kind.lower() != mount.type:
                raise InvalidArgument(f'{kind}Options must not be specified on mount type "{mount.type}"')


def _read_sysctls(body: CreateBody, host: HostConfig, sysctls: dict[str, str]) -> list[str]:
    """Make sysctls of the first interface driver options of its endpoint, where they have been since 1.48."""
    moved = {name: words for name in sysctls if len(words := name.split(".", 4)) == 5 and _is_interface(words)}
    if not moved or host.network.kind is not ModeKind.NETWORK:
        return []
    for name, words in moved.items():
        if words[3] != "eth0":
            raise UnclassifiedArgument(
                f"unable to determine network endpoint for sysctl {name}, use driver option '{ENDPOINT_SYSCTLS}' "
                "to set per-interface sysctls"
            )
    endpoint = _first_endpoint(body, host, old=False)
    options = endpoint.driver_opts = endpoint.driver_opts or {}
    added = [f"net.{words[1]}.{words[2]}.IFNAME.{words[4]}={sysctls[name]}" for name, words in moved.items()]
    options[ENDPOINT_SYSCTLS] = ",".join([*filter(None, [options.get(ENDPOINT_SYSCTLS)]), *added])
    host.sysctls = {name: value for name, value in sysctls.items() if name not in moved} or None
    names = ", ".join(f'"{name}"' for name in moved)
    return [f'Migrated sysctl {names} to DriverOpts{{"{ENDPOINT_SYSCTLS}":"{",".join(added)}"}}.']


def _is_interface(words: list[str]) -> bool:
    return words[0] == "net" and words[3].startswith("eth")


def _read_mac(body: CreateBody, host: HostConfig, version: Version) -> list[str]:
    """Give the container-wide address to the endpoint of its first network, where it has been since 1.44."""
    address, old = body.mac_address, version < _MAC_OF_ENDPOINTS
    if old:
        for endpoint in body.endpoints.values():
            if endpoint is not None:
                endpoint.mac_address = ""
    if not address:
        return []
    if not old:  # of the old ones the container shows it, whichever network has it
        body.mac_address = ""
    if host.network.kind is ModeKind.NETWORK:
        _give_mac(body, host, address, old=old)
    elif old:
        raise InvalidArgument("conflicting options: mac-address and the network mode")
    if old:
        return []
    return ["The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."]


def _give_mac(body: CreateBody, host: HostConfig, address: str, *, old: bool) -> None:
    try:
        endpoint = _first_endpoint(body, host, old=old)
    except InvalidArgument as e:
        raise InvalidArgument(f"unable to migrate container-wide MAC address to a specific network: {e.message}") from e
    if endpoint.mac_address not in ("", address):
        raise InvalidArgument(
            "the container-wide MAC address must match the endpoint-specific MAC address for the main network, "
            "or be left empty"
        )
    endpoint.mac_address = address


def _first_endpoint(body: CreateBody, host: HostConfig, *, old: bool) -> EndpointBody:
    """The settings for the first network, which are made if there are none; of old there are those of one at most."""
    endpoints = body.endpoints
    names = [name for name in endpoints if old or name == host.network.network]
    if endpoints and not names:
        raise InvalidArgument("HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks")
    name = names[0] if names else host.network.network
    endpoint = endpoints[name] = endpoints.get(name) or EndpointBody()
    return endpoint


def below_is_read_only(version: Version) -> bool:
    """Whether a read-only bind is so with all that is mounted below it, unless told otherwise."""
    return version >= _RECURSIVE_READ_ONLY


def read_update(body: UpdateBody, version: Version) -> None:
    """Make the body of ``update`` what it means in that version."""
    if version < _PIDS_LIMIT_OF_UPDATE:
        body.pids_limit = None


def old_filter(query: MultiMapping[str], version: Version) -> str:
    """The pattern of names by which ``images`` was filtered before it had filters."""
    return query.get("filter", "") if version < _FILTERED_BY_PATTERN else ""


def read_network(body: NewNetwork, version: Version) -> None:
    """Make the body of a network's ``create`` what it means in that version."""
    if version < _WITHOUT_IPV4:
        body.enable_ipv4 = None


def lists_members(version: Version) -> bool:
    """Whether the list of networks has the containers on them."""
    return version < _DETAILED_NETWORKS


def prunes_named_volumes(version: Version) -> bool:
    """Whether a prune of volumes takes those with names, too, unless told otherwise."""
    return version < _ONLY_ANONYMOUS_VOLUMES


# -- answers -------------------------------------------------------------------------------------


def shown_row(row: ApiObject, version: Version) -> ApiObject:
    """A row of ``ps`` in that version."""
    if version < _ANNOTATIONS_OF_ROWS:
        row["HostConfig"].pop("Annotations", None)
    return row


def shown_container(answer: ApiObject, version: Version) -> ApiObject:
    """The answer of a container's inspect in that version."""
    if version < _DNS_NAMES:  # where the short id and the host name stand since then
        for name, endpoint in answer["NetworkSettings"]["Networks"].items():
            if name not in PREDEFINED:
                names = [*(endpoint["Aliases"] or ()), answer["Id"][:12], answer["Config"]["Hostname"]]
                endpoint["Aliases"] = list(dict.fromkeys(names))
    return answer


def shown_image_row(row: ApiObject, version: Version) -> ApiObject:
    """A row of ``images`` (or of ``df``) in that version."""
    if version < _DESCRIPTORS:
        row.pop("Descriptor", None)
    if version < _VIRTUAL_SIZE and row["Size"]:
        row["VirtualSize"] = row["Size"]
    if version < _NAMES_OF_THE_NAMELESS and not row["RepoTags"] and not row["RepoDigests"]:
        row |= {"RepoTags": ["<none>:<none>"], "RepoDigests": ["<none>@<none>"]}
    return row


def shown_image(answer: ApiObject, version: Version) -> ApiObject:
    """The answer of an image's inspect in that version."""
    if version < _VIRTUAL_SIZE:
        if answer["Size"]:
            answer["VirtualSize"] = answer["Size"]
        answer.setdefault("Created", times.NEVER)
    if version < _SHORT_IMAGE_CONFIG:
        answer["Config"] = {**_LONG_IMAGE_CONFIG, **answer["Config"]}
    if version < _NO_CONTAINER_OF_IMAGES:
        answer["ContainerConfig"] = answer["Config"]  # Compose 1 reads its volumes
    return answer


def shown_df(answer: ApiObject, version: Version) -> ApiObject:
    """The answer to ``system df`` in that version."""
    for row in answer.get("Images") or ():
        shown_image_row(row, version)
    return answer


def shown_info(info: ApiObject, version: Version) -> ApiObject:
    """The answer to ``info`` in that version."""
    dropped = {name: False for until, names in _INFO_WITHOUT if version < until for name in names}
    answer = info | dropped
    if version < _NAMED_SECURITY_OPTIONS:
        options = [option.partition(",")[0].removeprefix("name=") for option in answer["SecurityOptions"]]
        answer["SecurityOptions"] = options
    for since, names in _INFO_WITH:
        if version < since:
            answer = {name: value for name, value in answer.items() if name not in names}
    if version < _NONDISTRIBUTABLE:
        rules = ("AllowNondistributableArtifactsCIDRs", "AllowNondistributableArtifactsHostnames")
        answer["RegistryConfig"] = answer["RegistryConfig"] | dict.fromkeys(rules)
    return answer
