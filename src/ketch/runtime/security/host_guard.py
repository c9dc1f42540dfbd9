"""Refusal of settings that would change the host, because the container shares the namespace they belong to.

Called before anything is made.  A namespace counts as the container's own when it is new, or joined by a path that
does not lead to the runtime's.  Without a mount namespace of its own a container gets its root by chroot(2) and
nothing else of `rootfs` and `mounts`: each mount, each read-only or masked path would be one of the other processes
of that namespace, too.
Kernel parameters are `sysctl`'s.
"""

from __future__ import annotations

from ketch.errors import RuntimeFailure
from ketch.runtime.rootfs import secrets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.namespaces import Plan
    from ketch.runtime.oci_types import OciConfig


def check(document: OciConfig, plan: Plan) -> None:
    """Raise RuntimeFailure for the first setting that would change the host."""
    for name in ("hostname", "domainname"):
        if document.get(name) and not plan.is_own("uts"):
            text = f"set {name} `{document[name]}`: the container shares the host's uts namespace"
            raise RuntimeFailure(text, step="hostname")
    if not plan.is_new("mount"):
        for what in _mounting(document):
            where = "joins a mount namespace" if "mount" in plan.join else "shares the host's mount namespace"
            hint = 'add {"type": "mount"} to linux.namespaces'
            raise RuntimeFailure(f"{what}: the container {where}", step="namespaces", hint=hint)


def _mounting(document: OciConfig) -> list[str]:
    """The settings that need a mount namespace, as beginnings of error messages."""
    linux = document.get("linux") or {}
    found = [f"mount `{mount['destination']}`" for mount in document.get("mounts") or ()]
    if document["root"].get("readonly"):
        found.append("make `/` read-only")
    found += [f"make `{path}` read-only" for path in linux.get("readonlyPaths") or ()]
    found += [f"mask `{path}`" for path in linux.get("maskedPaths") or ()]
    found += [f"make device `{device.get('path')}`" for device in linux.get("devices") or ()]
    if linux.get("rootfsPropagation"):
        found.append(f"set propagation `{linux['rootfsPropagation']}` of `/`")
    if secrets.ANNOTATION in (document.get("annotations") or {}):
        found.append(f"make `{secrets.DIRECTORY}`")
    return found
