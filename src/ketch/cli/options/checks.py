"""Checks of ``run``'s flags before the request, with Docker's rules and messages."""

from __future__ import annotations

from ketch.cli.errors import UsageError
from ketch.notation.namespace_modes import container_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.options.flags import Options
    from ketch.notation.api_objects import ApiObject

_LIMITS = frozenset(
    (
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    )
)
# Kernel parameters that belong to a namespace (sysctl(8)): only these can be a container's own.
_SYSCTLS = frozenset(
    (
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    )
)
_MODES = {"pid": ("", "host"), "uts": ("", "host"), "cgroupns": ("", "private", "host")}
_PULL = ("always", "missing", "never")


def check(opts: Options) -> None:
    """Check for contradicting flags (UsageError)."""
    _health(opts)
    if opts["rm"] and opts["restart"].partition(":")[0] not in ("", "no"):
        raise UsageError("conflicting options: cannot specify both --restart and --rm")
    if opts["pull"] not in ("", *_PULL):
        raise UsageError(f'invalid pull option: \'{opts["pull"]}\': must be one of "always", "missing" or "never"')
    for flag, words in _MODES.items():
        mode = opts[flag]
        if mode not in words and not (flag == "pid" and container_of(mode) is not None):
            raise UsageError(f"--{flag}: invalid mode: {mode}", hint=f"use {', '.join(filter(None, words))}")
    if opts["userns"].partition(":")[0] not in ("", "host", "auto"):
        raise UsageError(f"--userns: invalid mode: {opts['userns']}", hint="use host, auto, auto:size=COUNT")
    if opts["memory-swappiness"] is not None and not -1 <= opts["memory-swappiness"] <= 100:
        raise UsageError(f"invalid value: {opts['memory-swappiness']}: valid memory swappiness range is 0-100")
    _addresses(opts["dns"])
    _sysctls(opts["sysctl"])


def _health(opts: Options) -> None:
    flags = ("health-cmd", "health-interval", "health-timeout", "health-start-period", "health-start-interval")
    if opts["no-healthcheck"] and (any(opts[flag] for flag in flags) or opts["health-retries"]):
        raise UsageError("--no-healthcheck conflicts with --health-* options")
    for flag in flags[1:]:
        if opts[flag].startswith("-"):
            raise UsageError(f"--{flag} cannot be negative")
    if (opts["health-retries"] or 0) < 0:
        raise UsageError("--health-retries cannot be negative")


def _addresses(texts: list[str]) -> None:
    for address in texts:
        if not is_address(address.strip()):
            raise UsageError(f"IP address is not correctly formatted: {address}")


def _sysctls(items: list[str]) -> None:
    for item in items:
        name = item.partition("=")[0]
        if not (name in _SYSCTLS or name.startswith(("net.", "fs.mqueue."))) or "=" not in item:
            raise UsageError(f"sysctl '{item}' is not allowed", hint="it is no kernel parameter of a container's own")


def is_address(text: str) -> bool:
    """Whether a text is an IPv4 or IPv6 address."""
    import socket

    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return True
    return False


def ulimit(text: str) -> ApiObject:
    """Parse ``nofile=1024[:2048]``."""
    name, _, values = text.partition("=")
    if name not in _LIMITS:
        raise UsageError(f"invalid ulimit type: {name}", hint="write NAME=SOFT[:HARD], e.g. nofile=1024:2048")
    soft, colon, hard = values.partition(":")
    try:
        low, high = int(soft), int(hard) if colon else int(soft)
    except ValueError:
        raise UsageError(f"invalid --ulimit `{text}`", hint="write NAME=SOFT[:HARD], e.g. nofile=1024:2048") from None
    if high != -1 and (low > high or low == -1):
        raise UsageError(f"ulimit soft limit must be less than or equal to hard limit: {low} > {high}")
    return {"Name": name, "Soft": low, "Hard": high}


def capabilities(names: list[str]) -> list[str] | None:
    """Capabilities in canonical form (``CAP_NET_ADMIN``), each once, in order; ALL stands for all others."""
    known = {f"CAP_{name.strip().upper().removeprefix('CAP_')}" for name in names}
    return ["ALL"] if "CAP_ALL" in known else sorted(known) or None
