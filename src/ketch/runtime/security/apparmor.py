"""AppArmor as the kernel shows it: whether it is on, which profiles are loaded, which one this process has.

Profiles are looked up in securityfs, which only root may read, and which few containers have.
"""

from __future__ import annotations

UNCONFINED = "unconfined"
_ENABLED = "/sys/module/apparmor/parameters/enabled"
_PROFILES = "/sys/kernel/security/apparmor/profiles"
_OWN = "/proc/self/attr/apparmor/current"


def enabled() -> bool:
    """Whether the kernel confines by AppArmor: it is built in, and not turned off at boot."""
    try:
        with open(_ENABLED, "rb") as file:
            return file.read(1) == b"Y"
    except FileNotFoundError:
        return False


def manageable() -> bool:
    """Whether profiles can be looked up and loaded here: securityfs is mounted."""
    try:
        with open(_PROFILES, "rb"):
            return True
    except (FileNotFoundError, PermissionError):
        return False


def is_loaded(name: str) -> bool:
    """Whether the kernel has a profile of this name (OSError where `manageable` is false)."""
    wanted = f"{name} (".encode()  # what follows is the mode, e.g. `(enforce)`
    with open(_PROFILES, "rb") as file:
        return any(line.startswith(wanted) for line in file)


def own_profile() -> str:
    """The name of the profile that confines this process, ``unconfined`` if there is none."""
    try:
        with open(_OWN, "rb") as file:
            label = file.read().rstrip(b"\0\n").decode(errors="replace")
    except OSError:  # EINVAL: AppArmor is off
        return UNCONFINED
    name, mode, _ = label.rpartition(" (")
    return (name if mode else label) or UNCONFINED
