"""devices controller, v1: a list of what may be made, read and written."""

from __future__ import annotations

from typing import Any

from ketch.runtime.cgroups import files


def apply(directory: str, resources: dict[str, Any]) -> None:
    """Apply the spec's rules in their order; no rules leave what the parent cgroup allows."""
    for rule in resources.get("devices") or ():
        files.write(directory, "devices.allow" if rule.get("allow") else "devices.deny", line(rule))


def line(rule: dict[str, Any]) -> str:
    """A rule as the kernel writes it: ``c 1:3 rwm``, or ``a`` for everything."""
    kind, access = rule.get("type") or "a", rule.get("access") or "rwm"
    major, minor = rule.get("major"), rule.get("minor")
    if kind == "a" and major is None and minor is None and set(access) == set("rwm"):
        return "a"
    return f"{kind} {_star(major)}:{_star(minor)} {access}"


def _star(value: int | None) -> str:
    return "*" if value is None or value < 0 else str(value)
