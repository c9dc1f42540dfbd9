"""Filters of the spec's ``linux.seccomp``: what a profile asks for, and its program, which is compiled once.

Compiling costs milliseconds, so programs are kept by equality of the JSON value.  The launcher compiles
the default profile once (`warm`) and every container that it forks finds it in its inherited memory.
"""

from __future__ import annotations

from ketch.errors import RuntimeFailure
from ketch.linux import seccomp as native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciSeccomp


_NOTIFY = "SCMP_ACT_NOTIFY"
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": native.FILTER_FLAG_TSYNC,
    "SECCOMP_FILTER_FLAG_LOG": native.FILTER_FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": native.FILTER_FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": native.FILTER_FLAG_WAIT_KILLABLE_RECV,
}
_cache: list[tuple[OciSeccomp, bytes]] = []


def warm(profile: OciSeccomp) -> None:
    """Compile ``profile`` in advance for processes forked later; any number of profiles is kept."""
    if compiled(profile) is None:
        remember(profile, compile_profile(profile))


def remember(profile: OciSeccomp, program: bytes) -> None:
    """Keep ``program``, to which ``profile`` was compiled before, for processes forked later."""
    _cache.append((profile, program))


def compiled(profile: OciSeccomp) -> bytes | None:
    """The program kept for an equal profile."""
    for known, program in _cache:
        if known is profile or known == profile:
            return program
    return None


def flags_of(profile: OciSeccomp) -> int:
    """The flags of seccomp(2) for the profile's ``flags`` (RuntimeFailure with step ``seccomp``: unknown one)."""
    names = profile.get("flags")
    flags = native.FILTER_FLAG_SPEC_ALLOW if names is None else 0
    for name in names or ():
        if name not in FLAGS:
            raise RuntimeFailure(f"read config.json: unknown seccomp flag `{name}`", step="seccomp")
        flags |= FLAGS[name]
    if notifies(profile):  # the kernel gives no listener with TSYNC, and there is one thread
        flags = flags & ~native.FILTER_FLAG_TSYNC | native.FILTER_FLAG_NEW_LISTENER
    return flags


def notifies(profile: OciSeccomp) -> bool:
    """Whether a filter has a supervisor asked, to whom its listener goes (see `seccomp_listener`)."""
    return any(rule.get("action") == _NOTIFY for rule in profile.get("syscalls") or ())


def check_notifications(profile: OciSeccomp) -> None:
    """Check what a profile says of notifications (RuntimeFailure with step ``seccomp``).

    Nobody may have to be asked about a write: it is how a process tells that its program could not be executed.
    """
    why = ""
    notified = [rule for rule in profile.get("syscalls") or () if rule.get("action") == _NOTIFY]
    if profile.get("defaultAction") == _NOTIFY:
        why = f"{_NOTIFY} cannot be the default action"
    elif any("write" in (rule.get("names") or ()) for rule in notified):
        why = f"{_NOTIFY} cannot be the action of write"
    elif notified and not profile.get("listenerPath"):
        why = f"{_NOTIFY} needs a listenerPath"
    elif profile.get("listenerMetadata") and not profile.get("listenerPath"):
        why = "listenerMetadata needs a listenerPath"
    if why:
        raise RuntimeFailure(f"read config.json: linux.seccomp: {why}", step="seccomp")


def filter_of(profile: OciSeccomp) -> native.Program:
    """The compiled profile (RuntimeFailure with step ``seccomp``)."""
    return native.Program(compiled(profile) or compile_profile(profile), flags_of(profile))


def compile_profile(profile: OciSeccomp) -> bytes:
    """Compile a profile, without the cache (RuntimeFailure with step ``seccomp``)."""
    from ketch.runtime.security import seccomp_compiler  # most profiles have been compiled before

    check_notifications(profile)
    return seccomp_compiler.compile_profile(profile)
