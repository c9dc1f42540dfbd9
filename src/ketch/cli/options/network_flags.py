"""``--network`` and what goes with it → the network mode and the endpoints of a container.

--network NAME --ip … --network-alias …                 the simple form; the other flags are about the first network
--network name=NAME,alias=…,ip=…,gw-priority=…,…        everything about one network in one value; repeatable
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.errors import InvalidArgument
from ketch.notation import digits

if TYPE_CHECKING:
    from typing import Any

    from ketch.cli.options.flags import Options


def endpoints(opts: Options) -> tuple[str, dict[str, Any]]:
    """(network mode, name → settings of each network); InvalidArgument for what contradicts itself."""
    wanted = [*opts["network"], *opts["net"]]
    parsed = [_parse(text) for text in wanted] or [("default", {})]
    first, settings = parsed[0]
    for flag, present in (
        ("--network-alias", "Aliases" in settings), ("--ip", "IPv4Address" in settings.get("IPAMConfig", {})),
        ("--ip6", "IPv6Address" in settings.get("IPAMConfig", {})), ("--mac-address", "MacAddress" in settings),
    ):  # fmt: skip
        if present and opts[flag[2:]]:
            raise InvalidArgument(f"conflicting options: {flag} and the same in --network name={first},…")
    if opts["network-alias"]:
        settings["Aliases"] = opts["network-alias"]
    for key, flag in (("IPv4Address", "ip"), ("IPv6Address", "ip6")):
        if opts[flag]:
            settings.setdefault("IPAMConfig", {})[key] = opts[flag]
    if opts["link-local-ip"]:
        settings.setdefault("IPAMConfig", {})["LinkLocalIPs"] = opts["link-local-ip"]
    if opts["mac-address"]:
        settings["MacAddress"] = opts["mac-address"]
    result: dict[str, Any] = {}
    for name, chosen in parsed:
        if name in result:
            raise InvalidArgument(f'network "{name}" is specified multiple times')
        result[name] = chosen
    if len(parsed) > 1 and any(n in ("host", "none") or n.startswith("container:") for n in result):
        raise InvalidArgument("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
    return first, {n: s for n, s in result.items() if s or len(result) > 1}


def _parse(text: str) -> tuple[str, dict[str, Any]]:
    if "=" not in text:
        return text, {}
    name = ""
    settings: dict[str, Any] = {}
    for item in text.split(","):
        key, equals, value = item.partition("=")
        if not equals:
            raise InvalidArgument(f"invalid --network `{text}`: `{item}` is not KEY=VALUE")
        if key == "name":
            name = value
        elif key == "alias":
            settings.setdefault("Aliases", []).append(value)
        elif key in ("ip", "ip6"):
            settings.setdefault("IPAMConfig", {})["IPv4Address" if key == "ip" else "IPv6Address"] = value
        elif key == "link-local-ip":
            settings.setdefault("IPAMConfig", {}).setdefault("LinkLocalIPs", []).append(value)
        elif key == "mac-address":
            settings["MacAddress"] = value
        elif key == "driver-opt":
            option, _, chosen = value.partition("=")
            settings.setdefault("DriverOpts", {})[option] = chosen
        elif key == "gw-priority":
            priority = digits.whole(value.removeprefix("-"))
            if priority is None:
                raise InvalidArgument(f"invalid gw-priority `{value}`: not a whole number")
            settings["GwPriority"] = -priority if value.startswith("-") else priority
        else:
            raise InvalidArgument(f"invalid field key {key}", hint="known: name alias ip ip6 mac-address driver-opt "
                                  "gw-priority link-local-ip")  # fmt: skip
    if not name:
        raise InvalidArgument(f"network name cannot be empty: --network `{text}`")
    return name, settings


def text_of(name: str, settings: dict[str, Any]) -> str:
    """The value of ``--network`` that says all this of a network."""
    if not settings:
        return name
    config = settings.get("IPAMConfig", {})
    items = [f"name={name}", *(f"alias={alias}" for alias in settings.get("Aliases", ()))]
    for key, field in (("ip", "IPv4Address"), ("ip6", "IPv6Address")):
        if config.get(field):
            items.append(f"{key}={config[field]}")
    items += [f"link-local-ip={address}" for address in config.get("LinkLocalIPs") or ()]
    items += [f"driver-opt={key}={value}" for key, value in settings.get("DriverOpts", {}).items()]
    if "GwPriority" in settings:
        items.append(f"gw-priority={settings['GwPriority']}")
    return ",".join(items)
