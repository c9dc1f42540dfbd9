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
            name = "devices.allow" if rule.get("allow") else "devices.deny"
            for text in lines(rule):
                try:
                    os.write(fds[name], text.encode())
                except OSError as e:
                    raise OSError(e.errno, f"write `{text}`", f"{directory}/{name}") from e


def lines(rule: OciDeviceRule) -> list[str]:
    """A rule as the kernel writes it: ``c 1:3 rwm``, or ``a`` for everything.

    The kernel reads nothing behind an ``a``, so a rule for less than everything names each kind.
    """
    kind, access = rule.get("type") or "a", rule.get("access") or "rwm"
    numbers = f"{_star(rule.get('major'))}:{_star(rule.get('minor'))}"
    if kind == "a" and numbers == "*:*" and set(access) == set("rwm"):
        return ["a"]
    return [f"{each} {numbers} {access}" for each in ("bc" if kind == "a" else kind)]


def _star(value: int | None) -> str:
    return "*" if value is None or value < 0 else str(value)
