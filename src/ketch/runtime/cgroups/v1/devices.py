"""devices controller, v1: a list of the devices that may be made, read and written."""

from __future__ import annotations

import os

from ketch.contexts import ExitStack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciDeviceRule, OciResources


def apply(directory: str, resources: OciResources) -> None:
    """Apply the spec's rules in their order; no rules leave what the parent cgroup allows."""
    rules = resources.get("devices") or ()
    if not rules:
        return
    with ExitStack() as stack:
        fds = {}
        for name in ("devices.deny", "devices.allow"):
            fds[name] = os.open(f"{directory}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            stack.callback(os.close, fds[name])
        for rule in rules:
            name, text = "devices.allow" if rule.get("allow") else "devices.deny", line(rule)
            try:
                os.write(fds[name], text.encode())
            except OSError as e:
                raise OSError(e.errno, f"write `{text}`", f"{directory}/{name}") from e


def line(rule: OciDeviceRule) -> str:
    """A rule as the kernel writes it: ``c 1:3 rwm``, or ``a`` for everything."""
    kind, access = rule.get("type") or "a", rule.get("access") or "rwm"
    major, minor = rule.get("major"), rule.get("minor")
    if kind == "a" and major is None and minor is None and set(access) == set("rwm"):
        return "a"
    return f"{kind} {_star(major)}:{_star(minor)} {access}"


def _star(value: int | None) -> str:
    return "*" if value is None or value < 0 else str(value)
