"""Docker's defaults of a container: capabilities, mounts, masked paths, device rules; for the engine's spec writer."""

from __future__ import annotations

import os

from ketch.linux import caps
from ketch.linux.ns import LIMITED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciDeviceRule, OciMount


ALL_CAPS = list(caps.NAMES)
DEFAULT_CAPS = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
]

MASKED_PATHS = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
]

READONLY_PATHS = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]

NAMESPACES = ["mount", "pid", "network", "ipc", "uts", "cgroup"]


_TTY = 5  # the group of terminals in most distributions


def mounts(*, shm_size: int = 64 << 20, privileged: bool = False, ipc: str = "") -> list[OciMount]:
    """The mounts of every container, in the order in which they must be made; ``shm_size`` in bytes.

    ``ipc`` is Docker's mode: with ``host`` /dev/shm is the host's, as it is, and with ``none`` there is none.
    """
    guard = ["nosuid", "noexec", "nodev"]
    access = "rw" if privileged else "ro"
    shm: OciMount = {
        "destination": "/dev/shm",
        "type": "tmpfs",
        "source": "shm",
        "options": [*guard, "mode=1777", f"size={shm_size}"],
    }
    if ipc == "host":
        shm = {"destination": "/dev/shm", "type": "bind", "source": "/dev/shm", "options": ["rbind", "rprivate"]}
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": [*guard]},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", f"gid={_TTY}"],
        },
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*guard, access]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [*guard, access]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": [*guard]},
        *([] if ipc == "none" else [shm]),
    ]


def possible(mount_list: list[OciMount], namespaces: set[str]) -> list[OciMount]:
    """The mounts as this process can make them: for who is no root, what shows a namespace of the machine's is bound.

    Nobody but the owner of a namespace makes such a file system.  ``namespaces``: the kinds that are not the machine's.
    """
    if not LIMITED:
        return mount_list
    if not _has_group(_TTY):
        for mount in mount_list:
            mount["options"] = [option for option in mount["options"] if option != f"gid={_TTY}"]
    shown = {"proc": "pid", "sysfs": "network", "mqueue": "ipc"}
    found: list[OciMount] = []
    for mount in mount_list:
        if shown.get(mount["type"], "") in ("", *namespaces):
            found.append(mount)
        elif os.path.isdir(path := mount["destination"]):  # not every machine has mounted an mqueue
            options = ["rbind", "rslave", *mount["options"]]
            found.append({"destination": path, "type": "bind", "source": path, "options": options})
    return found


def mapped() -> bool:
    """Whether containers are in a user namespace, whatever they ask for: the engine's own."""
    return LIMITED


def possible_oom_score_adj(wanted: int) -> int:
    """The value that a container can have: who is no root may raise their own, and lower it not (CAP_SYS_RESOURCE).

    A user's systemd gives its services some 100, so that they are ended before the machine's.
    """
    if not LIMITED:
        return wanted
    with open("/proc/self/oom_score_adj", encoding="ascii") as file:
        return max(wanted, int(file.read()))


def _has_group(gid: int) -> bool:
    """Whether a group has an id in this user namespace."""
    with open("/proc/self/gid_map", encoding="ascii") as file:
        rows = [[int(number) for number in line.split()] for line in file]
    return any(first <= gid < first + count for first, _, count in rows)


def device_rules() -> list[OciDeviceRule]:
    """cgroup device rules: nothing, except making any node and using the ones that are in every /dev."""
    rules: list[OciDeviceRule] = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "access": "m"},
        {"allow": True, "type": "b", "access": "m"},
    ]
    # null zero full tty random urandom; console; ptmx and every pts; net/tun
    for major, minor in ((1, 3), (1, 5), (1, 7), (5, 0), (1, 8), (1, 9), (5, 1), (5, 2), (10, 200)):
        rules.append({"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"})
    rules.append({"allow": True, "type": "c", "major": 136, "access": "rwm"})
    return rules
