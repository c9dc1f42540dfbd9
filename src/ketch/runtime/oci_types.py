"""The configuration of a bundle (OCI runtime-spec 1.2, config.md), as far as the runtime reads it: types alone.

Nothing imports this module when it runs.  Every key may be missing; what `spec.check` has looked at has the type that
stands here, or is null.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict


class OciIdMapping(TypedDict, total=False):
    """Ids from ``containerID`` on are seen as those from ``hostID`` on."""

    containerID: int
    hostID: int
    size: int


class OciMount(TypedDict, total=False):
    """One mount, with options as mount(8) has them and with the runtime's own."""

    destination: str
    type: str
    source: str
    options: list[str]
    uidMappings: list[OciIdMapping]
    gidMappings: list[OciIdMapping]


class OciRoot(TypedDict, total=False):
    """The root directory, absolute or relative to the bundle."""

    path: str
    readonly: bool


class OciUser(TypedDict, total=False):
    """Numbers, or (exec'd processes) a name: ``user[:group]``."""

    uid: int
    gid: int
    umask: int
    additionalGids: list[int]
    username: str


class OciCapabilities(TypedDict, total=False):
    """Names of capabilities(7) for each of the five sets."""

    bounding: list[str]
    effective: list[str]
    inheritable: list[str]
    permitted: list[str]
    ambient: list[str]


class OciRlimit(TypedDict, total=False):
    """One limit of setrlimit(2)."""

    type: str
    soft: int
    hard: int


class OciBox(TypedDict, total=False):
    """A terminal's size in characters."""

    height: int
    width: int


class OciSyscallArg(TypedDict, total=False):
    """A comparison with an argument of a system call."""

    index: int
    value: int
    valueTwo: int
    op: str


class OciSyscall(TypedDict, total=False):
    """A rule: the action for some system calls, if all comparisons hold."""

    names: list[str]
    action: str
    errnoRet: int
    args: list[OciSyscallArg]


class OciSeccomp(TypedDict, total=False):
    """A seccomp profile: the default action, and the rules."""

    defaultAction: str
    defaultErrnoRet: int
    architectures: list[str]
    flags: list[str]
    listenerPath: str
    listenerMetadata: str
    syscalls: list[OciSyscall]


class DockerSyscallFilter(TypedDict, total=False):
    """A condition of a rule in Docker's profiles: architectures, capabilities, the least version of the kernel."""

    arches: list[str]
    caps: list[str]
    minKernel: str


class DockerSyscall(OciSyscall, total=False):
    """A rule of Docker's profiles, with conditions; ``name`` is one system call, as old profiles have it."""

    name: str
    includes: DockerSyscallFilter
    excludes: DockerSyscallFilter


class DockerArchitecture(TypedDict, total=False):
    """A machine in Docker's profiles, and others whose system calls it has."""

    architecture: str
    subArchitectures: list[str]


class DockerSeccomp(TypedDict, total=False):
    """A seccomp profile in Docker's own format, or OCI's, which is a part of it (moby, profiles/seccomp)."""

    defaultAction: str
    defaultErrnoRet: int
    architectures: list[str]
    archMap: list[DockerArchitecture]
    flags: list[str]
    listenerPath: str
    listenerMetadata: str
    syscalls: list[DockerSyscall]


class OciScheduler(TypedDict, total=False):
    """A scheduling policy with its parameters, times in nanoseconds."""

    policy: str
    nice: int
    priority: int
    flags: list[str]
    runtime: int
    deadline: int
    period: int


# ``class`` cannot be the name of a class's attribute.
OciIoPriority = TypedDict("OciIoPriority", {"class": str, "priority": int}, total=False)


class OciExecAffinity(TypedDict, total=False):
    """Lists of CPUs for an exec'd process, before and after it has entered the container's cgroup."""

    initial: str
    final: str


class OciProcess(TypedDict, total=False):
    """``seccomp`` is the filter of an exec'd process, an extension of ours: null is none, missing the container's."""

    args: list[str]
    env: list[str]
    cwd: str
    terminal: bool
    consoleSize: OciBox
    user: OciUser
    capabilities: OciCapabilities
    rlimits: list[OciRlimit]
    noNewPrivileges: bool
    apparmorProfile: str
    selinuxLabel: str
    oomScoreAdj: int
    ioPriority: OciIoPriority
    scheduler: OciScheduler
    execCPUAffinity: OciExecAffinity
    annotations: dict[str, str]
    seccomp: OciSeccomp | None


class OciHook(TypedDict, total=False):
    """A hook program; ``timeout`` in seconds."""

    path: str
    args: list[str]
    env: list[str]
    timeout: int


class OciHooks(TypedDict, total=False):
    """The hooks by their points, in order."""

    prestart: list[OciHook]
    createRuntime: list[OciHook]
    createContainer: list[OciHook]
    startContainer: list[OciHook]
    poststart: list[OciHook]
    poststop: list[OciHook]


class OciNamespace(TypedDict, total=False):
    """A namespace: a new one, or the one at ``path``."""

    type: str
    path: str


class OciDevice(TypedDict, total=False):
    """A node below /dev."""

    path: str
    type: str
    major: int
    minor: int
    fileMode: int
    uid: int
    gid: int


class OciDeviceRule(TypedDict, total=False):
    """Whether devices may be used; a number that is missing or null means all."""

    allow: bool
    type: str
    major: int | None
    minor: int | None
    access: str


class OciMemory(TypedDict, total=False):
    """Limits in bytes, -1 for none."""

    limit: int
    reservation: int
    swap: int
    kernel: int
    kernelTCP: int
    swappiness: int
    disableOOMKiller: bool
    useHierarchy: bool
    checkBeforeUpdate: bool


class OciCpu(TypedDict, total=False):
    """Weight, bandwidth (µs) and processors."""

    shares: int
    quota: int
    burst: int
    period: int
    realtimeRuntime: int
    realtimePeriod: int
    cpus: str
    mems: str
    idle: int


class OciPids(TypedDict, total=False):
    """The limit of processes."""

    limit: int


class OciWeightDevice(TypedDict, total=False):
    """A block device's weight."""

    major: int
    minor: int
    weight: int
    leafWeight: int


class OciThrottleDevice(TypedDict, total=False):
    """A block device's bytes or operations a second."""

    major: int
    minor: int
    rate: int


class OciBlockIO(TypedDict, total=False):
    """Weights and limits of block devices."""

    weight: int
    leafWeight: int
    weightDevice: list[OciWeightDevice]
    throttleReadBpsDevice: list[OciThrottleDevice]
    throttleWriteBpsDevice: list[OciThrottleDevice]
    throttleReadIOPSDevice: list[OciThrottleDevice]
    throttleWriteIOPSDevice: list[OciThrottleDevice]


class OciHugepageLimit(TypedDict, total=False):
    """Bytes of one size of huge pages (``2MB``)."""

    pageSize: str
    limit: int


class OciInterfacePriority(TypedDict, total=False):
    """The priority of packets on one network interface."""

    name: str
    priority: int


class OciNetwork(TypedDict, total=False):
    """The class of packets, and their priorities (cgroup v1)."""

    classID: int
    priorities: list[OciInterfacePriority]


class OciRdma(TypedDict, total=False):
    """Limits of one RDMA device."""

    hcaHandles: int
    hcaObjects: int


class OciResources(TypedDict, total=False):
    """The limits of a cgroup."""

    devices: list[OciDeviceRule]
    memory: OciMemory
    cpu: OciCpu
    pids: OciPids
    blockIO: OciBlockIO
    hugepageLimits: list[OciHugepageLimit]
    network: OciNetwork
    rdma: dict[str, OciRdma]
    unified: dict[str, str]


class OciNetDevice(TypedDict, total=False):
    """A network device's name in the container."""

    name: str


class OciTimeOffsets(TypedDict, total=False):
    """A clock of a time namespace, as its distance from the host's."""

    secs: int
    nanosecs: int


class OciMemoryPolicy(TypedDict, total=False):
    """The memory nodes that the process gets its memory from (set_mempolicy(2))."""

    mode: str
    nodes: str
    flags: list[str]


class OciPersonality(TypedDict, total=False):
    """The execution domain (personality(2))."""

    domain: str
    flags: list[str]


class OciLinux(TypedDict, total=False):
    """The Linux part of the configuration."""

    namespaces: list[OciNamespace]
    uidMappings: list[OciIdMapping]
    gidMappings: list[OciIdMapping]
    devices: list[OciDevice]
    cgroupsPath: str
    resources: OciResources
    sysctl: dict[str, str]
    seccomp: OciSeccomp | None
    rootfsPropagation: str
    maskedPaths: list[str]
    readonlyPaths: list[str]
    mountLabel: str
    netDevices: dict[str, OciNetDevice]
    timeOffsets: dict[str, OciTimeOffsets]
    memoryPolicy: OciMemoryPolicy
    personality: OciPersonality


class OciConfig(TypedDict, total=False):
    """The whole of ``config.json``."""

    ociVersion: str
    process: OciProcess
    root: OciRoot
    hostname: str
    domainname: str
    mounts: list[OciMount]
    hooks: OciHooks
    annotations: dict[str, str]
    linux: OciLinux


class OciHookState(TypedDict):
    """The state of a container (runtime.md, State)."""

    ociVersion: str
    id: str
    status: str
    pid: int
    bundle: str
    annotations: NotRequired[dict[str, str]]


class OciState(OciHookState):
    """The same with what runc adds; ``owner`` is the name of the user whose the container's state is."""

    rootfs: str
    created: str
    owner: str
