"""Records of containers: the configuration as given, and the state.

The configuration structs carry the field names of the Docker Engine API (v1.51) because that *is*
the engine's vocabulary; msgspec maps ``PortBindings`` to ``port_bindings`` and back.  Unknown fields
of a request are ignored, wrong types are refused by the decoder.  Times are integer nanoseconds
since the epoch, 0 meaning "never"; sizes are bytes.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from ketch.engine.model.namespaces.mode import NamespaceMode
from ketch.engine.model.namespaces.user import UserNamespace  # noqa: TC001 - msgspec reads the annotation at run time
from ketch.oci.config import StringSet  # noqa: TC001 - msgspec reads the annotation at run time

_SPECIAL = {
    "cpu_period": "CpuPeriod",
    "blkio_weight": "BlkioWeight",
    "oom_score_adj": "OomScoreAdj",
    "dns": "Dns",
    "nano_cpus": "NanoCpus",
    "ipam_config": "IPAMConfig",
    "ip_address": "IPAddress",
    "ip_prefix_len": "IPPrefixLen",
    "host_ip": "HostIp",
    "uts_mode": "UTSMode",
    "endpoint_id": "EndpointID",
    "network_id": "NetworkID",
    "global_ipv6_address": "GlobalIPv6Address",
    "global_ipv6_prefix_len": "GlobalIPv6PrefixLen",
    "ipv6_gateway": "IPv6Gateway",
    "dns_names": "DNSNames",
    "container_id_file": "ContainerIDFile",
    "io_maximum_iops": "IOMaximumIOps",
    "io_maximum_bandwidth": "IOMaximumBandwidth",
    "blkio_device_read_iops": "BlkioDeviceReadIOps",
    "blkio_device_write_iops": "BlkioDeviceWriteIOps",
    "device_ids": "DeviceIDs",
    "size_bytes": "SizeBytes",
    "tmpfs_options": "TmpfsOptions",
}


def _docker_name(field: str) -> str:
    return _SPECIAL.get(field) or "".join(part.capitalize() for part in field.split("_"))


class Wire(msgspec.Struct, rename=_docker_name, kw_only=True):
    """Base of the structs that carry Docker's names."""


class HealthConfig(Wire):
    """``Healthcheck``: times in nanoseconds.

    ``test`` is ``[]`` (inherit), ``["NONE"]``, ``["CMD", …]`` or ``["CMD-SHELL", …]``.  ``on_failure`` is Ketch's own:
    what is done to a container that becomes unhealthy (``none``, ``kill``, ``restart``, ``stop``).
    """

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    retries: int = 0
    start_period: int = 0
    start_interval: int = 0
    on_failure: str = ""


class HealthResult(Wire):
    """One run of a healthcheck; ``exit_code`` -1 when it did not end in time or could not be run."""

    start: int
    end: int
    exit_code: int
    output: str = ""


class HealthStatus(StrEnum):
    """The result of the healthchecks; ``none`` is that of a container without any."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Health(Wire):
    """The status by the healthchecks; ``log`` has the newest results, the last one at the end."""

    status: HealthStatus = HealthStatus.STARTING
    failing_streak: int = 0
    log: list[HealthResult] = []


class ContainerConfig(Wire):
    """The part of the configuration that is independent of the host (``Config`` in an inspect answer)."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: StringSet | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: list[str] | str | None = None
    healthcheck: HealthConfig | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: StringSet | None = None
    working_dir: str = ""
    entrypoint: list[str] | str | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: list[str] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: list[str] | None = None


class PortBinding(Wire):
    """One host side of a published port; an empty ``host_port`` asks for any free one."""

    host_ip: str = ""
    host_port: str = ""


class RestartPolicy(Wire):
    """``name`` is ``no``, ``always``, ``unless-stopped``, ``on-failure`` or empty (= ``no``)."""

    name: str = ""
    maximum_retry_count: int = 0


class LogConfig(Wire):
    """``type`` names the log driver; empty is the daemon's default."""

    type: str = ""
    config: dict[str, str] | None = None


class Ulimit(Wire):
    """One resource limit: ``name`` without ``RLIMIT_``, lower case; -1 is unlimited."""

    name: str = ""
    soft: int = 0
    hard: int = 0


class DeviceMapping(Wire):
    """A host device node shown inside, with cgroup permissions (a subset of ``rwm``)."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = "rwm"


class Given(Wire, omit_defaults=True):
    """Base of structs of which only the given fields are shown."""


class BindOptions(Given):
    """``idmap``, Ketch's own, is a mapping of owners (see `idmaps`)."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False
    idmap: str | None = msgspec.field(default=None, name="IDMap")


class DriverConfig(Given):
    """The driver of a volume that is made for a mount."""

    name: str = ""
    options: dict[str, str] | None = None


class VolumeOptions(Given):
    """``subpath`` is below the volume; ``no_copy``: the image's files at that place are not put into it."""

    no_copy: bool = False
    labels: dict[str, str] | None = None
    driver_config: DriverConfig | None = None
    subpath: str = ""


class ImageOptions(Given):
    """``subpath`` is below the image's root."""

    subpath: str = ""


class TmpfsOptions(Given):
    """``options`` are lists of one word: ``["noexec"]``, ``["exec"]``."""

    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] | None = None


class Mount(Wire):
    """``Mounts`` of the host configuration (``--mount``)."""

    target: str = ""
    source: str = ""
    type: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None
    image_options: ImageOptions | None = None


class ThrottleDevice(Wire):
    """A limit on one block device of the host: ``rate`` in bytes or operations a second."""

    path: str = ""
    rate: int = 0


class WeightDevice(Wire):
    """A share of one block device of the host, 10 to 1000."""

    path: str = ""
    weight: int = 0


class DeviceRequest(Wire):
    """Devices that are found by specifications (CDI): ``driver`` cdi with their names, or GPUs (``--gpus``)."""

    driver: str = ""
    count: int = 0
    device_ids: list[str] | None = None
    capabilities: list[list[str]] | None = None
    options: dict[str, str] | None = None


class Secret(Wire):
    """One entry of ``Secrets``, Ketch's own.

    ``target`` is a name in /run/secrets (empty: the ``id``) or an absolute path; owners are numbers.
    """

    id: str = msgspec.field(default="", name="ID")
    source: str = ""
    target: str = ""
    mode: int = 0o444
    uid: int = msgspec.field(default=0, name="UID")
    gid: int = msgspec.field(default=0, name="GID")


class HostConfig(Wire):
    """The part of the configuration that concerns the host: limits, mounts, privileges, network, restarts."""

    binds: list[str] | None = None
    container_id_file: str = ""
    log_config: LogConfig = msgspec.field(default_factory=LogConfig)
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding] | None] | None = None
    restart_policy: RestartPolicy = msgspec.field(default_factory=RestartPolicy)
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    mounts: list[Mount] | None = None
    console_size: list[int] | None = None
    annotations: dict[str, str] | None = None
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    cgroupns_mode: str = ""
    dns: list[str] | None = None
    dns_options: list[str] | None = None
    dns_search: list[str] | None = None
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = ""
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    # resources
    cpu_count: int = 0  # of Windows, as the three below: kept, refused or dropped, as Docker does
    cpu_percent: int = 0
    io_maximum_iops: int = 0
    io_maximum_bandwidth: int = 0
    cpu_shares: int = 0
    memory: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] | None = None
    blkio_device_read_bps: list[ThrottleDevice] | None = None
    blkio_device_write_bps: list[ThrottleDevice] | None = None
    blkio_device_read_iops: list[ThrottleDevice] | None = None
    blkio_device_write_iops: list[ThrottleDevice] | None = None
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] | None = None
    device_cgroup_rules: list[str] | None = None
    device_requests: list[DeviceRequest] | None = None
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    nano_cpus: int = 0
    oom_kill_disable: bool | None = None
    init: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] | None = None
    secrets: list[Secret] | None = None

    @property
    def network(self) -> NamespaceMode:
        """`network_mode`, parsed."""
        return NamespaceMode.of_network(self.network_mode)

    @property
    def pid(self) -> NamespaceMode:
        """`pid_mode`, parsed."""
        return NamespaceMode.parse(self.pid_mode)

    @property
    def ipc(self) -> NamespaceMode:
        """`ipc_mode`, parsed."""
        return NamespaceMode.parse(self.ipc_mode)

    @property
    def uts(self) -> NamespaceMode:
        """`uts_mode`, parsed."""
        return NamespaceMode.parse(self.uts_mode)

    @property
    def cgroupns(self) -> NamespaceMode:
        """`cgroupns_mode`, parsed."""
        return NamespaceMode.parse(self.cgroupns_mode)

    @property
    def joined(self) -> list[str]:
        """The containers whose namespaces it shares."""
        return [mode.reference for mode in (self.network, self.pid, self.ipc) if mode.container is not None]


class EndpointIpam(msgspec.Struct, omit_defaults=True, kw_only=True):
    """``IPAMConfig`` of an endpoint: the addresses that were asked for."""

    ipv4: str | None = msgspec.field(default=None, name="IPv4Address")
    ipv6: str | None = msgspec.field(default=None, name="IPv6Address")
    link_local: list[str] | None = msgspec.field(default=None, name="LinkLocalIPs")


class EndpointFields(Wire):
    """A requested connection to one network."""

    ipam_config: EndpointIpam | None = None
    links: list[str] | None = None
    mac_address: str = ""
    aliases: list[str] | None = None
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0


class EndpointSettings(EndpointFields):
    """One network of a container: the request, and (after the start) the assigned addresses.

    ``mac_address`` is the one that it has; what was asked for is in ``Container.desired_macs``.
    """

    network_id: str = ""
    endpoint_id: str = ""
    gateway: str = ""
    ip_address: str = ""
    ip_prefix_len: int = 0
    ipv6_gateway: str = ""
    global_ipv6_address: str = ""
    global_ipv6_prefix_len: int = 0
    dns_names: list[str] | None = None


class MountPoint(Wire):
    """A mount as resolved at creation (``Mounts`` in an inspect answer).

    ``spec`` is the ``--mount`` it comes from, ``idmap`` a mapping of owners (see `idmaps`), ``layers`` the overlay
    options of an image that is mounted; ``name`` is then its id.  A volume that somebody ``named`` stays when the
    container goes.
    """

    type: str
    source: str
    destination: str
    name: str = ""
    driver: str = ""
    mode: str = ""
    rw: bool = msgspec.field(default=True, name="RW")
    propagation: str = ""
    spec: Mount | None = None
    named: bool = False
    idmap: str = ""
    layers: list[str] = []


class Status(StrEnum):
    """The state of a container, in Docker's words."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


class State(msgspec.Struct, kw_only=True):
    """The state of a container with its times and its exit code.

    ``starting``: the boot (boot_id of random(4)) in which a start began whose end is not recorded.
    """

    status: Status = Status.CREATED
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: int = 0
    finished_at: int = 0
    health: Health | None = None
    starting: str = ""

    @property
    def running(self) -> bool:
        """Whether the container has a process, also a frozen one."""
        return self.status in (Status.RUNNING, Status.PAUSED)

    @property
    def up(self) -> bool:
        """Whether the container runs or is about to be restarted."""
        return self.running or self.status is Status.RESTARTING

    @property
    def going(self) -> bool:
        """Whether the container is being removed, or its removal failed."""
        return self.status in (Status.REMOVING, Status.DEAD)


class Pending(Given):
    """Values that fields will have from the next start on; None where nothing changes (see `pending_changes`).

    ``mount_points`` are ``Container.mounts``; the others are those of the configurations.
    """

    env: list[str] | None = None
    exposed_ports: StringSet | None = None
    volumes: StringSet | None = None
    port_bindings: dict[str, list[PortBinding] | None] | None = None
    binds: list[str] | None = None
    mounts: list[Mount] | None = None
    tmpfs: dict[str, str] | None = None
    mount_points: list[MountPoint] | None = None


class AppliedDefaults(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Settings of the daemon's that a container took over when it was made, and that its own do not show.

    ``seccomp`` is ``unconfined``, a profile's content, or empty.
    """

    no_new_privileges: bool = False
    seccomp: str = ""


class Container(msgspec.Struct, kw_only=True):
    """One container's row: everything that must survive a restart of the daemon.

    ``name`` has no leading slash; ``image_id`` is ``sha256:…``; ``config`` is already merged with
    the image's own configuration; ``path``/``args`` are the command as it will be executed.
    """

    id: str
    name: str
    created: int
    image_id: str
    image_ref: str
    config: ContainerConfig
    host: HostConfig
    networks: dict[str, EndpointSettings] = msgspec.field(default_factory=dict)
    ports: dict[str, list[PortBinding]] = msgspec.field(default_factory=dict)
    mounts: list[MountPoint] = msgspec.field(default_factory=list)
    state: State = msgspec.field(default_factory=State)
    platform: str = "linux"
    path: str = ""
    args: list[str] = msgspec.field(default_factory=list)
    restart_count: int = 0
    restart_delay_s: float = 0.0
    stopped_by_user: bool = False
    limits_pending: bool = False  # written here, perhaps not yet in its cgroup
    exec_ids: list[str] = msgspec.field(default_factory=list)
    links: dict[str, str] = msgspec.field(default_factory=dict)  # alias → id, on the default network
    desired_macs: dict[str, str] = msgspec.field(default_factory=dict)  # by network: as asked for
    own_hosts: str = ""  # our lines in its /etc/hosts
    own_resolv: str = ""  # its /etc/resolv.conf as we wrote it
    user_namespace: UserNamespace | None = None  # None: the host's
    name_servers: list[str] | None = None  # those of the daemon when it was started, for other names than ours
    apparmor_profile: str = ""  # of its last start; empty: AppArmor confined nothing
    session: str = ""  # with which it ends, at the latest
    defaults: AppliedDefaults | None = None
    pending: Pending | None = None

    @property
    def is_ephemeral(self) -> bool:
        """Whether nothing of it need survive a power cut: it ends with a session, and has no volume that does not."""
        return bool(self.session) and all(mount.type != "volume" for mount in self.mounts)
