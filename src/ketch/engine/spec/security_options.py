"""``--security-opt``: what a container's options say about seccomp, masks, cgroups and nested user namespaces.

AppArmor's are read by `ketch.engine.apparmor`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch.engine.model.namespaces import nesting
from ketch.engine.model.records import AppliedDefaults
from ketch.engine.spec import seccomp_profile
from ketch.errors import UnclassifiedArgument
from ketch.notation import booleans
from ketch.runtime import defaults
from ketch.runtime.security import apparmor, seccomp_default

if TYPE_CHECKING:
    from ketch.engine.model.records import Container
    from ketch.runtime.oci_types import OciSeccomp

_SWITCHES = ("no-new-privileges", "writable-cgroups", nesting.NAME)


class SecurityOptions(msgspec.Struct):
    """The options of one container taken together; ``seccomp`` None: no filter.

    ``nests``: processes may make user namespaces, and in them what namespaces are made for.
    """

    no_new_privileges: bool
    seccomp: OciSeccomp | None
    unmasked: bool
    writable_cgroups: bool
    nests: bool


def read(container: Container, caps: list[str]) -> SecurityOptions:
    """The options of a container with these capabilities, above the daemon's (UnclassifiedArgument: no such option)."""
    host, own = container.host, container.defaults or AppliedDefaults()
    switches = {**dict.fromkeys(_SWITCHES, False), "no-new-privileges": own.no_new_privileges}
    profile, unmasked = "unconfined" if host.privileged else own.seccomp, host.privileged
    for option in host.security_opt or ():
        key, separator, value = nesting.split(option)
        if key in _SWITCHES and (found := _switch(key, separator, value)) is not None:
            switches[key] = found
        elif key == "seccomp" and separator:
            profile = value
        elif key == "systempaths" and value == "unconfined":
            unmasked = True
        elif not _is_of_others(key, separator, value):
            which = 2 if separator else 1
            hint = "this machine's kernel does not confine by AppArmor" if key == "apparmor" and separator else None
            raise UnclassifiedArgument(f'invalid --security-opt {which}: "{option}"', hint=hint)
    nests = switches[nesting.NAME]
    if nests and container.user_namespace is None and not defaults.mapped():
        raise UnclassifiedArgument(
            "--security-opt nesting: the container's root would be the machine's, with nothing masked",
            hint="add --userns auto, or start ketchd with --userns-default auto",
        )
    return SecurityOptions(
        switches["no-new-privileges"],
        _seccomp(profile, caps, nests),
        unmasked or nests,
        switches["writable-cgroups"] or (nests and not host.cgroupns.is_host),  # there others' cgroups are seen, too
        nests,
    )


def _switch(key: str, separator: str, value: str) -> bool | None:
    if not separator:
        return None if key == "writable-cgroups" else True
    return booleans.parse(value)


def _is_of_others(key: str, separator: str, value: str) -> bool:
    if key == "apparmor":
        return bool(separator) and (value == apparmor.UNCONFINED or apparmor.enabled())
    return key == "label" and value == "disable"


def _seccomp(profile: str, caps: list[str], nests: bool) -> OciSeccomp | None:
    if profile == "unconfined":
        return None
    if profile in ("", "builtin"):
        return seccomp_default.profile(caps, nesting=nests)
    return seccomp_default.from_docker(seccomp_profile.read(profile), caps)
