"""Permission to make user namespaces: who needs it, what may forbid it, and who can change that."""

from __future__ import annotations

import errno
import os

from ketch.errors import FailedPrecondition, KetchError
from ketch.linux import ns

_LIMIT = "user/max_user_namespaces"
_SETTINGS = (
    (_LIMIT, "0", "user.max_user_namespaces=15000"),
    ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
)
_TOO_MANY = (errno.ENOSPC, errno.EUSERS)


def refused(number: int, settings: str = "/proc/sys") -> KetchError:
    """The error of namespaces that were not made: the errno, 0 if the process that made them has ended."""
    reason = os.strerror(number).lower() if number else "its process ended"
    if number in _TOO_MANY:
        reason = "the machine's limit of them is reached"
    return FailedPrecondition(f"make a user namespace: {reason}", hint=_advice(number, settings))


def suffices() -> bool:
    """Whether this process is root with the rights that an engine needs, in whichever user namespace it is."""
    return os.geteuid() == 0 and ns.may("CAP_SYS_ADMIN") and (ns.may("CAP_NET_ADMIN") or not ns.LIMITED)


def check_proc() -> None:
    """Refuse to begin where no container could have a /proc of its own (FailedPrecondition).

    The kernel makes one in a user namespace only where all of the present one can be seen and written to.
    """
    if os.statvfs("/proc/sys").f_flag & os.ST_RDONLY:
        raise FailedPrecondition(
            "start ketchd in this container: parts of /proc are masked or read-only, so that no container in it can "
            "have a /proc",
            hint="Ketch leaves them open with --security-opt nesting=true, Docker with --security-opt "
            "systempaths=unconfined, Podman with --security-opt unmask=ALL",
        )


def forbidding_setting(settings: str = "/proc/sys") -> str:
    """Advice where a setting of the machine forbids user namespaces, or their use; empty: none does."""
    for name, forbids, text in _SETTINGS:
        if _value(f"{settings}/{name}") == forbids:
            return f"the administrator can allow it: sysctl {text}"
    return ""


def _advice(number: int, settings: str) -> str:
    if advice := forbidding_setting(settings):
        return advice
    if number in _TOO_MANY:
        return f"the administrator can raise it: sysctl user.max_user_namespaces, now {_value(f'{settings}/{_LIMIT}')}"
    if _filtered():
        return (
            "this container forbids it: Ketch allows it with --security-opt nesting=true, others with "
            "--security-opt seccomp=unconfined"
        )
    return "does the kernel have user namespaces (CONFIG_USER_NS)?"


def _value(path: str) -> str:
    try:
        with open(path, encoding="ascii") as f:
            return f.read().strip()
    except FileNotFoundError:
        return ""


def _filtered() -> bool:
    """Whether a seccomp filter says what system calls do."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as f:
        return any(line.split() == ["Seccomp:", "2"] for line in f)
