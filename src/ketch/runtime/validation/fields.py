"""Every field of the OCI runtime specification's Linux configuration: its type, and those that are refused.

`validation.check` walks a configuration by this table before anything is made of it, so that a field is either done
or refused by name, and nothing is ignored silently.  What the specification does not know is left alone, as it says
(config.md, Extensibility).

A type is ``string``, ``bool``, a number's range, a tuple of the texts that are allowed, a list of one type, or an
object: a dict by name, where ``!`` follows the name of a field that must be there and ``*`` stands for any name.
docs/oci.md tells what becomes of each.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RANGES = {
    "int32": (-(1 << 31), (1 << 31) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
    "uint16": (0, (1 << 16) - 1),
    "uint32": (0, (1 << 32) - 1),
    "uint64": (0, (1 << 64) - 1),
    "positive": (1, (1 << 63) - 1),
}

_STRINGS = ["string"]
_ID_MAPPINGS = [{"containerID!": "uint32", "hostID!": "uint32", "size!": "uint32"}]
_HOOKS = [{"path!": "string", "args": _STRINGS, "env": _STRINGS, "timeout": "positive"}]
_THROTTLES = [{"major!": "int64", "minor!": "int64", "rate": "uint64"}]
_OFFSET = {"secs": "int64", "nanosecs": "uint32"}
_SCHEDULER_POLICIES = (
    "SCHED_OTHER",
    "SCHED_FIFO",
    "SCHED_RR",
    "SCHED_BATCH",
    "SCHED_ISO",
    "SCHED_IDLE",
    "SCHED_DEADLINE",
)
_SCHEDULER_FLAGS = (
    "SCHED_FLAG_RESET_ON_FORK",
    "SCHED_FLAG_RECLAIM",
    "SCHED_FLAG_DL_OVERRUN",
    "SCHED_FLAG_KEEP_POLICY",
    "SCHED_FLAG_KEEP_PARAMS",
    "SCHED_FLAG_UTIL_CLAMP_MIN",
    "SCHED_FLAG_UTIL_CLAMP_MAX",
)

PROCESS: dict[str, Any] = {
    "terminal": "bool",
    "consoleSize": {"height!": "uint64", "width!": "uint64"},
    "user": {"uid": "uint32", "gid": "uint32", "umask": "uint32", "additionalGids": ["uint32"], "username": "string"},
    "args": _STRINGS,
    "env": _STRINGS,
    "cwd!": "string",
    "capabilities": {
        "bounding": _STRINGS,
        "permitted": _STRINGS,
        "effective": _STRINGS,
        "inheritable": _STRINGS,
        "ambient": _STRINGS,
    },
    "rlimits": [{"type!": "string", "soft!": "uint64", "hard!": "uint64"}],
    "noNewPrivileges": "bool",
    "apparmorProfile": "string",
    "selinuxLabel": "string",
    "oomScoreAdj": "int64",
    "ioPriority": {"class!": ("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"), "priority": "int32"},
    "scheduler": {
        "policy!": _SCHEDULER_POLICIES,
        "nice": "int32",
        "priority": "int32",
        "flags": [_SCHEDULER_FLAGS],
        "runtime": "uint64",
        "deadline": "uint64",
        "period": "uint64",
    },
    "execCPUAffinity": {"initial": "string", "final": "string"},
}

RESOURCES: dict[str, Any] = {
    "devices": [{"allow!": "bool", "type": "string", "major": "int64", "minor": "int64", "access": "string"}],
    "memory": {
        "limit": "int64",
        "reservation": "int64",
        "swap": "int64",
        "kernel": "int64",
        "kernelTCP": "int64",
        "swappiness": "uint64",
        "disableOOMKiller": "bool",
        "useHierarchy": "bool",
        "checkBeforeUpdate": "bool",
    },
    "cpu": {
        "shares": "uint64",
        "quota": "int64",
        "burst": "uint64",
        "period": "uint64",
        "realtimeRuntime": "int64",
        "realtimePeriod": "uint64",
        "cpus": "string",
        "mems": "string",
        "idle": "int64",
    },
    "pids": {"limit!": "int64"},
    "blockIO": {
        "weight": "uint16",
        "leafWeight": "uint16",
        "weightDevice": [{"major!": "int64", "minor!": "int64", "weight": "uint16", "leafWeight": "uint16"}],
        "throttleReadBpsDevice": _THROTTLES,
        "throttleWriteBpsDevice": _THROTTLES,
        "throttleReadIOPSDevice": _THROTTLES,
        "throttleWriteIOPSDevice": _THROTTLES,
    },
    "hugepageLimits": [{"pageSize!": "string", "limit!": "uint64"}],
    "network": {"classID": "uint32", "priorities": [{"name!": "string", "priority!": "uint32"}]},
    "rdma": {"*": {"hcaHandles": "uint32", "hcaObjects": "uint32"}},
    "unified": {"*": "string"},
}

_SECCOMP = {
    "defaultAction!": "string",
    "defaultErrnoRet": "uint32",
    "architectures": _STRINGS,
    "flags": _STRINGS,
    "listenerPath": "string",
    "listenerMetadata": "string",
    "syscalls": [
        {
            "names!": _STRINGS,
            "action!": "string",
            "errnoRet": "uint32",
            "args": [{"index!": "uint32", "value!": "uint64", "valueTwo": "uint64", "op!": "string"}],
        }
    ],
}

_LINUX = {
    "namespaces": [{"type!": "string", "path": "string"}],
    "uidMappings": _ID_MAPPINGS,
    "gidMappings": _ID_MAPPINGS,
    "timeOffsets": {"monotonic": _OFFSET, "boottime": _OFFSET},
    "devices": [
        {
            "path!": "string",
            "type!": "string",
            "major": "int64",
            "minor": "int64",
            "fileMode": "uint32",
            "uid": "uint32",
            "gid": "uint32",
        }
    ],
    "netDevices": {"*": {"name": "string"}},
    "cgroupsPath": "string",
    "resources": RESOURCES,
    "rootfsPropagation": ("private", "rprivate", "rshared", "rslave", "runbindable", "shared", "slave", "unbindable"),
    "sysctl": {"*": "string"},
    "seccomp": _SECCOMP,
    "maskedPaths": _STRINGS,
    "readonlyPaths": _STRINGS,
    "mountLabel": "string",
    "intelRdt": {
        "closID": "string",
        "schemata": _STRINGS,
        "l3CacheSchema": "string",
        "memBwSchema": "string",
        "enableMonitoring": "bool",
    },
    "memoryPolicy": {
        "mode": (
            "MPOL_DEFAULT",
            "MPOL_BIND",
            "MPOL_INTERLEAVE",
            "MPOL_WEIGHTED_INTERLEAVE",
            "MPOL_PREFERRED",
            "MPOL_PREFERRED_MANY",
            "MPOL_LOCAL",
        ),
        "nodes": "string",
        "flags": [("MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES")],
    },
    "personality": {"domain": ("LINUX", "LINUX32"), "flags": _STRINGS},
}

CONFIG: dict[str, Any] = {
    "ociVersion!": "string",
    "root": {"path!": "string", "readonly": "bool"},
    "process": PROCESS,
    "hostname": "string",
    "domainname": "string",
    "mounts": [
        {
            "destination!": "string",
            "type": "string",
            "source": "string",
            "options": _STRINGS,
            "uidMappings": _ID_MAPPINGS,
            "gidMappings": _ID_MAPPINGS,
        }
    ],
    "hooks": {
        "prestart": _HOOKS,
        "createRuntime": _HOOKS,
        "createContainer": _HOOKS,
        "startContainer": _HOOKS,
        "poststart": _HOOKS,
        "poststop": _HOOKS,
    },
    "annotations": {"*": "string"},
    "linux": _LINUX,
    "vm": {"*": "any"},
}

# Fields that are refused when they have a value, and why.  Those that depend on the version of cgroups are refused by
# `cgroups.refusals`.
REFUSED = {
    "linux.intelRdt": "the runtime makes no resctrl groups",
    "linux.personality.flags": "the specification has no values for it",
    "linux.resources.memory.kernel": "kernel memory has no limit of its own since Linux 5.16",
    "vm": "the runtime makes no virtual machines",
}
