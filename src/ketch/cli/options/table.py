"""The table of options: each flag of ``run`` and ``create``, and those of ``update`` that mean the same.

A row has the flag, the type of its value, the field of a create request that it sets, the key of a Compose service
that says the same, and its help.  ``run_flags`` reads command lines by it, and ``recreate`` writes command lines and
Compose files: a new option with a field of its own is one row.  A row without a field makes one together with others
(``run_flags`` reads those, `recreate` writes them), or is no matter of the container.

Command lines and Compose files have their parts in the table's order.
"""

from __future__ import annotations

from ketch.cli.options.value_types import (
    CAPABILITIES,
    COUNT,
    CPUS,
    DEVICE_LIMITS,
    DEVICES,
    DURATION,
    EXTRA_HOSTS,
    HEALTH_COMMAND,
    MOUNTS,
    NUMBER,
    PAIRS,
    RESTART,
    SECONDS,
    SECRETS,
    SECURITY,
    SIZE,
    SWAP,
    SWITCH,
    TEXT,
    TMPFS,
    ULIMITS,
    WORDS,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.cli.options.flags import FlagSet
    from ketch.cli.options.value_types import ValueType

_CREATE = ("run", "create")
_UPDATE = (*_CREATE, "update")


class Option:
    """One row; ``field`` is a path in the request's body, ``service`` one in a service of a Compose file.

    ``absent`` is what is sent when the flag is not given, if anything: what docker sends.
    """

    __slots__ = ("absent", "commands", "field", "flag", "help", "service", "short", "type")

    def __init__(  # noqa: PLR0913
        self,
        flag: str,
        type: ValueType,
        field: str,
        service: str,
        help: str,
        short: str = "",
        commands: tuple[str, ...] = _CREATE,
        absent: Any = None,
    ) -> None:
        self.flag, self.type, self.field, self.service, self.help = flag, type, field, service, help
        self.short, self.commands, self.absent = short, commands, absent


OPTIONS = (
    # the streams, and the container itself
    Option("detach", SWITCH, "", "", "run it in the background and print its id", "d", ("run",)),
    Option("attach", WORDS, "", "", "attach to stdin, stdout or stderr", "a"),
    Option("interactive", SWITCH, "OpenStdin", "stdin_open", "keep standard input open", "i", absent=False),
    Option("tty", SWITCH, "Tty", "tty", "give it a terminal", "t", absent=False),
    Option("detach-keys", TEXT, "", "", "keys that detach", "", ("run",)),
    Option("rm", SWITCH, "HostConfig.AutoRemove", "", "remove it when it ends", absent=False),
    Option("name", TEXT, "", "", "its name"),
    Option("hostname", TEXT, "Hostname", "hostname", "its host name", "h"),
    Option("domainname", TEXT, "Domainname", "domainname", "its domain name"),
    Option("user", TEXT, "User", "user", "name or id, with :GROUP", "u"),
    Option("workdir", TEXT, "WorkingDir", "working_dir", "where the program starts", "w"),
    Option("entrypoint", TEXT, "", "", "the program instead of the image's"),
    Option("stop-signal", TEXT, "StopSignal", "stop_signal", "the signal that asks it to end"),
    Option("stop-timeout", SECONDS, "StopTimeout", "stop_grace_period", "seconds until it is killed"),
    Option("restart", RESTART, "HostConfig.RestartPolicy", "restart", "no, always, unless-stopped, on-failure[:MOST]",
           commands=_UPDATE, absent={"Name": "no", "MaximumRetryCount": 0}),
    Option("init", SWITCH, "HostConfig.Init", "init", "run an init that passes signals on and reaps processes"),
    Option("platform", TEXT, "", "", "of the image: OS/ARCHITECTURE[/VARIANT]"),
    Option("pull", TEXT, "", "", "pull the image: always, missing, never"),
    Option("quiet", SWITCH, "", "", "do not show how the image comes", "q"),
    Option("cidfile", TEXT, "HostConfig.ContainerIDFile", "", "file to write its id to"),
    Option("disable-content-trust", SWITCH, "", "", "no effect"),
    Option("env", WORDS, "", "", "set an environment variable", "e"),
    Option("env-file", WORDS, "", "", "set the environment variables of a file"),
    Option("label", WORDS, "", "", "set a label", "l"),
    Option("label-file", WORDS, "", "", "set the labels of a file"),
    Option("annotation", PAIRS, "HostConfig.Annotations", "annotations", "an annotation for the runtime"),

    # ports, networks
    Option("publish", WORDS, "", "", "publish a port: [[IP:]HOST:]CONTAINER[/PROTOCOL]", "p"),
    Option("publish-all", SWITCH, "HostConfig.PublishAllPorts", "", "publish all exposed ports", "P", absent=False),
    Option("expose", WORDS, "", "", "say that it uses a port"),
    Option("network", WORDS, "", "", "connect it to a network"),
    Option("net", WORDS, "", "", "the same as --network"),
    Option("network-alias", WORDS, "", "", "one more name in the network"),
    Option("ip", TEXT, "", "", "its IPv4 address"),
    Option("ip6", TEXT, "", "", "its IPv6 address"),
    Option("link-local-ip", WORDS, "", "", "one more address"),
    Option("mac-address", TEXT, "", "", "its MAC address"),
    Option("link", WORDS, "HostConfig.Links", "external_links", "know another container by name: NAME[:ALIAS]"),
    Option("add-host", EXTRA_HOSTS, "HostConfig.ExtraHosts", "extra_hosts", "a line of /etc/hosts: NAME:ADDRESS"),
    Option("dns", WORDS, "HostConfig.Dns", "dns", "a server of names"),
    Option("dns-option", WORDS, "HostConfig.DnsOptions", "dns_opt", "an option of resolv.conf"),
    Option("dns-search", WORDS, "HostConfig.DnsSearch", "dns_search", "a domain in which names are looked for"),

    # rights, namespaces
    Option("cap-add", CAPABILITIES, "HostConfig.CapAdd", "cap_add", "give it a capability"),
    Option("cap-drop", CAPABILITIES, "HostConfig.CapDrop", "cap_drop", "take a capability away"),
    Option("privileged", SWITCH, "HostConfig.Privileged", "privileged", "give it all rights and devices", absent=False),
    Option("security-opt", SECURITY, "HostConfig.SecurityOpt", "security_opt", "an option of a security module"),
    Option("group-add", WORDS, "HostConfig.GroupAdd", "group_add", "one more group"),
    Option("read-only", SWITCH, "HostConfig.ReadonlyRootfs", "read_only", "its root cannot be written", absent=False),
    Option("cgroupns", TEXT, "HostConfig.CgroupnsMode", "cgroup", "cgroup namespace: private, host"),
    Option("ipc", TEXT, "HostConfig.IpcMode", "ipc", "IPC namespace: none, private, shareable, host, container:NAME"),
    Option("pid", TEXT, "HostConfig.PidMode", "pid", "PID namespace: host, container:NAME"),
    Option("uts", TEXT, "HostConfig.UTSMode", "uts", "UTS namespace: host"),
    Option("userns", TEXT, "HostConfig.UsernsMode", "userns_mode", "user namespace: host, auto, auto:size=COUNT"),
    Option("cgroup-parent", TEXT, "HostConfig.CgroupParent", "cgroup_parent", "parent of its cgroup"),
    Option("isolation", TEXT, "HostConfig.Isolation", "isolation", "no effect: default"),
    Option("runtime", TEXT, "HostConfig.Runtime", "runtime", "the runtime that starts it"),
    Option("sysctl", PAIRS, "HostConfig.Sysctls", "sysctls", "a kernel parameter of its own"),
    Option("ulimit", ULIMITS, "HostConfig.Ulimits", "ulimits", "a limit of its processes: NAME=SOFT[:HARD]", absent=()),

    # devices
    Option("device", DEVICES, "HostConfig.Devices", "devices", "a device: HOST[:CONTAINER[:rwm]], or its CDI name"),
    Option("device-cgroup-rule", WORDS, "HostConfig.DeviceCgroupRules", "device_cgroup_rules",
           "rule for devices that it may use"),
    Option("gpus", TEXT, "", "", "GPUs: all, a number, device=NAME"),

    # limits
    Option("memory", SIZE, "HostConfig.Memory", "mem_limit", "limit of memory", "m", _UPDATE),
    Option("memory-reservation", SIZE, "HostConfig.MemoryReservation", "mem_reservation",
           "memory that it keeps when there is little", commands=_UPDATE),
    Option("memory-swap", SWAP, "HostConfig.MemorySwap", "memswap_limit", "limit of memory and swap; -1: none",
           commands=_UPDATE),
    Option("memory-swappiness", NUMBER, "HostConfig.MemorySwappiness", "mem_swappiness",
           "how soon memory is swapped out: 0 to 100", absent=-1),
    Option("oom-kill-disable", SWITCH, "HostConfig.OomKillDisable", "oom_kill_disable",
           "do not kill it when memory runs out", absent=False),
    Option("oom-score-adj", NUMBER, "HostConfig.OomScoreAdj", "oom_score_adj",
           "how soon it is killed when memory runs out: -1000 to 1000"),
    Option("shm-size", SIZE, "HostConfig.ShmSize", "shm_size", "size of /dev/shm"),
    Option("cpus", CPUS, "HostConfig.NanoCpus", "cpus", "number of processors", commands=_UPDATE),
    Option("cpu-shares", NUMBER, "HostConfig.CpuShares", "cpu_shares",
           "weight of its CPU time among others", "c", _UPDATE),
    Option("cpu-period", NUMBER, "HostConfig.CpuPeriod", "cpu_period",
           "period of --cpu-quota, in microseconds", commands=_UPDATE),
    Option("cpu-quota", NUMBER, "HostConfig.CpuQuota", "cpu_quota",
           "CPU time in a period, in microseconds", commands=_UPDATE),
    Option("cpu-rt-period", NUMBER, "HostConfig.CpuRealtimePeriod", "cpu_rt_period",
           "period of --cpu-rt-runtime, in microseconds", commands=_UPDATE),
    Option("cpu-rt-runtime", NUMBER, "HostConfig.CpuRealtimeRuntime", "cpu_rt_runtime",
           "CPU time of real-time processes in a period", commands=_UPDATE),
    Option("cpuset-cpus", TEXT, "HostConfig.CpusetCpus", "cpuset", "processors that it may use", commands=_UPDATE),
    Option("cpuset-mems", TEXT, "HostConfig.CpusetMems", "", "memory nodes that it may use", commands=_UPDATE),
    Option("pids-limit", NUMBER, "HostConfig.PidsLimit", "pids_limit", "number of processes; -1: any",
           commands=_UPDATE, absent=0),
    Option("blkio-weight", NUMBER, "HostConfig.BlkioWeight", "blkio_config.weight", "share of disk traffic: 10 to 1000",
           commands=_UPDATE),
    Option("blkio-weight-device", DEVICE_LIMITS, "HostConfig.BlkioWeightDevice", "blkio_config.weight_device",
           "share of a device's traffic: /dev/DEVICE:WEIGHT", absent=()),
    Option("device-read-bps", DEVICE_LIMITS, "HostConfig.BlkioDeviceReadBps", "blkio_config.device_read_bps",
           "limit of reading: /dev/DEVICE:BYTES a second", absent=()),
    Option("device-write-bps", DEVICE_LIMITS, "HostConfig.BlkioDeviceWriteBps", "blkio_config.device_write_bps",
           "limit of writing: /dev/DEVICE:BYTES a second", absent=()),
    Option("device-read-iops", DEVICE_LIMITS, "HostConfig.BlkioDeviceReadIOps", "blkio_config.device_read_iops",
           "limit of reading: /dev/DEVICE:OPERATIONS a second", absent=()),
    Option("device-write-iops", DEVICE_LIMITS, "HostConfig.BlkioDeviceWriteIOps", "blkio_config.device_write_iops",
           "limit of writing: /dev/DEVICE:OPERATIONS a second", absent=()),

    # files
    Option("volume", WORDS, "", "volumes", "mount a volume or a directory: [SOURCE:]TARGET[:OPTIONS]", "v"),
    Option("mount", MOUNTS, "HostConfig.Mounts", "volumes", "mount something: type=…,source=…,target=…"),
    Option("tmpfs", TMPFS, "HostConfig.Tmpfs", "tmpfs", "a file system in memory: TARGET[:OPTIONS]"),
    Option("volumes-from", WORDS, "HostConfig.VolumesFrom", "volumes_from", "mount what another container mounts"),
    Option("volume-driver", TEXT, "HostConfig.VolumeDriver", "", "the driver of volumes that are made"),
    Option("storage-opt", PAIRS, "HostConfig.StorageOpt", "storage_opt", "of its root: size=SIZE"),
    Option("secret", SECRETS, "HostConfig.Secrets", "", "a file that only it sees: id=NAME,src=PATH"),

    # logs, health
    Option("log-driver", TEXT, "", "", "where its output goes"),
    Option("log-opt", WORDS, "", "", "an option of the log driver"),
    Option("health-cmd", HEALTH_COMMAND, "Healthcheck.Test", "healthcheck.test", "the command that says how it is"),
    Option("health-interval", DURATION, "Healthcheck.Interval", "healthcheck.interval", "time between two checks"),
    Option("health-timeout", DURATION, "Healthcheck.Timeout", "healthcheck.timeout", "time that a check may take"),
    Option("health-start-period", DURATION, "Healthcheck.StartPeriod", "healthcheck.start_period",
           "time in which failures do not count"),
    Option("health-start-interval", DURATION, "Healthcheck.StartInterval", "healthcheck.start_interval",
           "time between two checks at first"),
    Option("health-retries", COUNT, "Healthcheck.Retries", "healthcheck.retries", "failures until it is unhealthy"),
    Option("health-on-failure", TEXT, "Healthcheck.OnFailure", "", "what is done then: none, kill, restart, stop"),
    Option("no-healthcheck", SWITCH, "", "", "no check, also not the image's"),
)  # fmt: skip


def declare(spec: FlagSet, command: str) -> FlagSet:
    """The command's flags of this table."""
    for option in OPTIONS:
        if command in option.commands:
            spec.add(option.flag, option.short, option.type.parser, option.help)
    return spec
